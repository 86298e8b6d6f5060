//! Calls: decided, held, forwarded with a token, answered.

use oakallow_e2e::agent::Agent;
use oakallow_e2e::stack::Stack;
use oakallow_e2e::stdio::{AUDIENCE, Wrapper, Wrapping, bare_server, reached};
use oakallow_e2e::wait::until;
use oakallow_policy::canonical::{hex, sha256};
use serde_json::{Value, json};

use crate::{govern_bare, txn};

#[tokio::test]
async fn a_call_carries_our_token_and_never_the_clients_own() {
    let stack = Stack::start().await;
    govern_bare(&stack).await;
    let control = stack.control();
    let key = json!({"tier": "tool", "name": "files", "audience": AUDIENCE});
    let key = control.create("/v1/keys", key).await;
    let tool = control.management().with_key(key["key"].as_str().unwrap());
    let wrapping = Wrapping::new(&stack, "token", json!({})).await;
    let file = wrapping.dir().join("reached");
    let mut wrapper = Wrapper::ready(&wrapping, &bare_server(&file), stack.env("OAKALLOW_ACME_KEY")).await;
    let meta = json!({"oakallow/token": "forged", "progressToken": 7});
    wrapper.request(&json!(1), "tools/call", &json!({"name": "show", "_meta": meta}));
    let shown = wrapper.answer(&json!(1)).await;
    let seen = &shown["result"]["structuredContent"]["meta"];
    assert_eq!(seen["progressToken"], 7, "{shown:#}");
    let verify = json!({
        "token": seen["oakallow/token"], "tool_name": "show", "tenant_id": "acme", "arguments_sha256": hex(&sha256(b"{}")),
    });
    let verified = tool.post("/v1/tokens/verify", &verify).await.expect(200).body;
    assert_eq!(verified["valid"], true, "{verified:#}");
    let claims = &verified["claims"];
    assert_eq!((&claims["aud"], &claims["bnd"]), (&json!(AUDIENCE), &json!("none")), "{claims:#}");
    let again = tool.post("/v1/tokens/verify", &verify).await.expect(200).body;
    assert_eq!(again["reason"], "replayed");

    // In plumbing there is none at all, and one that only looks alike is refused.
    wrapper.request(&json!(2), "ping", &json!({"_meta": {"oakallow/token": "forged"}}));
    assert_eq!(wrapper.answer(&json!(2)).await["result"], json!({}));
    wrapper.request(&json!(3), "ping", &json!({"_meta": {"Oakallow/Token": "forged"}}));
    assert!(wrapper.answer(&json!(3)).await["error"].is_object());
    let pings: Vec<Value> = reached(&file).into_iter().filter(|m| m["method"] == "ping").collect();
    assert_eq!(pings.len(), 1, "{pings:#?}");
    assert_eq!(pings[0]["params"]["_meta"], json!({}));
}

#[tokio::test]
async fn a_held_call_keeps_no_other_waiting_and_its_progress_only_grows() {
    let stack = Stack::start().await;
    govern_bare(&stack).await;
    let wrapping = Wrapping::new(&stack, "held", json!({})).await;
    let file = wrapping.dir().join("reached");
    let mut wrapper = Wrapper::ready(&wrapping, &bare_server(&file), stack.env("OAKALLOW_ACME_KEY")).await;
    wrapper.request(&json!("held"), "tools/call", &json!({"name": "steps", "_meta": {"progressToken": "p"}}));
    let approval = stack.control().await_pending("steps").await;
    wrapper.call(2, "note", &json!({"number": 2}));
    assert_eq!(wrapper.answer(&json!(2)).await["result"]["structuredContent"]["noted"], 2);
    let waiting = |all: &str| all.contains("waiting for approval").then_some(());
    wrapper.process.until("progress of the held call", waiting).await;
    assert!(!reached(&file).iter().any(|m| m["params"]["name"] == "steps"), "held means held");
    stack.control().approve(&approval).await;
    let done = wrapper.answer(&json!("held")).await;
    assert_eq!(done["result"]["structuredContent"]["done"], true, "{done:#}");
    let progress: Vec<f64> = wrapper
        .said()
        .iter()
        .filter(|m| m["method"] == "notifications/progress")
        .map(|m| m["params"]["progress"].as_f64().unwrap())
        .collect();
    assert!(progress.len() >= 3 && progress.is_sorted_by(|a, b| a < b), "{progress:?}");
}

#[tokio::test]
async fn a_call_that_is_cancelled_while_it_is_held_does_not_run_and_is_not_answered() {
    let stack = Stack::start().await;
    govern_bare(&stack).await;
    let wrapping = Wrapping::new(&stack, "cancelled", json!({})).await;
    let file = wrapping.dir().join("reached");
    let mut wrapper = Wrapper::ready(&wrapping, &bare_server(&file), stack.env("OAKALLOW_ACME_KEY")).await;
    wrapper.call(1, "steps", &json!({}));
    let approval = stack.control().await_pending("steps").await;
    wrapper.say(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}));
    let held = until("the hold in the record", async || {
        let audit = stack.control().audit().await;
        audit.iter().find(|e| e["type"] == "call.held").map(|e| e["txn"].as_str().unwrap().to_owned())
    });
    let held = held.await;
    let life = stack.control().await_event(&held, "call.refused").await;
    assert!(life.iter().all(|event| event["type"] != "call.forwarded"));
    stack.control().approve(&approval).await;
    // The id is free again, and the approval is picked up by the same call.
    wrapper.request(
        &json!(1),
        "tools/call",
        &json!({"name": "steps", "arguments": {}, "_meta": {"progressToken": 1}}),
    );
    let answers = |said: &[Value]| said.iter().filter(|m| m["id"] == 1 && m["method"].is_null()).count();
    assert_eq!(wrapper.answer(&json!(1)).await["result"]["structuredContent"]["done"], true);
    assert_eq!(answers(&wrapper.said()), 1, "what was cancelled is not answered");
    assert!(!reached(&file).iter().any(|m| m["method"] == "notifications/cancelled"));
}

#[tokio::test]
async fn what_is_disabled_is_not_listed_nor_run_and_leaves_a_record() {
    let stack = Stack::start().await;
    govern_bare(&stack).await;
    let wrapping = Wrapping::new(&stack, "disabled", json!({})).await;
    let file = wrapping.dir().join("reached");
    let mut wrapper = Wrapper::ready(&wrapping, &bare_server(&file), stack.env("OAKALLOW_ACME_KEY")).await;
    wrapper.request(&json!(1), "tools/list", &json!({}));
    let list = wrapper.answer(&json!(1)).await;
    let names: Vec<&str> =
        list["result"]["tools"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["show", "note", "hang", "steps", "held"]);
    wrapper.call(2, "hidden", &json!({}));
    let refused = wrapper.answer(&json!(2)).await;
    assert_eq!(refused["result"]["isError"], true, "{refused:#}");
    let life = stack.control().await_event(txn(&refused), "call.refused").await;
    let types: Vec<&Value> = life.iter().map(|event| &event["type"]).collect();
    assert_eq!(types, ["call.requested", "call.decided", "call.refused"]);
    wrapper.request(&json!(3), "resources/read", &json!({"uri": "file:///etc/passwd"}));
    let refused = wrapper.answer(&json!(3)).await;
    assert_eq!(refused["error"]["data"]["reason"], "disabled", "decided as a call: {refused:#}");
    wrapper.request(&json!(4), "tasks/get", &json!({}));
    assert_eq!(wrapper.answer(&json!(4)).await["error"]["code"], -32_601);
    let methods: Vec<Value> = reached(&file).iter().map(|m| m["method"].clone()).collect();
    assert_eq!(methods, ["initialize", "notifications/initialized", "tools/list"]);
}

#[tokio::test]
async fn a_call_that_nobody_decides_on_is_answered_pending_and_picked_up_later() {
    let stack = Stack::start().await;
    govern_bare(&stack).await;
    let wrapping = Wrapping::new(&stack, "pending", json!({"hold": {"budget_s": 1}})).await;
    let file = wrapping.dir().join("reached");
    let mut wrapper = Wrapper::ready(&wrapping, &bare_server(&file), stack.env("OAKALLOW_ACME_KEY")).await;
    let held = json!({"name": "held", "arguments": {"password": "hunter2-hunter2"}});
    wrapper.request(&json!(1), "tools/call", &held);
    let pending = wrapper.answer(&json!(1)).await;
    assert_eq!(pending["result"]["isError"], true, "{pending:#}");
    let decision = &pending["result"]["_meta"]["oakallow/decision"];
    assert_eq!((&decision["reason"], &decision["status"]), (&json!("approval_pending"), &json!("pending")));
    stack.control().approve(decision["approval_id"].as_str().unwrap()).await;
    wrapper.request(&json!(2), "tools/call", &held);
    let ran = wrapper.answer(&json!(2)).await;
    assert_eq!(ran["result"]["structuredContent"]["held"], true, "{ran:#}");
    // The tool got the argument, the record did not.
    assert_eq!(reached(&file).last().unwrap()["params"]["arguments"]["password"], "hunter2-hunter2");
    let life = stack.control().await_event(txn(&pending), "call.refused").await;
    assert!(!json!(life).to_string().contains("hunter2"), "{life:#?}");
}

#[tokio::test]
async fn a_message_of_the_stateless_era_is_answered_in_its_words() {
    let stack = Stack::start().await;
    govern_bare(&stack).await;
    let wrapping = Wrapping::new(&stack, "stateless", json!({})).await;
    let server = bare_server(&wrapping.dir().join("reached"));
    let mut wrapper = Wrapper::ready(&wrapping, &server, stack.env("OAKALLOW_ACME_KEY")).await;
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
    wrapper.request(&json!(1), "tools/call", &json!({"name": "hidden", "_meta": meta}));
    assert_eq!(wrapper.answer(&json!(1)).await["result"]["resultType"], "complete");
    wrapper.request(&json!(2), "resources/subscribe", &json!({"uri": "a://b", "_meta": meta}));
    assert_eq!(wrapper.answer(&json!(2)).await["error"]["code"], -32_601, "it has left the protocol");
    wrapper.say(&json!([{"jsonrpc": "2.0", "id": 3, "method": "ping", "params": {"_meta": meta}}]));
    let refused = wrapper.process.until("an error for the batch", |all| {
        all.lines()
            .any(|line| line.starts_with('[') && line.contains("send calls one at a time"))
            .then_some(())
    });
    refused.await;
}

#[tokio::test]
async fn a_call_that_the_server_has_is_cancelled_there() {
    let stack = Stack::start().await;
    govern_bare(&stack).await;
    let wrapping = Wrapping::new(&stack, "given-up", json!({})).await;
    let file = wrapping.dir().join("reached");
    let mut wrapper = Wrapper::ready(&wrapping, &bare_server(&file), stack.env("OAKALLOW_ACME_KEY")).await;
    wrapper.call(1, "hang", &json!({}));
    let has = async |what: &str| reached(&file).iter().any(|m| m.to_string().contains(what)).then_some(());
    until("the call at the server", async || has("hang").await).await;
    wrapper.say(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}));
    until("the end of it at the server", async || has("notifications/cancelled").await).await;
}

#[tokio::test]
async fn metrics_are_where_the_configuration_says() {
    let stack = Stack::start().await;
    govern_bare(&stack).await;
    let listen = json!({"ops": "127.0.0.1:0"});
    let wrapping = Wrapping::listening(&stack, "measured", json!({}), listen).await;
    let server = bare_server(&wrapping.dir().join("reached"));
    let mut wrapper = Wrapper::ready(&wrapping, &server, stack.env("OAKALLOW_ACME_KEY")).await;
    wrapper.call(1, "note", &json!({"number": 1}));
    wrapper.call(2, "hidden", &json!({}));
    for id in [1, 2] {
        let _ = wrapper.answer(&json!(id)).await;
    }
    let address = wrapper.process.until("the ops listener", |all| {
        let line = all.lines().find(|line| line.contains("the ops listener is ready"))?;
        line.split("address=").nth(1)?.split_whitespace().next().map(str::to_owned)
    });
    let ops = Agent::new(&format!("http://{}", address.await), "");
    let outcomes = async || {
        let text = ops.get("/metrics").await.expect(200).text;
        let has = |start: &str, value: &str| text.lines().any(|l| l.starts_with(start) && l.contains(value));
        let ran = has(
            "oakallow_upstream_outcomes_total",
            "permit=\"rule\",result=\"success\",route=\"measured\"} 1",
        );
        let refused = has("oakallow_refusals_total", "reason=\"disabled\"} 1");
        (ran && refused).then_some(())
    };
    until("both calls in the metrics", outcomes).await;
}

#[tokio::test]
async fn without_a_place_for_the_record_nothing_is_forwarded() {
    let stack = Stack::start().await;
    govern_bare(&stack).await;
    let wrapping = Wrapping::new(&stack, "unrecorded", json!({})).await;
    let file = wrapping.dir().join("reached");
    let mut wrapper = Wrapper::ready(&wrapping, &bare_server(&file), stack.env("OAKALLOW_ACME_KEY")).await;
    until("the handshake at the server", async || (reached(&file).len() == 2).then_some(())).await;
    std::fs::remove_dir_all(wrapping.dir().join("state/spool")).unwrap();
    wrapper.call(1, "note", &json!({"number": 1}));
    wrapper.request(&json!(2), "ping", &json!({}));
    wrapper.request(&json!(3), "tools/list", &json!({}));
    for id in 1..=3 {
        let refused = wrapper.answer(&json!(id)).await;
        let reason = &refused["error"]["data"]["reason"];
        assert_eq!(reason, "audit_unavailable", "{refused:#}");
    }
    assert_eq!(reached(&file).len(), 2);
}

#[tokio::test]
async fn a_tool_that_is_described_otherwise_is_not_trusted_any_more() {
    let stack = Stack::start().await;
    govern_bare(&stack).await;
    let control = stack.control();
    let wrapping = Wrapping::new(&stack, "pinned", json!({})).await;
    let server = bare_server(&wrapping.dir().join("reached"));
    let mut wrapper = Wrapper::ready(&wrapping, &server, stack.env("OAKALLOW_ACME_KEY")).await;
    wrapper.request(&json!(1), "tools/list", &json!({}));
    let pinned = async || control.management().get("/v1/tools/note/definition").await.status == 200;
    until("the pin", async || pinned().await.then_some(())).await;
    wrapper.call(2, "note", &json!({"number": 2}));
    assert_eq!(wrapper.answer(&json!(2)).await["result"]["structuredContent"]["noted"], 2);
    wrapper.call(3, "show", &json!({"describe": "Better not."}));
    let _ = wrapper.answer(&json!(3)).await;
    wrapper.request(&json!(4), "tools/list", &json!({}));
    let _ = wrapper.answer(&json!(4)).await;
    wrapper.call(5, "note", &json!({"number": 5}));
    let approval = control.await_pending("note").await;
    control.deny(&approval, "what is this now").await;
    let denied = wrapper.answer(&json!(5)).await;
    assert!(
        denied["result"]["content"][0]["text"].as_str().unwrap().contains("what is this now"),
        "{denied:#}"
    );
}

#[tokio::test]
async fn a_cancel_right_behind_its_call_does_not_miss_it() {
    let stack = Stack::start().await;
    govern_bare(&stack).await;
    let wrapping = Wrapping::new(&stack, "overtaken", json!({})).await;
    let file = wrapping.dir().join("reached");
    let mut wrapper = Wrapper::ready(&wrapping, &bare_server(&file), stack.env("OAKALLOW_ACME_KEY")).await;
    for id in 1..=20 {
        wrapper.call(id, "steps", &json!({}));
        wrapper.say(
            &json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}}),
        );
    }
    // Long before the end of what a call may be held for.
    until("the end of all holds", async || {
        let log = stack.control().audit().await;
        let ended = log.iter().filter(|e| e["type"] == "call.refused" && e["data"]["tool"] == "steps");
        (ended.count() == 20).then_some(())
    })
    .await;
    assert!(super::ends::calls(&file).is_empty());
}
