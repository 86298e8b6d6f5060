//! A call that is one HTTP request: no panic; the tool is the path's segment, byte for byte; the arguments are
//! what another reader finds in the body, and the resource is the argument that the route names.
//!
//! Input: a path, a line break, a body.
#![no_main]

use http::Request;
use libfuzzer_sys::fuzz_target;
use oakallow_proxy::call::http::identify;
use oakallow_proxy::route::check_path;
use oakallow_proxy_fuzz::STAGE;
use serde_json::{Value, json};

fuzz_target!(|input: &[u8]| {
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else { return };
    let (path, body) = (&input[..end], &input[end + 1..]);
    let Ok(request) = Request::post(path).body(()) else { return };
    let (parts, ()) = request.into_parts();
    // As the proxy does, before it looks for a route.
    if check_path(parts.uri.path()).is_err() || parts.uri.query().is_some() {
        return;
    }
    let stage = &*STAGE;
    let Ok(call) = identify((&stage.http, "txn_1"), &parts, body, &stage.caller, &stage.snapshot) else {
        return;
    };
    assert_eq!(parts.uri.path(), format!("/tools/{}", call.names.tool));
    let theirs: Value =
        if body.is_empty() { json!({}) } else { serde_json::from_slice(body).expect("JSON to us only") };
    assert_eq!(call.parameters, theirs);
    let pointed =
        if call.names.tool.as_str() == "pay" { theirs.get("to").and_then(Value::as_str) } else { None };
    assert_eq!(call.names.resource.as_deref(), pointed);
    assert_eq!(call.names.tool.as_str() == "pay", call.names.resource.is_some(), "a rule could be dodged");
});
