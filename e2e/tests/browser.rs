//! A person with a browser approves a call that waits.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "test code")]

use oakallow_e2e::clients::Script;
use oakallow_e2e::stack::Stack;
use serde_json::json;

#[tokio::test]
async fn a_held_call_appears_by_itself_and_completes_when_approve_is_pressed() {
    let stack = Stack::start().await;
    let mut browser =
        Script::start("approve_in_browser.mjs", &[("DASHBOARD", stack.env("OAKALLOW_DASHBOARD"))]);
    assert_eq!(browser.step("open").await["cards"], 0);
    let call = stack.globex().call("restart_service", &json!({"service": "server-prod-01"})).spawn();
    let seen = browser.step("seen").await;
    let text = seen["text"].as_str().unwrap();
    for part in ["restart_service", "server-prod-01", "globex"] {
        assert!(text.contains(part), "{part} is not on the card: {text}");
    }
    let answer = call.await.unwrap().expect(200);
    assert_eq!(answer.body["result"]["status"], "restarted");
    let steps = browser.end().await;
    assert!(steps["approved"]["recent"].as_str().unwrap().contains("approver@demo.example"), "{steps:#?}");
    assert_eq!(steps["approved"]["noise"], json!([]), "the page's own policy blocks nothing of its own");
    assert_eq!(stack.executions("restart_service").await, 1);
    // The link is used up. Whoever opens it again gets nowhere with it.
    let again = oakallow_e2e::agent::Agent::new("", "");
    let (url, token) = stack.env("OAKALLOW_DASHBOARD").split_once("?token=").unwrap();
    let form = again.request(reqwest::Method::POST, url, format!("token={token}"));
    let form = form.header("origin", url.trim_end_matches("/login"));
    let refused = form.send().await;
    assert!(refused.status >= 400, "{refused:#?}");
}
