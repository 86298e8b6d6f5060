//! The audit log as an auditor reads it: chains without gaps, and lives of calls that are whole.

use std::collections::BTreeMap;

use oakallow_policy::audit::{Chained, EventType, Head};
use oakallow_policy::permit::PermitReason;
use serde_json::Value;

/// How a call may end once its intent is written.
const OUTCOMES: [EventType; 4] =
    [EventType::CallCompleted, EventType::CallFailed, EventType::CallUnknown, EventType::CallNotForwarded];

/// All events of an org.
pub struct Record(Vec<Chained>);

/// What a whole record says about the calls that were sent on.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Intents.
    pub forwarded: usize,
    /// Of these, with a complete answer.
    pub answered: usize,
    /// Of these, without one.
    pub unknown: usize,
    /// Of these, never sent.
    pub not_forwarded: usize,
    /// Tokens that the tool server redeemed: calls that reached the tool.
    pub redeemed: usize,
}

impl Record {
    /// From an export.
    #[must_use]
    pub fn new(export: &[Value]) -> Self {
        let read = |event: &Value| {
            serde_json::from_value(event.clone()).unwrap_or_else(|e| panic!("not an event ({e}): {event:#}"))
        };
        Self(export.iter().map(read).collect())
    }

    /// Panics unless each source's events are numbered without gaps and each carries the hash of the one
    /// before. The length of each chain.
    #[must_use]
    pub fn whole_chains(&self) -> BTreeMap<String, u64> {
        let mut chains: BTreeMap<&str, Vec<&Chained>> = BTreeMap::new();
        for event in &self.0 {
            chains.entry(&event.source).or_default().push(event);
        }
        let whole = |(source, mut events): (&str, Vec<&Chained>)| {
            events.sort_by_key(|event| event.seq);
            let follow = |head: Head, event: &Chained| {
                event.follow(source, &head).unwrap_or_else(|e| panic!("the chain of {source}: {e}"))
            };
            (source.to_owned(), events.into_iter().fold(Head::default(), follow).seq)
        };
        chains.into_iter().map(whole).collect()
    }

    /// Intents without an outcome so far.
    #[must_use]
    pub fn open(&self) -> usize {
        let lives = self.lives();
        let open = |events: &&Vec<&Chained>| {
            count(events, &[EventType::CallForwarded]) > 0 && count(events, &OUTCOMES) == 0
        };
        lives.values().filter(open).count()
    }

    /// Panics unless every call that was sent on, and every one that reached the tool, has exactly one
    /// intent, exactly one outcome, and before them a decision that allows it.
    #[must_use]
    pub fn whole_calls(&self) -> Sum {
        let mut sum = Sum::default();
        for (txn, events) in self.lives() {
            let forwarded = count(&events, &[EventType::CallForwarded]);
            let redeemed = count(&events, &[EventType::TokenRedeemed]);
            if forwarded + redeemed + count(&events, &OUTCOMES) == 0 {
                continue;
            }
            // An approval may have been spent on it, or not: nobody heard. It was not sent, and that is recorded.
            if forwarded + redeemed == 0
                && count(&events, &OUTCOMES) == count(&events, &[EventType::CallNotForwarded])
            {
                continue;
            }
            let types: Vec<&str> = events.iter().map(|event| event.event.kind.as_str()).collect();
            assert_eq!(forwarded, 1, "one intent: {txn} {types:?}");
            assert_eq!(count(&events, &OUTCOMES), 1, "one outcome: {txn} {types:?}");
            assert!(redeemed < 2, "one execution at most: {txn} {types:?}");
            assert!(permitted(&events), "a decision that allows it, before the intent: {txn} {events:#?}");
            sum.forwarded += 1;
            sum.redeemed += redeemed;
            sum.unknown += count(&events, &[EventType::CallUnknown]);
            sum.not_forwarded += count(&events, &[EventType::CallNotForwarded]);
            sum.answered += count(&events, &[EventType::CallCompleted, EventType::CallFailed]);
        }
        sum
    }

    /// The events of each call, a source's in its order.
    fn lives(&self) -> BTreeMap<&str, Vec<&Chained>> {
        let mut lives: BTreeMap<&str, Vec<&Chained>> = BTreeMap::new();
        for event in &self.0 {
            if let Some(txn) = &event.event.txn {
                lives.entry(txn).or_default().push(event);
            }
        }
        for events in lives.values_mut() {
            events.sort_by_key(|event| (event.source.as_str(), event.seq));
        }
        lives
    }
}

fn count(events: &[&Chained], kinds: &[EventType]) -> usize {
    events.iter().filter(|event| kinds.contains(&event.event.kind)).count()
}

/// Whether it is no call, or the proxy recorded, before the intent, `allowed`, or a person's approval
/// was consumed.
fn permitted(events: &[&Chained]) -> bool {
    let intent = events.iter().find(|event| event.event.kind == EventType::CallForwarded);
    let Some(intent) = intent else { return false };
    if intent.event.data.permit == Some(PermitReason::Passthrough) {
        return true;
    }
    let before = |event: &&&Chained| event.source == intent.source && event.seq < intent.seq;
    let allowed = events.iter().filter(before).any(|event| {
        let decision = event.event.data.decision.as_ref();
        event.event.kind == EventType::CallDecided
            && decision.is_some_and(|decision| decision.permission == oakallow_policy::Permission::Allowed)
    });
    allowed || count(events, &[EventType::ApprovalConsumed]) == 1
}
