//! A held call is decided again when it is released.

use oakallow_policy::audit::EventType::{
    CallCompleted, CallDecided, CallForwarded, CallHeld, CallRefused, CallRequested,
};
use oakallow_policy::permit::PermitReason;
use oakallow_policy::wire::ApprovalStatus;
use serde_json::{Value, json};

use crate::support::policy::OrgBundle;
use crate::support::sidecar::Sidecar;
use crate::support::until;

/// Where the tool `ask` stands among the tools.
const ASK: usize = 2;

/// Holds a call, puts another policy in force, approves; the answer.
async fn approved_under(sidecar: &Sidecar, changed: OrgBundle) -> (u16, Value) {
    let held = tokio::spawn(sidecar.call("ask").send());
    until("a held call", async || (sidecar.metric("oakallow_held_calls").await == 1.0).then_some(())).await;
    let version = changed.version;
    sidecar.backend.publish(version, changed.signed());
    let in_force = async || sidecar.metric("oakallow_policy_version").await == version as f64;
    until("the other policy", async || in_force().await.then_some(())).await;
    sidecar.backend.decide(ApprovalStatus::Approved);
    let answer = held.await.unwrap().unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn only_life(sidecar: &Sidecar, last: oakallow_policy::audit::EventType) -> Vec<&'static str> {
    let ended = async || sidecar.backend.lives().into_iter().find(|life| life.last() == Some(&last));
    until("the end of the call", ended).await.iter().map(|kind| kind.as_str()).collect()
}

fn names(kinds: &[oakallow_policy::audit::EventType]) -> Vec<&'static str> {
    kinds.iter().map(|kind| kind.as_str()).collect()
}

#[tokio::test]
async fn a_kill_switch_wins_over_an_approval() {
    let sidecar = Sidecar::start().await;
    let mut killed = OrgBundle::new(6);
    killed.kill_switches = json!([{"scope": "tool", "id": "ask"}]);
    let (status, body) = approved_under(&sidecar, killed).await;
    assert_eq!(
        (status, &body["code"], &body["resolved_from"]),
        (403, &json!("disabled"), &json!("kill_switch"))
    );
    assert_eq!(sidecar.upstream.count(), 0);
    assert_eq!(sidecar.backend.approvals()[0].status, ApprovalStatus::Cancelled);
    let life = only_life(&sidecar, CallRefused).await;
    assert_eq!(life, names(&[CallRequested, CallDecided, CallHeld, CallDecided, CallRefused]));
}

#[tokio::test]
async fn a_tool_that_was_disabled_meanwhile_does_not_run() {
    let sidecar = Sidecar::start().await;
    let (status, body) = approved_under(&sidecar, OrgBundle::new(6).with("ask", "disabled")).await;
    assert_eq!((status, &body["code"]), (403, &json!("disabled")));
    assert_eq!(sidecar.upstream.count(), 0);
    assert_eq!(sidecar.backend.approvals()[0].status, ApprovalStatus::Cancelled);
}

#[tokio::test]
async fn a_tool_that_is_allowed_by_now_runs_and_leaves_its_approval_unspent() {
    let sidecar = Sidecar::start().await;
    let (status, _) = approved_under(&sidecar, OrgBundle::new(6).with("ask", "allowed")).await;
    assert_eq!((status, sidecar.upstream.count()), (200, 1));
    assert_eq!(sidecar.backend.approvals()[0].status, ApprovalStatus::Cancelled);
}

#[tokio::test]
async fn an_approved_call_spends_its_approval_and_runs() {
    let sidecar = Sidecar::start().await;
    let (status, _) = approved_under(&sidecar, OrgBundle::new(6)).await;
    assert_eq!((status, sidecar.upstream.count()), (200, 1));
    assert_eq!(sidecar.backend.approvals()[0].status, ApprovalStatus::Consumed);
    let life = only_life(&sidecar, CallCompleted).await;
    assert_eq!(life[..3], names(&[CallRequested, CallDecided, CallHeld]));
    assert_eq!(life[life.len() - 2..], names(&[CallForwarded, CallCompleted]));
    let audit = sidecar.backend.audit();
    let intent = audit.iter().find(|e| e.event.kind == CallForwarded).unwrap();
    assert_eq!(intent.event.data.permit, Some(PermitReason::Approval));
}

#[tokio::test]
async fn a_tool_whose_definition_changed_meanwhile_does_not_run_under_the_old_approval() {
    let sidecar = Sidecar::start().await;
    let mut changed = OrgBundle::new(6);
    changed.tools[ASK]["description"] = json!("now deletes everything");
    let (status, body) = approved_under(&sidecar, changed).await;
    assert_eq!((status, &body["code"]), (409, &json!("definition_changed")));
    assert_eq!(sidecar.upstream.count(), 0);
    assert_eq!(sidecar.backend.approvals()[0].status, ApprovalStatus::Cancelled);
    let life = only_life(&sidecar, CallRefused).await;
    assert_eq!(life.last(), names(&[CallRefused]).last());
    // Repeated, it is asked about as the tool it is now.
    let again = sidecar.call("ask").header("prefer", "respond-async").send().await.unwrap();
    let again: Value = again.json().await.unwrap();
    assert_eq!((&again["code"], &again["approval_id"]), (&json!("approval_pending"), &json!("apr_2")));
}
