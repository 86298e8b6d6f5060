//! Requests of an MCP route (streamable HTTP, both eras; over standard input and output: [`stdio`]): what is a
//! call is decided like any other call; the rest of the protocol passes unchanged and unbuffered.
//!
//! A batch passes only when all of it is plumbing. One that holds a call, a list of tools or anything
//! unknown is refused whole, one error an id: one token proves one call, so calls come one by one.

mod answer;
mod era;
mod hold;
mod leg;
mod list;
mod param;
mod plumbing;
mod relay;
mod see;
mod send;
mod session;
pub mod stdio;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::TRANSFER_ENCODING;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use oakallow_policy::Permission;
use oakallow_policy::audit::ExecutionRecord;
use oakallow_policy::canonical::hex;
use oakallow_policy::id::Name;
use oakallow_policy::permit::PermitReason;
use serde_json::Value;

use crate::app::App;
use crate::call::mcp::{
    Arrival, Body, Class, INVALID_PARAMS, INVALID_REQUEST, Message, Unread, identify, parse, sort,
};
use crate::call::{IdentifiedCall, weight};
use crate::client::{Client, Gone};
use crate::enforce::{self, Bound, Ready, Target};
use crate::event::Subject;
use crate::outcome::{BROKE_OFF, NO_ANSWER, Outcome};
use crate::refusal::Refusal;
use crate::serve::{Received, not_answered};
use crate::unidentified;
use answer::{Refused, error};
use era::{Era, HEADER_MISMATCH};
use leg::Leg;
use relay::{End, Plan, Relayed, relay};
use see::see;
pub use session::Mcp;
use session::{Named, Session};

/// Stateless clients give a request up after 60 s; the answer must be there before.
const STATELESS_WAIT_MAX: Duration = Duration::from_secs(45);
/// What servers say of a session that they do not know; clients begin a new one.
const SESSION_UNKNOWN: i64 = -32_001;

/// Answers one request of an MCP route. An error means that the connection cannot be used any more.
pub async fn serve(app: &Arc<App>, received: &Received, client: &mut Client<'_>) -> Result<(), Gone> {
    let mut exchange = Exchange { app, received, session: None, body: received.body.clone() };
    let headers = &received.parts.headers;
    let posted = received.parts.method == Method::POST;
    let bodiless = received.body.is_empty() && !headers.contains_key(TRANSFER_ENCODING);
    let repeats = param::fields(headers).next().is_some();
    if !posted && (repeats || !bodiless) {
        return exchange.unreadable(client, "only a POST has a body, or fields that repeat it").await;
    }
    let named = era::check_singular(headers).and_then(|()| {
        let snapshot = app.policy.snapshot();
        let key = snapshot.token_keys.get(&received.route.audience);
        app.mcp.named(headers, &received.caller, key).map_err(str::to_owned)
    });
    let upstream = received.live.upstreams.get(&received.route.name);
    let entered = named.map(|named| match named {
        Named::No => Some(None),
        Named::Own(text) => upstream.and_then(|upstream| Session::at(upstream, text)).map(Some),
        Named::Foreign => None,
    });
    exchange.session = match entered {
        Ok(Some(session)) => session,
        Ok(None) => {
            // As for a session that does not exist: whose it is, is nobody else's business.
            let body = error(&Value::Null, SESSION_UNKNOWN, "Session not found", None);
            return exchange.turn_down(client, "unknown_session", (StatusCode::NOT_FOUND, body)).await;
        }
        Err(problem) => return exchange.unreadable(client, &problem).await,
    };
    match received.parts.method {
        Method::POST => exchange.post(client).await,
        Method::GET => exchange.list(client, None).await,
        Method::DELETE => exchange.pass(client, None).await,
        _ => {
            let refusal = Refusal::MethodNotAllowed;
            let recorded = unidentified::refused(app, Some(&received.subject()), refusal.code()).await;
            client.refuse(&recorded.err().unwrap_or(refusal), None, &received.live.config.backend_url).await
        }
    }
}

async fn say(
    client: &mut Client<'_>,
    status: StatusCode,
    body: &Value,
    permission: Option<Permission>,
) -> Result<(), Gone> {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    client.answer(status.as_u16(), headers, permission, Bytes::from(body.to_string())).await
}

/// One request.
struct Exchange<'a> {
    app: &'a Arc<App>,
    received: &'a Received,
    /// The caller's session.
    session: Option<Session>,
    /// What goes on: the body as it came, less a state of ours.
    body: Bytes,
}

impl Exchange<'_> {
    async fn post(&mut self, client: &mut Client<'_>) -> Result<(), Gone> {
        let (body, weight) = match self.read() {
            Ok(read) => read,
            Err(unread) => {
                let body = error(&unread.id, unread.code, &unread.message, None);
                return self.turn_down(client, "invalid_request", (StatusCode::BAD_REQUEST, body)).await;
            }
        };
        let Received { live, caller, .. } = self.received;
        let has_room = client.weighs((self.app, &live.config.limits), &caller.principal, weight);
        let mut message = match (body, has_room) {
            (Body::One(message), Ok(())) => message,
            (Body::One(message), Err(refusal)) => {
                return self.turn_away(client, Some(&message), refusal).await;
            }
            (Body::Batch(messages), Ok(())) => return self.batch(&messages, client).await,
            (Body::Batch(_), Err(refusal)) => return self.turn_away(client, None, refusal).await,
        };
        let version = self.received.parts.headers.get("mcp-protocol-version").and_then(|v| v.to_str().ok());
        see(&message, (version, self.session_id()));
        let era = match self.check_head(&message) {
            Ok(era) => era,
            Err(problem) => {
                let id = message.id.unwrap_or(Value::Null);
                let body = error(&id, HEADER_MISMATCH, &problem, None);
                return self.turn_down(client, "invalid_request", (StatusCode::BAD_REQUEST, body)).await;
            }
        };
        let leg = match self.leg(&mut message, era) {
            Ok(leg) => leg,
            Err(leg::NotOurs) => {
                let id = message.id.unwrap_or(Value::Null);
                let body =
                    error(&id, INVALID_PARAMS, "this requestState is not known here: call without it", None);
                return self.turn_down(client, "invalid_request", (StatusCode::OK, body)).await;
            }
        };
        match message.class {
            Class::Pass if self.cancels_held(&message) => self.accepted(client).await,
            Class::Pass => self.pass(client, Some(&message)).await,
            Class::List => self.list(client, Some(&message)).await,
            Class::Decide { .. } => self.call(client, (&message, era), leg.as_ref()).await,
            Class::Unknown => self.turn_down(client, "unknown_method", unknown(&message, era)).await,
        }
    }

    /// The body, and what it takes up with what was read from it, be it a call or not.
    fn read(&self) -> Result<(Body, usize), Unread> {
        let Received { parts, body, .. } = self.received;
        let value = parse(body)?;
        let weight = weight::read(body.len(), &value);
        let era = Era::of(&parts.headers);
        Ok((sort(value, |_| era)?, weight))
    }

    /// Whether the head says what the message says.
    fn check_head(&self, message: &Message) -> Result<Era, String> {
        let Received { route, parts, .. } = self.received;
        let era = era::check(&parts.headers, message)?;
        let snapshot = self.app.policy.snapshot();
        let called = message.header_name().filter(|_| message.is_tool_call());
        let name = called.and_then(|name| Name::exact(name).ok());
        let tool = name.and_then(|name| snapshot.rules.tool(&name, &route.audience));
        let arguments = message.params.get("arguments").filter(|_| message.is_tool_call());
        param::check(&parts.headers, arguments, tool.and_then(|tool| tool.parameter_schema.as_ref()))?;
        Ok(era)
    }

    /// A request that says too much or contradicts itself before its body is looked at.
    async fn unreadable(&self, client: &mut Client<'_>, problem: &str) -> Result<(), Gone> {
        let body = error(&Value::Null, INVALID_REQUEST, problem, None);
        self.turn_down(client, "invalid_request", (StatusCode::BAD_REQUEST, body)).await
    }

    /// Answers what is no call and goes no further, once that is recorded.
    async fn turn_down(
        &self,
        client: &mut Client<'_>,
        code: &'static str,
        (status, body): (StatusCode, Value),
    ) -> Result<(), Gone> {
        match unidentified::refused(self.app, Some(&self.received.subject()), code).await {
            Ok(()) => say(client, status, &body, None).await,
            Err(unrecorded) => say(client, StatusCode::OK, &answer::instead(&body, &unrecorded), None).await,
        }
    }

    /// `notifications/cancelled` of a call that is held here: the tool server has never seen that call.
    fn cancels_held(&self, message: &Message) -> bool {
        let Received { route, caller, .. } = self.received;
        message.method.as_deref() == Some("notifications/cancelled")
            && message
                .params
                .get("requestId")
                .is_some_and(|id| self.app.mcp.cancel(&route.name, self.session_id(), caller, id))
    }

    async fn accepted(&self, client: &mut Client<'_>) -> Result<(), Gone> {
        client.answer(StatusCode::ACCEPTED.as_u16(), HeaderMap::new(), None, Bytes::new()).await
    }

    /// A call: decided, perhaps held, forwarded with a token, its outcome recorded.
    async fn call(
        &self,
        client: &mut Client<'_>,
        (message, era): (&Message, Era),
        leg: Option<&Leg>,
    ) -> Result<(), Gone> {
        let Received { live, route, parts, caller, txn, .. } = self.received;
        let arrival = Arrival { route, txn, headers: &parts.headers, bytes: self.body.len(), caller };
        let wait =
            if era == Era::Stateless { route.hold_budget.min(STATELESS_WAIT_MAX) } else { route.hold_budget };
        let prepared = identify(&arrival, message, wait, &self.app.policy.snapshot()).and_then(|call| {
            // The message stays beside it.
            let bytes = weight::under_way(&call, 2);
            client.weighs((self.app, &live.config.limits), &caller.principal, bytes)?;
            Ok((call, self.target()?))
        });
        let (call, sent) = match prepared {
            Ok(prepared) => prepared,
            Err(refusal) => {
                let subject = received_as(self.received, Some(message));
                let recorded = unidentified::refused(self.app, Some(&subject), refusal.code()).await;
                let refusal = recorded.err().unwrap_or(refusal);
                return self.refuse(client, message, (&refusal, None)).await;
            }
        };
        client.keep_company(hold::company((route, parts), message, era));
        let id = message.id.as_ref().unwrap_or(&Value::Null);
        let cancellable = self.app.mcp.cancellable(&route.name, self.session_id(), caller, id);
        client.cancelled_by(Some(cancellable.notify()));
        let admitted = enforce::admit((self.app, live), &call, Bound::Request(&sent), client).await;
        client.cancelled_by(None);
        drop(cancellable);
        match admitted {
            Ok(ready) => self.forward(client, (message, era), ready, (&call, sent)).await,
            Err(enforce::Refused { refusal, permission }) => {
                // Without room to be held it would come back at once, ten times.
                let held = client.was_held() || call.wait.is_zero();
                let waits = leg.filter(|_| held && matches!(refusal, Refusal::Pending(_)));
                match waits.and_then(|leg| self.come_back(leg, message)) {
                    Some(body) => answer_with(client, &body, permission).await,
                    None => self.refuse(client, message, (&refusal, permission)).await,
                }
            }
        }
    }

    async fn forward(
        &self,
        client: &mut Client<'_>,
        (message, era): (&Message, Era),
        ready: Ready,
        (call, sent): (&IdentifiedCall, Target),
    ) -> Result<(), Gone> {
        let Ready { permit, token, outcome } = ready;
        let approved = permit.reason() == PermitReason::Approval;
        let permission = Some(if approved { Permission::RequiresApproval } else { Permission::Allowed });
        let response = match self.send(permit, sent, Some(&token)).await {
            Ok(response) => response,
            Err(refusal) => {
                not_answered(outcome, &refusal).await;
                return self.refuse(client, message, (&refusal, permission)).await;
            }
        };
        let shift = client.progress();
        let mut rewrite = |m: &mut Value| hold::later(m, message.progress_token(), shift);
        let plan = Plan {
            rewrite: if shift > 0.0 { Some(&mut rewrite) } else { None },
            reads_all: false,
            id: message.id.as_ref(),
            permission,
            idle: call.route.idle_timeout,
            leaving_cancels: era == Era::Stateless,
            stop: None,
        };
        let relayed = relay(client, response, plan).await;
        let answered = relayed.seen;
        let (end, status) = (relayed.end, relayed.status);
        record(outcome, &relayed).await;
        if client.is_streaming() && end != End::Cancelled {
            return self.close(client, message, answered, status).await;
        }
        if end == End::Whole { Ok(()) } else { Err(Gone) }
    }

    /// Ends the stream that a hold opened; should the tool server's answer not be in it, says so.
    async fn close(
        &self,
        client: &mut Client<'_>,
        message: &Message,
        answered: bool,
        status: StatusCode,
    ) -> Result<(), Gone> {
        if answered {
            return client.end().await;
        }
        if status.is_success() {
            return self
                .refuse(client, message, (&Refusal::UpstreamBroken, Some(Permission::RequiresApproval)))
                .await;
        }
        let id = message.id.clone().unwrap_or(Value::Null);
        let why = format!("the tool server answered with the HTTP status {}", status.as_u16());
        let body = error(&id, i64::from(status.as_u16()), &why, None);
        client.chunk(Bytes::from(relay::event(body.to_string().as_bytes()))).await?;
        client.end().await
    }

    async fn refuse(
        &self,
        client: &mut Client<'_>,
        message: &Message,
        (refusal, permission): (&Refusal, Option<Permission>),
    ) -> Result<(), Gone> {
        let era = Era::of(&self.received.parts.headers);
        let hide_disabled = self.received.route.hide_disabled;
        let refused = Refused { refusal, permission, txn: &self.received.txn, hide_disabled };
        answer_with(client, &refused.answer(message, era), permission).await
    }
}

/// Answers a message, in the stream if a hold has opened one.
async fn answer_with(
    client: &mut Client<'_>,
    body: &Value,
    permission: Option<Permission>,
) -> Result<(), Gone> {
    if client.is_streaming() {
        client.chunk(Bytes::from(relay::event(body.to_string().as_bytes()))).await?;
        return client.end().await;
    }
    say(client, StatusCode::OK, body, permission).await
}

fn execution(relayed: &Relayed) -> ExecutionRecord {
    ExecutionRecord {
        status: Some(relayed.status.as_u16()),
        response_sha256: Some(hex(&relayed.sha256)),
        response_bytes: Some(relayed.bytes),
        ..ExecutionRecord::default()
    }
}

async fn record(outcome: Outcome, relayed: &Relayed) {
    let execution = execution(relayed);
    match (relayed.end, relayed.failed) {
        // The answer is what counts, not how its stream ended afterwards.
        (_, Some(failed)) if relayed.end == End::Whole || relayed.seen => {
            outcome.answered(failed, execution);
        }
        (End::Cancelled, _) => outcome.unknown("the agent cancelled the call", execution).await,
        (End::Broken, _) => outcome.unknown(BROKE_OFF, execution).await,
        (End::Whole, _) => outcome.unknown(NO_ANSWER, execution).await,
    }
}

/// For the record of a request that is no call: with the method of its message, or of HTTP.
fn received_as(received: &Received, message: Option<&Message>) -> Subject {
    let spoken = message.map_or(received.parts.method.as_str(), |m| m.method.as_deref().unwrap_or("answer"));
    received.subject().saying(spoken)
}

/// In a session a 404 would mean that it has ended; afterwards it is how a server says so.
fn unknown(message: &Message, era: Era) -> (StatusCode, Value) {
    let status = if era == Era::Stateless { StatusCode::NOT_FOUND } else { StatusCode::OK };
    (status, answer::unknown_method(message))
}
