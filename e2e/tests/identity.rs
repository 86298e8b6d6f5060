//! A caller whom an issuer's token names, over TLS and HTTP/2, from the call to a person's decision and back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "test code")]

use std::fs;

use oakallow_e2e::proxy::{Proxy, Route};
use oakallow_e2e::stack::Stack;
use oakallow_policy::canonical::base64url;
use reqwest::{Certificate, Client, Version};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

/// Who decides in the demo org.
const APPROVER: &str = "approver@demo.example";
/// Who answers for the callers.
const LEAD: Option<&str> = Some("lead@demo.example");

fn token(key: &Ed25519KeyPair, subject: &str, lead: Option<&str>) -> String {
    // Good for as long as this test may take, and longer.
    let claims = json!({"iss": "https://login.example", "aud": "tools", "sub": subject, "exp": 4_000_000_000_u64, "org_unit": "globex", "lead": lead});
    let part = |value: &Value| base64url(value.to_string().as_bytes());
    let signed = format!("{}.{}", part(&json!({"alg": "EdDSA", "kid": "one", "typ": "JWT"})), part(&claims));
    let signature = key.sign(signed.as_bytes());
    format!("{signed}.{}", base64url(signature.as_ref()))
}

#[tokio::test]
async fn a_call_with_a_token_over_tls_is_approved_consumed_and_run_once() {
    let stack = Stack::start().await;
    let (control, dir) = (stack.control(), stack.dir().join("identity"));
    fs::create_dir_all(&dir).unwrap();
    let tls = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let signer = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let jwk =
        json!({"kty": "OKP", "crv": "Ed25519", "kid": "one", "x": base64url(signer.public_key().as_ref())});
    fs::write(dir.join("tls.crt"), tls.cert.pem()).unwrap();
    fs::write(dir.join("tls.key"), tls.signing_key.serialize_pem()).unwrap();
    fs::write(dir.join("jwks.json"), json!({"keys": [jwk]}).to_string()).unwrap();
    let more = json!({
        "listener": {
            "tls": {"certificate": dir.join("tls.crt"), "key": dir.join("tls.key")}, "identities": ["corp"],
        },
        "issuers": [{
            "name": "corp", "issuer": "https://login.example", "audience": "tools",
            "jwks_file": dir.join("jwks.json"), "tenant_claim": "org_unit", "owner_claim": "lead",
        }],
    });
    let routes = [Route::http("identity", "demo-tools", stack.env("OAKALLOW_TOOLS"))];
    let proxy = Proxy::configured("identity", &dir, &control, (&routes, more)).await;

    let root = Certificate::from_pem(tls.cert.pem().as_bytes()).unwrap();
    let client = Client::builder().no_proxy().tls_certs_only([root]).build().unwrap();
    let url = proxy.url.replace("http://127.0.0.1", "https://localhost") + "/tools/restart_service";
    let call = client
        .post(&url)
        .bearer_auth(token(&signer, "grace", LEAD))
        .json(&json!({"service": "server-prod-01"}));
    let call = tokio::spawn(call.send());
    let id = control.await_pending("restart_service").await;
    assert_eq!(control.approval(&id).await["tenant_id"], "globex");
    control.approve(&id).await;
    let answer = call.await.unwrap().unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_2));
    let txn = answer.headers()["x-oakallow-txn"].to_str().unwrap().to_owned();
    assert_eq!(answer.json::<Value>().await.unwrap()["token_claims"]["apr"], id.as_str());
    assert_eq!(stack.executions("restart_service").await, 1);
    assert_eq!(control.approval(&id).await["status"], "consumed");
    let life = control.await_event(&txn, "call.completed").await;
    let requested = life.iter().find(|event| event["type"] == "call.requested").unwrap();
    assert_eq!(requested["data"]["principal"], "oidc:corp:grace");

    // Without anybody who answers for her, nobody is asked.
    let alone = client.post(&url).bearer_auth(token(&signer, "grace", None));
    let answer = alone.json(&json!({"service": "server-prod-02"})).send().await.unwrap();
    assert_eq!(answer.status(), 403);
    assert_eq!(answer.json::<Value>().await.unwrap()["code"], "owner_unknown");

    // The approver, as a caller.
    let call =
        client.post(&url).bearer_auth(token(&signer, APPROVER, LEAD)).header("prefer", "respond-async");
    let answer = call.json(&json!({"service": "server-prod-01"})).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    let id = control.await_pending("restart_service").await;
    let decided = control.decide(&id, "approved", "my own").await;
    assert_eq!((decided.status, decided.body["code"].as_str()), (403, Some("self_approval")));
}

#[tokio::test]
async fn no_agent_can_be_called_like_somebody_with_a_token() {
    let stack = Stack::start().await;
    let control = stack.control();
    for id in ["oidc:corp:grace", "OIDC:corp:grace", "cert:spiffe://corp/bot"] {
        let agent = json!({"id": id, "name": "Grace", "owner": "grace@example.com"});
        let answer = control.management().post("/v1/agents", &agent).await;
        assert!(answer.status >= 400 && answer.text.contains("does not begin with"), "{id}: {answer:#?}");
    }
}
