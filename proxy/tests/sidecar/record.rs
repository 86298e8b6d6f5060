//! What of a request stands in the audit log, whether or not a call was identified in it.

use oakallow_policy::audit::{Chained, EventData, EventType, Head};
use oakallow_policy::permit::PermitReason;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::support::policy::{ACME, AGENT};
use crate::support::sidecar::{Sidecar, client};
use crate::support::until;

/// Waits until an event of this type is there.
async fn await_event(sidecar: &Sidecar, kind: EventType) -> Chained {
    let found = async || sidecar.backend.audit().into_iter().find(|e| e.event.kind == kind);
    until(kind.as_str(), found).await
}

/// Waits for the only life of a request, which ends like this; the data of its events.
async fn only_life(sidecar: &Sidecar, kinds: &[EventType]) -> Vec<EventData> {
    let last = *kinds.last().unwrap();
    await_event(sidecar, last).await;
    let named = |kinds: &[EventType]| kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>();
    let lives: Vec<_> = sidecar.backend.lives().iter().map(|life| named(life)).collect();
    assert_eq!(lives, [named(kinds)]);
    let events = sidecar.backend.audit().into_iter().map(|e| e.event);
    events.filter(|e| e.txn.is_some()).map(|e| e.data).collect()
}

#[tokio::test]
async fn the_plumbing_of_mcp_has_an_intent_with_its_reason_and_an_outcome() {
    let sidecar = Sidecar::start().await;
    sidecar.upstream.answers("application/json", r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    assert_eq!(sidecar.rpc(&ping).send().await.unwrap().status(), 200);
    let life = only_life(&sidecar, &[EventType::CallForwarded, EventType::CallCompleted]).await;
    assert_eq!(life[0].permit, Some(PermitReason::Passthrough));
    assert_eq!((life[0].principal.as_deref(), life[0].route.as_deref()), (Some("ada"), Some("mcp")));
    assert_eq!(life[0].detail["message"], "ping");
    assert_eq!((&life[0].tool, &life[0].parameters, &life[0].token_id), (&None, &None, &None));
    assert_eq!(life[1].execution.as_ref().unwrap().status, Some(200));
    assert!(!sidecar.upstream.seen()[0].headers.contains_key(oakallow_policy::token::HEADER));
}

#[tokio::test]
async fn plumbing_that_reaches_nobody_is_not_forwarded() {
    let mut sidecar = Sidecar::start().await;
    let gone = crate::support::upstream::Upstream::start().await;
    drop(std::mem::replace(&mut sidecar.upstream, gone));
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    let said: Value = sidecar.rpc(&ping).send().await.unwrap().json().await.unwrap();
    assert!(said["error"]["message"].as_str().unwrap().contains("upstream_unreachable"), "{said:#}");
    only_life(&sidecar, &[EventType::CallForwarded, EventType::CallNotForwarded]).await;
}

#[tokio::test]
async fn a_known_callers_request_without_a_call_is_recorded_with_the_reason_and_no_parameters() {
    let post = |sidecar: &Sidecar, path: &str, body: &str| {
        let url = format!("http://{}{path}", sidecar.proxy.data);
        client()
            .post(url)
            .header("x-api-key", AGENT)
            .header("content-type", "application/json")
            .body(body.to_owned())
    };
    let unread = r#"{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}"#;
    let unknown = r#"{"jsonrpc":"2.0","id":1,"method":"tools/Call"}"#;
    let batch = r#"[{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read"}}]"#;
    for (path, body, status, code) in [
        ("/nowhere", "{}", 404, "unknown_route"),
        ("/tools/read", "{\"id\":\"1\",\"id\":\"2\"}", 400, "invalid_request"),
        ("/tools/read", "{", 400, "invalid_request"),
        ("/tools/%72ead", "{}", 400, "invalid_request"),
        ("/mcp", unread, 400, "invalid_request"),
        ("/mcp", unknown, 200, "unknown_method"),
        ("/mcp", batch, 200, "batch"),
    ] {
        let sidecar = Sidecar::start().await;
        assert_eq!(post(&sidecar, path, body).send().await.unwrap().status(), status, "{path} {body}");
        let life = only_life(&sidecar, &[EventType::CallRefused]).await;
        assert_eq!((life[0].reason.as_deref(), life[0].principal.as_deref()), (Some(code), Some("ada")));
        assert_eq!((&life[0].parameters, &life[0].tool), (&None, &None));
        assert_eq!(sidecar.metric("oakallow_refusals_total").await, 1.0);
        assert_eq!(sidecar.upstream.count(), 0);
    }
}

#[tokio::test]
async fn a_tenant_that_is_not_the_callers_is_recorded_with_the_caller() {
    let sidecar = Sidecar::start().await;
    let url = format!("http://{}/tools/read", sidecar.proxy.data);
    let call = client().post(url).header("x-api-key", ACME).header("x-tenant-id", "globex");
    assert_eq!(call.send().await.unwrap().status(), 403);
    let life = only_life(&sidecar, &[EventType::CallRefused]).await;
    assert_eq!(life[0].reason.as_deref(), Some("tenant_not_allowed"));
    assert_eq!((life[0].principal.as_deref(), &life[0].tenant), (Some("bob"), &None));
}

#[tokio::test]
async fn a_caller_without_a_valid_key_is_counted_and_not_recorded() {
    let sidecar = Sidecar::start().await;
    let url = format!("http://{}/tools/read", sidecar.proxy.data);
    for key in ["", "oak_agent_guess"] {
        let call = client().post(&url).header("x-api-key", key).body("{}");
        assert_eq!(call.send().await.unwrap().status(), 401);
    }
    assert_eq!(sidecar.metric("oakallow_refusals_total").await, 2.0);
    // What comes later is there, so what came before would be.
    assert_eq!(sidecar.call("read").send().await.unwrap().status(), 200);
    use EventType::{CallCompleted, CallDecided, CallForwarded, CallRequested};
    only_life(&sidecar, &[CallRequested, CallDecided, CallForwarded, CallCompleted]).await;
}

#[tokio::test]
async fn arguments_that_do_not_fit_are_refused_after_the_decision_and_recorded() {
    let sidecar = Sidecar::start().await;
    let call = sidecar.call("read").json(&json!({"id": 42}));
    assert_eq!(call.send().await.unwrap().status(), 422);
    use EventType::{CallDecided, CallRefused, CallRequested};
    let life = only_life(&sidecar, &[CallRequested, CallDecided, CallRefused]).await;
    assert_eq!(life[2].reason.as_deref(), Some("invalid_arguments"));
    assert_eq!(sidecar.upstream.count(), 0);
}

#[tokio::test]
async fn a_disabled_tool_does_not_tell_what_it_expects() {
    let sidecar = Sidecar::start().await;
    let call = sidecar.call("drop").json(&json!({"id": 42}));
    let body: Value = call.send().await.unwrap().json().await.unwrap();
    assert_eq!((&body["code"], body.get("pointer")), (&json!("disabled"), None));
}

#[tokio::test]
async fn the_chain_has_no_gaps() {
    let sidecar = Sidecar::start().await;
    for tool in ["read", "drop", "read"] {
        sidecar.call(tool).send().await.unwrap();
    }
    await_event(&sidecar, EventType::CallRefused).await;
    let mut head = Head::default();
    for event in sidecar.backend.audit() {
        head = event.follow("proxy/prx_test", &head).unwrap();
    }
    assert!(head.seq > 3);
}

#[tokio::test]
async fn an_agent_that_does_not_read_keeps_no_outcome_from_the_record() {
    let sidecar = Sidecar::with(json!({"limits": {"write_timeout_s": 1}})).await;
    let large = "x".repeat(32 * 1024 * 1024);
    sidecar.upstream.answers("application/json", &large);
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(sidecar.proxy.data).await.unwrap();
    let head =
        format!("POST /tools/read HTTP/1.1\r\nHost: a\r\nX-API-Key: {AGENT}\r\nContent-Length: 11\r\n");
    stream
        .write_all(format!("{head}Content-Type: application/json\r\n\r\n{{\"id\":\"42\"}}").as_bytes())
        .await
        .unwrap();
    // The stream stays open, and nobody reads.
    let outcome = until("an outcome", async || {
        sidecar.backend.audit().into_iter().find(|chained| chained.event.kind == EventType::CallCompleted)
    });
    let outcome = outcome.await.event.data.execution.expect("an execution");
    assert_eq!(outcome.response_bytes, Some(large.len() as u64), "the answer was read to its end");
    drop(stream);
}
