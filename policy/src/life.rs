//! The life of a call at a proxy: what may be done next, and what a restart does with a call that was open.
//!
//! ```text
//! arrived ▶ decided ─ requires_approval ▶ opened ─ consumed ▶ spent ─┐
//!              └───── allowed ───────────────────────────────────────┴▶ intended ▶ sent ▶ closed
//! ```
//!
//! Up to the intent, the proxy takes no step that [`after`] does not allow; one out of order is refused where it
//! would happen. From there on types say the same: sending takes a [`Permit`](crate::Permit), and an outcome is
//! given away when it is recorded. The model in `tests/life` explores everything that these functions allow, so what it proves holds
//! for whatever the proxy does under them.

use crate::audit::EventType;
use crate::permit::PermitReason;
use crate::rule::Permission;

/// Where a call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// It was identified.
    Arrived,
    /// Resolution answered, last time like this.
    Decided(Permission),
    /// It is stored that its approval is about to be consumed.
    Opened,
    /// Its approval is consumed, for this very call.
    Spent,
    /// The intent to send it is stored.
    Intended,
    /// It may have reached the tool.
    Sent,
    /// Its end is recorded.
    Closed,
}

/// What can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Resolve, for the first time or again.
    Decide(Permission),
    /// Store that the approval is about to be consumed.
    Open,
    /// Take note that the backend has consumed the approval for this call.
    Spend,
    /// Store the intent.
    Intend(PermitReason),
    /// Send.
    Send,
    /// Record how it ended.
    Close(Closing),
}

/// How a call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Closing {
    /// `call.refused`
    Refused,
    /// `call.not_forwarded`
    NotForwarded,
    /// `call.unknown`
    Unknown,
    /// `call.completed`, `call.failed`
    Answered,
}

/// Where a call stands after a step; `None`: the step is not allowed.
#[must_use]
pub fn after(stage: Stage, step: Step) -> Option<Stage> {
    use Closing::{Answered, NotForwarded, Refused, Unknown};
    match (stage, step) {
        (Stage::Arrived | Stage::Decided(_), Step::Decide(permission)) => Some(Stage::Decided(permission)),
        (Stage::Decided(Permission::RequiresApproval), Step::Open) => Some(Stage::Opened),
        (Stage::Opened, Step::Spend) => Some(Stage::Spent),
        (Stage::Decided(Permission::Allowed), Step::Intend(PermitReason::Rule))
        | (Stage::Spent, Step::Intend(PermitReason::Approval)) => Some(Stage::Intended),
        (Stage::Intended, Step::Send) => Some(Stage::Sent),
        // While it is open whether the approval is consumed, a refusal says that it is not by this call.
        (Stage::Arrived | Stage::Decided(_) | Stage::Opened, Step::Close(Refused))
        | (Stage::Opened | Stage::Spent | Stage::Intended, Step::Close(NotForwarded))
        | (Stage::Intended | Stage::Sent, Step::Close(Unknown))
        | (Stage::Sent, Step::Close(Answered)) => Some(Stage::Closed),
        _ => None,
    }
}

/// What an event means for the list of open calls that a proxy keeps beside its events, in the same writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tracked {
    /// Should the process end now, the next one closes the call as this event says.
    Opens,
    /// The call has ended.
    Closes,
    /// Neither.
    Passes,
}

/// What an event means for the list of open calls.
#[must_use]
pub const fn tracked(event: EventType) -> Tracked {
    match event {
        EventType::CallHeld | EventType::CallForwarded => Tracked::Opens,
        EventType::CallRefused
        | EventType::CallCompleted
        | EventType::CallFailed
        | EventType::CallUnknown
        | EventType::CallNotForwarded => Tracked::Closes,
        _ => Tracked::Passes,
    }
}

/// How a restart closes a call that this event, the last that opened it, left open.
#[must_use]
pub const fn left_open(event: EventType) -> Closing {
    match event {
        EventType::CallForwarded => Closing::Unknown,
        // Its approval may be spent: the backend has to hear that it did not run.
        EventType::ApprovalConsumed => Closing::NotForwarded,
        _ => Closing::Refused,
    }
}
