//! Tool servers that break in the middle, and a backend that hangs or says nothing. What may have run is `unknown`,
//! never repeated, and never said to have failed.

use std::sync::atomic::Ordering;

use oakallow_policy::audit::EventType;
use oakallow_policy::wire::ApprovalStatus;
use serde_json::{Value, json};

use crate::support::broken::saying;
use crate::support::sidecar::Sidecar;
use crate::support::until;

async fn behind(upstream: &str) -> Sidecar {
    let timeouts = json!({"connect_s": 1, "response_s": 1, "idle_s": 1});
    let route = |name: &str, path: &str| {
        json!({
            "name": name, "kind": name, "path": path, "audience": "tools", "upstream": upstream, "timeouts": timeouts,
        })
    };
    Sidecar::with(json!({"routes": [route("http", "/tools/{tool}"), route("mcp", "/mcp")]})).await
}

async fn unknown(sidecar: &Sidecar, calls: usize) {
    let told = async || {
        let audit = sidecar.backend.audit();
        (audit.iter().filter(|e| e.event.kind == EventType::CallUnknown).count() == calls).then_some(())
    };
    until("call.unknown", told).await;
    let metric = "oakallow_upstream_outcomes_total{permit=\"rule\",result=\"unknown\",route=\"http\"}";
    assert_eq!(sidecar.metric(metric).await, 1.0);
}

#[tokio::test]
async fn a_tool_server_that_hangs_resets_or_answers_half_leaves_the_outcome_unknown_and_is_asked_once() {
    let half = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"half\":";
    for (what, says, stays, status) in [
        ("hangs", "", true, 504),
        ("resets", "", false, 502),
        ("breaks off in the head", "HTTP/1.1 200 OK\r\nContent-", false, 502),
        ("says nonsense", "nonsense\r\n\r\n", false, 502),
        ("breaks off in the body", half, false, 200),
        ("hangs in the body", half, true, 200),
    ] {
        let (upstream, requests) = saying(says.as_bytes(), !stays).await;
        let sidecar = behind(&upstream).await;
        let answer = sidecar.call("read").send().await.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(answer.status(), status, "{what}");
        if status == 200 {
            assert!(answer.bytes().await.is_err(), "{what}: half an answer does not look whole");
        } else {
            assert_eq!(answer.headers()["x-oakallow-outcome"], "unknown", "{what}");
        }
        unknown(&sidecar, 1).await;
        let call = json!({"name": "read", "arguments": {"id": "42"}});
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call});
        if status != 200 {
            let said: Value = sidecar.rpc(&call).send().await.unwrap().json().await.unwrap();
            let text =
                said["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{what}: {said:#}"));
            assert!(said["result"]["isError"] == true && text.contains("may have run"), "{what}: {said:#}");
            unknown(&sidecar, 2).await;
        }
        assert_eq!(requests.load(Ordering::SeqCst), if status == 200 { 1 } else { 2 }, "{what}: each once");
    }
}

#[tokio::test]
async fn a_backend_that_hangs_when_an_approval_is_consumed_runs_nothing_and_the_record_says_so() {
    let sidecar = Sidecar::start().await;
    let held = tokio::spawn(sidecar.call("ask").send());
    until("a held call", async || (sidecar.metric("oakallow_held_calls").await == 1.0).then_some(())).await;
    sidecar.backend.hold_consumed(true);
    sidecar.backend.decide(ApprovalStatus::Approved);
    assert_eq!(held.await.unwrap().unwrap().status(), 503);
    assert_eq!(sidecar.upstream.count(), 0);
    let told =
        async || sidecar.backend.audit().into_iter().find(|e| e.event.kind == EventType::CallNotForwarded);
    until("call.not_forwarded", told).await;
    sidecar.backend.hold_consumed(false);
    assert_eq!(sidecar.call("read").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_feed_that_is_connected_and_says_nothing_confirms_nothing() {
    let sidecar = Sidecar::with(json!({"staleness": {"medium_s": 2, "low_s": 1_000}})).await;
    assert_eq!(sidecar.call("read").send().await.unwrap().status(), 200);
    let refused = async || {
        let answer = sidecar.call("read").send().await.unwrap();
        (answer.status() == 503).then_some(answer)
    };
    let answer: Value = until("a policy that is too old", refused).await.json().await.unwrap();
    assert_eq!(answer["code"], "policy_unavailable");
    assert!(sidecar.metric("oakallow_policy_age_seconds").await >= 2.0);
    // What was stopped stays stopped, however old the policy.
    assert_eq!(sidecar.call("drop").send().await.unwrap().status(), 403);
    // A new bundle confirms it again.
    let bundle = crate::support::policy::OrgBundle::new(6);
    sidecar.backend.publish(6, bundle.signed());
    let served = async || (sidecar.call("read").send().await.unwrap().status() == 200).then_some(());
    until("calls to pass again", served).await;
}
