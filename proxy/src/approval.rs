//! Holds: the calls that wait for a person, found by the approval they wait for.
//!
//! Nothing polls. The feed brings an approval's new state, and every call that waits for it is woken.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use oakallow_policy::id::Name;
use oakallow_policy::wire::ApprovalState;
use prometheus::IntCounterVec;
use serde::Serialize;
use tokio::sync::watch;

use crate::clock;
use crate::config::Limits;
use crate::refusal::Refusal;

/// A decision may arrive before the call that asked for it has begun to wait; it is kept this long.
const EARLY_KEPT: Duration = Duration::from_secs(120);
const EARLY_MAX: u64 = 100_000;

/// All holds of this proxy.
pub struct Holds {
    inner: Mutex<Inner>,
    early: moka::sync::Cache<String, ApprovalState>,
    next: AtomicU64,
    /// Calls that a limit kept from waiting, by limit.
    refused: IntCounterVec,
}

struct Inner {
    limits: Limits,
    by_approval: HashMap<String, Waiting>,
    per_principal: HashMap<Name, Share>,
    count: usize,
    bytes: usize,
}

/// What one principal has of it all.
#[derive(Clone, Copy, Default)]
struct Share {
    calls: usize,
    bytes: usize,
}

struct Waiting {
    state: watch::Sender<ApprovalState>,
    /// The calls that wait, oldest first.
    calls: Vec<HeldCall>,
}

/// What `/holds` shows of a call: never its arguments.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "named by the product")]
pub struct HeldCall {
    #[serde(skip)]
    number: u64,
    pub txn: String,
    pub approval_id: String,
    pub reference: String,
    pub principal: Name,
    pub tenant: Option<Name>,
    pub tool: Name,
    pub route: Name,
    pub since: String,
}

/// Who begins to wait, and with how many bytes.
pub struct Holder {
    /// The life of the call.
    pub txn: String,
    /// Who calls.
    pub principal: Name,
    /// Its tenant.
    pub tenant: Option<Name>,
    /// Its tool.
    pub tool: Name,
    /// Its route.
    pub route: Name,
    /// Bytes of its body.
    pub bytes: usize,
}

/// One call's place among the holds; leaving it ends the hold.
pub struct Hold {
    holds: Arc<Holds>,
    state: watch::Receiver<ApprovalState>,
    approval_id: String,
    principal: Name,
    number: u64,
    bytes: usize,
}

impl Holds {
    /// None yet.
    #[must_use]
    pub fn new(limits: Limits, refused: IntCounterVec) -> Self {
        Self {
            inner: Mutex::new(Inner {
                limits,
                by_approval: HashMap::new(),
                per_principal: HashMap::new(),
                count: 0,
                bytes: 0,
            }),
            early: moka::sync::Cache::builder().max_capacity(EARLY_MAX).time_to_live(EARLY_KEPT).build(),
            next: AtomicU64::new(1),
            refused,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The maps are whole after every step, so a panic elsewhere does not spoil them.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes how many calls may wait. Those that wait already stay.
    pub fn set_limits(&self, limits: &Limits) {
        self.lock().limits = limits.clone();
    }

    /// Begins to wait.
    pub fn enter(self: &Arc<Self>, state: ApprovalState, holder: Holder) -> Result<Hold, Refusal> {
        let mut inner = self.lock();
        let own = inner.per_principal.get(&holder.principal).copied().unwrap_or_default();
        let limits = &inner.limits;
        let bytes = inner.bytes + holder.bytes;
        let reached = [
            (inner.count >= limits.holds_max, "holds_max"),
            (own.calls >= limits.holds_per_principal_max, "holds_per_principal_max"),
            (bytes > limits.hold_bytes_max, "hold_bytes_max"),
            (own.bytes + holder.bytes > limits.hold_bytes_per_principal_max, "hold_bytes_per_principal_max"),
        ];
        if let Some((_, limit)) = reached.into_iter().find(|(reached, _)| *reached) {
            self.refused.with_label_values(&[limit]).inc();
            // For want of bytes: the approval exists, and the client picks it up by repeating the call.
            let of_bytes = limit.starts_with("hold_bytes");
            return Err(if of_bytes { Refusal::Pending(state) } else { Refusal::TooManyHolds });
        }
        inner.bytes = bytes;
        inner.count += 1;
        let own = inner.per_principal.entry(holder.principal.clone()).or_default();
        own.calls += 1;
        own.bytes += holder.bytes;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let approval_id = state.id.clone();
        let call = HeldCall {
            number,
            txn: holder.txn,
            approval_id: approval_id.clone(),
            reference: state.reference.clone(),
            principal: holder.principal.clone(),
            tenant: holder.tenant,
            tool: holder.tool,
            route: holder.route,
            since: oakallow_policy::timestamp::rfc3339(clock::now_ms()),
        };
        let waiting = inner
            .by_approval
            .entry(approval_id.clone())
            .or_insert_with(|| Waiting { state: watch::Sender::new(state), calls: Vec::new() });
        waiting.calls.push(call);
        let receiver = waiting.state.subscribe();
        if let Some(early) = self.early.get(&approval_id) {
            waiting.state.send_replace(early);
        }
        let bytes = holder.bytes;
        Ok(Hold {
            holds: self.clone(),
            state: receiver,
            approval_id,
            principal: holder.principal,
            number,
            bytes,
        })
    }

    /// An approval's state, as the backend says.
    pub fn update(&self, state: ApprovalState) {
        let inner = self.lock();
        match inner.by_approval.get(&state.id) {
            Some(waiting) => {
                waiting.state.send_replace(state);
            }
            None => self.early.insert(state.id.clone(), state),
        }
    }

    /// The approvals that somebody waits for.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        self.lock().by_approval.keys().cloned().collect()
    }

    /// Whether somebody waits for this approval.
    #[must_use]
    pub fn is_awaited(&self, approval: &str) -> bool {
        self.lock().by_approval.contains_key(approval)
    }

    /// The calls that wait.
    #[must_use]
    pub fn list(&self) -> Vec<HeldCall> {
        self.lock().by_approval.values().flat_map(|w| w.calls.iter().cloned()).collect()
    }

    /// Bytes of the bodies of the calls that wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// How many calls wait.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().count
    }
}

impl Hold {
    /// The approval's state as last heard.
    #[must_use]
    pub fn state(&self) -> ApprovalState {
        self.state.borrow().clone()
    }

    /// Waits until the approval's state, or who waits for it, changes.
    pub async fn changed(&mut self) {
        if self.state.changed().await.is_err() {
            // The sender lives as long as this hold does; should it not, waiting ends by the budget.
            std::future::pending::<()>().await;
        }
    }

    /// Whether no other call has begun to wait for this approval after this one: the newest consumes.
    #[must_use]
    pub fn is_newest(&self) -> bool {
        let inner = self.holds.lock();
        let calls = inner.by_approval.get(&self.approval_id).map(|w| &w.calls);
        calls.is_none_or(|calls| calls.last().is_none_or(|last| last.number == self.number))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut inner = self.holds.lock();
        inner.bytes = inner.bytes.saturating_sub(self.bytes);
        inner.count = inner.count.saturating_sub(1);
        if let Some(own) = inner.per_principal.get_mut(&self.principal) {
            own.calls -= 1;
            own.bytes = own.bytes.saturating_sub(self.bytes);
            if own.calls == 0 {
                inner.per_principal.remove(&self.principal);
            }
        }
        let Some(waiting) = inner.by_approval.get_mut(&self.approval_id) else { return };
        waiting.calls.retain(|call| call.number != self.number);
        if waiting.calls.is_empty() {
            inner.by_approval.remove(&self.approval_id);
        } else {
            // The newest may be another one now: let it look.
            waiting.state.send_modify(|_| {});
        }
    }
}
