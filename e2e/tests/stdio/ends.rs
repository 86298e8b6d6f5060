//! How it ends: the server's end, ours in good order, and ours by kill -9.

use std::collections::HashSet;
use std::time::Duration;

use oakallow_e2e::record::Record;
use oakallow_e2e::stack::Stack;
use oakallow_e2e::stdio::{Wrapper, Wrapping, bare_server, gone, reached};
use oakallow_e2e::wait::{until, until_within};
use oakallow_policy::canonical::unbase64url;
use serde_json::{Value, json};

use crate::{govern_bare, txn};

/// How often it is killed.
const ROUNDS: u64 = 6;
/// Calls that are under way when it is.
const CALLS: u64 = 30;

#[tokio::test]
async fn a_server_that_is_killed_during_a_call_leaves_its_outcome_unknown_once() {
    let stack = Stack::start().await;
    govern_bare(&stack).await;
    let wrapping = Wrapping::new(&stack, "killed-server", json!({})).await;
    let file = wrapping.dir().join("reached");
    let mut wrapper = Wrapper::ready(&wrapping, &bare_server(&file), stack.env("OAKALLOW_ACME_KEY")).await;
    wrapper.call(1, "hang", &json!({}));
    let hangs = async || reached(&file).iter().any(|m| m["params"]["name"] == "hang").then_some(());
    until("the call at the server", hangs).await;
    signal(wrapper.server().await, "KILL");
    let answer = said_to(&wrapper, 1).await;
    assert_eq!(answer["result"]["isError"], true, "{answer:#}");
    assert!(answer["result"]["content"][0]["text"].as_str().unwrap().contains("may have run"), "{answer:#}");
    let status = wrapper.ended().await;
    assert!(!status.success());
    let logged = wrapper.process.logged();
    assert!(logged.contains("the tool server ended by itself: signal: 9"), "{logged}");
    let life = stack.control().await_event(txn(&answer), "call.unknown").await;
    let types: Vec<&Value> = life.iter().map(|event| &event["type"]).collect();
    assert_eq!(types, ["call.requested", "call.decided", "call.forwarded", "call.unknown"]);
}

#[tokio::test]
async fn the_end_of_the_input_and_sigterm_end_both_in_good_order() {
    let stack = Stack::start().await;
    govern_bare(&stack).await;
    let wrapping = Wrapping::new(&stack, "ends", json!({})).await;
    let well = bare_server(&wrapping.dir().join("reached"));
    let deaf = ["sh", "-c", "trap '' TERM; exec sleep 600"].map(str::to_owned).to_vec();
    let (mut stopped, mut shipped) = (0, 0);
    for (server, by_signal) in [(&well, false), (&well, true), (&deaf, false), (&deaf, true)] {
        let key = ("OAKALLOW_API_KEY", stack.env("OAKALLOW_ACME_KEY"));
        let mut wrapper = Wrapper::start(&wrapping, server, &[key]);
        let pids = wrapper.process.until("its start", |all| {
            (all.matches("the tool server is wrapped").count() > stopped).then_some(())
        });
        pids.await;
        let server = wrapper.server().await;
        if by_signal {
            wrapper.process.signal("TERM");
        } else {
            wrapper.close();
        }
        let status = wrapper.ended().await;
        assert!(status.success(), "{status}\n{}", wrapper.process.logged());
        gone(server).await;
        stopped += 1;
        // By this one: no other has started since. The time that it takes for it is bounded.
        let audit = stack.control().audit().await;
        let told = audit.iter().filter(|event| event["type"] == "proxy.stopped").count() == stopped;
        shipped += u32::from(told);
    }
    assert!(shipped > 0, "no end was told to the backend in time");
}

#[tokio::test]
async fn a_call_that_is_held_at_the_end_is_answered_pending() {
    let stack = Stack::start().await;
    govern_bare(&stack).await;
    let wrapping = Wrapping::new(&stack, "held-at-the-end", json!({})).await;
    let file = wrapping.dir().join("reached");
    let mut wrapper = Wrapper::ready(&wrapping, &bare_server(&file), stack.env("OAKALLOW_ACME_KEY")).await;
    wrapper.call(1, "held", &json!({}));
    let _ = stack.control().await_pending("held").await;
    wrapper.process.signal("TERM");
    assert!(wrapper.ended().await.success());
    let answer = said_to(&wrapper, 1).await;
    assert_eq!(answer["result"]["_meta"]["oakallow/decision"]["reason"], "approval_pending", "{answer:#}");
    assert!(calls(&file).is_empty());
}

#[tokio::test]
async fn a_server_that_cannot_be_started_is_told() {
    let stack = Stack::start().await;
    let wrapping = Wrapping::new(&stack, "no-server", json!({})).await;
    let key = ("OAKALLOW_API_KEY", stack.env("OAKALLOW_ACME_KEY"));
    let mut wrapper = Wrapper::start(&wrapping, &["no-such-server".to_owned()], &[key]);
    assert!(!wrapper.ended().await.success());
    let logged = wrapper.process.logged();
    assert!(logged.contains("the tool server `no-such-server` cannot be started"), "{logged}");
}

#[tokio::test]
async fn a_second_one_with_the_same_state_does_not_start() {
    let stack = Stack::start().await;
    let wrapping = Wrapping::new(&stack, "shared", json!({})).await;
    let server = bare_server(&wrapping.dir().join("reached"));
    let key = stack.env("OAKALLOW_ACME_KEY");
    let first = Wrapper::ready(&wrapping, &server, key).await;
    let mut second = Wrapper::start(&wrapping, &server, &[("OAKALLOW_API_KEY", key)]);
    assert!(!second.ended().await.success());
    let logged = second.process.logged();
    assert!(logged.contains("is in use by another proxy: each needs a `state_dir` of its own"), "{logged}");
    drop(first);
}

#[tokio::test]
async fn whatever_reached_the_server_before_kill_9_is_in_the_record() {
    let stack = Stack::start().await;
    govern_bare(&stack).await;
    let wrapping = Wrapping::new(&stack, "kill-9", json!({})).await;
    let file = wrapping.dir().join("reached");
    let server = bare_server(&file);
    let key = stack.env("OAKALLOW_ACME_KEY");
    for round in 0..ROUNDS {
        let mut wrapper = Wrapper::ready(&wrapping, &server, key).await;
        let child = wrapper.server().await;
        // One at least is under way in any case.
        wrapper.call(round * 1_000 + CALLS, "hang", &json!({}));
        let hangs = |m: &Value| m["params"]["name"] == "hang";
        let hanging = usize::try_from(round).unwrap() + 1;
        until("the call that hangs", async || {
            (calls(&file).into_iter().filter(hangs).count() == hanging).then_some(())
        })
        .await;
        let before = calls(&file).len();
        for number in 0..CALLS {
            wrapper.call(round * 1_000 + number, "note", &json!({"number": number}));
        }
        // Somewhere in the midst of them, a little later each time.
        let enough = before + 1 + usize::try_from(round * CALLS / ROUNDS).unwrap();
        until("some of the calls at the server", async || (calls(&file).len() >= enough).then_some(())).await;
        wrapper.process.kill();
        gone(child).await;
    }
    // The next one closes what was open, and ships it all.
    let last = Wrapper::ready(&wrapping, &server, key).await;
    let forwarded: HashSet<String> = calls(&file).iter().map(token_txn).collect();
    assert!(forwarded.len() >= usize::try_from(ROUNDS).unwrap());
    let record = until_within(Duration::from_secs(30), "each call with its outcome", async || {
        let audit = stack.control().audit().await;
        let of = |kind: &str| {
            audit.iter().filter(|e| e["type"] == kind).map(|e| e["txn"].clone()).collect::<HashSet<_>>()
        };
        let intents = of("call.forwarded");
        let all = forwarded.iter().all(|txn| intents.contains(&json!(txn)));
        let record = Record::new(&audit);
        (all && record.open() == 0).then_some(record)
    });
    let record = record.await;
    let _ = record.whole_chains();
    let sum = record.whole_calls();
    assert_eq!(sum.answered + sum.unknown + sum.not_forwarded, sum.forwarded, "{sum:?}");
    assert!(sum.unknown >= usize::try_from(ROUNDS).unwrap(), "{sum:?}");
    drop(last);
}

pub(super) fn calls(file: &std::path::Path) -> Vec<Value> {
    reached(file).into_iter().filter(|m| m["method"] == "tools/call").collect()
}

/// The life of a call, from the token that came with it.
fn token_txn(call: &Value) -> String {
    let token = call["params"]["_meta"]["oakallow/token"].as_str().expect("a token");
    let claims = unbase64url(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    claims["txn"].as_str().unwrap().to_owned()
}

fn signal(process: u32, signal: &str) {
    let sent =
        std::process::Command::new("kill").args([&format!("-{signal}"), &process.to_string()]).status();
    assert!(sent.unwrap().success());
}

/// The answer, from a process that ends behind it.
async fn said_to(wrapper: &Wrapper, id: u64) -> Value {
    let answer = || wrapper.said().into_iter().find(|m| m["id"] == id && m["method"].is_null());
    until("the answer", async || answer()).await
}
