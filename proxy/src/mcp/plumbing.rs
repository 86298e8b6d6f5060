//! What is no call: handshakes, lists, notifications, answers, a session's stream. It passes as it is,
//! under a permit that says so, and like a call it has an intent and an outcome in the record.

use std::sync::Arc;

use http::header::CONTENT_ENCODING;
use http::{HeaderMap, StatusCode};
use oakallow_policy::Permit;
use oakallow_policy::audit::{EventData, EventType, ExecutionRecord};
use oakallow_policy::canonical::hex;
use serde_json::Value;

use super::answer::{self, error};
use super::era::Era;
use super::list::Viewer;
use super::param;
use super::relay::{End, Plan, Relayed, relay};
use super::{Exchange, execution, received_as, say};
use crate::app::App;
use crate::call::mcp::{Class, INVALID_REQUEST, Message};
use crate::client::{Client, Gone};
use crate::event::Subject;
use crate::identity::{Standing, Stir};
use crate::outcome::{BROKE_OFF, Outcome};
use crate::refusal::Refusal;
use crate::serve::{Received, not_answered};

impl Exchange<'_> {
    pub(super) async fn batch(&self, messages: &[Message], client: &mut Client<'_>) -> Result<(), Gone> {
        let headers = &self.received.parts.headers;
        let plumbing = messages.iter().all(|m| m.class == Class::Pass);
        // Fields that repeat a message have none that they could be true of.
        let repeats = headers.contains_key("mcp-method") || headers.contains_key("mcp-name");
        let repeats = repeats || param::fields(headers).next().is_some();
        if plumbing && !repeats && Era::of(headers) == Era::Sessions {
            return self.pass(client, None).await;
        }
        self.turn_down(client, "batch", (StatusCode::OK, refused_batch(messages))).await
    }

    /// Protocol plumbing: through as it is.
    pub(super) async fn pass(&self, client: &mut Client<'_>, message: Option<&Message>) -> Result<(), Gone> {
        let plan = Plan {
            rewrite: None,
            reads_all: false,
            id: message.and_then(|m| m.id.as_ref()),
            permission: None,
            idle: self.received.route.idle_timeout,
            leaving_cancels: true,
            stop: Some(Box::pin(self.barred())),
        };
        ended(self.plumb(client, message, plan).await)
    }

    /// `tools/list`, or a stream on which its answer may be resumed (`None`): through, less what the caller may
    /// not call.
    pub(super) async fn list(&self, client: &mut Client<'_>, message: Option<&Message>) -> Result<(), Gone> {
        let Received { route, caller, .. } = self.received;
        let view = match self.app.policy.view(caller.tenant.as_ref()).await {
            Ok(view) => view,
            Err(e) => {
                let refusal = Refusal::PolicyUnavailable(e.to_string());
                return self.turn_away(client, message, refusal).await;
            }
        };
        let viewer = Viewer {
            caller,
            audience: &route.audience,
            view: &view,
            definitions: &self.app.policy.definitions,
        };
        let mut rewrite = |message: &mut Value| viewer.filter(message);
        let plan = Plan {
            rewrite: Some(&mut rewrite),
            reads_all: true,
            id: message.and_then(|m| m.id.as_ref()),
            permission: None,
            idle: route.idle_timeout,
            leaving_cancels: true,
            stop: message.is_none().then(|| Box::pin(self.barred()) as _),
        };
        ended(self.plumb(client, message, plan).await)
    }

    /// Until the proxy stops, or the caller's credential is no longer good. Nobody else looks at it again while
    /// a stream is open: what it may do ends with the credential, by a new policy, other keys of an issuer and other
    /// authorities as soon as they are known, and by the clock.
    async fn barred(&self) {
        let mut standing = Standing::of(self.app);
        let caller = &self.received.caller;
        loop {
            let snapshot = self.app.policy.snapshot();
            if caller.check_again(self.app, &snapshot).is_err() {
                return;
            }
            let end = caller.stands_until(self.app, &snapshot);
            if standing.stirs(end).await == Stir::Drain {
                return;
            }
        }
    }

    /// Sends what is no call, and hands the answer on.
    async fn plumb(
        &self,
        client: &mut Client<'_>,
        message: Option<&Message>,
        plan: Plan<'_>,
    ) -> Result<Relayed, Gone> {
        let permit = Permit::passthrough(self.app.policy.version());
        let subject = received_as(self.received, message);
        let begun = match self.target() {
            Ok(sent) => {
                intend(self.app, &permit, subject, &sent.body_sha256).await.map(|outcome| (sent, outcome))
            }
            Err(refusal) => Err(refusal),
        };
        let (sent, outcome) = match begun {
            Ok(begun) => begun,
            Err(refusal) => {
                self.turn_away(client, message, refusal).await?;
                return Ok(Relayed::nothing());
            }
        };
        match self.send(permit, sent, None).await {
            Ok(response) if plan.reads_all && is_coded(response.headers()) => {
                let seen = ExecutionRecord {
                    status: Some(response.status().as_u16()),
                    ..ExecutionRecord::default()
                };
                // Not one byte of it is read.
                drop(response);
                outcome.answered(true, seen);
                self.say_unreadable(client, message).await?;
                Ok(Relayed::nothing())
            }
            Ok(response) => {
                let relayed = relay(client, response, plan).await;
                record(outcome, &relayed).await;
                Ok(relayed)
            }
            Err(refusal) => {
                self.app.metrics.refusals.with_label_values(&[refusal.code()]).inc();
                not_answered(outcome, &refusal).await;
                self.say_no(client, message, &refusal).await?;
                Ok(Relayed::nothing())
            }
        }
    }

    /// The tool server was told that nothing coded is taken.
    async fn say_unreadable(&self, client: &mut Client<'_>, message: Option<&Message>) -> Result<(), Gone> {
        let Some(message) = message else { return self.say_no(client, None, &Refusal::UpstreamBroken).await };
        let body =
            answer::unreadable(message.id.as_ref(), "the tool server's answer is coded, and is not read");
        say(client, StatusCode::OK, &body, None).await
    }

    /// Refuses what is no call, once that is recorded.
    pub(super) async fn turn_away(
        &self,
        client: &mut Client<'_>,
        message: Option<&Message>,
        refusal: Refusal,
    ) -> Result<(), Gone> {
        let subject = received_as(self.received, message);
        let recorded = crate::unidentified::refused(self.app, Some(&subject), refusal.code()).await;
        self.say_no(client, message, &recorded.err().unwrap_or(refusal)).await
    }

    async fn say_no(
        &self,
        client: &mut Client<'_>,
        message: Option<&Message>,
        refusal: &Refusal,
    ) -> Result<(), Gone> {
        match message.filter(|m| m.id.is_some()) {
            Some(message) => self.refuse(client, message, (refusal, None)).await,
            None => client.refuse(refusal, None, &self.received.live.config.backend_url).await,
        }
    }
}

/// What is coded is not read: it may be a thousand times as large as it looks.
fn is_coded(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// One error an id.
pub(super) fn refused_batch(messages: &[Message]) -> Value {
    let why = "this batch is refused and nothing of it was forwarded: send calls one at a time";
    let ids = messages.iter().filter_map(|m| m.id.as_ref());
    ids.map(|id| error(id, INVALID_REQUEST, why, None)).collect()
}

/// Writes the intent, with the permit's reason.
pub(super) async fn intend(
    app: &Arc<App>,
    permit: &Permit,
    subject: Subject,
    body_sha256: &[u8; 32],
) -> Result<Outcome, Refusal> {
    let execution = ExecutionRecord { request_sha256: Some(hex(body_sha256)), ..ExecutionRecord::default() };
    let intent =
        EventData { permit: Some(permit.reason()), execution: Some(execution), ..EventData::default() };
    let intent = subject.event(EventType::CallForwarded, intent);
    let stored = app.spool.append(vec![intent]).await;
    stored.map_err(|e| Refusal::AuditUnavailable(e.to_string()))?;
    Ok(Outcome::begin(app.clone(), subject, permit.reason()))
}

/// What became of it, by the status: nothing ran, so an agent that stops listening changes nothing.
async fn record(outcome: Outcome, relayed: &Relayed) {
    match relayed.end {
        End::Whole | End::Cancelled => {
            outcome.answered(!relayed.status.is_success(), execution(relayed));
        }
        End::Broken => outcome.unknown(BROKE_OFF, execution(relayed)).await,
    }
}

/// A stream that did not end as the tool server meant it leaves the connection unusable.
fn ended(relayed: Result<Relayed, Gone>) -> Result<(), Gone> {
    if relayed?.end == End::Whole { Ok(()) } else { Err(Gone) }
}
