//! Streams that stay open: they end with what let their caller open them.

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use futures_util::{StreamExt as _, stream};
use reqwest::Response;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::issuer::{AUD, ISS, KeyServer, Signer, claims, now_s};
use crate::support::pki::Authority;
use crate::support::policy::{ACME, AGENT, OrgBundle, now_ms};
use crate::support::sidecar::{Sidecar, client};
use crate::support::{PATIENCE, until};

/// A tool server whose streams say something again and again.
async fn talkative() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stream = async || {
        let words = stream::unfold((), async |()| {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            Some((
                Ok::<_, std::convert::Infallible>(
                    "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\n\n",
                ),
                (),
            ))
        });
        ([("content-type", "text/event-stream")], Body::from_stream(words))
    };
    let router = Router::new().fallback(get(stream));
    tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
    url
}

async fn sidecar(mut more: Value) -> Sidecar {
    let upstream = talkative().await;
    more["routes"] =
        json!([{"name": "mcp", "kind": "mcp", "path": "/mcp", "audience": "tools", "upstream": upstream}]);
    Sidecar::with(more).await
}

async fn open(sidecar: &Sidecar, credential: &str) -> Response {
    let call =
        client().get(format!("http://{}/mcp", sidecar.proxy.data)).header("accept", "text/event-stream");
    let answer = call.bearer_auth(credential).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer
}

/// Reads on until the stream ends, in whatever way.
async fn ends(answer: Response) {
    let mut body = answer.bytes_stream();
    let all = async { while let Some(Ok(_)) = body.next().await {} };
    tokio::time::timeout(PATIENCE, all).await.expect("the stream goes on");
}

#[tokio::test]
async fn a_stream_ends_with_the_key_of_its_caller_and_no_other_does() {
    let sidecar = sidecar(json!({})).await;
    let (ada, mut bob) = (open(&sidecar, AGENT).await, open(&sidecar, ACME).await);
    let mut revoked = OrgBundle::new(6);
    // Ada's.
    revoked.keys.as_array_mut().unwrap().remove(0);
    sidecar.backend.publish(6, revoked.signed());
    ends(ada).await;
    assert!(bob.chunk().await.unwrap().is_some());
}

#[tokio::test]
async fn a_stream_ends_with_the_token_of_its_caller_or_the_key_of_its_issuer() {
    let signer = Signer::p256();
    let server = KeyServer::start(&[signer.jwk("one")]).await;
    let sidecar = sidecar(json!({
        "listen": {"data": [{"address": "127.0.0.1:0", "identities": ["corp"]}], "ops": "127.0.0.1:0", "admin": "127.0.0.1:0"},
        "issuers": [{"name": "corp", "issuer": ISS, "audience": AUD, "jwks_url": format!("{}/jwks", server.url), "keys_refresh_s": 1}],
    }))
    .await;
    until("the keys", async || (sidecar.metric("oakallow_issuer_key_reads_total").await > 0.0).then_some(()))
        .await;
    let mut short = claims("grace");
    short["exp"] = json!(now_s() + 1);
    let (short, mut long) = (
        open(&sidecar, &signer.token(&json!({"alg": "ES256", "kid": "one"}), &short)).await,
        open(&sidecar, &signer.good("one", "grace")).await,
    );
    ends(short).await;
    assert!(long.chunk().await.unwrap().is_some());
    server.serve(Some(&[Signer::p256().jwk("one")]));
    ends(long).await;
}

#[tokio::test]
async fn a_stream_ends_with_the_time_of_its_key() {
    let sidecar = sidecar(json!({})).await;
    let (ada, mut bob) = (open(&sidecar, AGENT).await, open(&sidecar, ACME).await);
    // It is told an end, which comes without another word.
    let mut bundle = OrgBundle::new(6);
    bundle.keys[0]["expires_at"] = json!(now_ms() + 1_000);
    sidecar.backend.publish(6, bundle.signed());
    ends(ada).await;
    assert!(bob.chunk().await.unwrap().is_some());
}

#[tokio::test]
async fn a_stream_ends_with_the_authority_of_its_callers_certificate() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let ((certificate, key), ca) = (authority.server().write(dir.path()), dir.path().join("ca.crt"));
    std::fs::write(&ca, authority.pem()).unwrap();
    let tls = json!({"certificate": certificate, "key": key, "client_ca": ca});
    let data = json!([{"address": "127.0.0.1:0", "identities": ["certificates"], "tls": tls}]);
    let listen = json!({"data": data, "ops": "127.0.0.1:0", "admin": "127.0.0.1:0"});
    let sidecar = sidecar(json!({"listen": listen})).await;
    let client = authority.trusted(Some(&authority.client(&["spiffe://corp/bot"], &[])));
    let call = client.get(format!("https://localhost:{}/mcp", sidecar.proxy.data.port()));
    let answer = call.header("accept", "text/event-stream").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    std::fs::write(&ca, Authority::new().pem()).unwrap();
    ends(answer).await;
}
