//! What cannot be recorded does not run.

use oakallow_policy::audit::{EventType, Head};
use oakallow_policy::wire::ApprovalStatus;
use serde_json::{Value, json};

use crate::support::sidecar::{Sidecar, client};
use crate::support::until;

const EVENTS_MAX: u64 = 12;

/// A sidecar whose backend takes no events.
async fn unheard() -> Sidecar {
    let sidecar = Sidecar::with(json!({"limits": {"spool_events_max": EVENTS_MAX}})).await;
    sidecar.backend.take_audit(false);
    sidecar
}

/// Calls until the spool is full; how many ran.
async fn fill(sidecar: &Sidecar) -> usize {
    for ran in 0..=EVENTS_MAX as usize {
        let answer = sidecar.call("read").send().await.unwrap();
        if answer.status() == 503 {
            assert!(answer.headers().contains_key("retry-after"));
            let body: Value = answer.json().await.unwrap();
            assert_eq!(body["code"], "audit_unavailable", "{body:#}");
            return ran;
        }
        assert_eq!(answer.status(), 200);
    }
    panic!("the spool has no limit");
}

#[tokio::test]
async fn a_full_spool_refuses_calls_until_the_backend_takes_its_events() {
    let sidecar = unheard().await;
    let ran = fill(&sidecar).await;
    assert!(ran > 0);
    assert_eq!(sidecar.upstream.count(), ran, "what is refused does not reach the tool");
    let ready = client().get(format!("http://{}/readyz", sidecar.proxy.ops)).send().await.unwrap();
    assert_eq!((ready.status().as_u16(), ready.text().await.unwrap().as_str()), (503, "audit spool"));
    assert!(sidecar.metric("oakallow_spool_events").await >= EVENTS_MAX as f64);
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    let said: Value = sidecar.rpc(&ping).send().await.unwrap().json().await.unwrap();
    assert_eq!(said["error"]["data"]["reason"], "audit_unavailable", "{said:#}");
    assert_eq!(sidecar.upstream.count(), ran, "nor does plumbing");
    sidecar.backend.take_audit(true);
    let again = async || (sidecar.call("read").send().await.unwrap().status() == 200).then_some(());
    until("calls to pass again", again).await;
    until("an empty spool", async || (sidecar.metric("oakallow_spool_events").await == 0.0).then_some(()))
        .await;
    assert_eq!(sidecar.metric("oakallow_spool_oldest_age_seconds").await, 0.0);
    let audit = sidecar.backend.audit();
    let follow =
        |head: Head, event: &oakallow_policy::audit::Chained| event.follow("proxy/prx_test", &head).unwrap();
    assert!(audit.iter().fold(Head::default(), follow).seq > EVENTS_MAX);
    let of = |kind| audit.iter().filter(|event| event.event.kind == kind).count();
    assert_eq!(of(EventType::CallForwarded), sidecar.upstream.count());
    assert_eq!(of(EventType::CallCompleted), sidecar.upstream.count());
}

#[tokio::test]
async fn an_approval_that_was_spent_on_a_call_without_room_for_its_intent_is_recorded_as_not_forwarded() {
    let sidecar = unheard().await;
    let held = tokio::spawn(sidecar.call("ask").send());
    until("a held call", async || (sidecar.metric("oakallow_held_calls").await == 1.0).then_some(())).await;
    // There is room when it asks for its approval, and none any more when it gets it.
    sidecar.backend.hold_consumed(true);
    sidecar.backend.decide(ApprovalStatus::Approved);
    until("the call to consume", async || sidecar.backend.consumers().first().cloned()).await;
    let ran = fill(&sidecar).await;
    sidecar.backend.hold_consumed(false);
    let answer = held.await.unwrap().unwrap();
    assert_eq!(answer.status(), 503);
    assert_eq!(sidecar.backend.approvals()[0].status, ApprovalStatus::Consumed);
    assert_eq!(sidecar.upstream.count(), ran);
    sidecar.backend.take_audit(true);
    let told = async || {
        let audit = sidecar.backend.audit();
        audit.into_iter().find(|event| event.event.kind == EventType::CallNotForwarded)
    };
    let told = until("call.not_forwarded", told).await;
    assert_eq!(told.event.data.tool.as_deref(), Some("ask"));
    assert_eq!(told.event.data.reason.as_deref(), Some("audit_unavailable"));
}

#[tokio::test]
async fn an_approval_is_not_spent_on_a_call_that_cannot_be_recorded() {
    let sidecar = unheard().await;
    let held = tokio::spawn(sidecar.call("ask").send());
    until("a held call", async || (sidecar.metric("oakallow_held_calls").await == 1.0).then_some(())).await;
    fill(&sidecar).await;
    sidecar.backend.decide(ApprovalStatus::Approved);
    assert_eq!(held.await.unwrap().unwrap().status(), 503);
    assert_eq!(sidecar.backend.approvals()[0].status, ApprovalStatus::Approved);
    assert!(sidecar.backend.consumers().is_empty());
}
