//! The spool is lost, and the proxy's identity is not.

use serde_json::{Value, json};

use crate::support::sidecar::Sidecar;
use crate::support::until;

const UNCONFIRMED: &str = "audit chain: not confirmed by the backend";

async fn refused(sidecar: &Sidecar) {
    let ran = sidecar.upstream.count();
    let answer = sidecar.call("read").send().await.unwrap();
    assert_eq!(answer.status(), 503);
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["code"], "audit_unavailable", "{body:#}");
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    let said: Value = sidecar.rpc(&ping).send().await.unwrap().json().await.unwrap();
    assert_eq!(said["error"]["data"]["reason"], "audit_unavailable", "{said:#}");
    assert_eq!(sidecar.upstream.count(), ran);
}

async fn runs(sidecar: &Sidecar) {
    assert_eq!(sidecar.call("read").send().await.unwrap().status(), 200);
}

/// Waits until the backend has all events.
async fn shipped(sidecar: &Sidecar) -> usize {
    let empty = async || (sidecar.metric("oakallow_spool_events").await == 0.0).then_some(());
    until("an empty spool", empty).await;
    sidecar.backend.audit().len()
}

#[tokio::test]
async fn a_spool_that_is_removed_under_the_proxy_stops_calls() {
    let sidecar = Sidecar::start().await;
    runs(&sidecar).await;
    assert_eq!(sidecar.ready().await.0, 200);
    sidecar.lose_spool();
    assert_eq!(sidecar.ready().await, (503, "audit spool".to_owned()));
    assert_eq!(sidecar.metric("oakallow_spool_failing").await, 1.0);
    refused(&sidecar).await;
}

#[tokio::test]
async fn a_proxy_whose_chain_the_backend_refuses_runs_nothing() {
    let sidecar = Sidecar::start().await;
    runs(&sidecar).await;
    let known = shipped(&sidecar).await;
    assert!(known > 1);
    assert_eq!(sidecar.metric("oakallow_audit_chain_refused").await, 0.0);
    let sidecar = sidecar.restart_without_spool(true).await;
    // From the first call on: what the backend says is heard before calls are taken.
    refused(&sidecar).await;
    assert_eq!(sidecar.ready().await, (503, "audit chain: refused by the backend".to_owned()));
    assert_eq!(sidecar.metric("oakallow_audit_chain_refused").await, 1.0);
}

#[tokio::test]
async fn a_proxy_without_its_spool_runs_nothing_while_the_backend_cannot_say_what_is_missing() {
    let mut sidecar = Sidecar::start().await;
    runs(&sidecar).await;
    shipped(&sidecar).await;
    sidecar.backend.stop();
    let sidecar = sidecar.restart_without_spool(true).await;
    refused(&sidecar).await;
    assert_eq!(sidecar.ready().await, (503, UNCONFIRMED.to_owned()));
}

#[tokio::test]
async fn a_proxy_that_had_nothing_to_lose_goes_on_when_the_backend_says_so() {
    let sidecar = Sidecar::start().await;
    shipped(&sidecar).await;
    // As if it had ended between enrolling and its first event.
    sidecar.backend.forget_audit();
    sidecar.backend.take_audit(false);
    let sidecar = sidecar.restart_without_spool(true).await;
    refused(&sidecar).await;
    sidecar.backend.take_audit(true);
    until("a ready proxy", async || (sidecar.ready().await.0 == 200).then_some(())).await;
    runs(&sidecar).await;
    assert_eq!(sidecar.upstream.count(), 1);
}

#[tokio::test]
async fn a_restart_settles_no_doubt_and_the_backend_does() {
    let sidecar = Sidecar::start().await;
    shipped(&sidecar).await;
    sidecar.backend.forget_audit();
    sidecar.backend.take_audit(false);
    let mut sidecar = sidecar.restart_without_spool(true).await;
    for _ in 0..2 {
        refused(&sidecar).await;
        assert_eq!(sidecar.ready().await, (503, UNCONFIRMED.to_owned()));
        // There is something in it now, and nothing wrong with that.
        sidecar = sidecar.restart().await;
    }
    refused(&sidecar).await;
    sidecar.backend.take_audit(true);
    until("a ready proxy", async || (sidecar.ready().await.0 == 200).then_some(())).await;
    runs(&sidecar).await;
    sidecar.backend.stop();
    // What is settled stays so.
    let sidecar = sidecar.restart().await;
    assert_eq!(sidecar.ready().await.0, 200);
    runs(&sidecar).await;
}

#[tokio::test]
async fn a_chain_that_the_backend_refused_stays_refused_over_a_restart_without_the_backend() {
    let sidecar = Sidecar::start().await;
    runs(&sidecar).await;
    shipped(&sidecar).await;
    let mut sidecar = sidecar.restart_without_spool(true).await;
    assert_eq!(sidecar.ready().await, (503, "audit chain: refused by the backend".to_owned()));
    sidecar.backend.stop();
    let sidecar = sidecar.restart().await;
    refused(&sidecar).await;
    assert_eq!(sidecar.ready().await, (503, UNCONFIRMED.to_owned()));
}
