//! Audit events of a request's life.

use oakallow_policy::audit::{DecisionRecord, Event, EventData, EventType, ExecutionRecord};
use oakallow_policy::id::{Kind, Name};
use oakallow_policy::life::{Closing, left_open};
use oakallow_policy::timestamp::rfc3339;

use crate::call::IdentifiedCall;
use crate::clock;
use crate::route::Route;

/// Of the name of a message; the longest known one has fewer.
const MESSAGE_CHARS_MAX: usize = 64;

/// What all events of one request have in common: who, by which way, and which call, if it is one.
#[derive(Debug, Clone)]
pub struct Subject {
    txn: String,
    about: EventData,
}

impl Subject {
    /// A call.
    #[must_use]
    pub fn call(call: &IdentifiedCall) -> Self {
        let names = &call.names;
        let about = EventData {
            tenant: text(names.tenant.as_ref()),
            principal: text(Some(&names.principal)),
            audience: text(Some(&names.audience)),
            route: text(Some(&call.route.name)),
            tool: text(Some(&names.tool)),
            resource: text(names.resource.as_ref()),
            method: text(names.method.as_ref()),
            ..EventData::default()
        };
        Self { txn: call.txn.clone(), about }
    }

    /// A request of a known caller in which no call was identified, or that is none.
    #[must_use]
    pub fn request(txn: &str, (principal, tenant): (&Name, Option<&Name>), route: Option<&Route>) -> Self {
        let about = EventData {
            tenant: text(tenant),
            principal: text(Some(principal)),
            audience: text(route.map(|r| &r.audience)),
            route: text(route.map(|r| &r.name)),
            ..EventData::default()
        };
        Self { txn: txn.to_owned(), about }
    }

    /// The same, of a message of this protocol method.
    #[must_use]
    pub fn saying(mut self, method: &str) -> Self {
        let known: String = method.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX).collect();
        self.about.detail.insert("message".to_owned(), known.into());
        self
    }

    /// The route's name; empty when none was found.
    #[must_use]
    pub fn route(&self) -> &str {
        self.about.route.as_deref().unwrap_or_default()
    }

    /// An event of it.
    #[must_use]
    pub fn event(&self, kind: EventType, more: EventData) -> Event {
        self.clone().into_event(kind, more)
    }

    /// The last event of it.
    #[must_use]
    pub fn into_event(self, kind: EventType, more: EventData) -> Event {
        let about = self.about;
        let data = EventData {
            tenant: about.tenant,
            principal: about.principal,
            audience: about.audience,
            route: about.route,
            tool: about.tool,
            resource: about.resource,
            method: about.method,
            detail: about.detail,
            ..more
        };
        plain(kind, Some(self.txn), data)
    }
}

fn text(name: Option<&Name>) -> Option<String> {
    name.map(|n| n.as_str().to_owned())
}

/// An event of a call.
#[must_use]
pub fn of_call(call: &IdentifiedCall, kind: EventType, more: EventData) -> Event {
    Subject::call(call).into_event(kind, more)
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
    let (kind, result) = match left_open(opened.kind) {
        // A restart has seen no answer.
        Closing::Unknown | Closing::Answered => (EventType::CallUnknown, Some("unknown")),
        Closing::NotForwarded => (EventType::CallNotForwarded, Some("error")),
        Closing::Refused => (EventType::CallRefused, None),
    };
    let data = EventData {
        reason: Some("the proxy ended before the call did".to_owned()),
        execution: result
            .map(|result| ExecutionRecord { result: Some(result.to_owned()), ..ExecutionRecord::default() }),
        parameters: None,
        permit: None,
        ..opened.data
    };
    plain(kind, opened.txn, data)
}
