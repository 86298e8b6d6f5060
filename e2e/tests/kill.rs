//! kill -9 of the proxy under load: whatever reached a tool is in the record once, with its decision, its
//! intent and its outcome.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "test code")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use oakallow_e2e::agent::Agent;
use oakallow_e2e::control::Control;
use oakallow_e2e::proxy::Route;
use oakallow_e2e::random::Random;
use oakallow_e2e::record::Record;
use oakallow_e2e::stack::Stack;
use oakallow_e2e::wait::until_within;
use serde_json::json;
use tokio::task::JoinSet;

const CALLERS: usize = 6;
const SEED: u64 = 20_261_124;

fn rounds() -> usize {
    std::env::var("OAKALLOW_KILL_ROUNDS").map_or(20, |rounds| rounds.parse().expect("a number of rounds"))
}

/// Calls one after the other until told to stop; broken connections are what this is about. How many calls
/// were answered 200.
async fn keep_calling(agent: Agent, caller: usize, stop: Arc<AtomicBool>, answered: Arc<AtomicUsize>) {
    let mut number = caller;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let call = match number % 4 {
            // For globex a person approves each of these; see `keep_approving`.
            _ if caller == 0 => agent.call("restart_service", &json!({"service": format!("held-{number}")})),
            0 => agent.call("drop_database", &json!({"name": "orders"})),
            1 => agent.call("restart_service", &json!({"service": format!("server-{caller}")})),
            _ => agent.call("read_record", &json!({"id": "42"})),
        };
        match call.timeout(Duration::from_secs(10)).try_send().await {
            Ok(answer) if answer.status == 200 => _ = answered.fetch_add(1, Ordering::Relaxed),
            Ok(answer) => assert_ne!(answer.status, 500, "{answer:#?}"),
            // Refused until the proxy is back.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Approves whatever waits.
async fn keep_approving(control: Control, stop: Arc<AtomicBool>, approved: Arc<AtomicUsize>) {
    while !stop.load(Ordering::Relaxed) {
        for pending in control.pending("restart_service").await {
            let answer = control.decide(pending["id"].as_str().expect("an id"), "approved", "go ahead").await;
            // 409: it ended meanwhile.
            assert!(matches!(answer.status, 200 | 409), "{answer:#?}");
            approved.fetch_add(usize::from(answer.status == 200), Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_that_reached_a_tool_is_in_the_record_exactly_once() {
    let stack = Stack::start().await;
    let routes = [Route::http("killed", "demo-tools", stack.env("OAKALLOW_TOOLS"))];
    let mut proxy = stack.another_proxy("killed", &routes).await;
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let key = if caller == 0 { "OAKALLOW_GLOBEX_KEY" } else { "OAKALLOW_ACME_KEY" };
        let agent = proxy.agent(stack.env(key));
        callers.spawn(keep_calling(agent, caller, Arc::clone(&stop), Arc::clone(&answered)));
    }
    let approved = Arc::new(AtomicUsize::new(0));
    callers.spawn(keep_approving(stack.control(), Arc::clone(&stop), Arc::clone(&approved)));
    let mut random = Random::new(SEED);
    for _ in 0..rounds() {
        tokio::time::sleep(random.between(Duration::from_millis(100), Duration::from_millis(500))).await;
        proxy.kill();
        proxy.restart().await;
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = callers.join_next().await {
        ended.expect("a caller");
    }

    let control = stack.control();
    let executed = stack.executions("read_record").await + stack.executions("restart_service").await;
    assert_eq!(stack.executions("drop_database").await, 0);
    // Shipped: every execution and every intent has its outcome at the backend, and nothing more arrives.
    let mut length = 0;
    let record = until_within(Duration::from_secs(60), "the whole spool at the backend", async || {
        let export = control.audit().await;
        let record = Record::new(&export);
        let stable = std::mem::replace(&mut length, export.len()) == export.len();
        (stable && record.open() == 0 && proxy.metric("oakallow_spool_events").await == Some(0.0))
            .then_some(record)
    });
    let record = record.await;
    let chains = record.whole_chains();
    let sum = record.whole_calls();
    let answered = answered.load(Ordering::Relaxed);
    println!("{} rounds: {sum:?}, {executed} executed, {answered} answered, chains {chains:?}", rounds());
    // A tool runs only with a token that was redeemed for it, and a life has one redemption at most: so each
    // execution is a life of its own. A connection cut between redeeming and running leaves the one alone.
    let executed = usize::try_from(executed).unwrap();
    assert!(answered <= executed && executed <= sum.redeemed && sum.redeemed <= sum.forwarded, "{sum:?}");
    assert_eq!(sum.answered + sum.unknown + sum.not_forwarded, sum.forwarded, "{sum:?}");
    assert!(answered > rounds(), "too little load: {answered}");
    assert!(approved.load(Ordering::Relaxed) > 0, "no call was held");
}
