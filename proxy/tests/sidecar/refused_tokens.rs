//! Why tokens are refused stands in the log, and does not fill it.

use serde_json::json;

use crate::support::backend::Backend;
use crate::support::issuer::{AUD, ISS, KeyServer, Signer};
use crate::support::policy::{AGENT, OrgBundle};
use crate::support::process::Process;
use crate::support::sidecar::{client, config_text};
use crate::support::until;
use crate::support::upstream::Upstream;

#[tokio::test]
async fn the_most_detailed_log_has_no_key_in_it() {
    let (backend, upstream) = (Backend::start(OrgBundle::new(5).signed()), Upstream::start().await);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("proxy.yaml");
    std::fs::write(&file, config_text(dir.path(), &backend.url, &upstream.url, &json!({}))).unwrap();
    let proxy = Process::start_logging(&file, "trace,pingora_proxy=trace");
    assert_eq!(proxy.call("read").send().await.unwrap().status(), 200);
    let bearer = client().post(format!("http://{}/tools/read", proxy.data)).bearer_auth(AGENT);
    assert_eq!(bearer.json(&json!({"id": "42"})).send().await.unwrap().status(), 200);
    until("lines of the call", async || proxy.log().iter().any(|line| line.contains("TRACE")).then_some(()))
        .await;
    let shown: Vec<String> = proxy.log().into_iter().filter(|line| line.contains(AGENT)).collect();
    assert!(shown.is_empty(), "{shown:?}");
}

#[tokio::test]
async fn the_log_says_why_once_for_many_and_never_the_token() {
    let signer = Signer::p256();
    let (keys, backend) =
        (KeyServer::start(&[signer.jwk("one")]).await, Backend::start(OrgBundle::new(5).signed()));
    let issuer = |name: &str, iss: &str, url: &str| json!({"name": name, "issuer": iss, "audience": AUD, "jwks_url": url});
    let more = json!({
        "listen": {
            "data": [{"address": "127.0.0.1:0", "identities": ["corp", "away"]}],
            "ops": "127.0.0.1:0", "admin": "127.0.0.1:0",
        },
        // Nobody listens on port 1.
        "issuers": [
            issuer("corp", ISS, &format!("{}/jwks", keys.url)),
            issuer("away", "https://away.example", "http://127.0.0.1:1/jwks"),
        ],
    });
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("proxy.yaml");
    std::fs::write(&file, config_text(dir.path(), &backend.url, "http://127.0.0.1:1", &more)).unwrap();
    let proxy = Process::start(&file);
    let read = "oakallow_issuer_key_reads_total{issuer=\"corp\",result=\"read\"}";
    until("the keys", async || (proxy.metric(read).await > 0.0).then_some(())).await;
    let refused = signer.good("two", "grace");
    for _ in 0..5 {
        let call = client().post(format!("http://{}/tools/read", proxy.data)).json(&json!({"id": "42"}));
        assert_eq!(call.bearer_auth(&refused).send().await.unwrap().status(), 401);
    }
    let lines =
        |what: &str| -> Vec<String> { proxy.log().into_iter().filter(|line| line.contains(what)).collect() };
    until("the reason", async || (!lines("tokens are refused").is_empty()).then_some(())).await;
    let told = lines("tokens are refused");
    assert!(matches!(&told[..], [one] if one.contains("corp") && one.contains("key")), "{told:?}");
    assert!(!proxy.log().concat().contains(&refused));
    // And why keys cannot be read: with the cause.
    let unread = "the keys of an issuer cannot be read";
    until("the failure", async || (!lines(unread).is_empty()).then_some(())).await;
    assert!(lines(unread)[0].contains("Connection refused"), "{:?}", lines(unread));
}
