//! What people on the machine get to see: who waits, and why something is decided as it is.

use oakallow_policy::wire::ApprovalStatus;
use serde_json::{Value, json};

use crate::support::sidecar::{Sidecar, client};
use crate::support::until;

async fn asked(sidecar: &Sidecar, path: &str) -> Value {
    let url = format!("http://{}{path}", sidecar.proxy.admin);
    client().get(url).send().await.unwrap().json().await.unwrap()
}

#[tokio::test]
async fn holds_lists_the_calls_that_wait_without_their_arguments() {
    let sidecar = Sidecar::with(json!({"hold": {"budget_s": 30}})).await;
    assert_eq!(asked(&sidecar, "/holds").await, json!({"data": []}));
    let call = tokio::spawn(sidecar.call("ask").json(&json!({"id": "s3cret-argument"})).send());
    let held = until("a hold", async || asked(&sidecar, "/holds").await["data"].get(0).cloned()).await;
    let approval = sidecar.backend.approvals().remove(0);
    for (member, value) in [
        ("approval_id", json!(approval.id)),
        ("reference", json!(approval.reference)),
        ("principal", json!("ada")),
        ("tenant", Value::Null),
        ("tool", json!("ask")),
        ("route", json!("http")),
    ] {
        assert_eq!(held[member], value, "{held:#}");
    }
    assert!(held["txn"].is_string() && held["since"].is_string(), "{held:#}");
    assert!(!held.to_string().contains("s3cret-argument"), "{held:#}");
    sidecar.backend.decide(ApprovalStatus::Denied);
    assert_eq!(call.await.unwrap().unwrap().status(), 403);
    until("no hold", async || (asked(&sidecar, "/holds").await == json!({"data": []})).then_some(())).await;
}

#[tokio::test]
async fn explain_shows_every_gate_and_level_and_whether_the_policy_is_fresh_enough() {
    let mut sidecar = Sidecar::with(json!({"staleness": {"critical_s": 0, "high_s": 0}})).await;
    let said = asked(&sidecar, "/explain?tool=read&tenant=acme&principal=bob&audience=tools").await;
    assert_eq!(said["decision"]["permission"], "allowed", "{said:#}");
    let levels: Vec<u64> =
        said["trace"].as_array().unwrap().iter().filter_map(|s| s["level"].as_u64()).collect();
    // The tenant's rules, the org's, then what stands with the tools themselves.
    assert_eq!(levels, (1..=8).chain(1..=12).collect::<Vec<u64>>(), "{said:#}");
    assert!(said["trace"].as_array().unwrap().len() > levels.len(), "the gates: {said:#}");
    assert_eq!(said["policy"]["fresh"], true, "{said:#}");
    // `wipe` is of high risk.
    sidecar.backend.stop();
    let stale =
        async || (asked(&sidecar, "/explain?tool=wipe").await["policy"]["fresh"] == false).then_some(());
    until("an old policy", stale).await;
    let url = format!("http://{}/explain?tool=read&arguments=x", sidecar.proxy.admin);
    assert_eq!(client().get(url).send().await.unwrap().status(), 400, "there is no room for arguments");
}
