//! Spans: whose trace they belong to, what they say, and that a collector that is away is nobody's problem.

use oakallow_policy::wire::ApprovalStatus;
use serde_json::{Value, json};

use crate::support::collector::{Collector, Span};
use crate::support::policy::AGENT;
use crate::support::sidecar::Sidecar;
use crate::support::until;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
const SERVER: i32 = 2;
const CLIENT: i32 = 3;

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{CALLER}-{flags}")
}

async fn traced(collector: &Collector, tracing: Value) -> Sidecar {
    let mut tracing = tracing;
    tracing["otlp_endpoint"] = json!(collector.url);
    Sidecar::with(json!({"tracing": tracing, "hold": {"budget_s": 30}})).await
}

/// The spans of a request, when the one for the whole of it has come.
async fn spans(collector: &Collector, name: &str) -> (Span, Vec<Span>) {
    until(&format!("the span {name}"), async || {
        let all = collector.spans();
        let whole = all.iter().find(|span| span.name == name && span.kind == SERVER)?.clone();
        Some((whole, all))
    })
    .await
}

fn child(all: &[Span], of: &Span, name: &str) -> Span {
    let found = all.iter().find(|s| s.parent == of.id && s.name == name);
    found.unwrap_or_else(|| panic!("no {name} in {all:#?}")).clone()
}

/// The trace context that reached the tool server.
fn passed_on(sidecar: &Sidecar) -> (String, String) {
    let seen = sidecar.upstream.seen();
    let headers = &seen.last().unwrap().headers;
    let field = |name: &str| headers.get(name).map_or("", |v| v.to_str().unwrap()).to_owned();
    (field("traceparent"), field("tracestate"))
}

#[tokio::test]
async fn a_call_continues_its_callers_trace_and_the_tool_server_the_calls() {
    let collector = Collector::start().await;
    let sidecar = traced(&collector, json!({"service_name": "edge"})).await;
    let call = sidecar.call("ask").header("traceparent", parent("01")).header("tracestate", "vendor=1");
    let held = tokio::spawn(call.send());
    until("the hold", async || (sidecar.metric("oakallow_held_calls").await == 1.0).then_some(())).await;
    sidecar.backend.decide(ApprovalStatus::Approved);
    assert_eq!(held.await.unwrap().unwrap().status(), 200);

    let (whole, all) = spans(&collector, "execute_tool ask").await;
    assert_eq!((whole.trace.as_str(), whole.parent.as_str()), (TRACE, CALLER));
    for (key, value) in [
        ("gen_ai.operation.name", "execute_tool"),
        ("gen_ai.tool.name", "ask"),
        ("network.protocol.version", "1.1"),
        ("http.response.status_code", "200"),
        ("oakallow.decision", "requires_approval"),
        ("oakallow.permit", "approval"),
        ("oakallow.outcome", "success"),
        ("oakallow.principal", "ada"),
    ] {
        assert_eq!(whole.attributes.get(key).map(String::as_str), Some(value), "{key}: {whole:#?}");
    }
    let approval = sidecar.backend.approvals().remove(0).id;
    assert_eq!(whole.attributes["oakallow.approval.id"], approval);
    assert!(whole.attributes.contains_key("oakallow.resolved_from"), "{whole:#?}");
    assert_eq!(whole.resource["service.name"], "edge");
    for name in ["decide", "hold", "consume", "intent", "upstream"] {
        let part = child(&all, &whole, name);
        assert_eq!(part.trace, TRACE);
        let (begun, ended) = part.nanoseconds;
        assert!(whole.nanoseconds.0 <= begun && begun <= ended && ended <= whole.nanoseconds.1, "{part:?}");
    }
    let upstream = child(&all, &whole, "upstream");
    assert_eq!(upstream.kind, CLIENT);
    let expected = (format!("00-{TRACE}-{}-01", upstream.id), "vendor=1".to_owned());
    assert_eq!(passed_on(&sidecar), expected);
    let exported = async || (sidecar.metric("oakallow_spans_exported_total").await == 6.0).then_some(());
    until("the count", exported).await;
    assert!(!String::from_utf8_lossy(&collector.raw()).contains(AGENT));
}

#[tokio::test]
async fn an_mcp_call_continues_the_trace_of_its_message() {
    let collector = Collector::start().await;
    let sidecar = traced(&collector, json!({})).await;
    sidecar
        .upstream
        .answers("application/json", r#"{"jsonrpc":"2.0","id":1,"result":{"isError":true,"content":[]}}"#);
    let meta = json!({"traceparent": parent("01")});
    let params = json!({"name": "read", "arguments": {"id": "s3cret-argument"}, "_meta": meta});
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    let elsewhere = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = sidecar.rpc(&message).header("traceparent", elsewhere).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let (whole, all) = spans(&collector, "tools/call read").await;
    assert_eq!((whole.trace.as_str(), whole.parent.as_str()), (TRACE, CALLER));
    for (key, value) in [
        ("mcp.method.name", "tools/call"),
        ("gen_ai.tool.name", "read"),
        ("error.type", "tool_error"),
        ("oakallow.outcome", "failed"),
    ] {
        assert_eq!(whole.attributes.get(key).map(String::as_str), Some(value), "{key}: {whole:#?}");
    }
    let upstream = child(&all, &whole, "upstream");
    assert_eq!(passed_on(&sidecar).0, format!("00-{TRACE}-{}-01", upstream.id));
    assert!(!String::from_utf8_lossy(&collector.raw()).contains("s3cret-argument"));
}

#[tokio::test]
async fn a_later_leg_of_a_call_takes_its_own_place_in_the_trace_to_the_tool_server() {
    let collector = Collector::start().await;
    let more = json!({"tracing": {"otlp_endpoint": collector.url}, "hold": {"budget_s": 0}});
    let sidecar = Sidecar::with(more).await;
    let send = async |state: &Value, parent_id: &str| {
        let mut params = json!({"name": "ask", "arguments": {"id": "42"}, "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "traceparent": format!("00-{TRACE}-{parent_id}-01"),
        }});
        params.as_object_mut().unwrap().extend(state.as_object().unwrap().clone());
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
        let request = sidecar.rpc(&message).header("mcp-protocol-version", "2026-07-28");
        let answer =
            request.header("mcp-method", "tools/call").header("mcp-name", "ask").send().await.unwrap();
        answer.json::<Value>().await.unwrap()
    };
    let first = send(&json!({}), CALLER).await;
    let state = json!({"requestState": first["result"]["requestState"]});
    assert!(state["requestState"].is_string(), "{first:#}");
    sidecar.backend.decide(ApprovalStatus::Approved);
    sidecar.upstream.answers(
        "application/json",
        r#"{"jsonrpc":"2.0","id":1,"result":{"content":[],"resultType":"complete"}}"#,
    );
    assert_eq!(send(&state, "00f067aa0ba902b8").await["result"]["resultType"], "complete");
    let seen = sidecar.upstream.seen();
    let body: Value = serde_json::from_slice(&seen.last().unwrap().body).unwrap();
    let (header, _) = passed_on(&sidecar);
    assert_eq!(body["params"]["_meta"]["traceparent"], header);
    let upstream =
        until("the way", async || collector.spans().into_iter().find(|s| s.name == "upstream")).await;
    assert_eq!(header, format!("00-{TRACE}-{}-01", upstream.id));
    assert_eq!(sidecar.backend.approvals().len(), 1, "one call, whatever trace its legs are in");
}

#[tokio::test]
async fn another_trace_at_each_try_is_the_same_call() {
    let collector = Collector::start().await;
    let sidecar = traced(&collector, json!({})).await;
    for id in ["00f067aa0ba902b7", "00f067aa0ba902b8"] {
        let header = format!("00-{TRACE}-{id}-01");
        let call = sidecar.call("ask").header("traceparent", header).header("prefer", "respond-async");
        assert_eq!(call.send().await.unwrap().status(), 202);
    }
    assert_eq!(sidecar.backend.approvals().len(), 1);
}

#[tokio::test]
async fn what_is_not_sampled_is_not_exported_and_says_so_to_the_tool_server() {
    let collector = Collector::start().await;
    let sidecar = traced(&collector, json!({"sample_ratio": 0})).await;
    assert_eq!(sidecar.call("read").send().await.unwrap().status(), 200);
    let (begun_here, _) = passed_on(&sidecar);
    assert!(begun_here.ends_with("-00"), "{begun_here}");
    let call = sidecar.call("read").header("traceparent", parent("00"));
    assert_eq!(call.send().await.unwrap().status(), 200);
    let (continued, _) = passed_on(&sidecar);
    assert!(continued.starts_with(&format!("00-{TRACE}-")) && continued.ends_with("-00"), "{continued}");
    // A trace that its caller keeps is kept here: when that one is there, the others would be.
    let call = sidecar.call("read").header("traceparent", parent("01"));
    assert_eq!(call.send().await.unwrap().status(), 200);
    let (_, all) = spans(&collector, "execute_tool read").await;
    assert_eq!(all.iter().filter(|span| span.kind == SERVER).count(), 1);
}

#[tokio::test]
async fn a_context_that_stands_twice_or_is_none_begins_a_new_trace() {
    let collector = Collector::start().await;
    let sidecar = traced(&collector, json!({})).await;
    let twice = sidecar.call("read").header("traceparent", parent("01")).header("traceparent", parent("01"));
    assert_eq!(twice.send().await.unwrap().status(), 200);
    assert_eq!(sidecar.upstream.seen().last().unwrap().headers.get_all("traceparent").iter().count(), 1);
    assert!(!passed_on(&sidecar).0.contains(TRACE));
    let none = sidecar.call("read").header("traceparent", "00-zz");
    assert_eq!(none.send().await.unwrap().status(), 200);
    assert!(passed_on(&sidecar).0.ends_with("-01"));
}

#[tokio::test]
async fn a_collector_that_is_away_costs_spans_and_no_call() {
    let sidecar = Sidecar::with(json!({"tracing": {"otlp_endpoint": "http://127.0.0.1:9"}})).await;
    assert_eq!(sidecar.call("read").send().await.unwrap().status(), 200);
    // The whole, its decision, its intent, its way.
    let dropped = async || (sidecar.metric("oakallow_spans_dropped_total").await == 4.0).then_some(());
    until("the loss", dropped).await;
}

#[tokio::test]
async fn without_tracing_a_context_goes_on_as_it_came() {
    let sidecar = Sidecar::start().await;
    let call = sidecar.call("read").header("traceparent", parent("01")).header("tracestate", "vendor=1");
    assert_eq!(call.send().await.unwrap().status(), 200);
    assert_eq!(passed_on(&sidecar), (parent("01"), "vendor=1".to_owned()));
}
