//! Clients that give a request up after five seconds, as some hosts of agents do: a route whose budget is shorter
//! answers them in time, and what a person then approves runs when the call is repeated, once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "test code")]

use std::time::Duration;

use oakallow_e2e::clients::Script;
use oakallow_e2e::proxy::{Proxy, Route};
use oakallow_e2e::stack::Stack;
use serde_json::{Value, json};

/// After this a client gives up.
const TIMER_S: u64 = 5;
/// What docs/guide/approvals.md says to hold its calls for.
const BUDGET_S: u64 = 3;
const STATELESS: &str = "2026-07-28";

/// A proxy in front of the demo tools that holds calls for so long.
async fn holding_for(stack: &Stack, seconds: u64) -> Proxy {
    let tools = stack.env("OAKALLOW_TOOLS");
    let routes = [
        Route::http("http", "demo-tools", tools).holding_for(seconds),
        Route::mcp("mcp", "demo-tools", &format!("{tools}/mcp")).holding_for(seconds),
    ];
    stack.another_proxy("short", &routes).await
}

/// A script that calls `restart_service`, and again for as long as it hears nothing better.
fn hurried(script: &str, (proxy, key): (&Proxy, &str), era: Option<&str>) -> Script {
    let arguments = json!({"service": "server-prod-01"});
    let calls =
        json!([{"step": "asked", "name": "restart_service", "arguments": arguments, "then": "repeated"}]);
    let (url, calls, timer) = (format!("{}/mcp", proxy.url), calls.to_string(), TIMER_S.to_string());
    let mut variables =
        vec![("URL", url.as_str()), ("KEY", key), ("CALLS", calls.as_str()), ("TIMEOUT_S", timer.as_str())];
    variables.extend(era.map(|era| ("ERA", era)));
    Script::start(script, &variables)
}

/// The tool's answer, for which a person was asked.
fn ran(said: &Value, approval: &str) {
    assert_eq!(said["isError"], false, "{said:#}");
    assert_eq!(said["structured"]["token_claims"]["apr"], approval, "{said:#}");
}

async fn is_answered_in_time(script: &str) {
    let stack = Stack::start().await;
    let (proxy, control) = (holding_for(&stack, BUDGET_S).await, stack.control());
    let mut script = hurried(script, (&proxy, stack.env("OAKALLOW_GLOBEX_KEY")), None);
    // An answer, and not what the SDK says when its timer ends.
    let asked = script.step("asked").await;
    assert!(asked["thrown"].is_null(), "{asked:#}");
    assert_eq!(asked["meta"]["oakallow/decision"]["reason"], "approval_pending", "{asked:#}");
    let text = asked["text"].as_str().unwrap();
    assert!(text.contains("not run yet") && text.contains("repeat the same call"), "{text}");
    assert_eq!(stack.executions("restart_service").await, 0);
    let id = control.await_pending("restart_service").await;
    control.approve(&id).await;
    ran(&script.end().await["repeated"], &id);
    assert_eq!(stack.executions("restart_service").await, 1);
    assert_eq!(control.approval(&id).await["status"], "consumed");
}

#[tokio::test]
async fn the_python_sdk_hears_that_the_call_waits_before_its_timer_ends() {
    is_answered_in_time("mcp_client.py").await;
}

#[tokio::test]
async fn the_first_typescript_sdk_hears_that_the_call_waits_before_its_timer_ends() {
    is_answered_in_time("mcp_v1.mjs").await;
}

#[tokio::test]
async fn the_second_typescript_sdk_hears_that_the_call_waits_before_its_timer_ends() {
    is_answered_in_time("mcp_v2.mjs").await;
}

/// Each time that the client comes back by itself its timer begins anew, so nobody has to repeat anything.
async fn comes_back_in_time(script: &str) {
    let stack = Stack::start().await;
    let (proxy, control) = (holding_for(&stack, BUDGET_S).await, stack.control());
    let key = stack.env("OAKALLOW_GLOBEX_KEY");
    let script = hurried(script, (&proxy, key), Some(STATELESS));
    let id = control.await_pending("restart_service").await;
    oakallow_e2e::wait::until("a third leg, later than the timer", async || {
        let log = control.audit().await;
        let held = log.iter().filter(|event| event["type"] == "call.held");
        (held.filter(|event| event["data"]["approval"]["id"] == id.as_str()).count() >= 3).then_some(())
    })
    .await;
    control.approve(&id).await;
    ran(&script.end().await["asked"], &id);
    assert_eq!(stack.executions("restart_service").await, 1);
}

#[tokio::test]
async fn the_python_sdk_comes_back_before_its_timer_ends() {
    comes_back_in_time("mcp_client.py").await;
}

#[tokio::test]
async fn the_second_typescript_sdk_comes_back_before_its_timer_ends() {
    comes_back_in_time("mcp_v2.mjs").await;
}

#[tokio::test]
async fn with_the_usual_budget_such_a_client_gives_up_and_the_approval_is_not_lost() {
    let stack = Stack::start().await;
    let (proxy, control) = (holding_for(&stack, 50).await, stack.control());
    let mut script = hurried("mcp_v1.mjs", (&proxy, stack.env("OAKALLOW_GLOBEX_KEY")), None);
    let asked = script.step("asked").await;
    assert!(asked["thrown"].as_str().unwrap_or_default().contains("timed out"), "{asked:#}");
    let id = control.await_pending("restart_service").await;
    control.approve(&id).await;
    ran(&script.end().await["repeated"], &id);
    assert_eq!(stack.executions("restart_service").await, 1);
}

#[tokio::test]
async fn over_plain_http_the_call_is_answered_202_in_time_and_runs_when_it_is_repeated() {
    let stack = Stack::start().await;
    let (proxy, control) = (holding_for(&stack, BUDGET_S).await, stack.control());
    let agent = proxy.agent(stack.env("OAKALLOW_GLOBEX_KEY"));
    let arguments = json!({"service": "server-prod-01"});
    let call = || agent.call("restart_service", &arguments).timeout(Duration::from_secs(TIMER_S));
    let pending = call().send().await.expect(202);
    let id = control.await_pending("restart_service").await;
    assert_eq!((pending.text_of("code"), pending.text_of("approval_id")), ("approval_pending", id.as_str()));
    assert!(!pending.header("retry-after").is_empty() && !pending.header("location").is_empty());
    control.approve(&id).await;
    let answer = call().send().await.expect(200);
    assert_eq!(answer.body["token_claims"]["apr"], id.as_str());
    assert_eq!(stack.executions("restart_service").await, 1);
    call().send().await.expect_problem(409, "already_executed");
    assert_eq!(stack.executions("restart_service").await, 1);
}
