//! A disk that takes nothing any more, for a proxy in a process of its own: the limit on the size of its
//! files is lowered while it runs.

use serde_json::{Value, json};

use crate::support::backend::Backend;
use crate::support::policy::{AGENT, OrgBundle};
use crate::support::process::Process;
use crate::support::sidecar::{client, config_text, metric};
use crate::support::upstream::Upstream;

#[tokio::test]
async fn a_call_that_the_disk_does_not_take_is_refused_and_does_not_run() {
    let (backend, upstream) = (Backend::start(OrgBundle::new(5).signed()), Upstream::start().await);
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("proxy.yaml");
    std::fs::write(&config, config_text(dir.path(), &backend.url, &upstream.url, &json!({}))).unwrap();
    let proxy = Process::start(&config);
    let call = async || {
        let call = client().post(format!("http://{}/tools/read", proxy.data)).header("x-api-key", AGENT);
        call.body("{}").send().await.unwrap()
    };
    assert_eq!(call().await.status(), 200);
    proxy.limit_files("1:");
    for _ in 0..3 {
        let answer = call().await;
        assert_eq!(answer.status(), 503);
        assert!(answer.headers().contains_key("retry-after"));
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["code"], "audit_unavailable", "{body:#}");
    }
    assert_eq!(upstream.count(), 1);
    let ops = async |path: &str| client().get(format!("http://{}{path}", proxy.ops)).send().await.unwrap();
    assert_eq!(ops("/readyz").await.status(), 503);
    assert_eq!(ops("/healthz").await.status(), 200);
    assert_eq!(metric(&ops("/metrics").await.text().await.unwrap(), "oakallow_spool_failing"), 1.0);
    drop(proxy);
    // With room again, the next start goes on where the last write ended.
    let proxy = Process::start(&config);
    let call = client().post(format!("http://{}/tools/read", proxy.data)).header("x-api-key", AGENT);
    assert_eq!(call.body("{}").send().await.unwrap().status(), 200);
    assert_eq!(upstream.count(), 2);
}
