//! The execution token: nobody else's gets through, stock libraries verify it, and it is good once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "test code")]

use oakallow_e2e::clients::Script;
use oakallow_e2e::proxy::{Proxy, Route};
use oakallow_e2e::raw;
use oakallow_e2e::stack::Stack;
use oakallow_e2e::upstream::Recorder;
use serde_json::{Value, json};

const AUDIENCE: &str = "demo-tools";
const BODY: &str = r#"{"id": "42"}"#;

/// A proxy in front of a tool server that remembers what reached it.
async fn recording(stack: &Stack) -> (Recorder, Proxy) {
    let recorder = Recorder::start().await;
    let routes = [Route::http("recorded", AUDIENCE, &recorder.url)];
    let proxy = stack.another_proxy("recording", &routes).await;
    (recorder, proxy)
}

#[tokio::test]
async fn a_forged_token_is_replaced_by_ours() {
    let stack = Stack::start().await;
    let (recorder, proxy) = recording(&stack).await;
    let call = proxy.agent(stack.env("OAKALLOW_ACME_KEY")).call("read_record", &json!({"id": "42"}));
    let call = call.header("x-oakallow-token", "forged.by.agent").header("X-OAKALLOW-TOKEN", "and.once.more");
    let _ = call.header("x-oakallow-decision", "allowed").send().await.expect(200);
    let seen = recorder.only();
    assert!(!seen.token().contains("forged") && seen.token().split('.').count() == 3, "{seen:#?}");
    assert_eq!(seen.line, "POST /tools/read_record");
}

#[tokio::test]
async fn naming_our_header_in_connection_does_not_remove_it() {
    let stack = Stack::start().await;
    let (recorder, proxy) = recording(&stack).await;
    let key = stack.env("OAKALLOW_ACME_KEY");
    for connection in ["close, X-Oakallow-Token", "X-Oakallow-Token, close", "close,x-oakallow-token"] {
        let request = format!(
            "POST /tools/read_record HTTP/1.1\r\nHost: tools\r\nConnection: {connection}\r\nX-Oakallow-Token: forged\r\n\
             X-API-Key: {key}\r\nContent-Length: {}\r\n\r\n{BODY}",
            BODY.len()
        );
        let before = recorder.seen().len();
        let answer = raw::exchange(&proxy.url, request.as_bytes()).await;
        // Refusing it is as good as ignoring it. Forwarding it without our token is the attack.
        assert!([200, 400].contains(&raw::status(&answer)), "{connection}: {answer}");
        for seen in recorder.seen().into_iter().skip(before) {
            assert_eq!(seen.token().split('.').count(), 3, "{connection}: {seen:#?}");
            assert!(!seen.all("connection").join(",").to_lowercase().contains("oakallow"), "{seen:#?}");
        }
    }
}

#[tokio::test]
async fn the_tool_never_sees_the_agents_key() {
    let stack = Stack::start().await;
    let (recorder, proxy) = recording(&stack).await;
    let key = stack.env("OAKALLOW_ACME_KEY");
    let _ = proxy.agent(key).call("read_record", &json!({"id": "42"})).send().await.expect(200);
    let bearer = proxy.agent("").call("read_record", &json!({"id": "42"}));
    let _ = bearer.header("authorization", &format!("Bearer {key}")).send().await.expect(200);
    let seen = recorder.seen();
    assert_eq!(seen.len(), 2);
    for seen in seen {
        let all = format!("{:?}", seen.headers);
        assert!(!all.contains(key) && !all.contains("oak_"), "{all}");
    }
}

#[tokio::test]
async fn a_token_that_was_used_is_refused_by_the_tool_and_recorded_as_replayed() {
    let stack = Stack::start().await;
    let (recorder, proxy) = recording(&stack).await;
    let call = proxy.agent(stack.env("OAKALLOW_ACME_KEY")).call("read_record", &json!({"id": "42"}));
    let answer = call.send().await.expect(200);
    let token = recorder.only().token();
    let tools = proxy.agent("");
    let verify = json!({"token": token, "tool_name": "read_record"});
    let tool_server =
        oakallow_e2e::agent::Agent::new(stack.env("OAKALLOW_BACKEND"), stack.env("OAKALLOW_TOOL_KEY"));
    let first = tool_server.post("/v1/tokens/verify", &verify).await.expect(200);
    assert_eq!(first.body["valid"], true, "{first:#?}");

    // As an agent would, that got hold of it: straight to the tool server, past the proxy.
    drop(tools);
    let around = oakallow_e2e::agent::Agent::new(stack.env("OAKALLOW_TOOLS"), "");
    let replay =
        around.call("read_record", &json!({"id": "42"})).header("x-oakallow-token", &token).send().await;
    assert_eq!((replay.status, replay.text_of("code")), (403, "token_invalid"), "{replay:#?}");
    let without = around.call("read_record", &json!({"id": "42"})).send().await;
    assert_eq!((without.status, without.text_of("code")), (403, "token_missing"), "{without:#?}");
    let second = tool_server.post("/v1/tokens/verify", &verify).await.expect(200);
    assert_eq!((&second.body["valid"], second.text_of("reason")), (&json!(false), "replayed"));
    let _ = stack.control().await_event(answer.header("x-oakallow-txn"), "token.replayed").await;
    assert_eq!(stack.executions("read_record").await, 0);
}

#[tokio::test]
async fn of_many_redemptions_at_once_one_wins() {
    let stack = Stack::start().await;
    let (recorder, proxy) = recording(&stack).await;
    let call = proxy.agent(stack.env("OAKALLOW_ACME_KEY")).call("read_record", &json!({"id": "42"}));
    let _ = call.send().await.expect(200);
    let verify = json!({"token": recorder.only().token(), "tool_name": "read_record"});
    let tool_server =
        oakallow_e2e::agent::Agent::new(stack.env("OAKALLOW_BACKEND"), stack.env("OAKALLOW_TOOL_KEY"));
    let all = (0..16).map(|_| tool_server.post("/v1/tokens/verify", &verify));
    let answers = futures_util::future::join_all(all).await;
    let valid = answers.iter().filter(|answer| answer.body["valid"] == true).count();
    let replayed = answers.iter().filter(|answer| answer.text_of("reason") == "replayed").count();
    assert_eq!((valid, replayed), (1, 15), "{answers:#?}");
}

/// Captures the token of a call and hands it to a script that verifies it as a tool server would.
async fn verified_by(script: &str) {
    let stack = Stack::start().await;
    let (recorder, proxy) = recording(&stack).await;
    let call = proxy.agent(stack.env("OAKALLOW_ACME_KEY")).request(
        reqwest::Method::POST,
        "/tools/read_record",
        BODY,
    );
    let answer = call.send().await.expect(200);
    let seen = recorder.only();
    assert_eq!(seen.body, BODY, "the original bytes");
    let variables = [
        ("BACKEND", stack.env("OAKALLOW_BACKEND")),
        ("TOOL_KEY", stack.env("OAKALLOW_TOOL_KEY")),
        ("AUDIENCE", AUDIENCE),
        ("TOKEN", &seen.token()),
        ("BODY", BODY),
    ];
    let steps = Script::start(script, &variables).end().await;
    let claims = &steps["verified"]["claims"];
    assert_eq!(claims["txn"], answer.header("x-oakallow-txn"));
    assert_eq!(claims["tool"], "read_record");
    assert_eq!(claims["tenant"], "acme");
    assert_eq!(claims["htm"], "POST");
    assert_eq!(steps["verified"]["body_fits"], true);
    assert_eq!(steps["verified"]["arguments_fit"], true);
    for (what, refused) in steps["refused"].as_object().expect("an object") {
        assert_ne!(refused, "accepted", "{what}");
    }
    assert_eq!(steps["redeemed"]["first"]["valid"], true);
    let second: &Value = &steps["redeemed"]["second"];
    assert_eq!((&second["valid"], &second["reason"]), (&json!(false), &json!("replayed")));
}

#[tokio::test]
async fn python_verifies_a_token_with_a_stock_library() {
    verified_by("verify_token.py").await;
}

#[tokio::test]
async fn node_verifies_a_token_with_a_stock_library() {
    verified_by("verify_token.mjs").await;
}
