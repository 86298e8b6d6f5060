//! Soak: mixed load for a long time. Memory and descriptors level off, nothing is lost, nothing runs twice.
//!
//! `./check long` runs it; `OAKALLOW_SOAK_S` sets its seconds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "test code")]

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use oakallow_e2e::agent::Agent;
use oakallow_e2e::control::Control;
use oakallow_e2e::proxy::{Proxy, Route};
use oakallow_e2e::record::Record;
use oakallow_e2e::stack::Stack;
use oakallow_e2e::wait::until_within;
use serde_json::json;
use tokio::task::JoinSet;

const CALLERS: usize = 6;
/// Of a caller between two calls: so that the log of a quarter of an hour can be looked at as a whole.
const PAUSE: Duration = Duration::from_millis(40);
/// What the proxy may grow by after the first quarter, when every cache and buffer has been used.
const GROWTH_KIB_MAX: u64 = 32 * 1024;
const GROWTH_DESCRIPTORS_MAX: usize = 64;

fn duration() -> Duration {
    let seconds = std::env::var("OAKALLOW_SOAK_S").map_or(900, |s| s.parse().expect("a number of seconds"));
    Duration::from_secs(seconds)
}

#[derive(Default)]
struct Load {
    stop: AtomicBool,
    ran: AtomicU64,
    refused: AtomicU64,
}

/// Allowed, disabled, malformed and held calls, one after the other.
async fn keep_calling(agent: Agent, globex: Agent, caller: usize, load: Arc<Load>) {
    for number in 0_u64.. {
        if load.stop.load(Ordering::Relaxed) {
            return;
        }
        let service = json!({"service": format!("soak-{caller}-{number}")});
        let (call, expected) = match number % 10 {
            0 => (agent.call("drop_database", &json!({"name": "orders"})), 403),
            1 => (agent.request(reqwest::Method::POST, "/tools/read_record", "{\"id\":"), 400),
            2 if caller == 0 => (globex.call("restart_service", &service), 200),
            3..=5 => (agent.call("restart_service", &service), 200),
            _ => (agent.call("read_record", &json!({"id": "42"})), 200),
        };
        let answer = call.send().await;
        assert_eq!(answer.status, expected, "{answer:#?}");
        let count = if expected == 200 { &load.ran } else { &load.refused };
        count.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(PAUSE).await;
    }
}

/// Approves whatever waits, for as long as it is let live: longer than the callers.
async fn keep_approving(control: Control) {
    loop {
        for pending in control.pending("restart_service").await {
            control.approve(pending["id"].as_str().unwrap()).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What a process holds: resident memory in KiB (`proc_pid_status(5)`), and open descriptors.
#[derive(Debug, Clone, Copy)]
struct Size {
    resident_kib: u64,
    descriptors: usize,
}

fn size_of(process: u32) -> Size {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("a process of ours");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    let resident_kib = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    let descriptors = fs::read_dir(format!("/proc/{process}/fd")).unwrap().count();
    Size { resident_kib, descriptors }
}

/// The largest size seen until `end`, looked at each second.
async fn largest_until(end: Instant, proxy: &Proxy, callers: &mut JoinSet<()>) -> Size {
    let mut largest = size_of(proxy.id());
    while Instant::now() < end {
        tokio::select! {
            ended = callers.join_next() => ended.expect("callers run until told to stop").expect("a caller"),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        let now = size_of(proxy.id());
        largest.resident_kib = largest.resident_kib.max(now.resident_kib);
        largest.descriptors = largest.descriptors.max(now.descriptors);
    }
    largest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs for OAKALLOW_SOAK_S seconds; part of ./check long"]
async fn the_proxy_levels_off_and_loses_nothing() {
    let stack = Stack::start().await;
    let routes = [Route::http("soak", "demo-tools", stack.env("OAKALLOW_TOOLS"))];
    let proxy = stack.another_proxy("soak", &routes).await;
    let load = Arc::new(Load::default());
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let agent = proxy.agent(stack.env("OAKALLOW_ACME_KEY"));
        let globex = proxy.agent(stack.env("OAKALLOW_GLOBEX_KEY"));
        callers.spawn(keep_calling(agent, globex, caller, Arc::clone(&load)));
    }
    let mut approver = JoinSet::new();
    approver.spawn(keep_approving(stack.control()));

    let (begun, whole) = (Instant::now(), duration());
    let early = largest_until(begun + whole / 4, &proxy, &mut callers).await;
    let late = largest_until(begun + whole, &proxy, &mut callers).await;
    load.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = callers.join_next().await {
        ended.expect("a caller");
    }
    assert!(approver.try_join_next().is_none(), "the approver gave up");
    drop(approver);
    let (ran, refused) = (load.ran.load(Ordering::Relaxed), load.refused.load(Ordering::Relaxed));
    println!("soak of {whole:?}: {ran} ran, {refused} refused; first quarter {early:?}, then {late:?}");
    assert!(late.resident_kib < early.resident_kib + GROWTH_KIB_MAX, "memory grows: {early:?} then {late:?}");
    assert!(late.descriptors < early.descriptors + GROWTH_DESCRIPTORS_MAX, "{early:?} then {late:?}");

    let control = stack.control();
    let executed = stack.executions("read_record").await + stack.executions("restart_service").await;
    until_within(Duration::from_secs(120), "an empty spool", async || {
        (proxy.metric("oakallow_spool_events").await == Some(0.0)).then_some(())
    })
    .await;
    let record = Record::new(&control.audit().await);
    let _ = record.whole_chains();
    let sum = record.whole_calls();
    assert_eq!((executed, u64::try_from(sum.answered).unwrap()), (ran, ran), "{sum:?}");
    assert_eq!(sum.unknown + sum.not_forwarded, 0, "{sum:?}");
}
