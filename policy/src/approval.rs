//! The states of an approval, and the rules by which one answers for a call.
//!
//! ```text
//!             ┌──── deny ───▶ denied
//!             │
//! create ▶ pending ─ approve ▶ approved ── consume ──▶ consumed
//!             │                   │
//!             ├──── deadline ─────┼──────────────────▶ expired
//!             └──── cancel ───────┴──────────────────▶ cancelled
//! ```
//!
//! The backend builds its conditional statements from this table, and the model in `tests/life` is driven by
//! it: there is no second list of transitions.

use crate::wire::ApprovalStatus;

/// What can happen to an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// A person says yes.
    Approve,
    /// A person says no.
    Deny,
    /// It is withdrawn.
    Cancel,
    /// It is spent, for one call.
    Consume,
    /// Its deadline has passed.
    Expire,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Approve, Self::Deny, Self::Cancel, Self::Consume, Self::Expire];

    /// The states that it starts from. A final state is in none of them.
    #[must_use]
    pub const fn from(self) -> &'static [ApprovalStatus] {
        match self {
            Self::Approve | Self::Deny => &[ApprovalStatus::Pending],
            Self::Consume => &[ApprovalStatus::Approved],
            Self::Cancel | Self::Expire => &[ApprovalStatus::Pending, ApprovalStatus::Approved],
        }
    }

    /// The state that it leads to.
    #[must_use]
    pub const fn to(self) -> ApprovalStatus {
        match self {
            Self::Approve => ApprovalStatus::Approved,
            Self::Deny => ApprovalStatus::Denied,
            Self::Cancel => ApprovalStatus::Cancelled,
            Self::Consume => ApprovalStatus::Consumed,
            Self::Expire => ApprovalStatus::Expired,
        }
    }

    /// On which side of the deadline it may be taken: a deadline that has passed wins over everything else,
    /// whether or not anybody has noticed.
    #[must_use]
    pub const fn when_due(self) -> bool {
        matches!(self, Self::Expire)
    }
}

/// The state after a step; `None`: the step cannot be taken.
#[must_use]
pub fn after(status: ApprovalStatus, step: Step, is_due: bool) -> Option<ApprovalStatus> {
    (step.from().contains(&status) && step.when_due() == is_due).then(|| step.to())
}

/// What is recorded of the call that consumed an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ran {
    /// Nothing yet, or an intent only.
    Open,
    /// It ended before anything was sent.
    NotSent,
    /// It ran, or may have.
    Sent,
}

/// Whether a consumption is confirmed to the call that consumed: its answer may have been lost. A call that
/// has ended since is not told that it may run.
#[must_use]
pub fn repeats(status: ApprovalStatus, is_same_call: bool, ran: Ran) -> bool {
    status == ApprovalStatus::Consumed && is_same_call && ran == Ran::Open
}

/// For how long an approval speaks for the call that it was given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Memory {
    /// The call brings the Idempotency-Key that it came with.
    Always,
    /// The same fingerprint: a while.
    Recent,
    /// A new Idempotency-Key: it is meant to run again.
    Never,
}

/// What an approval that exists says to the same call when that comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Answer {
    /// This approval: it is open, or a person has just said no.
    Join,
    /// The call ran, or runs.
    AlreadyExecuted,
    /// Nothing: a person is asked anew.
    Anew,
}

/// `is_recent`: the denial or the consumption is not long ago.
#[must_use]
pub fn answer(status: ApprovalStatus, memory: Memory, is_recent: bool, ran: Ran) -> Answer {
    match status {
        ApprovalStatus::Pending | ApprovalStatus::Approved => Answer::Join,
        ApprovalStatus::Denied if is_recent => Answer::Join,
        ApprovalStatus::Consumed => {
            let remembered = match memory {
                Memory::Always => true,
                Memory::Recent => is_recent,
                Memory::Never => false,
            };
            // What did not run is asked for anew.
            if remembered && ran != Ran::NotSent { Answer::AlreadyExecuted } else { Answer::Anew }
        }
        ApprovalStatus::Denied | ApprovalStatus::Expired | ApprovalStatus::Cancelled => Answer::Anew,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_final_state_has_no_way_out() {
        use ApprovalStatus::{Cancelled, Consumed, Denied, Expired};
        for status in [Denied, Expired, Cancelled, Consumed] {
            for step in Step::ALL {
                for is_due in [false, true] {
                    assert_eq!(after(status, step, is_due), None, "{status:?} {step:?}");
                }
            }
        }
    }

    #[test]
    fn a_deadline_that_has_passed_wins() {
        for status in [ApprovalStatus::Pending, ApprovalStatus::Approved] {
            for step in Step::ALL {
                assert_eq!(after(status, step, true).is_some(), step == Step::Expire, "{status:?} {step:?}");
            }
        }
    }
}
