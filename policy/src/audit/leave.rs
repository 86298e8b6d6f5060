//! Whether every call that was forwarded had leave: a decision that allows it, by the reason of its permit.

use std::collections::{HashMap, HashSet};

use super::{Chained, EventType};
use crate::permit::PermitReason;
use crate::rule::Permission;

/// The chain of the backend's own events: only it tells that an approval was consumed.
pub const BACKEND: &str = "backend";

/// A call that was forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// The chain that tells it.
    pub source: String,
    /// Its number there.
    pub seq: u64,
    /// The life of the call; empty when the event names none.
    pub txn: String,
    permit: Option<PermitReason>,
    approval: Option<String>,
    names_a_call: bool,
}

/// What events tell about leave, in whatever order they come.
#[derive(Debug, Default)]
pub struct Leave {
    /// By chain and call: what was decided, and where. The forwarding proxy's own count, and of those the last one
    /// before the intent: a call is decided again when it is released.
    decisions: HashMap<(String, String), Vec<(u64, Permission)>>,
    /// (approval, call)
    consumed: HashSet<(String, String)>,
    forwards: Vec<Forward>,
    ended: HashSet<String>,
}

/// What became of the forwarded calls.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// How many there were.
    pub forwarded: u64,
    /// Those that nothing allows.
    pub without: Vec<Forward>,
    /// Calls without a recorded end: in flight, or their proxy died and has not come back.
    pub open: Vec<String>,
}

impl Leave {
    /// Takes note of an event.
    pub fn note(&mut self, chained: &Chained) {
        let Chained { source, seq, event, .. } = chained;
        let txn = event.txn.clone().unwrap_or_default();
        match event.kind {
            EventType::CallDecided => {
                if let Some(decision) = &event.data.decision {
                    let decisions = self.decisions.entry((source.clone(), txn)).or_default();
                    decisions.push((*seq, decision.permission));
                }
            }
            EventType::ApprovalConsumed if source == BACKEND => {
                if let Some(approval) = &event.data.approval {
                    self.consumed.insert((approval.id.clone(), txn));
                }
            }
            EventType::CallForwarded => self.forwards.push(Forward {
                source: source.clone(),
                seq: *seq,
                txn,
                permit: event.data.permit,
                approval: event.data.approval.as_ref().map(|a| a.id.clone()),
                names_a_call: event.data.tool.is_some() || event.data.token_id.is_some(),
            }),
            EventType::CallCompleted
            | EventType::CallFailed
            | EventType::CallUnknown
            | EventType::CallNotForwarded => drop(self.ended.insert(txn)),
            _ => {}
        }
    }

    /// Judges every call by all that was noted.
    #[must_use]
    pub fn judge(mut self) -> Judged {
        let mut judged = Judged { forwarded: self.forwards.len() as u64, ..Judged::default() };
        for forward in std::mem::take(&mut self.forwards) {
            if !self.ended.contains(&forward.txn) {
                judged.open.push(forward.txn.clone());
            }
            if !self.allows(&forward) {
                judged.without.push(forward);
            }
        }
        judged
    }

    fn allows(&mut self, forward: &Forward) -> bool {
        let decision = self.decision(forward);
        match forward.permit {
            Some(PermitReason::Rule) => decision == Some(Permission::Allowed),
            Some(PermitReason::Approval) => {
                let consumption = (forward.approval.clone().unwrap_or_default(), forward.txn.clone());
                // Good for one intent.
                decision == Some(Permission::RequiresApproval) && self.consumed.remove(&consumption)
            }
            // Plumbing of a protocol names no tool and carries no token; what does is a call.
            Some(PermitReason::Passthrough) => !forward.names_a_call,
            // Nothing issues grants or shadow permits.
            Some(PermitReason::Grant | PermitReason::Shadow) | None => false,
        }
    }

    fn decision(&self, forward: &Forward) -> Option<Permission> {
        if forward.txn.is_empty() {
            return None;
        }
        let decisions = self.decisions.get(&(forward.source.clone(), forward.txn.clone()))?;
        let before = decisions.iter().filter(|(seq, _)| *seq < forward.seq);
        before.max_by_key(|(seq, _)| *seq).map(|(_, permission)| *permission)
    }
}
