//! A loss of power, as the disk sees it: whatever was written and not synced is gone. A kill does not show that, since
//! the system keeps what a process wrote, so the disk of after the loss is put together from the system calls of the
//! proxy: of the spool's journal only what a finished `fdatasync` or `fsync` covers, at the moment at which the first
//! byte of a call goes out to the tool server.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use oakallow_policy::audit::EventType::{CallForwarded, CallUnknown};
use serde_json::{Value, json};

use crate::support::backend::Backend;
use crate::support::policy::OrgBundle;
use crate::support::process::Process;
use crate::support::sidecar::config_text;
use crate::support::slow::Slow;
use crate::support::until;

/// A segment of the log is written from its beginning to its end; this is the first.
const JOURNAL: &str = "spool/00000000000000000001.log";

/// How much of the journal was written, and how much of that is on the disk.
#[derive(Debug, Default, PartialEq)]
struct Journal {
    written: u64,
    synced: u64,
}

impl Journal {
    /// From the trace of a process, up to the moment at which it says something to the tool server.
    fn before(trace: &str, tool: &str) -> Self {
        let mut journal = Self::default();
        // By thread: the call that it is in, and what was written when that began.
        let mut begun: HashMap<&str, (bool, u64)> = HashMap::new();
        let said = format!("->{tool}]>");
        assert!(trace.contains(&said), "nothing was sent to {tool}");
        for line in trace.lines().take_while(|line| !line.contains(&said)) {
            let Some((thread, call)) = line.split_once(' ') else { continue };
            let call = call.trim_start();
            if call.contains(&format!("{JOURNAL}>")) {
                begun.insert(thread, (call.contains("sync("), journal.written));
            } else if !call.starts_with("<... ") {
                continue;
            }
            let Some((_, result)) = call.rsplit_once(" = ") else { continue };
            let Some((is_sync, covers)) = begun.remove(thread) else { continue };
            match (is_sync, result.trim().parse::<u64>()) {
                (true, Ok(0)) => journal.synced = journal.synced.max(covers),
                (false, Ok(bytes)) => journal.written += bytes,
                _ => panic!("the disk was not to fail: {line}"),
            }
        }
        journal
    }
}

/// A proxy that was killed while its call was with the tool server, and the disk that a loss of power would have left
/// when the call went out.
struct Lost {
    backend: Backend,
    config: PathBuf,
    journal: Journal,
    _dir: tempfile::TempDir,
}

async fn lose_power(durability: &str) -> Lost {
    let (backend, tool) = (Backend::start(OrgBundle::new(5).signed()), Slow::shut().await);
    let dir = tempfile::tempdir().unwrap();
    let (config, trace) = (dir.path().join("proxy.yaml"), dir.path().join("trace"));
    let text = config_text(dir.path(), &backend.url, &tool.url, &json!({"durability": durability}));
    fs::write(&config, text).unwrap();
    let proxy = Process::start_traced(&config, &trace);
    let call = tokio::spawn(proxy.call("read").send());
    until("the call at the tool server", async || (tool.now() == 1).then_some(())).await;
    // What the backend knows is not lost with the proxy's disk.
    let shipped = async || backend.audit().iter().any(|e| e.event.kind == CallForwarded).then_some(());
    until("the intent at the backend", shipped).await;
    let process = proxy.id().to_string();
    drop(proxy);
    assert!(call.await.unwrap().is_err());
    let trace = until("the end of the trace", async || {
        let trace = fs::read_to_string(&trace).unwrap();
        let ended = |line: &str| {
            line.split_once(' ').is_some_and(|(id, what)| id == process && what.contains("killed by SIGKILL"))
        };
        trace.lines().any(ended).then_some(trace)
    });
    let journal = Journal::before(&trace.await, tool.url.trim_start_matches("http://"));
    let file = dir.path().join("state").join(JOURNAL);
    forget(&file, journal.synced);
    Lost { backend, config, journal, _dir: dir }
}

/// The length of the file is synced when it is made; what was never written to it reads as zeros.
fn forget(file: &Path, after: u64) {
    let file = fs::OpenOptions::new().write(true).open(file).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(after).unwrap();
    file.set_len(length).unwrap();
}

#[tokio::test]
async fn what_was_sent_to_a_tool_is_still_in_a_spool_that_was_to_survive_a_loss_of_power() {
    let lost = lose_power("power").await;
    assert!(lost.journal.synced > 0, "{:?}", lost.journal);
    let proxy = Process::start(&lost.config);
    let told = async || lost.backend.audit().into_iter().find(|e| e.event.kind == CallUnknown);
    let told = until("call.unknown", told).await;
    let intents = lost.backend.audit().into_iter().filter(|e| e.event.kind == CallForwarded);
    let intents: Vec<_> = intents.map(|e| e.event.txn).collect();
    assert_eq!(intents, [told.event.txn], "one intent, and its end");
    assert_eq!(proxy.metric("oakallow_audit_chain_refused").await, 0.0);
}

#[tokio::test]
async fn what_a_loss_of_power_took_from_a_spool_that_was_not_to_survive_one_shows_as_a_gap() {
    let lost = lose_power("process").await;
    assert!(lost.journal.synced < lost.journal.written, "nothing was lost: {:?}", lost.journal);
    let proxy = Process::start(&lost.config);
    // From the first call on: the chain that begins anew is not the one that the backend has.
    let answer = proxy.call("read").send().await.unwrap();
    let status = answer.status();
    let answer: Value = answer.json().await.unwrap();
    assert_eq!((status.as_u16(), &answer["code"]), (503, &json!("audit_unavailable")));
    assert_eq!(proxy.metric("oakallow_audit_chain_refused").await, 1.0);
}

#[test]
fn only_what_was_written_before_a_sync_began_is_synced_by_it() {
    let file = format!("9</tmp/state/{JOURNAL}>");
    let trace = format!(
        "1 write({file}, \"\"..., 10) = 10\n\
         2 fdatasync({file} <unfinished ...>\n\
         1 write({file}, \"\"..., 5 <unfinished ...>\n\
         1 <... write resumed>) = 5\n\
         2 <... fdatasync resumed>) = 0\n\
         1 write(8</tmp/other>, \"\"..., 3) = 3\n\
         1 writev(7<TCP:[127.0.0.1:2->127.0.0.1:3]>, [], 1) = 3\n\
         2 fdatasync({file}) = 0\n"
    );
    assert_eq!(Journal::before(&trace, "127.0.0.1:3"), Journal { written: 15, synced: 10 });
}
