//! An MCP message: no panic; what is read is what another reader finds in it; the tool of a call is
//! `params.name`, byte for byte; nothing that names a tool passes as plumbing.
#![no_main]

use std::time::Duration;

use http::Request;
use libfuzzer_sys::fuzz_target;
use oakallow_proxy::call::era::Era;
use oakallow_proxy::call::mcp::{Arrival, Body, Message, identify, read};
use oakallow_proxy::call::methods::Class;
use oakallow_proxy_fuzz::STAGE;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    for era in [Era::Sessions, Era::Stateless] {
        let Ok(body) = read(bytes, era) else { continue };
        let theirs: Value = serde_json::from_slice(bytes).expect("JSON to us only");
        match body {
            Body::One(message) => look(&message, &theirs, bytes.len()),
            Body::Batch(messages) => {
                let theirs = theirs.as_array().expect("a batch to us only");
                assert_eq!(messages.len(), theirs.len());
                messages.iter().zip(theirs).for_each(|(message, theirs)| look(message, theirs, bytes.len()));
            }
        }
    }
});

fn look(message: &Message, theirs: &Value, bytes: usize) {
    assert_eq!(message.method.as_deref(), theirs.get("method").and_then(Value::as_str));
    assert_eq!(message.id.as_ref(), theirs.get("id").filter(|_| message.id.is_some()));
    let method = message.method.as_deref();
    if matches!(method, Some("tools/call" | "resources/read" | "prompts/get")) {
        assert_ne!(message.class, Class::Pass, "{method:?} would pass undecided");
    }
    let stage = &*STAGE;
    let (parts, ()) = Request::post("/mcp").body(()).expect("a request").into_parts();
    let arrival =
        Arrival { route: &stage.mcp, txn: "txn_1", headers: &parts.headers, bytes, caller: &stage.caller };
    let Ok(call) = identify(&arrival, message, Duration::ZERO, &stage.snapshot) else { return };
    if method != Some("tools/call") {
        assert!(call.names.tool.as_str().starts_with("mcp:"), "{}", call.names.tool);
        return;
    }
    let params = theirs.get("params").expect("a call has params");
    assert_eq!(params.get("name").and_then(Value::as_str), Some(call.names.tool.as_str()));
    let arguments = params.get("arguments").cloned().unwrap_or_else(|| serde_json::json!({}));
    assert_eq!(call.parameters, arguments);
    if call.names.tool.as_str() == "pay" {
        assert_eq!(call.names.resource.as_deref(), arguments.get("to").and_then(Value::as_str));
        assert!(call.names.resource.is_some(), "a rule could be dodged");
    }
}
