//! The model is worth something only if it notices a wrong transition. Each mutant is one that somebody could
//! write, and each is caught by the property that is named.

use oakallow_policy::approval::{self, Answer, Ran};
use oakallow_policy::audit::EventType;
use oakallow_policy::life::{self, Closing, Stage, Step, Tracked};
use oakallow_policy::wire::ApprovalStatus;
use oakallow_policy::{Permission, PermitReason};
use stateright::{Checker as _, HasDiscoveries, Model as _};

use crate::model::{System, Transitions};

const UNPERMITTED: &str = "what is sent was permitted";
const UNRECORDED: &str = "what is sent has a stored intent";
const TWICE: &str = "an approval is granted by a person, in time, and runs at most one call";
const LIE: &str = "what is said not to have run has not";
const TWO_ENDS: &str = "a call has at most one end";
const NO_END: &str = "a restart leaves no intent without an outcome";
const ASKED_AGAIN: &str = "nobody is asked again about what has just run";

fn mutants() -> Vec<(&'static str, Transitions, &'static str)> {
    let good = Transitions::default();
    vec![
        ("sends without an intent", Transitions { life: sends_without_intent, ..good }, UNRECORDED),
        ("sends a disabled call", Transitions { life: sends_what_is_disabled, ..good }, UNPERMITTED),
        ("sends before the approval is consumed", Transitions { life: sends_unspent, ..good }, TWICE),
        ("records a second end", Transitions { life: ends_twice, ..good }, TWO_ENDS),
        ("refuses what is sent", Transitions { life: refuses_what_is_sent, ..good }, LIE),
        ("forgets what was forwarded", Transitions { tracked: forgets_forwarded, ..good }, NO_END),
        ("closes an intent as not forwarded", Transitions { left_open: denies_forwarded, ..good }, LIE),
        ("consumes what is pending", Transitions { approval: consumes_pending, ..good }, TWICE),
        ("consumes what is consumed", Transitions { approval: consumes_again, ..good }, TWICE),
        ("consumes after the deadline", Transitions { approval: consumes_late, ..good }, TWICE),
        ("confirms to any call", Transitions { repeats: confirms_to_any, ..good }, TWICE),
        ("asks again while the call runs", Transitions { answer: asks_while_running, ..good }, ASKED_AGAIN),
        (
            "asks again after the outcome was lost",
            Transitions { answer: asks_when_unknown, ..good },
            ASKED_AGAIN,
        ),
    ]
}

#[test]
fn a_wrong_transition_is_caught() {
    for (what, transitions, property) in mutants() {
        let system = System { on: vec![0, 0], crashes_max: vec![1], transitions };
        let wanted = HasDiscoveries::AllOf([property].into_iter().collect());
        let checker = system.checker().threads(2).finish_when(wanted).spawn_bfs().join();
        assert!(
            checker.discovery(property).is_some(),
            "a proxy or backend that {what} is not caught by `{property}`"
        );
    }
}

fn sends_without_intent(stage: Stage, step: Step) -> Option<Stage> {
    match (stage, step) {
        (Stage::Spent, Step::Send) => Some(Stage::Sent),
        _ => life::after(stage, step),
    }
}

fn sends_what_is_disabled(stage: Stage, step: Step) -> Option<Stage> {
    match (stage, step) {
        (Stage::Decided(Permission::Disabled), Step::Intend(PermitReason::Rule)) => Some(Stage::Intended),
        _ => life::after(stage, step),
    }
}

fn sends_unspent(stage: Stage, step: Step) -> Option<Stage> {
    match (stage, step) {
        (Stage::Opened, Step::Intend(PermitReason::Approval)) => Some(Stage::Intended),
        _ => life::after(stage, step),
    }
}

fn ends_twice(stage: Stage, step: Step) -> Option<Stage> {
    match (stage, step) {
        (Stage::Closed, Step::Close(Closing::Unknown)) => Some(Stage::Closed),
        _ => life::after(stage, step),
    }
}

fn refuses_what_is_sent(stage: Stage, step: Step) -> Option<Stage> {
    match (stage, step) {
        (Stage::Sent, Step::Close(Closing::NotForwarded)) => Some(Stage::Closed),
        _ => life::after(stage, step),
    }
}

fn forgets_forwarded(event: EventType) -> Tracked {
    match event {
        EventType::CallForwarded => Tracked::Closes,
        _ => life::tracked(event),
    }
}

fn denies_forwarded(event: EventType) -> Closing {
    match event {
        EventType::CallForwarded => Closing::NotForwarded,
        _ => life::left_open(event),
    }
}

fn consumes_pending(status: ApprovalStatus, step: approval::Step, is_due: bool) -> Option<ApprovalStatus> {
    match (status, step) {
        (ApprovalStatus::Pending, approval::Step::Consume) => Some(ApprovalStatus::Consumed),
        _ => approval::after(status, step, is_due),
    }
}

fn consumes_again(status: ApprovalStatus, step: approval::Step, is_due: bool) -> Option<ApprovalStatus> {
    match (status, step) {
        (ApprovalStatus::Consumed, approval::Step::Consume) => Some(ApprovalStatus::Consumed),
        _ => approval::after(status, step, is_due),
    }
}

fn consumes_late(status: ApprovalStatus, step: approval::Step, is_due: bool) -> Option<ApprovalStatus> {
    approval::after(status, step, is_due && step != approval::Step::Consume)
}

fn confirms_to_any(status: ApprovalStatus, _: bool, ran: Ran) -> bool {
    approval::repeats(status, true, ran)
}

fn asks_while_running(status: ApprovalStatus, memory: approval::Memory, is_recent: bool, ran: Ran) -> Answer {
    let ran = if ran == Ran::Open { Ran::NotSent } else { ran };
    approval::answer(status, memory, is_recent, ran)
}

fn asks_when_unknown(status: ApprovalStatus, memory: approval::Memory, is_recent: bool, ran: Ran) -> Answer {
    let ran = if ran == Ran::Sent { Ran::NotSent } else { ran };
    approval::answer(status, memory, is_recent, ran)
}
