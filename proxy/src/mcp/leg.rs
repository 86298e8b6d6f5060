//! Waiting in legs (2026-07-28): a client that has no session is told every so often to come back, with a state
//! that any proxy of the tool server understands. The call itself is known by its fingerprint; the state says
//! how often the client came back, and carries what the tool server itself had asked it to bring along.

use bytes::Bytes;
use oakallow_policy::canonical::{base64url, unbase64url};
use oakallow_policy::token::TokenKey;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Exchange;
use super::era::Era;
use super::session::{Owner, Purpose};
use crate::call::mcp::{Class, Message};
use crate::identity::Caller;
use crate::observe::Trail;

/// The tenth answer is the last: stock clients come back ten times at most.
const LEGS_MAX: u32 = 10;
/// What our states begin with.
const PREFIX: &str = "oak1.";
/// The member of a request's `params`, and of a result, that carries a state.
const MEMBER: &str = "requestState";
/// The member of `params` with the client's answers to what the tool server asked.
const ANSWERS: &str = "inputResponses";
/// A client with more to bring along waits in one request only.
const CONTENT_BYTES_MAX: usize = 16 * 1024;

/// One request of a call that may take several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Leg {
    /// From 1.
    number: u32,
    /// The tool server's own state, which the first leg brought.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    theirs: Option<String>,
    /// What the client answered to the tool server with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answers: Option<Value>,
}

/// A state that begins like ours and is not.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotOurs;

impl Leg {
    /// Which leg a message is. Its state is replaced by the tool server's own, so that what is decided and
    /// forwarded is the same in each leg; whether anything was.
    fn take(message: &mut Message, caller: &Caller, key: Option<&TokenKey>) -> Result<(Self, bool), NotOurs> {
        let state = message.params.get(MEMBER).and_then(Value::as_str).map(str::to_owned);
        let Some(text) = state.as_deref().and_then(|state| state.strip_prefix(PREFIX)) else {
            let answers = message.params.get(ANSWERS).cloned();
            return Ok((Self { number: 1, theirs: state, answers }, false));
        };
        let leg = key.and_then(|key| Self::open(text, caller, key)).ok_or(NotOurs)?;
        restore(&mut message.params, &leg);
        Ok((leg, true))
    }

    fn open(text: &str, caller: &Caller, key: &TokenKey) -> Option<Self> {
        let (content, tag) = text.split_once('.')?;
        if !Owner::of(caller).has_tag(key, Purpose::RequestState, content, tag) {
            return None;
        }
        serde_json::from_slice(&unbase64url(content)?).ok()
    }

    /// The result that has the client come back; `None` when it has come often enough.
    pub(super) fn come_back(
        &self,
        message: &Message,
        caller: &Caller,
        key: Option<&TokenKey>,
    ) -> Option<Value> {
        if self.number >= LEGS_MAX {
            return None;
        }
        let next = Self { number: self.number + 1, ..self.clone() };
        let content = base64url(&serde_json::to_vec(&next).ok().filter(|c| c.len() <= CONTENT_BYTES_MAX)?);
        let tag = Owner::of(caller).tag(key?, Purpose::RequestState, &content)?;
        let result = json!({"resultType": "input_required", MEMBER: format!("{PREFIX}{content}.{tag}")});
        Some(json!({"jsonrpc": "2.0", "id": message.id, "result": result}))
    }
}

/// Makes the parameters what they were in the first leg, whatever the client sent along this time: nobody
/// asked it for more.
fn restore(params: &mut Map<String, Value>, leg: &Leg) {
    let theirs = leg.theirs.clone().map(Value::String);
    for (member, first) in [(MEMBER, theirs), (ANSWERS, leg.answers.clone())] {
        match first {
            Some(value) => params.insert(member.to_owned(), value),
            None => params.remove(member),
        };
    }
}

impl Exchange<'_> {
    /// Which leg of a call this is, where calls have legs; the state that says so goes no further.
    pub(super) fn leg(&mut self, message: &mut Message, era: Era) -> Result<Option<Leg>, NotOurs> {
        if era != Era::Stateless || !matches!(message.class, Class::Decide { .. }) {
            return Ok(None);
        }
        let snapshot = self.app.policy.snapshot();
        let key = snapshot.token_keys.get(&self.received.route.audience);
        let (leg, replaced) = Leg::take(message, &self.received.caller, key)?;
        if replaced {
            self.body = written(message);
        }
        Ok(Some(leg))
    }

    /// What has the client come back, if it may.
    pub(super) fn come_back(&self, leg: &Leg, message: &Message) -> Option<Value> {
        let snapshot = self.app.policy.snapshot();
        let key = snapshot.token_keys.get(&self.received.route.audience);
        leg.come_back(message, &self.received.caller, key)
    }
}

/// The message as it goes on, from the one parse.
fn written(message: &Message) -> Bytes {
    let mut written =
        json!({"jsonrpc": "2.0", "id": message.id, "method": message.method, "params": message.params});
    Trail::current().put_meta(&mut written);
    written.to_string().into()
}
