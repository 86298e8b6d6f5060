//! The backend is away.

use serde_json::{Value, json};

use crate::support::policy::{ACME, OrgBundle, now_ms};
use crate::support::sidecar::Sidecar;

async fn refused(answer: reqwest::Response, status: u16, code: &str) {
    let (found, retry) = (answer.status(), answer.headers().contains_key("retry-after"));
    let body: Value = answer.json().await.expect("a problem document");
    assert_eq!((found.as_u16(), &body["code"]), (status, &json!(code)), "{body:#}");
    assert_eq!(retry, status == 503, "Retry-After says when to try again");
}

#[tokio::test]
async fn rules_that_are_here_decide_and_what_needs_a_person_waits_for_better_times() {
    let mut sidecar = Sidecar::start().await;
    assert_eq!(sidecar.call("read").send().await.unwrap().status(), 200);
    sidecar.backend.stop();
    assert_eq!(sidecar.call("read").send().await.unwrap().status(), 200);
    refused(sidecar.call("drop").send().await.unwrap(), 403, "disabled").await;
    refused(sidecar.call("ask").send().await.unwrap(), 503, "backend_unavailable").await;
    assert_eq!(sidecar.upstream.count(), 2);
    let call = json!({"name": "ask", "arguments": {"id": "42"}});
    let said = sidecar.rpc(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}));
    let said = said.send().await.unwrap();
    assert_eq!(said.status(), 200);
    let said: Value = said.json().await.unwrap();
    assert_eq!(said["error"]["data"]["reason"], "backend_unavailable", "{said:#}");
    assert_eq!(sidecar.upstream.count(), 2);
}

#[tokio::test]
async fn a_policy_that_nobody_has_confirmed_for_long_decides_only_what_is_of_low_enough_risk() {
    let mut old = OrgBundle::new(5);
    old.issued_at = now_ms() - 20 * 60 * 1_000;
    let sidecar = Sidecar::deciding(old, json!({})).await;
    assert_eq!(sidecar.call("read").send().await.unwrap().status(), 200);
    refused(sidecar.call("wipe").send().await.unwrap(), 503, "policy_unavailable").await;
    refused(sidecar.call("drop").send().await.unwrap(), 403, "disabled").await;
    assert_eq!(sidecar.upstream.count(), 1);
    assert!(sidecar.metric("oakallow_policy_age_seconds").await >= 1_200.0);
}

#[tokio::test]
async fn the_last_verified_policy_decides_after_a_restart_without_a_backend() {
    let mut sidecar = Sidecar::start().await;
    sidecar.backend.stop();
    let sidecar = sidecar.restart().await;
    assert_eq!(sidecar.call("read").send().await.unwrap().status(), 200);
    refused(sidecar.call("drop").send().await.unwrap(), 403, "disabled").await;
    assert_eq!(sidecar.upstream.count(), 1);
}

#[tokio::test]
async fn a_tenant_whose_rules_were_never_loaded_is_refused() {
    let mut sidecar = Sidecar::start().await;
    sidecar.backend.stop();
    let call = sidecar.call("read").header("x-tenant-id", "globex");
    refused(call.send().await.unwrap(), 503, "policy_unavailable").await;
    assert_eq!(sidecar.upstream.count(), 0);
}

#[tokio::test]
async fn a_tenant_whose_rules_are_here_goes_on() {
    let mut sidecar = Sidecar::start().await;
    let url = format!("http://{}/tools/read", sidecar.proxy.data);
    let call = || crate::support::sidecar::client().post(&url).header("x-api-key", ACME);
    assert_eq!(call().send().await.unwrap().status(), 200);
    sidecar.backend.stop();
    assert_eq!(call().send().await.unwrap().status(), 200);
    assert_eq!(sidecar.upstream.count(), 2);
}
