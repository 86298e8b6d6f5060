//! MCP through the proxy with the clients that people use: the official Python and TypeScript SDKs, both
//! eras of the protocol, and their reference server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "test code")]

use oakallow_e2e::clients::{Script, Server};
use oakallow_e2e::proxy::{Proxy, Route};
use oakallow_e2e::stack::Stack;
use serde_json::{Value, json};

/// The stateless era of the protocol.
const STATELESS: &str = "2026-07-28";

/// Allowed, disabled, approved by a person, denied by a person: as globex, for whom a restart is held.
async fn the_demo_with(script: &str, era: Option<&str>) {
    let stack = Stack::start().await;
    let control = stack.control();
    let transfer = json!({"from": "operations", "to": "savings", "amount": 3});
    let calls = json!([
        {"step": "allowed", "name": "read_record", "arguments": {"id": "42"}},
        {"step": "disabled", "name": "drop_database", "arguments": {"name": "orders"}},
        {"step": "approved", "name": "restart_service", "arguments": {"service": "server-prod-01"}},
        {"step": "denied", "name": "transfer_funds", "arguments": transfer},
    ]);
    let url = format!("{}/mcp", stack.env("OAKALLOW_PROXY"));
    let (key, calls) = (stack.env("OAKALLOW_GLOBEX_KEY"), calls.to_string());
    let mut variables = vec![("URL", url.as_str()), ("KEY", key), ("CALLS", calls.as_str())];
    variables.extend(era.map(|era| ("ERA", era)));
    let script = Script::start(script, &variables);

    let restart = control.await_pending("restart_service").await;
    assert_eq!(stack.executions("restart_service").await, 0, "held means held");
    control.approve(&restart).await;
    let funds = control.await_pending("transfer_funds").await;
    control.deny(&funds, "not before the audit").await;
    let steps = script.end().await;

    assert_eq!(steps["tools"]["names"], json!(["read_record", "restart_service", "transfer_funds"]));
    let allowed = &steps["allowed"];
    assert_eq!(allowed["isError"], false, "{allowed:#}");
    assert_eq!(allowed["structured"]["token_claims"]["tenant"], "globex", "{allowed:#}");
    refused_with(&steps["disabled"], "disabled");
    let approved = &steps["approved"];
    assert_eq!(approved["isError"], false, "{approved:#}");
    assert_eq!(approved["structured"]["token_claims"]["apr"], restart.as_str(), "{approved:#}");
    refused_with(&steps["denied"], "not before the audit");
    for (tool, times) in
        [("read_record", 1), ("restart_service", 1), ("transfer_funds", 0), ("drop_database", 0)]
    {
        assert_eq!(stack.executions(tool).await, times, "{tool}");
    }
}

/// Delivered as a result that the model can read, with the reason, and not as a broken connection.
fn refused_with(said: &Value, reason: &str) {
    assert_eq!(said["isError"], true, "{said:#}");
    assert!(said["text"].as_str().unwrap_or_default().contains(reason), "{said:#}");
    assert!(said["meta"]["oakallow/decision"].is_object(), "{said:#}");
}

#[tokio::test]
async fn the_python_sdk_in_a_session() {
    the_demo_with("mcp_client.py", None).await;
}

#[tokio::test]
async fn the_python_sdk_without_sessions() {
    the_demo_with("mcp_client.py", Some(STATELESS)).await;
}

#[tokio::test]
async fn the_first_typescript_sdk() {
    the_demo_with("mcp_v1.mjs", None).await;
}

#[tokio::test]
async fn the_second_typescript_sdk_in_a_session() {
    the_demo_with("mcp_v2.mjs", None).await;
}

#[tokio::test]
async fn the_second_typescript_sdk_without_sessions() {
    the_demo_with("mcp_v2.mjs", Some(STATELESS)).await;
}

/// `server-everything` behind a proxy of its own, three of its tools governed in three ways.
async fn everything(stack: &Stack) -> (Server, Proxy) {
    let server = Server::everything().await;
    let control = stack.control();
    for (tool, permission) in [
        ("echo", "allowed"),
        ("toggle-simulated-logging", "allowed"),
        ("get-sum", "requires_approval"),
        ("get-env", "disabled"),
    ] {
        let tool = json!({"name": tool, "audience": "everything", "risk_level": "low", "default_permission": permission});
        control.create("/v1/tools", tool).await;
    }
    let proxy =
        stack.another_proxy("everything", &[Route::mcp("everything", "everything", &server.url)]).await;
    (server, proxy)
}

async fn everything_with(script: &str) {
    let stack = Stack::start().await;
    let control = stack.control();
    let (_server, proxy) = everything(&stack).await;
    let calls = json!([
        {"step": "allowed", "name": "echo", "arguments": {"message": "hello"}},
        {"step": "disabled", "name": "get-env", "arguments": {}},
        {"step": "approved", "name": "get-sum", "arguments": {"a": 2, "b": 3}},
        {"step": "denied", "name": "get-sum", "arguments": {"a": 20, "b": 30}},
        {"step": "logging", "name": "toggle-simulated-logging", "arguments": {}},
    ]);
    let url = format!("{}/mcp", proxy.url);
    let (key, calls) = (stack.env("OAKALLOW_ACME_KEY"), calls.to_string());
    let variables = [("URL", url.as_str()), ("KEY", key), ("CALLS", calls.as_str()), ("NOTIFIED", "1")];
    let script = Script::start(script, &variables);
    let first = control.await_pending("get-sum").await;
    control.approve(&first).await;
    let second = oakallow_e2e::wait::until("the second sum", async || {
        control.pending("get-sum").await.into_iter().find(|approval| approval["id"] != first.as_str())
    });
    let second = second.await;
    control.deny(second["id"].as_str().unwrap(), "too much").await;
    let steps = script.end().await;

    let names = steps["tools"]["names"].as_array().unwrap();
    assert!(names.contains(&json!("echo")) && !names.contains(&json!("get-env")), "{names:?}");
    assert_eq!(steps["allowed"]["text"], "Echo: hello", "{:#}", steps["allowed"]);
    refused_with(&steps["disabled"], "disabled");
    assert!(steps["approved"]["text"].as_str().unwrap().contains('5'), "{:#}", steps["approved"]);
    refused_with(&steps["denied"], "too much");
    assert_eq!(steps["logging"]["isError"], false);
    assert!(steps["notified"]["data"].as_str().unwrap().to_lowercase().contains("message"), "the GET stream");
}

#[tokio::test]
async fn the_python_sdk_with_the_reference_server() {
    everything_with("mcp_client.py").await;
}

#[tokio::test]
async fn the_first_typescript_sdk_with_the_reference_server() {
    everything_with("mcp_v1.mjs").await;
}

#[tokio::test]
async fn the_second_typescript_sdk_with_the_reference_server() {
    everything_with("mcp_v2.mjs").await;
}
