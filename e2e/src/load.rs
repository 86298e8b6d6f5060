//! Load for tests in which something is taken away under it: agents that go on calling, and a person who approves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;

use crate::agent::Agent;
use crate::control::Control;

const CALLERS: usize = 6;
/// Of who was refused, or found nobody: others get on meanwhile.
const PAUSE: Duration = Duration::from_millis(20);
/// Longer than a call is held.
const CALL_MAX: Duration = Duration::from_secs(100);

/// What has been done so far.
#[derive(Debug, Default)]
struct Counts {
    stop: AtomicBool,
    answered: AtomicUsize,
    unanswered: AtomicUsize,
    approved: AtomicUsize,
}

/// Callers and an approver at work.
pub struct Load {
    counts: Arc<Counts>,
    callers: JoinSet<()>,
    approver: JoinSet<()>,
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    /// Calls that were answered 200: the tool ran.
    pub answered: usize,
    /// Calls that got no answer: their connection broke.
    pub unanswered: usize,
    /// Calls that a person approved.
    pub approved: usize,
}

impl Load {
    /// Begins: all call as `acme`, whose restarts are allowed, but one as `globex`, for whom a person approves them.
    #[must_use]
    pub fn begin(acme: &Agent, globex: &Agent, control: &Control) -> Self {
        let counts = Arc::<Counts>::default();
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let agent = if caller == 0 { globex } else { acme };
            callers.spawn(keep_calling(agent.clone(), caller, counts.clone()));
        }
        let mut approver = JoinSet::new();
        approver.spawn(keep_approving(control.clone(), counts.clone()));
        Self { counts, callers, approver }
    }

    /// How many calls were approved so far.
    #[must_use]
    pub fn approved(&self) -> usize {
        self.counts.approved.load(Ordering::Relaxed)
    }

    /// Lets every call end.
    pub async fn end(mut self) -> Done {
        self.counts.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.callers.join_next().await {
            ended.expect("a caller");
        }
        assert!(self.approver.try_join_next().is_none(), "the approver gave up");
        let count = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        let Counts { answered, unanswered, approved, .. } = &*self.counts;
        Done { answered: count(answered), unanswered: count(unanswered), approved: count(approved) }
    }
}

/// Calls one after the other until told to stop; broken connections are what this is about.
async fn keep_calling(agent: Agent, caller: usize, counts: Arc<Counts>) {
    let mut number = caller;
    while !counts.stop.load(Ordering::Relaxed) {
        number += 1;
        let call = match number % 4 {
            _ if caller == 0 => agent.call("restart_service", &json!({"service": format!("held-{number}")})),
            0 => agent.call("drop_database", &json!({"name": "orders"})),
            1 => agent.call("restart_service", &json!({"service": format!("server-{caller}")})),
            _ => agent.call("read_record", &json!({"id": "42"})),
        };
        match call.timeout(CALL_MAX).try_send().await {
            Ok(answer) if answer.status == 200 => _ = counts.answered.fetch_add(1, Ordering::Relaxed),
            Ok(answer) => {
                assert_ne!(answer.status, 500, "{answer:#?}");
                tokio::time::sleep(PAUSE).await;
            }
            Err(_) => {
                counts.unanswered.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Approves whatever waits, for as long as it is let live: longer than the callers. The backend may be away.
async fn keep_approving(control: Control, counts: Arc<Counts>) {
    let list = "/v1/approvals?status=pending&limit=100";
    loop {
        let pending = control.approver().request(reqwest::Method::GET, list, "").try_send().await;
        let pending = pending.ok().and_then(|answer| answer.body["data"].as_array().cloned());
        for approval in pending.unwrap_or_default() {
            let path = format!("/v1/approvals/{}/decide", approval["id"].as_str().expect("an id"));
            let decision = json!({"decision": "approved", "note": "go ahead"}).to_string();
            let decided = control.approver().request(reqwest::Method::POST, &path, decision).try_send().await;
            counts.approved.fetch_add(usize::from(decided.is_ok_and(|d| d.status == 200)), Ordering::Relaxed);
        }
        tokio::time::sleep(PAUSE).await;
    }
}
