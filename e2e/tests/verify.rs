//! The tool servers of docs/verify: they run a call that the proxy let through, once, and nothing else.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "test code")]

use std::os::unix::fs::symlink;
use std::process::Command;

use oakallow_e2e::agent::{Agent, Answer};
use oakallow_e2e::clients;
use oakallow_e2e::process::{Process, Scratch, repository};
use oakallow_e2e::proxy::{Proxy, Route};
use oakallow_e2e::stack::Stack;
use oakallow_e2e::upstream::Recorder;
use oakallow_policy::canonical::{base64url, unbase64url};
use oakallow_policy::token::{self, Claims, TokenKey};
use ring::hmac;
use serde_json::{Value, json};

const AUDIENCE: &str = "demo-tools";
const BODY: &str = r#"{"id": "42"}"#;
const PATH: &str = "/tools/read_record";

/// A proxy whose tool server only remembers, and an example in that server's place.
struct Bench {
    stack: Stack,
    recorder: Recorder,
    proxy: Proxy,
    example: Agent,
    _process: Process,
    _scratch: Scratch,
}

impl Bench {
    async fn start(file: &str) -> Self {
        let stack = Stack::start().await;
        let recorder = Recorder::start().await;
        let routes = [Route::http("recorded", AUDIENCE, &recorder.url)];
        let proxy = stack.another_proxy("recording", &routes).await;
        let scratch = Scratch::new();
        let mut command = example(file, &scratch);
        command.envs([
            ("BACKEND", stack.env("OAKALLOW_BACKEND")),
            ("TOOL_KEY", stack.env("OAKALLOW_TOOL_KEY")),
            ("ORG", "demo"),
            ("AUDIENCE", AUDIENCE),
            ("ALG", "HS256"),
            ("BASE_URL", &recorder.url),
            ("PORT", "0"),
        ]);
        let mut process = Process::spawn("example", command, scratch.path());
        let address = process.until("its address", |all| {
            all.lines().find_map(|line| line.strip_prefix("listening on ")).map(str::to_owned)
        });
        let example = Agent::new(&format!("http://{}", address.await), "");
        Self { stack, recorder, proxy, example, _process: process, _scratch: scratch }
    }

    /// The token of a call that the proxy let through just now; nobody has redeemed it.
    async fn token(&self) -> String {
        let agent = self.proxy.agent(self.stack.env("OAKALLOW_ACME_KEY"));
        let _ = agent.request(reqwest::Method::POST, PATH, BODY).send().await.expect(200);
        self.recorder.seen().last().expect("it was forwarded").token()
    }

    /// What the example answers to a request with these tokens.
    async fn sent(&self, tokens: &[&str], path: &str, body: &str) -> Answer {
        let mut call = self.example.request(reqwest::Method::POST, path, body.to_owned());
        for token in tokens {
            call = call.header("x-oakallow-token", token);
        }
        call.send().await
    }

    async fn refuses(&self, what: &str, token: &str) {
        let answer = self.sent(&[token], PATH, BODY).await;
        assert_eq!(answer.status, 403, "{what}: {answer:#?}");
        assert!(!answer.text_of("refused").is_empty(), "{what}: {answer:#?}");
    }

    /// The audience's own key: with it, any claims can be signed as the proxy signs them.
    async fn key(&self) -> TokenKey {
        let tools = Agent::new(self.stack.env("OAKALLOW_BACKEND"), self.stack.env("OAKALLOW_TOOL_KEY"));
        let keys = tools.get(&format!("/v1/audiences/{AUDIENCE}/keys")).await.expect(200).body;
        let key = &keys["keys"][0];
        let bytes = unbase64url(key["k"].as_str().unwrap()).unwrap().try_into().unwrap();
        TokenKey::from_bytes(key["kid"].as_str().unwrap().to_owned(), bytes)
    }
}

/// How an example is started.
fn example(file: &str, scratch: &Scratch) -> Command {
    if file.ends_with(".rs") {
        return Command::new(env!("CARGO_BIN_EXE_verify-example"));
    }
    let copy = scratch.path().join(file);
    std::fs::copy(repository().join("docs/verify").join(file), &copy).unwrap();
    // Node looks for libraries beside the file.
    symlink(repository().join("e2e/clients/node_modules"), scratch.path().join("node_modules")).unwrap();
    let mut command = clients::interpreter(file);
    command.arg(copy);
    command
}

fn claims(token: &str) -> Claims {
    let body = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&unbase64url(body).unwrap()).unwrap()
}

/// Any header over the claims of a token, signed with HMAC.
fn signed(token: &str, header: &Value, algorithm: hmac::Algorithm, key: &TokenKey) -> String {
    let text = format!("{}.{}", base64url(header.to_string().as_bytes()), token.split('.').nth(1).unwrap());
    let tag = hmac::sign(&hmac::Key::new(algorithm, key.expose()), text.as_bytes());
    format!("{text}.{}", base64url(tag.as_ref()))
}

async fn runs_a_call_once(file: &str) {
    let bench = Bench::start(file).await;
    let token = bench.token().await;
    let first = bench.sent(&[&token], PATH, BODY).await.expect(200);
    assert_eq!(first.body, json!({"ran": "read_record", "arguments": {"id": "42"}}));
    let second = bench.sent(&[&token], PATH, BODY).await;
    assert_eq!((second.status, second.text_of("refused")), (403, "replayed"), "{second:#?}");
}

async fn refuses_a_token_for_another_request(file: &str) {
    let bench = Bench::start(file).await;
    let token = bench.token().await;
    let other_body = r#"{"id": "43"}"#;
    // The same arguments, but not the same bytes.
    let respelled = r#"{"id":"42"}"#;
    for (what, tokens, path, body) in [
        ("no token", vec![], PATH, BODY),
        ("two tokens", vec![&*token, &*token], PATH, BODY),
        ("changed body", vec![&*token], PATH, other_body),
        ("respelled body", vec![&*token], PATH, respelled),
        ("another tool", vec![&*token], "/tools/delete_record", BODY),
        ("another query", vec![&*token], "/tools/read_record?force=1", BODY),
    ] {
        let answer = bench.sent(&tokens, path, body).await;
        assert_eq!(answer.status, 403, "{what}: {answer:#?}");
    }
    // None of these used the token up.
    let _ = bench.sent(&[&token], PATH, BODY).await.expect(200);
}

async fn refuses_forged_tokens(file: &str) {
    let bench = Bench::start(file).await;
    let (token, key) = (bench.token().await, bench.key().await);
    let good = claims(&token);
    let with = |change: &dyn Fn(&mut Claims)| {
        let mut claims = good.clone();
        change(&mut claims);
        token::sign(&claims, &key)
    };
    bench.refuses("other audience", &with(&|c| c.aud = "elsewhere".to_owned())).await;
    bench.refuses("other issuer", &with(&|c| c.iss = "oakallow/other".to_owned())).await;
    bench.refuses("expired", &with(&|c| (c.iat, c.nbf, c.exp) = (c.iat - 90, c.nbf - 90, c.iat - 31))).await;
    bench.refuses("not yet", &with(&|c| (c.iat, c.nbf, c.exp) = (c.iat + 90, c.nbf + 90, c.exp + 90))).await;
    bench.refuses("other resource", &with(&|c| c.resource = Some("prod".to_owned()))).await;
    bench.refuses("other arguments", &with(&|c| c.ah = c.bdh.clone())).await;
    let unbound = with(&|c| (c.bnd, c.htm, c.htu, c.bdh) = (token::Binding::None, None, None, None));
    bench.refuses("no request", &unbound).await;

    let header = |alg: &str, typ: &str| json!({"typ": typ, "alg": alg, "kid": key.kid()});
    let (sha256, sha512) = (hmac::HMAC_SHA256, hmac::HMAC_SHA512);
    let none = signed(&token, &header("none", token::TYPE), sha256, &key);
    bench.refuses("alg none", &none).await;
    bench.refuses("alg none, unsigned", &format!("{}.", none.rsplit_once('.').unwrap().0)).await;
    bench.refuses("alg swapped", &signed(&token, &header("HS512", token::TYPE), sha512, &key)).await;
    bench.refuses("alg EdDSA", &signed(&token, &header("EdDSA", token::TYPE), sha256, &key)).await;
    bench.refuses("another type", &signed(&token, &header("HS256", "JWT"), sha256, &key)).await;
    let strange = TokenKey::from_bytes(key.kid().to_owned(), [7; 32]);
    bench.refuses("another key", &token::sign(&good, &strange)).await;
    let unknown = TokenKey::from_bytes(format!("9.{AUDIENCE}"), *key.expose());
    bench.refuses("unknown key", &token::sign(&good, &unknown)).await;
    // The forger was right in everything else.
    let header = header("HS256", token::TYPE);
    let _ = bench.sent(&[&signed(&token, &header, sha256, &key)], PATH, BODY).await.expect(200);
}

macro_rules! each {
    ($($language:ident, $file:literal);*) => {$(
        mod $language {
            #[tokio::test]
            async fn runs_a_call_once() {
                super::runs_a_call_once($file).await;
            }

            #[tokio::test]
            async fn refuses_a_token_for_another_request() {
                super::refuses_a_token_for_another_request($file).await;
            }

            #[tokio::test]
            async fn refuses_forged_tokens() {
                super::refuses_forged_tokens($file).await;
            }
        }
    )*};
}

each!(python, "server.py"; node, "server.mjs"; rust, "server.rs");
