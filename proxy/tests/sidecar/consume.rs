//! Whether an approval was consumed is not always heard. What did not run is never said to run.

use oakallow_policy::audit::Chained;
use oakallow_policy::audit::EventType::{CallHeld, CallNotForwarded, CallRefused};
use oakallow_policy::wire::ApprovalStatus;
use serde_json::{Value, json};

use crate::support::backend::Backend;
use crate::support::policy::{AGENT, OrgBundle};
use crate::support::process::Process;
use crate::support::sidecar::{Sidecar, client, config_text, metric};
use crate::support::until;
use crate::support::upstream::Upstream;

/// Holds a call and approves it; its answer.
async fn approved(sidecar: &Sidecar) -> reqwest::Response {
    let held = tokio::spawn(sidecar.call("ask").send());
    until("a held call", async || (sidecar.metric("oakallow_held_calls").await == 1.0).then_some(())).await;
    sidecar.backend.decide(ApprovalStatus::Approved);
    held.await.unwrap().unwrap()
}

/// The record that the only call did not run.
async fn not_forwarded(backend: &Backend) -> Chained {
    let told = async || backend.audit().into_iter().find(|e| e.event.kind == CallNotForwarded);
    let told = until("call.not_forwarded", told).await;
    let refused = backend.audit().into_iter().filter(|e| e.event.kind == CallRefused).count();
    assert_eq!((told.event.txn.as_ref(), refused), (backend.consumers().first(), 0));
    assert_eq!(told.event.data.tool.as_deref(), Some("ask"));
    told
}

#[tokio::test]
async fn an_answer_that_was_lost_is_asked_for_again_and_the_call_runs_once() {
    let sidecar = Sidecar::start().await;
    sidecar.backend.lose_consumed(2);
    assert_eq!(approved(&sidecar).await.status(), 200);
    assert_eq!(sidecar.upstream.count(), 1);
    let consumers = sidecar.backend.consumers();
    assert_eq!(consumers.len(), 3);
    assert!(consumers.iter().all(|txn| *txn == consumers[0]), "{consumers:?}");
}

#[tokio::test]
async fn a_call_that_never_hears_whether_it_may_run_does_not_and_says_so() {
    let sidecar = Sidecar::start().await;
    sidecar.backend.lose_consumed(usize::MAX);
    let answer = approved(&sidecar).await;
    assert_eq!(answer.status(), 503);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["code"], "backend_unavailable");
    assert_eq!(sidecar.upstream.count(), 0);
    let told = not_forwarded(&sidecar.backend).await;
    assert_eq!(told.event.data.reason.as_deref(), Some("backend_unavailable"));
}

#[tokio::test]
async fn a_proxy_that_is_killed_while_it_consumes_tells_afterwards_that_the_call_did_not_run() {
    let (backend, upstream) = (Backend::start(OrgBundle::new(5).signed()), Upstream::start().await);
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("proxy.yaml");
    std::fs::write(&config, config_text(dir.path(), &backend.url, &upstream.url, &json!({}))).unwrap();
    let proxy = Process::start(&config);
    let call = client().post(format!("http://{}/tools/ask", proxy.data)).header("x-api-key", AGENT);
    let held = tokio::spawn(call.body("{}").send());
    let count = async || {
        let text = client().get(format!("http://{}/metrics", proxy.ops)).send().await.unwrap();
        metric(&text.text().await.unwrap(), "oakallow_held_calls")
    };
    until("a held call", async || (count().await == 1.0).then_some(())).await;
    backend.hold_consumed(true);
    backend.decide(ApprovalStatus::Approved);
    until("the call to consume", async || backend.consumers().first().cloned()).await;
    drop(proxy);
    assert!(held.await.unwrap().is_err());
    backend.hold_consumed(false);
    let _proxy = Process::start(&config);
    let told = not_forwarded(&backend).await;
    assert_eq!(told.event.data.approval.as_ref().map(|a| a.id.as_str()), Some("apr_1"));
    assert!(backend.audit().iter().any(|e| e.event.kind == CallHeld && e.event.txn == told.event.txn));
    assert_eq!(upstream.count(), 0);
}
