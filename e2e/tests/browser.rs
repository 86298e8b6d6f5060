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

#[tokio::test]
async fn hands_that_are_not_where_the_eyes_are_decide_nothing() {
    let stack = Stack::start().await;
    let browser = Script::start(
        "hands_in_browser.mjs",
        &[
            ("DASHBOARD", stack.env("OAKALLOW_DASHBOARD")),
            ("BACKEND", stack.env("OAKALLOW_BACKEND")),
            ("AGENT_KEY", stack.env("OAKALLOW_GLOBEX_KEY")),
            ("APPROVER_KEY", stack.env("OAKALLOW_APPROVER_KEY")),
        ],
    );
    let steps = browser.end().await;

    let stray = &steps["stray"];
    assert_eq!(stray["others"], json!(["pending", "pending"]), "typing on decided another call: {stray:#}");
    assert_eq!((&stray["kept"], &stray["selected"]), (&json!("approved by you"), &json!(0)));
    let news =
        format!("Reference {} (restart_service) was approved by", stray["reference"].as_str().unwrap());
    assert!(stray["told"].as_str().unwrap().contains(&news), "{stray:#}");

    let denied = &steps["denied"];
    assert_eq!(denied["wanted"], "Say why: a denial needs a note.");
    assert_eq!((&denied["note"], &denied["gone"]), (&json!("note"), &json!(true)), "{denied:#}");
    assert_eq!(denied["again"], json!({"focused": "no", "status": "pending"}), "`d` only goes to the note");
    assert_eq!(denied["status"], "denied");

    assert_eq!(steps["approved"]["offered"], json!({"focused": "approved", "status": "pending"}));
    assert_eq!(steps["approved"]["status"], "approved");

    let confirmed = &steps["confirmed"];
    assert!(
        confirmed["question"].as_str().unwrap().starts_with("Approve a high-risk call?"),
        "{confirmed:#}"
    );
    assert_eq!((&confirmed["hasty"], &confirmed["back"]), (&json!("pending"), &json!(true)));
    assert_eq!(confirmed["status"], "approved");
    assert_eq!(steps["quiet"]["noise"], json!([]), "the page's own policy blocks nothing of its own");
}

#[tokio::test]
async fn what_is_long_can_be_decided_and_nothing_stays_after_the_session() {
    let stack = Stack::start().await;
    let browser = Script::start(
        "reader_in_browser.mjs",
        &[
            ("DASHBOARD", stack.env("OAKALLOW_DASHBOARD")),
            ("BACKEND", stack.env("OAKALLOW_BACKEND")),
            ("AGENT_KEY", stack.env("OAKALLOW_GLOBEX_KEY")),
            ("APPROVER_KEY", stack.env("OAKALLOW_APPROVER_KEY")),
        ],
    );
    let steps = browser.end().await;
    let read = &steps["read"];
    assert_eq!(read["inView"], true, "the buttons of a long card are out of sight");
    assert_eq!(read["unread"]["step"], false, "it was approved without having been seen: {read}");
    assert!(read["unread"]["said"].as_str().unwrap().contains("Read it to its end"), "{read}");
    assert_eq!(read["readToTheEnd"], true, "{read}");
    assert!(read["size"].as_str().unwrap().ends_with(" kB, 1,000 values"), "{read:#}");
    assert_eq!((&read["broken"], &read["hints"]), (&json!([]), &json!([true, false])), "{read:#}");

    let out = &steps["out"];
    assert_eq!(out["left"]["buttons"], 0, "{out:#}");
    let left = out["left"]["text"].as_str().unwrap();
    assert!(left.contains("oakallow backend login-link") && !left.contains("item 1"), "{left}");
    assert!(out["link"].as_str().unwrap().starts_with("This link was used already"), "{out:#}");
}
