//! A call of the stateless era (2026-07-28) that waits for longer than one request may take: with the official
//! clients, which come back by themselves, and over two proxies.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "test code")]

use std::collections::HashMap;

use http::{HeaderName, HeaderValue};
use oakallow_e2e::clients::Script;
use oakallow_e2e::control::Control;
use oakallow_e2e::proxy::{Proxy, Route};
use oakallow_e2e::stack::Stack;
use oakallow_e2e::wait::until;
use rmcp::model::{CallToolRequestParams, ProtocolVersion};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientLifecycleMode, ClientServiceExt as _};
use serde_json::{Value, json};

const SERVICE: &str = "server-prod-01";

async fn impatient(stack: &Stack, name: &str) -> Proxy {
    let route =
        Route::mcp("demo", "demo-tools", &format!("{}/mcp", stack.env("OAKALLOW_TOOLS"))).holding_for(1);
    stack.another_proxy(name, &[route]).await
}

/// Approves the call once it has waited in three requests.
async fn approve_late(control: &Control) -> String {
    let id = control.await_pending("restart_service").await;
    until("a third leg", async || {
        let log = control.audit().await;
        let held = log.iter().filter(|event| event["type"] == "call.held");
        (held.filter(|event| event["data"]["approval"]["id"] == id.as_str()).count() >= 3).then_some(())
    })
    .await;
    control.approve(&id).await;
    id
}

#[tokio::test]
async fn the_rust_sdk_comes_back_until_a_person_has_decided() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let stack = Stack::start().await;
    let proxy = impatient(&stack, "legs").await;
    let key = HeaderValue::from_str(stack.env("OAKALLOW_GLOBEX_KEY")).unwrap();
    let config = StreamableHttpClientTransportConfig::with_uri(format!("{}/mcp", proxy.url))
        .custom_headers(HashMap::from([(HeaderName::from_static("x-api-key"), key)]));
    let lifecycle = ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] };
    let transport = StreamableHttpClientTransport::from_config(config);
    let client = ().serve_with_lifecycle(transport, lifecycle).await.expect("connected");
    let arguments = json!({"service": SERVICE}).as_object().cloned().unwrap();
    let call = client.call_tool(CallToolRequestParams::new("restart_service").with_arguments(arguments));
    let control = stack.control();
    let (result, id) = tokio::join!(call, approve_late(&control));
    let result = result.expect("a result");
    assert_ne!(result.is_error, Some(true), "{result:#?}");
    assert_eq!(result.structured_content.expect("structured")["token_claims"]["apr"], id.as_str());
    assert_eq!(stack.executions("restart_service").await, 1);
}

/// A script with one of the other SDKs: it calls `restart_service`, and says what it got.
async fn comes_back_with(script: &str) {
    let stack = Stack::start().await;
    let proxy = impatient(&stack, "legs").await;
    let url = format!("{}/mcp", proxy.url);
    let calls = json!([{"step": "restarted", "name": "restart_service", "arguments": {"service": SERVICE}}]);
    let (key, calls) = (stack.env("OAKALLOW_GLOBEX_KEY"), calls.to_string());
    let variables = [("URL", url.as_str()), ("KEY", key), ("CALLS", calls.as_str()), ("ERA", "2026-07-28")];
    let client = Script::start(script, &variables);
    let control = stack.control();
    let (steps, _) = tokio::join!(client.end(), approve_late(&control));
    assert_eq!(steps["restarted"]["isError"], false, "{steps:#?}");
    assert_eq!(stack.executions("restart_service").await, 1);
}

#[tokio::test]
async fn the_python_sdk_comes_back_until_a_person_has_decided() {
    comes_back_with("mcp_client.py").await;
}

#[tokio::test]
async fn the_typescript_sdk_comes_back_until_a_person_has_decided() {
    comes_back_with("mcp_v2.mjs").await;
}

/// One leg, as plain HTTP.
async fn leg(proxy: &Proxy, key: &str, state: Option<&Value>) -> Value {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "e2e", "version": "1.0.0"},
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let mut params = json!({"name": "restart_service", "arguments": {"service": SERVICE}, "_meta": meta});
    if let Some(state) = state {
        params["requestState"] = state.clone();
    }
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    let request = proxy.agent(key).request(reqwest::Method::POST, "/mcp", call.to_string());
    let request = request.header("accept", "application/json, text/event-stream");
    let request = request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", "tools/call");
    let text = request.header("mcp-name", "restart_service").send().await.expect(200).text;
    let json = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or(&text);
    serde_json::from_str::<Value>(json).expect("JSON")["result"].take()
}

#[tokio::test]
async fn another_proxy_takes_the_call_up() {
    let stack = Stack::start().await;
    let (one, two) = tokio::join!(impatient(&stack, "one"), impatient(&stack, "two"));
    let key = stack.env("OAKALLOW_GLOBEX_KEY");
    let first = leg(&one, key, None).await;
    assert_eq!(first["resultType"], "input_required", "{first:#}");
    let control = stack.control();
    control.approve(&control.await_pending("restart_service").await).await;
    let second = leg(&two, key, Some(&first["requestState"])).await;
    assert!(second["structuredContent"]["token_claims"]["apr"].is_string(), "{second:#}");
    assert_eq!(stack.executions("restart_service").await, 1);
}
