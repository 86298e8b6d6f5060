//! kill -9 of proxy and backend under load: whatever reached a tool is in the record once, with its decision, its intent
//! and its outcome; and what was not allowed did not run.
//!
//! `./check long` goes more rounds: `OAKALLOW_KILL_ROUNDS` says how many.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints what was done"
)]

use std::time::Duration;

use oakallow_e2e::apart::Apart;
use oakallow_e2e::load::{Done, Load};
use oakallow_e2e::proxy::Proxy;
use oakallow_e2e::random::Random;
use oakallow_e2e::record::{Record, Sum};
use oakallow_e2e::wait::until_within;
use serde_json::json;

const SEED: u64 = 20_261_124;

fn rounds(default: usize) -> usize {
    std::env::var("OAKALLOW_KILL_ROUNDS")
        .map_or(default, |rounds| rounds.parse().expect("a number of rounds"))
}

/// Some milliseconds, up to so many.
async fn a_moment(random: &mut Random, most_ms: u64) {
    tokio::time::sleep(random.between(Duration::from_millis(50), Duration::from_millis(most_ms))).await;
}

fn begin(apart: &Apart, proxy: &Proxy) -> Load {
    let [acme, globex] = ["ACME", "GLOBEX"].map(|t| proxy.agent(apart.env(&format!("OAKALLOW_{t}_KEY"))));
    Load::begin(&acme, &globex, &apart.control())
}

/// What the record says once everything has arrived, against what the tools say. A tool runs only with a token that
/// was redeemed for it, and a life has one redemption at most: so each execution is a life of its own. A connection
/// cut between redeeming and running leaves the one alone.
async fn is_whole(mut apart: Apart, proxy: Proxy, done: Done) -> (Sum, usize) {
    let control = apart.control();
    let executed = apart.executions("read_record").await + apart.executions("restart_service").await;
    assert_eq!(apart.executions("drop_database").await, 0);
    // Shipped: every execution and every intent has its outcome at the backend, and nothing more arrives.
    let mut length = 0;
    let record = until_within(Duration::from_secs(60), "the whole spool at the backend", async || {
        let export = control.audit().await;
        let record = Record::new(&export);
        let stable = std::mem::replace(&mut length, export.len()) == export.len();
        let shipped = proxy.metric("oakallow_spool_events").await == Some(0.0);
        (stable && record.open() == 0 && shipped).then_some(record)
    });
    let record = record.await;
    let chains = record.whole_chains();
    let sum = record.whole_calls();
    println!("{done:?}: {sum:?}, {executed} executed, chains {chains:?}");
    assert!(executed <= sum.redeemed && sum.redeemed <= sum.forwarded, "{sum:?}");
    assert_eq!(sum.answered + sum.unknown + sum.not_forwarded, sum.forwarded, "{sum:?}");
    let verified = apart.verified();
    for nothing in ["violations", "open", "unshipped", "missing"] {
        assert_eq!(verified[nothing], json!([]), "{nothing}: {verified:#}");
    }
    (sum, executed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_that_reached_a_tool_is_in_the_record_exactly_once() {
    let apart = Apart::start().await;
    let mut proxy = apart.proxy("killed").await;
    let load = begin(&apart, &proxy);
    let (mut random, rounds) = (Random::new(SEED), rounds(20));
    for _ in 0..rounds {
        a_moment(&mut random, 500).await;
        proxy.kill();
        proxy.restart().await;
    }
    let done = load.end().await;
    let (_, executed) = is_whole(apart, proxy, done).await;
    assert!(done.answered <= executed, "{done:?}");
    assert!(done.answered > rounds && done.approved > 0, "too little load: {done:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_it_is_when_the_backend_is_killed_as_well() {
    let mut apart = Apart::start().await;
    let mut proxy = apart.proxy("killed").await;
    let load = begin(&apart, &proxy);
    let (mut random, rounds) = (Random::new(SEED + 1), rounds(5));
    for _ in 0..rounds {
        a_moment(&mut random, 500).await;
        let proxy_first = random.number() % 2 == 0;
        if proxy_first {
            proxy.kill();
            a_moment(&mut random, 200).await;
        }
        apart.backend.kill();
        if !proxy_first {
            a_moment(&mut random, 200).await;
            proxy.kill();
        }
        // Half of the time the proxy comes back to a backend that is not there.
        if random.number() % 2 == 0 {
            proxy.restart().await;
            a_moment(&mut random, 500).await;
            apart.backend.restart().await;
        } else {
            apart.backend.restart().await;
            proxy.restart().await;
        }
        // A call that waits for a person goes through before the next round.
        let approved = load.approved();
        until_within(Duration::from_secs(60), "an approval", async || {
            (load.approved() > approved).then_some(())
        })
        .await;
    }
    let done = load.end().await;
    let (_, executed) = is_whole(apart, proxy, done).await;
    assert!(done.answered <= executed && done.answered > rounds, "{done:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_comes_and_goes_loses_nothing_doubles_nothing_and_lets_nothing_through() {
    let mut apart = Apart::start().await;
    let proxy = apart.proxy("steady").await;
    let load = begin(&apart, &proxy);
    let (mut random, rounds) = (Random::new(SEED + 2), rounds(10));
    for round in 0..rounds {
        a_moment(&mut random, 1_000).await;
        apart.backend.kill();
        a_moment(&mut random, 1_000).await;
        apart.backend.restart().await;
        if round % 5 == 4 {
            let approved = load.approved();
            until_within(Duration::from_secs(60), "an approval", async || {
                (load.approved() > approved).then_some(())
            })
            .await;
        }
    }
    let done = load.end().await;
    let (sum, executed) = is_whole(apart, proxy, done).await;
    // Nothing but the backend went away, so the agents know exactly what ran.
    assert_eq!((done.unanswered, executed), (0, done.answered), "{done:?}");
    assert_eq!(sum.unknown, 0, "{sum:?}");
    assert!(done.answered > rounds && done.approved > 0, "too little load: {done:?}");
}
