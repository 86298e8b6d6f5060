//! Many calls of many agents that wait at one time, with the real backend on SQLite: a script approves them all
//! through the API, and each runs once, as its token's redemption proves.
//!
//! `./check holds` runs the large one, as a release build, and prints what it measured.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints what it measured"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use oakallow_e2e::control::Control;
use oakallow_e2e::proxy::{Proxy, Route};
use oakallow_e2e::raw;
use oakallow_e2e::record::Record;
use oakallow_e2e::stack::Stack;
use oakallow_e2e::wait::until_within;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Approvals of one principal that the backend lets be open at one time: more calls take more agents.
const CALLS_PER_AGENT: usize = 20;
/// Calls that are sent at one time.
const CALLERS: usize = 100;
/// For them to be held, on a slow, busy machine.
const ARRIVAL_MAX: Duration = Duration::from_secs(60);
/// What the script that approves has under way.
const DECISIONS: usize = 16;
/// Longer than all of it takes, so that no call is answered "pending".
const BUDGET_S: u64 = 1800;
const WHOLE: Duration = Duration::from_secs(BUDGET_S);

/// Agents of globex, whose restarts a person decides about; their keys.
async fn agents(control: &Control, count: usize) -> Vec<String> {
    let mut keys = Vec::with_capacity(count);
    for number in 0..count {
        let agent = json!({"id": format!("holder-{number}"), "owner": "robin@demo.example", "tenancy": "one", "tenants": ["globex"]});
        let made = control.create("/v1/agents", agent).await;
        keys.push(made["key"]["key"].as_str().unwrap().to_owned());
    }
    keys
}

/// Sends so many different calls, each over a connection of its own, on which its answer is then awaited. So many at a
/// time: what the backend does not get to within ten seconds is answered 503 and would have to be repeated.
async fn hold(proxy: &Proxy, keys: &[String], calls: usize) -> Vec<TcpStream> {
    let mut open = Vec::with_capacity(calls);
    let numbers: Vec<usize> = (0..calls).collect();
    for some in numbers.chunks(CALLERS) {
        let some = some.iter().map(|number| begin(proxy, &keys[number / CALLS_PER_AGENT], *number));
        open.extend(some.collect::<JoinSet<_>>().join_all().await);
        let all = Some(open.len() as f64);
        let held = async || (proxy.metric("oakallow_held_calls").await == all).then_some(());
        until_within(ARRIVAL_MAX, "the calls held", held).await;
    }
    open
}

/// Sends a call like no other.
fn begin(proxy: &Proxy, key: &str, number: usize) -> impl Future<Output = TcpStream> + Send + use<> {
    let body = json!({"service": format!("server-{number}")}).to_string();
    let request = format!(
        "POST /tools/restart_service HTTP/1.1\r\nHost: tools\r\nX-API-Key: {key}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let base = proxy.url.clone();
    async move { raw::begin(&base, request.as_bytes()).await }
}

/// When its answer came, which is the tool's.
async fn answered(mut stream: TcpStream) -> Instant {
    let mut head = [0; 12];
    let _ = stream.read_exact(&mut head).await.expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 200");
    Instant::now()
}

/// Ids of all pending approvals, page by page.
async fn all_pending(control: &Control) -> Vec<String> {
    let (mut ids, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = control
            .approver()
            .get(&format!("/v1/approvals?status=pending&limit=100{cursor}"))
            .await
            .expect(200);
        let data = page.body["data"].as_array().unwrap();
        ids.extend(data.iter().map(|approval| approval["id"].as_str().unwrap().to_owned()));
        let Some(next) = page.body["next_cursor"].as_str() else { return ids };
        cursor = format!("&cursor={next}");
    }
}

/// Approves them as a script would, some at a time.
async fn approve(control: &Control, ids: Vec<String>) {
    let (turns, mut decisions) = (Arc::new(Semaphore::new(DECISIONS)), JoinSet::new());
    for id in ids {
        let turn = turns.clone().acquire_owned().await.unwrap();
        let control = control.clone();
        decisions.spawn(async move {
            control.approve(&id).await;
            drop(turn);
        });
    }
    decisions.join_all().await;
}

async fn each_runs_once(calls: usize) {
    let stack = Stack::start().await;
    let control = stack.control();
    let keys = agents(&control, calls.div_ceil(CALLS_PER_AGENT)).await;
    let routes = [Route::http("holds", "demo-tools", stack.env("OAKALLOW_TOOLS")).holding_for(BUDGET_S)];
    let limits = json!({"limits": {"holds_max": 20_000}});
    let dir = stack.dir().join("holds");
    let proxy = Proxy::configured("holds", &dir, &control, (&routes, limits)).await;

    let begun = Instant::now();
    let open = hold(&proxy, &keys, calls).await;
    let arrived = begun.elapsed();
    let ids = all_pending(&control).await;
    assert_eq!(ids.len(), calls, "each call waits for an approval of its own");
    assert_eq!(stack.executions("restart_service").await, 0, "held means held");
    let mut waiting: JoinSet<Instant> = open.into_iter().map(answered).collect();
    let first = Instant::now();
    let approved = async {
        approve(&control, ids).await;
        Instant::now()
    };
    let answers = async {
        let mut times = Vec::with_capacity(calls);
        while let Some(time) = waiting.join_next().await {
            times.push(time.unwrap());
        }
        times.into_iter().max().unwrap()
    };
    let (approved, last) = tokio::join!(approved, answers);
    println!(
        "{calls} held with the backend on SQLite: arrived in {arrived:.1?}; all approved in {:.1?}; the last answer \
         {:.1?} after the first approval, {:.2?} after the last",
        approved - first,
        last - first,
        last.saturating_duration_since(approved),
    );
    let ran = u64::try_from(calls).unwrap();
    assert_eq!(stack.executions("restart_service").await, ran, "each ran once");
    record_is_whole(&proxy, &control, calls).await;
}

/// What the auditor reads of it: each was consumed, sent and answered once.
async fn record_is_whole(proxy: &Proxy, control: &Control, calls: usize) {
    let shipped = async || (proxy.metric("oakallow_spool_events").await == Some(0.0)).then_some(());
    until_within(WHOLE, "an empty spool", shipped).await;
    let events = control.audit().await;
    let consumed = |event: &&Value| event["type"] == "approval.consumed";
    assert_eq!(events.iter().filter(consumed).count(), calls);
    let record = Record::new(&events);
    let _ = record.whole_chains();
    let sum = record.whole_calls();
    assert_eq!((sum.forwarded, sum.answered, sum.redeemed), (calls, calls, calls), "{sum:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_held_calls_run_once_each_when_a_script_approves_them() {
    each_runs_once(300).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "10,000 connections; part of ./check holds"]
async fn ten_thousand_held_calls_run_once_each_when_a_script_approves_them() {
    each_runs_once(10_000).await;
}
