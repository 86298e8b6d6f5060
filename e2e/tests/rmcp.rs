//! MCP through the proxy with the official Rust SDK, both eras of the protocol.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "test code")]

use std::collections::HashMap;

use http::{HeaderName, HeaderValue};
use oakallow_e2e::stack::Stack;
use rmcp::model::{CallToolRequestParams, CallToolResult, ProtocolVersion};
use rmcp::service::RunningService;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientLifecycleMode, ClientServiceExt as _, RoleClient};
use serde_json::{Value, json};

type Client = RunningService<RoleClient, ()>;

async fn connect(stack: &Stack, lifecycle: ClientLifecycleMode) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let key = HeaderValue::from_str(stack.env("OAKALLOW_GLOBEX_KEY")).unwrap();
    let url = format!("{}/mcp", stack.env("OAKALLOW_PROXY"));
    let config = StreamableHttpClientTransportConfig::with_uri(url)
        .custom_headers(HashMap::from([(HeaderName::from_static("x-api-key"), key)]));
    let transport = StreamableHttpClientTransport::from_config(config);
    ().serve_with_lifecycle(transport, lifecycle).await.expect("connected")
}

async fn call(client: &Client, tool: &'static str, arguments: Value) -> CallToolResult {
    let arguments = arguments.as_object().cloned().expect("an object");
    client.call_tool(CallToolRequestParams::new(tool).with_arguments(arguments)).await.expect("a result")
}

fn refused_with(result: &CallToolResult, reason: &str) {
    assert_eq!(result.is_error, Some(true), "{result:#?}");
    assert!(serde_json::to_string(&result.content).unwrap().contains(reason), "{result:#?}");
}

async fn the_demo(lifecycle: ClientLifecycleMode) {
    let stack = Stack::start().await;
    let client = connect(&stack, lifecycle).await;
    let mut names: Vec<_> =
        client.list_all_tools().await.unwrap().into_iter().map(|tool| tool.name).collect();
    names.sort();
    assert_eq!(names, ["read_record", "restart_service", "transfer_funds"]);
    let allowed = call(&client, "read_record", json!({"id": "42"})).await;
    let claims = &allowed.structured_content.expect("structured")["token_claims"];
    assert_eq!((&claims["tool"], &claims["tenant"]), (&json!("read_record"), &json!("globex")));
    refused_with(&call(&client, "drop_database", json!({"name": "orders"})).await, "disabled");

    let control = stack.control();
    let approve = async {
        let id = control.await_pending("restart_service").await;
        control.approve(&id).await;
        id
    };
    let restart = call(&client, "restart_service", json!({"service": "server-prod-01"}));
    let (restarted, id) = tokio::join!(restart, approve);
    assert_ne!(restarted.is_error, Some(true), "{restarted:#?}");
    assert_eq!(restarted.structured_content.expect("structured")["token_claims"]["apr"], id.as_str());

    let deny = async {
        let id = control.await_pending("transfer_funds").await;
        control.deny(&id, "not before the audit").await;
    };
    let transfer =
        call(&client, "transfer_funds", json!({"from": "operations", "to": "savings", "amount": 3}));
    let (refused, ()) = tokio::join!(transfer, deny);
    refused_with(&refused, "not before the audit");
    assert_eq!(stack.executions("restart_service").await, 1);
    assert_eq!(stack.executions("transfer_funds").await, 0);
    let _ = client.cancel().await;
}

#[tokio::test]
async fn in_a_session() {
    the_demo(ClientLifecycleMode::Initialize).await;
}

#[tokio::test]
async fn without_sessions() {
    the_demo(ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] }).await;
}
