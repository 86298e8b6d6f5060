//! Many calls held at one time by a proxy in a process of its own: what each costs in memory, and how soon they
//! run once they are approved. The backend is the scripted one, which is quicker than a person and than a database.
//!
//! `./check holds` runs the large ones, as a release build, and prints what it measured.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::backend::Backend;
use crate::support::policy::{AGENT, OrgBundle};
use crate::support::process::Process;
use crate::support::sidecar::config_text;
use crate::support::slow::Slow;
use crate::support::until_within;

/// Of resident memory, for each call that waits: its connection, its body, its place.
/// (A debug build's futures are twice as large.)
const BYTES_PER_HOLD_MAX: usize = if cfg!(debug_assertions) { 128 * 1024 } else { 64 * 1024 };
/// From a person's yes to the tool's answer. (A debug build beside other tests is no measure.)
const RELEASE_MAX: Duration = Duration::from_secs(if cfg!(debug_assertions) { 30 } else { 5 });
/// Calls that are held before memory is looked at.
const WARM_UP: usize = 250;
/// Approvals of which each one's time is taken.
const ONE_BY_ONE: usize = 200;
/// Calls that wait while nothing else happens, and for how long that is looked at.
const QUIET_HOLDS: usize = 400;
const QUIET: Duration = Duration::from_secs(3);
/// For a tool.
const TOOL_TIME: Duration = Duration::from_millis(2);
/// For many calls to arrive, on a slow, busy machine.
const ARRIVAL_MAX: Duration = Duration::from_secs(240);
/// Connections that are opened at one time: fewer than wait in the listener's queue.
const CALLERS: usize = 64;

struct Many {
    backend: Backend,
    tool: Slow,
    proxy: Process,
    _dir: tempfile::TempDir,
}

impl Many {
    async fn start(releases_max: usize) -> Self {
        let (backend, tool) = (Backend::start(OrgBundle::new(5).signed()), Slow::taking(TOOL_TIME).await);
        let dir = tempfile::tempdir().unwrap();
        let limits =
            json!({"holds_per_principal_max": 20_000, "holds_max": 20_000, "releases_max": releases_max});
        let more = json!({"limits": limits, "hold": {"budget_s": 600}});
        let file = dir.path().join("proxy.yaml");
        std::fs::write(&file, config_text(dir.path(), &backend.url, &tool.url, &more)).unwrap();
        Self { backend, tool, proxy: Process::start_logging(&file, "warn,oakallow_proxy=info"), _dir: dir }
    }

    /// Sends so many different calls; the connections over which they wait, in the order of their approvals.
    async fn hold(&self, calls: usize) -> Vec<TcpStream> {
        let (to, mut callers) = (self.proxy.data.clone(), JoinSet::new());
        let known = self.backend.approvals().len();
        let mut open = Vec::with_capacity(calls);
        for number in 0..calls {
            if callers.len() == CALLERS {
                open.push(callers.join_next().await.unwrap().unwrap());
            }
            callers.spawn(send(to.clone(), known + number));
        }
        open.extend(callers.join_all().await);
        let all = (known + calls) as f64;
        let held = async || (self.proxy.metric("oakallow_held_calls").await == all).then_some(());
        until_within(ARRIVAL_MAX, "all calls held", held).await;
        open.sort_unstable_by_key(|(number, _)| *number);
        open.into_iter().map(|(_, stream)| stream).collect()
    }

    /// Sends one, whose approval is the next one: in this order they are approved.
    async fn hold_next(&self, number: usize) -> TcpStream {
        let (_, stream) = send(self.proxy.data.clone(), number).await;
        let asked = async || (self.backend.approvals().len() == number + 1).then_some(());
        until_within(ARRIVAL_MAX, "the next call", asked).await;
        stream
    }
}

/// Sends a call like no other.
async fn send(to: String, number: usize) -> (usize, TcpStream) {
    let mut stream = TcpStream::connect(&to).await.expect("it listens");
    let body = json!({"id": number.to_string(), "pad": "x".repeat(400)}).to_string();
    let head = format!(
        "POST /tools/ask HTTP/1.1\r\nHost: a\r\nX-API-Key: {AGENT}\r\nContent-Type: application/json\r\n"
    );
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.expect("it reads");
    (number, stream)
}

/// The status of the answer, and when it came.
async fn answered(mut stream: TcpStream) -> (String, Instant) {
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.expect("an answer");
    (String::from_utf8_lossy(&head).into_owned(), Instant::now())
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

async fn all_run_soon(calls: usize, releases_max: usize) {
    let many = Many::start(releases_max).await;
    // What the first calls cost is not what one more costs: buffers of the spool, connections to the backend.
    let mut open = many.hold(WARM_UP).await;
    let before = many.proxy.resident_bytes();
    let begun = Instant::now();
    open.extend(many.hold(calls).await);
    let arrived = begun.elapsed();
    let held = many.proxy.resident_bytes();
    let each = held.saturating_sub(before) / calls;
    let mut waiting: JoinSet<_> = open.into_iter().map(answered).collect();
    let approved = Instant::now();
    many.backend.approve_all();
    let mut times = Vec::with_capacity(calls);
    while let Some(answer) = waiting.join_next().await {
        let (status, at) = answer.expect("an answer");
        assert_eq!(status, "HTTP/1.1 200");
        times.push(at - approved);
    }
    let (half, most, last) =
        (percentile(&mut times, 50), percentile(&mut times, 99), percentile(&mut times, 100));
    let mib = |bytes: usize| bytes / 1024 / 1024;
    println!(
        "{calls} held: arrived in {arrived:?}; {} MiB before, {} MiB held, {} KiB each; answered after {half:?} (p50), \
         {most:?} (p99), {last:?} (the last); {} at the tool at most; {} MiB afterwards",
        mib(before),
        mib(held),
        each / 1024,
        many.tool.most(),
        mib(many.proxy.resident_bytes()),
    );
    assert!(each <= BYTES_PER_HOLD_MAX, "{each} bytes for each held call");
    assert!(last <= RELEASE_MAX, "the last call ran {last:?} after its approval");
    assert!(many.tool.most() <= releases_max, "{} calls at the tool at one time", many.tool.most());
    let all = calls + WARM_UP;
    assert_eq!((many.tool.all(), many.backend.consumers().len()), (all, all), "each ran once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_held_calls_run_soon_after_they_are_approved_and_not_all_at_once() {
    all_run_soon(500, 32).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "10,000 connections; part of ./check holds"]
async fn ten_thousand_held_calls_run_soon_after_they_are_approved_and_not_all_at_once() {
    all_run_soon(10_000, 512).await;
}

/// How often the proxy wakes in a while in which nothing happens.
async fn wakes(many: &Many) -> usize {
    let shipped = async || (many.proxy.metric("oakallow_spool_events").await == 0.0).then_some(());
    until_within(ARRIVAL_MAX, "an empty spool", shipped).await;
    let before = many.proxy.sleeps();
    tokio::time::sleep(QUIET).await;
    many.proxy.sleeps() - before
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_wait_wake_nobody_until_they_are_approved() {
    let many = Many::start(32).await;
    // The first starts whatever there is one of.
    let mut open = many.hold(1).await;
    let one = wakes(&many).await;
    open.extend(many.hold(QUIET_HOLDS).await);
    let all = wakes(&many).await;
    // Something that looks after each of them would wake for each.
    assert!(all < one + QUIET_HOLDS / 4, "{one} times with one call held, {all} with {QUIET_HOLDS} more");
    let mut waiting: JoinSet<_> = open.into_iter().map(answered).collect();
    many.backend.approve_all();
    while let Some(answer) = waiting.join_next().await {
        assert_eq!(answer.expect("an answer").0, "HTTP/1.1 200");
    }
}

/// Approves one call after the other while so many wait; how long each took to its answer.
async fn released_one_by_one(held: usize) {
    let many = Many::start(512).await;
    let mut open = std::collections::VecDeque::new();
    for number in 0..held {
        open.push_back(many.hold_next(number).await);
    }
    let mut times = Vec::with_capacity(ONE_BY_ONE);
    for number in 0..ONE_BY_ONE {
        let stream = open.pop_front().expect("one waits");
        let approved = Instant::now();
        many.backend.approve(number);
        let (status, at) = answered(stream).await;
        assert_eq!(status, "HTTP/1.1 200");
        times.push(at - approved);
        // As many wait for the next one.
        open.push_back(many.hold_next(held + number).await);
        let held = async || (many.proxy.metric("oakallow_held_calls").await == held as f64).then_some(());
        until_within(ARRIVAL_MAX, "the next call held", held).await;
    }
    let (half, most) = (percentile(&mut times, 50), percentile(&mut times, 99));
    println!("{held} held, {ONE_BY_ONE} approved one by one: answered after {half:?} (p50), {most:?} (p99)");
    assert!(most <= RELEASE_MAX, "{most:?}");
    assert_eq!(many.tool.all(), ONE_BY_ONE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement; part of ./check holds"]
async fn one_held_call_is_released() {
    released_one_by_one(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement; part of ./check holds"]
async fn one_of_a_thousand_held_calls_is_released() {
    released_one_by_one(1_000).await;
}
