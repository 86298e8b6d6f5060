//! A held call ends when its caller or its tool is stopped, and nobody has to decide about it first.

use oakallow_policy::wire::ApprovalStatus;
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::support::policy::{ACME, OrgBundle, now_ms};
use crate::support::sidecar::{Sidecar, client};
use crate::support::until;

/// Where the keys of `ada` and of `bob` stand among the keys.
const ADA: usize = 0;
const BOB: usize = 1;

/// Holds a call.
async fn hold(
    sidecar: &Sidecar,
    call: RequestBuilder,
) -> tokio::task::JoinHandle<reqwest::Result<reqwest::Response>> {
    let held = tokio::spawn(call.send());
    until("a held call", async || (sidecar.metric("oakallow_held_calls").await == 1.0).then_some(())).await;
    held
}

/// Holds a call and puts another policy in force; the answer, which nobody's decision brought.
async fn ended_by(sidecar: &Sidecar, call: RequestBuilder, changed: &OrgBundle) -> (u16, Value) {
    let held = hold(sidecar, call).await;
    sidecar.backend.publish(changed.version, changed.signed());
    let answer = held.await.unwrap().unwrap();
    let found = (answer.status().as_u16(), answer.json().await.unwrap());
    assert_eq!(sidecar.upstream.count(), 0);
    assert_eq!(sidecar.backend.approvals()[0].status, ApprovalStatus::Cancelled);
    found
}

fn without_ada() -> OrgBundle {
    let mut revoked = OrgBundle::new(6);
    revoked.keys.as_array_mut().unwrap().remove(ADA);
    revoked
}

#[tokio::test]
async fn a_call_whose_key_is_revoked_ends_and_its_approval_is_withdrawn() {
    let sidecar = Sidecar::start().await;
    let (status, body) = ended_by(&sidecar, sidecar.call("ask"), &without_ada()).await;
    assert_eq!((status, &body["code"]), (401, &json!("unauthenticated")));
}

#[tokio::test]
async fn an_mcp_client_hears_of_its_revoked_key_as_mcp_says_it() {
    let sidecar = Sidecar::start().await;
    let call = json!({"name": "ask", "arguments": {"id": "42"}});
    let call = sidecar.rpc(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}));
    let held = hold(&sidecar, call).await;
    let revoked = without_ada();
    sidecar.backend.publish(revoked.version, revoked.signed());
    let answer = held.await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    let said = answer.text().await.unwrap();
    let data = said.lines().filter_map(|line| line.strip_prefix("data: ")).next_back().unwrap_or(&said);
    let said: Value = serde_json::from_str(data).unwrap();
    assert_eq!((&said["id"], &said["error"]["data"]["reason"]), (&json!(1), &json!("unauthenticated")));
    assert_eq!(sidecar.upstream.count(), 0);
    assert_eq!(sidecar.backend.approvals()[0].status, ApprovalStatus::Cancelled);
}

#[tokio::test]
async fn a_call_whose_key_reaches_another_tenant_by_now_ends() {
    let sidecar = Sidecar::start().await;
    let mut moved = OrgBundle::new(6);
    moved.keys[BOB]["tenancy"] = json!({"kind": "one", "tenants": "globex"});
    let call = client().post(format!("http://{}/tools/ask", sidecar.proxy.data)).header("x-api-key", ACME);
    let (status, body) = ended_by(&sidecar, call.json(&json!({"id": "42"})), &moved).await;
    assert_eq!((status, &body["code"]), (403, &json!("tenant_not_allowed")));
}

#[tokio::test]
async fn a_call_whose_key_expired_meanwhile_does_not_run_when_it_is_approved() {
    let mut expiring = OrgBundle::new(5);
    // Time enough for the call to arrive.
    let end = now_ms() + 3_000;
    expiring.keys[ADA]["expires_at"] = json!(end);
    let sidecar = Sidecar::deciding(expiring, json!({})).await;
    let held = hold(&sidecar, sidecar.call("ask")).await;
    until("the key's end", async || (now_ms() > end).then_some(())).await;
    sidecar.backend.decide(ApprovalStatus::Approved);
    let answer = held.await.unwrap().unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(sidecar.upstream.count(), 0);
    assert_eq!(sidecar.backend.approvals()[0].status, ApprovalStatus::Cancelled);
}

#[tokio::test]
async fn a_kill_switch_ends_the_calls_that_wait() {
    let sidecar = Sidecar::start().await;
    let mut killed = OrgBundle::new(6);
    killed.kill_switches = json!([{"scope": "tool", "id": "ask"}]);
    let (status, body) = ended_by(&sidecar, sidecar.call("ask"), &killed).await;
    assert_eq!((status, &body["resolved_from"]), (403, &json!("kill_switch")));
}

#[tokio::test]
async fn a_change_that_is_none_of_its_business_leaves_a_call_waiting() {
    let sidecar = Sidecar::start().await;
    let held = hold(&sidecar, sidecar.call("ask")).await;
    let mut other = OrgBundle::new(6);
    other.kill_switches = json!([{"scope": "tool", "id": "read"}]);
    other.keys.as_array_mut().unwrap().remove(BOB);
    sidecar.backend.publish(other.version, other.signed());
    let in_force = async || (sidecar.metric("oakallow_policy_version").await == 6.0).then_some(());
    until("the other policy", in_force).await;
    sidecar.backend.decide(ApprovalStatus::Approved);
    assert_eq!(held.await.unwrap().unwrap().status(), 200);
    assert_eq!(sidecar.upstream.count(), 1);
}
