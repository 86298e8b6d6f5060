//! Audit events of a call's life.

use oakallow_policy::audit::{DecisionRecord, Event, EventData, EventType, ExecutionRecord};
use oakallow_policy::id::Kind;
use oakallow_policy::timestamp::rfc3339;

use crate::call::IdentifiedCall;
use crate::clock;

/// An event of a call, with what identifies the call.
#[must_use]
pub fn of_call(call: &IdentifiedCall, kind: EventType, more: EventData) -> Event {
    let text = |name: &Option<oakallow_policy::Name>| name.as_ref().map(|n| n.as_str().to_owned());
    let data = EventData {
        tenant: text(&call.names.tenant),
        principal: Some(call.names.principal.as_str().to_owned()),
        audience: Some(call.names.audience.as_str().to_owned()),
        route: Some(call.route.name.as_str().to_owned()),
        tool: Some(call.names.tool.as_str().to_owned()),
        resource: text(&call.names.resource),
        method: text(&call.names.method),
        ..more
    };
    plain(kind, Some(call.txn.clone()), data)
}

/// An event.
#[must_use]
pub fn plain(kind: EventType, txn: Option<String>, data: EventData) -> Event {
    Event { id: clock::new_id(Kind::Event), kind, time: rfc3339(clock::now_ms()), txn, data }
}

/// Why something ended as it did.
#[must_use]
pub fn reason(reason: &str, decision: Option<DecisionRecord>) -> EventData {
    EventData { reason: Some(reason.to_owned()), decision, ..EventData::default() }
}

/// What closes a call that a former process left open: the event that opened it says what is known.
#[must_use]
pub fn closing(opened: Event) -> Event {
    let forwarded = opened.kind == EventType::CallForwarded;
    let kind = if forwarded { EventType::CallUnknown } else { EventType::CallRefused };
    let data = EventData {
        reason: Some("the proxy ended before the call did".to_owned()),
        execution: forwarded
            .then(|| ExecutionRecord { result: Some("unknown".to_owned()), ..ExecutionRecord::default() }),
        parameters: None,
        permit: None,
        ..opened.data
    };
    plain(kind, opened.txn, data)
}
