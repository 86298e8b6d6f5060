//! What the environment names as a proxy for other programs hears nothing of ours.

use serde_json::json;

use crate::support::backend::Backend;
use crate::support::collector::Collector;
use crate::support::issuer::{AUD, ISS, KeyServer, Signer};
use crate::support::policy::OrgBundle;
use crate::support::process::Process;
use crate::support::sidecar::{client, config_text};
use crate::support::until;
use crate::support::upstream::Upstream;

#[tokio::test]
async fn nothing_takes_the_way_that_http_proxy_names() {
    let signer = Signer::p256();
    let (keys, detour) = (KeyServer::start(&[signer.jwk("one")]).await, Upstream::start().await);
    let (backend, upstream) = (Backend::start(OrgBundle::new(5).signed()), Upstream::start().await);
    let collector = Collector::start().await;
    let dir = tempfile::tempdir().unwrap();
    let more = json!({
        "listen": {"data": [{"address": "127.0.0.1:0", "identities": ["corp"]}], "ops": "127.0.0.1:0", "admin": "127.0.0.1:0"},
        "issuers": [{"name": "corp", "issuer": ISS, "audience": AUD, "jwks_url": format!("{}/jwks", keys.url)}],
        "tracing": {"otlp_endpoint": collector.url, "sample_ratio": 1.0},
    });
    let file = dir.path().join("proxy.yaml");
    std::fs::write(&file, config_text(dir.path(), &backend.url, &upstream.url, &more)).unwrap();
    let names = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let env = names.map(|name| (name, detour.url.as_str()));
    let proxy = Process::start_with(&file, &env);
    until("the keys", async || (proxy.metric("oakallow_issuer_key_reads_total").await > 0.0).then_some(()))
        .await;
    let call = client().post(format!("http://{}/tools/read", proxy.data)).json(&json!({"id": "42"}));
    assert_eq!(call.bearer_auth(signer.good("one", "grace")).send().await.unwrap().status(), 200);
    until("spans", async || (!collector.spans().is_empty()).then_some(())).await;
    assert!(detour.seen().is_empty(), "{:?}", detour.seen());
}
