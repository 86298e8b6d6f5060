//! What is seen of calls from outside.

use oakallow_e2e::stack::Stack;
use oakallow_e2e::stdio::{Wrapper, Wrapping, bare_server, reached};
use oakallow_e2e::wait::until;
use serde_json::{Value, json};

use crate::govern_bare;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

#[tokio::test]
async fn each_message_leaves_a_line_and_the_server_continues_the_trace() {
    let stack = Stack::start().await;
    govern_bare(&stack).await;
    let log = stack.dir().join("access.log");
    // Nobody collects: that is nobody's problem.
    let more = json!({"access_log": {"to": log}, "tracing": {"otlp_endpoint": "http://127.0.0.1:9"}});
    let wrapping = Wrapping::with(&stack, "observed", &more).await;
    let file = wrapping.dir().join("reached");
    let key = stack.env("OAKALLOW_ACME_KEY");
    let mut wrapper = Wrapper::ready(&wrapping, &bare_server(&file), key).await;
    let meta = json!({"traceparent": format!("00-{TRACE}-00f067aa0ba902b7-01")});
    let params = json!({"name": "show", "arguments": {"text": "s3cret-argument"}, "_meta": meta});
    wrapper.request(&json!(2), "tools/call", &params);
    assert!(wrapper.answer(&json!(2)).await["result"].is_object());
    let calls: Vec<Value> = reached(&file).into_iter().filter(|m| m["method"] == "tools/call").collect();
    let passed_on = calls[0]["params"]["_meta"]["traceparent"].as_str().unwrap();
    assert!(passed_on.starts_with(&format!("00-{TRACE}-")) && !passed_on.contains("00f067aa0ba902b7"));

    let lines = || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    let is_call = |line: &Value| line["mcp_method"] == "tools/call";
    let line = until("the call's line", async || lines().into_iter().find(is_call)).await;
    for (member, value) in [
        ("listener", json!("stdio")),
        ("tenant", json!("acme")),
        ("tool", json!("show")),
        ("decision", json!("allowed")),
        ("permit", json!("rule")),
        ("outcome", json!("success")),
        ("trace_id", json!(TRACE)),
    ] {
        assert_eq!(line[member], value, "{member}: {line:#}");
    }
    // Each is written when its request ends.
    let mut methods: Vec<String> = lines().iter().map(|line| line["mcp_method"].to_string()).collect();
    methods.sort();
    assert_eq!(methods, ["\"initialize\"", "\"notifications/initialized\"", "\"tools/call\""]);
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(!text.contains(key) && !text.contains("s3cret-argument"), "{text}");
}
