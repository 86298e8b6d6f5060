//! Callers with tokens of an issuer: what is good, what only looks like it, and what the issuer's server hears of it.

use oakallow_policy::audit::EventType;
use oakallow_policy::wire::ApprovalStatus;
use reqwest::{RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use crate::support::issuer::{AUD, ISS, KeyServer, Signer, changed, claims, now_s, unsigned};
use crate::support::policy::AGENT;
use crate::support::sidecar::{Sidecar, client};
use crate::support::until;

/// An issuer that the proxy believes, by way of its server.
pub(crate) struct World {
    pub(crate) signer: Signer,
    pub(crate) server: KeyServer,
    pub(crate) sidecar: Sidecar,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(Signer::p256(), json!({"tenant_claim": "tenant"}), json!(["keys", "corp"])).await
    }

    pub(crate) async fn with(signer: Signer, more: Value, identities: Value) -> Self {
        let server = KeyServer::start(&[signer.jwk("one")]).await;
        let mut issuer = json!({"name": "corp", "issuer": ISS, "audience": AUD, "jwks_url": format!("{}/jwks", server.url)});
        issuer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let data = json!([{"address": "127.0.0.1:0", "identities": identities}]);
        let sidecar = Sidecar::with(json!({
            "listen": {"data": data, "ops": "127.0.0.1:0", "admin": "127.0.0.1:0"}, "issuers": [issuer],
        }))
        .await;
        until("the keys", async || {
            (sidecar.metric("oakallow_issuer_key_reads_total").await > 0.0).then_some(())
        })
        .await;
        Self { signer, server, sidecar }
    }

    pub(crate) fn call(&self, tool: &str, token: &str) -> RequestBuilder {
        let url = format!("http://{}/tools/{tool}", self.sidecar.proxy.data);
        client().post(url).bearer_auth(token).json(&json!({"id": "42"}))
    }

    pub(crate) async fn read(&self, token: &str) -> Response {
        self.call("read", token).send().await.unwrap()
    }

    pub(crate) async fn is_refused(&self, what: &str, token: &str) {
        let before = self.sidecar.upstream.count();
        let answer = self.read(token).await;
        assert_eq!(answer.status(), 401, "{what}");
        assert_eq!(answer.json::<Value>().await.unwrap()["code"], "unauthenticated", "{what}");
        assert_eq!(self.sidecar.upstream.count(), before, "{what} reached the tool");
    }
}

#[tokio::test]
async fn a_good_token_says_who_calls_and_stays_here() {
    for signer in [Signer::p256(), Signer::rsa(), Signer::ed25519()] {
        let world = World::with(signer, json!({"tenant_claim": "tenant"}), json!(["keys", "corp"])).await;
        let token = world.signer.good("one", "grace");
        let answer = world.read(&token).await;
        assert_eq!(answer.status(), 200, "{}", world.signer.algorithm());
        let seen = world.sidecar.upstream.seen().remove(0);
        assert!(!seen.headers.contains_key("authorization"), "{:?}", seen.headers);
        assert!(!format!("{seen:?}").contains(&token));
        let event = until("the event", async || {
            world.sidecar.backend.audit().into_iter().find(|e| e.event.kind == EventType::CallRequested)
        })
        .await;
        assert_eq!(event.event.data.principal.as_deref(), Some("oidc:corp:grace"));
        assert_eq!(event.event.data.tenant.as_deref(), Some("acme"));
        let all = serde_json::to_string(&world.sidecar.backend.audit()).unwrap();
        assert!(!all.contains(token.rsplit('.').next().unwrap()), "the audit log has the token");
    }
}

#[tokio::test]
async fn what_only_looks_like_a_token_is_refused() {
    let world = World::start().await;
    let (good, signer) = (claims("grace"), &world.signer);
    let header = json!({"alg": "ES256", "kid": "one"});
    let with = |name: &str, value: Value| signer.token(&header, &changed(&good, name, value));
    let without = |name: &str| {
        let mut changed = good.clone();
        changed.as_object_mut().unwrap().remove(name);
        signer.token(&header, &changed)
    };
    let headed = |more: Value| {
        let mut changed = header.clone();
        changed.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        signer.token(&changed, &good)
    };
    assert_eq!(world.read(&signer.token(&header, &good)).await.status(), 200);
    let stranger = Signer::p256();
    let embedded = json!({"alg": "ES256", "kid": "one", "jwk": stranger.jwk("one")});
    let elsewhere = json!({"alg": "ES256", "kid": "one", "jku": format!("{}/theirs", world.server.url)});
    let whole = signer.good("one", "grace");
    let (signed, signature) = whole.rsplit_once('.').unwrap();
    let twice = format!(
        "{}.{}",
        unsigned(&header, &good).split('.').next().unwrap(),
        oakallow_policy::canonical::base64url(
            format!("{{\"sub\":\"root\",{}", &good.to_string()[1..]).as_bytes()
        )
    );
    for (what, token) in [
        ("nobody's signature", stranger.good("one", "grace")),
        ("a key in the token", stranger.token(&embedded, &good)),
        ("keys from elsewhere", stranger.token(&elsewhere, &good)),
        ("no signature", format!("{}.", unsigned(&json!({"alg": "none"}), &good))),
        (
            "no signature, spelt otherwise",
            format!("{}.", unsigned(&json!({"alg": "nOnE", "kid": "one"}), &good)),
        ),
        ("no signature under a good header", format!("{signed}.")),
        ("another subject under a signature", format!("{}.{signature}", unsigned(&header, &claims("root")))),
        ("a subject that stands twice", format!("{twice}.{signature}")),
        ("another algorithm", signer.token(&json!({"alg": "ES384", "kid": "one"}), &good)),
        ("an algorithm that is not taken", signer.token(&json!({"alg": "PS256", "kid": "one"}), &good)),
        ("another issuer", with("iss", json!("https://login.example"))),
        ("another audience", with("aud", json!("https://other.example"))),
        ("an audience that ours begins", with("aud", json!(format!("{AUD}.evil")))),
        ("other audiences", with("aud", json!(["a", "b"]))),
        ("no audience", without("aud")),
        ("no issuer", without("iss")),
        ("no end", without("exp")),
        ("no subject", without("sub")),
        ("no tenant", without("tenant")),
        ("an odd tenant", with("tenant", json!({"id": "acme"}))),
        ("its end", with("exp", json!(now_s() - 60))),
        ("an end in words", with("exp", json!("never"))),
        ("an end before time", with("exp", json!(-1))),
        ("its beginning", with("nbf", json!(now_s() + 60))),
        ("a subject that is no text", with("sub", json!(7))),
        ("an empty subject", with("sub", json!(""))),
        ("an invisible subject", with("sub", json!("gra\u{200b}ce"))),
        ("a critical extension", headed(json!({"crit": ["b64"], "b64": false}))),
        ("another kind of token", headed(json!({"typ": "logout+jwt"}))),
        ("an id that is no text", headed(json!({"kid": 1}))),
    ] {
        world.is_refused(what, &token).await;
    }
}

#[tokio::test]
async fn what_has_not_the_form_of_a_token_is_refused() {
    let world = World::start().await;
    let whole = world.signer.good("one", "grace");
    for token in [
        format!("{whole}.e30"),
        format!("{whole}="),
        format!("{}.{whole}", "a".repeat(17 * 1024)),
        whole.replacen('.', "", 1),
        whole.replacen('.', "..", 1),
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "e30.e30.e30".to_owned(),
        "W10.W10.W10".to_owned(),
    ] {
        world.is_refused(&token, &token).await;
    }
}

#[tokio::test]
async fn a_public_key_is_no_secret_to_sign_with() {
    let world = World::with(Signer::rsa(), json!({"tenant": "acme"}), json!(["corp"])).await;
    let public = world.signer.jwk("one");
    let modulus = oakallow_policy::canonical::unbase64url(public["n"].as_str().unwrap()).unwrap();
    for secret in
        [modulus, public["n"].as_str().unwrap().as_bytes().to_vec(), public.to_string().into_bytes()]
    {
        for algorithm in ["HS256", "RS256"] {
            let signed = unsigned(&json!({"alg": algorithm, "kid": "one"}), &claims("grace"));
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret);
            let tag = ring::hmac::sign(&key, signed.as_bytes());
            let forged = format!("{signed}.{}", oakallow_policy::canonical::base64url(tag.as_ref()));
            world.is_refused(algorithm, &forged).await;
        }
    }
    assert_eq!(world.read(&world.signer.good("one", "grace")).await.status(), 200);
}

#[tokio::test]
async fn names_of_keys_are_names_and_nothing_else() {
    let world = World::start().await;
    let before = world.server.asked();
    for kid in ["../../etc/passwd", "/dev/null", "http://127.0.0.1/", "one' OR '1'='1", "one\u{0}", ""] {
        world.is_refused(kid, &world.signer.good(kid, "grace")).await;
    }
    let asked = world.server.asked();
    assert!(asked.iter().all(|path| path == "/jwks"), "{asked:?}");
    assert_eq!(asked.len(), before.len() + 1, "one question for all tokens with unknown keys: {asked:?}");
}

#[tokio::test]
async fn a_new_key_is_taken_up_and_a_withdrawn_one_is_gone() {
    let world = World::start().await;
    let (next, old) = (Signer::p256(), world.signer.good("one", "grace"));
    assert_eq!(world.read(&old).await.status(), 200);
    world.server.serve(Some(&[next.jwk("two")]));
    // Many at once make one question.
    let before = world.server.asked().len();
    let token = next.good("two", "grace");
    let answers = futures_util::future::join_all((0..20).map(|_| world.read(&token))).await;
    assert!(answers.iter().all(|answer| answer.status() == 200), "{answers:?}");
    assert_eq!(world.server.asked().len(), before + 1);
    world.is_refused("a withdrawn key", &old).await;
}

#[tokio::test]
async fn keys_that_cannot_be_read_any_more_end() {
    let more = json!({"tenant_claim": "tenant", "keys_refresh_s": 1, "keys_age_max_s": 3});
    let world = World::with(Signer::p256(), more, json!(["corp"])).await;
    let token = world.signer.good("one", "grace");
    world.server.serve(None);
    let failing = async || (world.server.asked().len() > 2).then_some(());
    until("a failed read", failing).await;
    let answer = until("the end of the keys", async || {
        let answer = world.read(&token).await;
        (answer.status() != StatusCode::OK).then_some(answer)
    })
    .await;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["retry-after"], "10");
    assert_eq!(answer.json::<Value>().await.unwrap()["code"], "issuer_unavailable");
    world.server.serve(Some(&[world.signer.jwk("one")]));
    until("the keys again", async || (world.read(&token).await.status() == 200).then_some(())).await;
}

#[tokio::test]
async fn two_credentials_make_nobody() {
    let world = World::start().await;
    let token = world.signer.good("one", "grace");
    for (what, call) in [
        ("a key beside a token", world.call("read", &token).header("x-api-key", AGENT)),
        ("a key as a bearer beside it", world.call("read", &token).bearer_auth(AGENT)),
        ("two tokens", world.call("read", &token).bearer_auth(world.signer.good("one", "ada"))),
        ("the same one twice", world.call("read", &token).bearer_auth(&token)),
    ] {
        assert_eq!(call.send().await.unwrap().status(), 401, "{what}");
    }
    assert_eq!(world.sidecar.upstream.count(), 0);
    assert_eq!(world.read(&token).await.status(), 200);
    assert_eq!(world.sidecar.call("read").send().await.unwrap().status(), 200, "a key alone");
}

#[tokio::test]
async fn a_token_in_another_field_is_not_passed_on() {
    let world = World::start().await;
    let token = world.signer.good("one", "grace");
    let call = world.call("read", &token).header("x-debug", format!("token={token}"));
    assert_eq!(call.send().await.unwrap().status(), 400);
    assert_eq!(world.sidecar.upstream.count(), 0);
}

#[tokio::test]
async fn a_token_of_ours_does_not_pass_beside_a_credential_in_any_form() {
    let world = World::start().await;
    let unusable = json!({"alg": "HS512", "kid": "one"});
    let (good, odd) = (world.signer.good("one", "grace"), world.signer.token(&unusable, &claims("grace")));
    let call = |field: String| world.sidecar.call("read").header("authorization", field);
    for field in [
        format!("Bearer\t{good}"),
        format!("DPoP {good}"),
        format!("dpop  {odd}"),
        format!("Bearer {odd}"),
        format!("Basic eA==, Bearer {good}"),
        good.clone(),
    ] {
        assert_eq!(call(field.clone()).send().await.unwrap().status(), 401, "{field}");
        let beside = world.call("read", &world.signer.good("one", "ada")).header("authorization", &field);
        assert_eq!(beside.send().await.unwrap().status(), 401, "beside a token: {field}");
    }
    assert_eq!(world.sidecar.upstream.count(), 0);
    let theirs = format!("DPoP {}", world.signer.token(&unusable, &json!({"iss": "https://other.example"})));
    assert_eq!(call(theirs.clone()).send().await.unwrap().status(), 200);
    assert_eq!(world.sidecar.upstream.seen()[0].headers["authorization"], theirs);
}

#[tokio::test]
async fn a_listener_takes_only_what_it_says() {
    let world = World::with(Signer::p256(), json!({"tenant": "acme"}), json!(["corp"])).await;
    assert_eq!(world.sidecar.call("read").send().await.unwrap().status(), 401, "a key");
    let token = world.signer.good("one", "grace");
    assert_eq!(world.read(&token).await.status(), 200);
    let foreign = world.call("read", &token).header("x-tenant-id", "globex").send().await.unwrap();
    assert_eq!(foreign.status(), 403, "the tenant is fixed");
}

#[tokio::test]
async fn a_held_call_does_not_run_when_its_token_has_ended() {
    let world = World::start().await;
    let mut short = claims("grace");
    let end = now_s() + 2;
    short["exp"] = json!(end);
    let token = world.signer.token(&json!({"alg": "ES256", "kid": "one"}), &short);
    let held = tokio::spawn(world.call("ask", &token).send());
    let sidecar = &world.sidecar;
    until("a held call", async || (sidecar.metric("oakallow_held_calls").await == 1.0).then_some(())).await;
    until("the token's end", async || (now_s() > end + 5).then_some(())).await;
    sidecar.backend.decide(ApprovalStatus::Approved);
    assert_eq!(held.await.unwrap().unwrap().status(), 401);
    assert_eq!(sidecar.upstream.count(), 0);
}

#[tokio::test]
async fn a_held_call_does_not_run_when_the_key_of_its_token_was_withdrawn() {
    let world = World::with(Signer::p256(), json!({"keys_refresh_s": 1}), json!(["corp"])).await;
    let held = tokio::spawn(world.call("ask", &world.signer.good("one", "grace")).send());
    let sidecar = &world.sidecar;
    until("a held call", async || (sidecar.metric("oakallow_held_calls").await == 1.0).then_some(())).await;
    world.server.serve(Some(&[Signer::p256().jwk("two")]));
    let asked = world.server.asked().len();
    until("two reads", async || (world.server.asked().len() > asked + 1).then_some(())).await;
    sidecar.backend.decide(ApprovalStatus::Approved);
    assert_eq!(held.await.unwrap().unwrap().status(), 401);
    assert_eq!(sidecar.upstream.count(), 0);
}

#[tokio::test]
async fn a_held_call_with_a_good_token_runs_when_it_is_approved() {
    let world = World::start().await;
    let held = tokio::spawn(world.call("ask", &world.signer.good("one", "grace")).send());
    let sidecar = &world.sidecar;
    until("a held call", async || (sidecar.metric("oakallow_held_calls").await == 1.0).then_some(())).await;
    sidecar.backend.decide(ApprovalStatus::Approved);
    assert_eq!(held.await.unwrap().unwrap().status(), 200);
    assert!(!sidecar.upstream.seen()[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn who_has_no_token_hears_where_to_get_one() {
    let world = World::start().await;
    let base = format!("http://{}", world.sidecar.proxy.data);
    let refused = client().post(format!("{base}/mcp")).json(&json!({})).send().await.unwrap();
    assert_eq!(refused.status(), 401);
    let challenge = refused.headers()["www-authenticate"].to_str().unwrap().to_owned();
    let at = challenge.split("resource_metadata=\"").nth(1).unwrap().split('"').next().unwrap();
    assert_eq!(at, format!("{base}/.well-known/oauth-protected-resource/mcp"));
    let document: Value = client().get(at).send().await.unwrap().json().await.unwrap();
    assert_eq!(document["resource"], format!("{base}/mcp"));
    assert_eq!(document["authorization_servers"], json!([ISS]));
    let root = client().get(format!("{base}/.well-known/oauth-protected-resource")).send().await.unwrap();
    assert_eq!(root.json::<Value>().await.unwrap()["resource"], base);
    for path in ["/.well-known/oauth-protected-resource/nowhere", "/.well-known/oauth-protected-resourcemcp"]
    {
        assert_eq!(client().get(format!("{base}{path}")).send().await.unwrap().status(), 404, "{path}");
    }
    assert_eq!(world.sidecar.upstream.count(), 0);
}

#[tokio::test]
async fn where_no_tokens_are_taken_there_is_nothing_to_discover() {
    let sidecar = Sidecar::start().await;
    let base = format!("http://{}", sidecar.proxy.data);
    let answer =
        client().get(format!("{base}/.well-known/oauth-protected-resource/mcp")).send().await.unwrap();
    assert_eq!(answer.status(), 404);
    let refused = client().post(format!("{base}/mcp")).json(&json!({})).send().await.unwrap();
    assert_eq!(refused.headers()["www-authenticate"], "Bearer realm=\"oakallow\"");
}
