//! The official conformance suite of the MCP project, against our fixture server directly and through the
//! proxy: what it says of the one, check by check, it must say of the other.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "test code")]

use oakallow_e2e::agent::Agent;
use oakallow_e2e::clients::Server;
use oakallow_e2e::conformance::{Checks, checks, difference};
use oakallow_e2e::control::Control;
use oakallow_e2e::proxy::Route;
use oakallow_e2e::stack::Stack;
use serde_json::json;

/// The name under which the fixture's tools are registered.
const AUDIENCE: &str = "fixture";

/// What the suite calls to try tasks: an extension that no stock client speaks, and that the fixture lacks.
const TASK_TOOLS: [&str; 8] = [
    "confirm_delete",
    "failing_job",
    "greet",
    "multi_input",
    "protocol_error_job",
    "rt",
    "slow_compute",
    "test_tool_with_task",
];

/// What is decided besides calls of tools.
const METHODS: [&str; 4] =
    ["mcp:resources/read", "mcp:resources/subscribe", "mcp:resources/unsubscribe", "mcp:prompts/get"];

#[tokio::test]
async fn the_proxy_changes_nothing_in_a_session() {
    the_proxy_changes_nothing(&[("2025-03-26", 3), ("2025-06-18", 56), ("2025-11-25", 84)]).await;
}

#[tokio::test]
async fn the_proxy_changes_nothing_without_sessions() {
    the_proxy_changes_nothing(&[("2026-07-28", 164)]).await;
}

/// Versions, and how many checks of each the fixture passes.
async fn the_proxy_changes_nothing(versions: &[(&str, usize)]) {
    // Two of them: a change that one run announces would be heard in the other.
    let (stack, plain, governed) = tokio::join!(Stack::start(), Server::fixture(), Server::fixture());
    allow_all(&stack.control(), &plain).await;
    let route = Route::mcp("fixture", AUDIENCE, &governed.url);
    let proxy = stack.another_proxy("conformance", &[route]).await;
    let key = stack.env("OAKALLOW_ACME_KEY");
    for &(version, passes) in versions {
        let (direct, proxied) =
            tokio::join!(checks(&plain.url, version, None), checks(&proxy.url, version, Some(key)));
        assert_eq!(failed(&direct), Vec::<String>::new(), "the fixture itself, {version}");
        let passed = direct.values().flatten().filter(|check| check.status == "SUCCESS").count();
        assert_eq!(passed, passes, "the fixture itself, {version}");
        assert_eq!(difference(&direct, &proxied), Vec::<String>::new(), "{version}: direct | proxied");
    }
}

/// Registers what the fixture has, and what it is asked for, as allowed.
async fn allow_all(control: &Control, server: &Server) {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "e2e", "version": "1.0.0"},
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}});
    let request = Agent::new(&server.url, "").request(reqwest::Method::POST, "/mcp", list.to_string());
    let request = request.header("accept", "application/json, text/event-stream");
    let request = request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", "tools/list");
    let listed = request.send().await.expect(200).body;
    let listed = listed["result"]["tools"].as_array().expect("tools").iter();
    let names = listed.map(|tool| tool["name"].as_str().expect("a name"));
    for name in names.chain(METHODS).chain(TASK_TOOLS) {
        let tool =
            json!({"name": name, "audience": AUDIENCE, "risk_level": "low", "default_permission": "allowed"});
        control.create("/v1/tools", tool).await;
    }
}

/// What the fixture fails, tasks apart.
fn failed(checks: &Checks) -> Vec<String> {
    let required = checks.iter().filter(|(scenario, _)| !scenario.starts_with("tasks-"));
    let failed = required.flat_map(|(scenario, checks)| {
        let failed = checks.iter().filter(|check| matches!(check.status.as_str(), "FAILURE" | "WARNING"));
        failed.map(move |check| format!("{scenario}: {check:?}"))
    });
    failed.collect()
}
