//! What is done with a message of the client's: the same as with one that comes over HTTP.

use std::sync::Arc;

use http::HeaderMap;
use oakallow_policy::audit::ExecutionRecord;
use oakallow_policy::canonical::sha256;
use oakallow_policy::id::Kind;
use oakallow_policy::permit::PermitReason;
use oakallow_policy::{Permission, Permit};
use serde_json::Value;

use crate::app::App;
use crate::call::IdentifiedCall;
use crate::call::era::Era;
use crate::call::mcp::{Arrival, Body, Class, INVALID_REQUEST, Message, Unread, identify, parse, sort};
use crate::clock;
use crate::enforce::{self, Bound, Ready};
use crate::event::Subject;
use crate::identity::Caller;
use crate::mcp::STATELESS_WAIT_MAX;
use crate::mcp::answer::{self, Refused, error};
use crate::mcp::plumbing::{intend, refused_batch};
use crate::mcp::relay::UNHEARD_MAX;
use crate::mcp::see::see;
use crate::mcp::session::Cancellable;
use crate::mcp::stdio::client::Client;
use crate::mcp::stdio::credential::Credential;
use crate::mcp::stdio::flights::{Asked, Flight, Flights, NoPlace, Place};
use crate::mcp::stdio::lines::{Line, Lines};
use crate::mcp::stdio::server::Server;
use crate::mcp::stdio::waiting::Waiting;
use crate::mcp::stdio::wire;
use crate::observe::Trail;
use crate::observe::trail::STDIO;
use crate::phases::InFlight;
use crate::refusal::Refusal;
use crate::route::Route;
use crate::serve::not_answered;
use crate::unidentified;

/// The client, the tool server, and us between them.
pub(super) struct Exchange {
    pub(super) app: Arc<App>,
    pub(super) route: Arc<Route>,
    pub(super) credential: Credential,
    pub(super) server: Server,
    pub(super) client: Client,
    pub(super) flights: Flights,
}

/// What stands in a line: messages, each as it was read and as it is understood.
enum Said {
    One(Value, Message),
    Batch(Vec<Value>, Vec<Message>),
}

/// A message from a known caller, with its place among the unanswered requests if it is one.
struct Incoming {
    caller: Caller,
    txn: String,
    /// As it was read, less a token of the client's own.
    value: Value,
    message: Message,
    place: Option<Place>,
}

/// Takes the client's lines until it has no more.
pub(super) async fn take_all(exchange: Arc<Exchange>, mut lines: Lines) {
    while let Some(line) = lines.recv().await {
        exchange.take(line).await;
    }
}

impl Exchange {
    /// Takes one line. Calls and lists go on by themselves, so that one that is held keeps no other
    /// waiting; the rest goes in the order in which it came.
    async fn take(self: &Arc<Self>, line: Line) {
        if !matches!(&line, Line::Whole(line) if line.trim_ascii().is_empty()) {
            self.watched(self.look_at(line)).await;
        }
    }

    /// Works on a message, watched as a request of its own.
    fn watched<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        let trail = self.app.observer.begin();
        trail.note(|noted| {
            noted.listener = STDIO.into();
            noted.of_route(&self.route);
        });
        trail.over(work)
    }

    async fn look_at(self: &Arc<Self>, line: Line) {
        let read = match line {
            Line::Whole(line) => read(&line),
            Line::TooLong => {
                let bytes_max = self.app.live().config.limits.body_bytes_max;
                return self.unread(&Refusal::BodyTooLarge { bytes_max }).await;
            }
        };
        let txn = clock::new_id(Kind::Txn);
        Trail::current().note(|noted| noted.txn.clone_from(&txn));
        let caller = self.credential.caller(&self.app.policy.snapshot());
        match (caller, read) {
            (Ok(caller), Ok(Said::One(value, message))) => self.one(caller, txn, value, message).await,
            (Ok(caller), Ok(Said::Batch(values, messages))) => self.batch(&caller, values, messages).await,
            (Ok(caller), Err(unread)) => {
                let body = error(&unread.id, unread.code, &unread.message, None);
                self.turn_down(&self.subject(&caller, &txn), "invalid_request", body).await;
            }
            (Err(refusal), Ok(said)) => self.unknown_caller(&refusal, &txn, said).await,
            (Err(refusal), Err(_)) => self.unread(&refusal).await,
        }
    }

    fn subject(&self, caller: &Caller, txn: &str) -> Subject {
        Subject::request(txn, (&caller.principal, caller.tenant.as_ref()), Some(&self.route))
    }

    /// For the record of a request whose sender is not let in, should it be known who that is.
    fn sender(&self, txn: &str) -> Option<Subject> {
        let snapshot = self.app.policy.snapshot();
        let principal = self.credential.principal(&snapshot)?;
        Some(Subject::request(txn, (principal, None), Some(&self.route)))
    }

    /// Refuses a line that nobody can be answered about by an id.
    async fn unread(&self, refusal: &Refusal) {
        let sender = self.sender(&clock::new_id(Kind::Txn));
        let recorded = unidentified::refused(&self.app, sender.as_ref(), refusal.code()).await;
        let answer = recorded.as_ref().err().unwrap_or(refusal).answer();
        let text = format!("{} ({}): {}", answer.title, answer.code, answer.detail);
        let _ = self.client.say(&error(&Value::Null, INVALID_REQUEST, &text, None)).await;
    }

    /// The key is not good any more: each request is answered so.
    async fn unknown_caller(&self, refusal: &Refusal, txn: &str, said: Said) {
        let recorded = unidentified::refused(&self.app, self.sender(txn).as_ref(), refusal.code()).await;
        let refusal = recorded.as_ref().err().unwrap_or(refusal);
        let messages = match said {
            Said::One(_, message) => vec![message],
            Said::Batch(_, messages) => messages,
        };
        for message in messages.iter().filter(|m| m.id.is_some()) {
            self.refuse(message, txn, (refusal, None)).await;
        }
    }

    /// A batch passes only when all of it is plumbing; then one by one, which says the same.
    async fn batch(self: &Arc<Self>, caller: &Caller, values: Vec<Value>, messages: Vec<Message>) {
        let passes = |m: &Message| m.class == Class::Pass && m.era == Era::Sessions;
        if !messages.iter().all(passes) {
            let subject = self.subject(caller, &clock::new_id(Kind::Txn));
            return self.turn_down(&subject, "batch", refused_batch(&messages)).await;
        }
        for (value, message) in values.into_iter().zip(messages) {
            let txn = clock::new_id(Kind::Txn);
            self.watched(self.one(caller.clone(), txn, value, message)).await;
        }
    }

    async fn one(self: &Arc<Self>, caller: Caller, txn: String, mut value: Value, message: Message) {
        let place = match message.id.as_ref().map(|id| self.flights.enter(id)).transpose() {
            Ok(place) => place,
            Err(NoPlace::Taken) => return self.taken(&caller, &txn, &message).await,
            Err(NoPlace::Full) => {
                return self.turn_away((&caller, &txn), &message, Refusal::TooManyHolds).await;
            }
        };
        wire::drop_token(&mut value);
        self.see((&caller, &txn), &message);
        let incoming = Incoming { caller, txn, value, message, place };
        match incoming.message.class {
            Class::Pass if self.cancels_held(&incoming) => {}
            Class::Pass => self.pass(incoming).await,
            Class::List => self.apart(|exchange| async move { exchange.list(incoming).await }),
            Class::Decide { .. } => {
                // From here on, not when its task comes to it: a cancel may be the next line.
                let id = incoming.message.id.as_ref().unwrap_or(&Value::Null);
                let cancellable = self.app.mcp.cancellable(&self.route.name, None, &incoming.caller, id);
                self.apart(|exchange| async move { exchange.call(incoming, cancellable).await });
            }
            Class::Unknown => {
                let subject = self.subject(&incoming.caller, &incoming.txn);
                let body = answer::unknown_method(&incoming.message);
                self.turn_down(&subject, "unknown_method", body).await;
            }
        }
    }

    fn see(&self, (caller, txn): (&Caller, &str), message: &Message) {
        see(message, (None, None));
        Trail::current().note(|noted| {
            noted.txn = txn.to_owned();
            noted.principal = Some(caller.principal.clone());
            noted.tenant.clone_from(&caller.tenant);
        });
    }

    fn apart<F: Future<Output = ()> + Send + 'static>(self: &Arc<Self>, work: impl FnOnce(Arc<Self>) -> F) {
        let (work, counted) = (work(self.clone()), InFlight::new(&self.app));
        let trail = Trail::current();
        tokio::spawn(async move {
            trail.over(work).await;
            drop(counted);
        });
    }

    /// A second request with an id that is in use. Answered without it: the client would take an answer
    /// with it for the first one's.
    async fn taken(&self, caller: &Caller, txn: &str, message: &Message) {
        let id = message.id.as_ref().unwrap_or(&Value::Null);
        let why = format!("a request with the id {id} is not answered yet: each needs an id of its own");
        let body = error(&Value::Null, INVALID_REQUEST, &why, None);
        self.turn_down(&self.subject(caller, txn), "invalid_request", body).await;
    }

    /// Answers what is no call and goes no further, once that is recorded.
    async fn turn_down(&self, subject: &Subject, code: &'static str, body: Value) {
        let body = match unidentified::refused(&self.app, Some(subject), code).await {
            Ok(()) => body,
            Err(unrecorded) => answer::instead(&body, &unrecorded),
        };
        // A batch of notifications has nobody to answer.
        if body.as_array().is_none_or(|errors| !errors.is_empty()) {
            let _ = self.client.say(&body).await;
        }
    }

    /// Refuses a message in which no call was identified, once that is recorded.
    async fn turn_away(&self, (caller, txn): (&Caller, &str), message: &Message, refusal: Refusal) {
        let subject = self.subject(caller, txn).saying(method(message));
        let recorded = unidentified::refused(&self.app, Some(&subject), refusal.code()).await;
        self.refuse(message, txn, (&recorded.err().unwrap_or(refusal), None)).await;
    }

    async fn refuse(
        &self,
        message: &Message,
        txn: &str,
        (refusal, permission): (&Refusal, Option<Permission>),
    ) {
        if message.id.is_none() {
            return;
        }
        let refused = Refused { refusal, permission, txn, hide_disabled: self.route.hide_disabled };
        let _ = self.client.say(&refused.answer(message, message.era)).await;
    }

    /// `notifications/cancelled` of a call that is held here: the tool server has never seen that call.
    fn cancels_held(&self, incoming: &Incoming) -> bool {
        let held = |id| self.app.mcp.cancel(&self.route.name, None, &incoming.caller, id);
        cancelled(&incoming.message).is_some_and(held)
    }

    /// Protocol plumbing: through as it is.
    async fn pass(self: &Arc<Self>, incoming: Incoming) {
        let given_up = cancelled(&incoming.message).and_then(|id| Some((id.clone(), self.flights.txn(id)?)));
        self.plumb(incoming, None).await;
        if let Some((id, txn)) = given_up {
            // Not counted as work under way: it only waits.
            let exchange = self.clone();
            tokio::spawn(async move { exchange.forget(&id, &txn).await });
        }
    }

    /// A call that the client has given up: the tool server need not answer it any more.
    async fn forget(&self, id: &Value, txn: &str) {
        tokio::time::sleep(UNHEARD_MAX).await;
        if let Some(flight) = self.flights.land_if(id, txn) {
            flight.outcome.unknown("the agent cancelled the call", ExecutionRecord::default()).await;
        }
    }

    /// `tools/list`: through, less what the caller may not call.
    async fn list(&self, incoming: Incoming) {
        match self.app.policy.view(incoming.caller.tenant.as_ref()).await {
            Ok(view) => {
                let listed = Some((incoming.caller.clone(), view));
                self.plumb(incoming, listed).await;
            }
            Err(e) => {
                let refusal = Refusal::PolicyUnavailable(e.to_string());
                self.turn_away((&incoming.caller, &incoming.txn), &incoming.message, refusal).await;
            }
        }
    }

    async fn plumb(&self, incoming: Incoming, listed: Option<(Caller, crate::policy::View)>) {
        let Incoming { caller, txn, mut value, message, place } = incoming;
        Trail::current().put_meta(&mut value);
        let line = wire::line(&value);
        let permit = Permit::passthrough(self.app.policy.version());
        let subject = self.subject(&caller, &txn).saying(method(&message));
        match intend(&self.app, &permit, subject, &sha256(&line)).await {
            Ok(outcome) => {
                let asked = Asked { message, txn, permission: None };
                let flight = Flight { asked, outcome, shift: 0.0, listed };
                self.send(permit, &line, place, flight).await;
            }
            Err(refusal) => self.turn_away((&caller, &txn), &message, refusal).await,
        }
    }

    /// A call: decided, perhaps held, forwarded with a token.
    async fn call(&self, incoming: Incoming, cancellable: Cancellable) {
        let Incoming { caller, txn, mut value, message, place } = incoming;
        // Before it is hashed: the record is of what is sent.
        Trail::current().put_meta(&mut value);
        let unsigned = wire::line(&value);
        let call = match self.identify(&message, (&caller, &txn), unsigned.len()) {
            Ok(call) => call,
            Err(refusal) => return self.turn_away((&caller, &txn), &message, refusal).await,
        };
        let token = message.progress_token().filter(|_| message.era == Era::Sessions);
        let progress = token.map(|token| (token, self.route.progress_every));
        let mut waiting = Waiting::new(&self.client, progress, cancellable.notify());
        let live = self.app.live();
        let admitted =
            enforce::admit((&self.app, &live), &call, Bound::Message(sha256(&unsigned)), &mut waiting).await;
        drop(cancellable);
        let (is_cancelled, shift) = (waiting.is_cancelled(), waiting.shift());
        match admitted {
            Ok(ready) if is_cancelled => ready.outcome.not_forwarded("the agent cancelled the call").await,
            Ok(Ready { permit, token, outcome }) => {
                let approved = permit.reason() == PermitReason::Approval;
                let permission = if approved { Permission::RequiresApproval } else { Permission::Allowed };
                wire::put_token(&mut value, &token);
                let asked = Asked { message, txn, permission: Some(permission) };
                let flight = Flight { asked, outcome, shift, listed: None };
                self.send(permit, &wire::line(&value), place, flight).await;
            }
            // A request that was cancelled is not answered (MCP, cancellation).
            Err(_) if is_cancelled => {}
            Err(enforce::Refused { refusal, permission }) => {
                self.refuse(&message, &txn, (&refusal, permission)).await;
            }
        }
    }

    fn identify(
        &self,
        message: &Message,
        (caller, txn): (&Caller, &str),
        bytes: usize,
    ) -> Result<IdentifiedCall, Refusal> {
        let none = HeaderMap::new();
        let arrival = Arrival { route: &self.route, txn, headers: &none, bytes, caller };
        let budget = self.route.hold_budget;
        let wait = if message.era == Era::Stateless { budget.min(STATELESS_WAIT_MAX) } else { budget };
        identify(&arrival, message, wait, &self.app.policy.snapshot())
    }

    /// Sends a message whose intent is stored. A request stays in flight until it is answered.
    async fn send(&self, permit: Permit, line: &[u8], place: Option<Place>, flight: Flight) {
        let Some(place) = place else {
            return match self.server.send(permit, line).await {
                Ok(()) => flight.outcome.answered(false, ExecutionRecord::default()),
                Err(refusal) => not_answered(flight.outcome, &refusal).await,
            };
        };
        let (id, txn) = (flight.asked.message.id.clone().unwrap_or_default(), flight.asked.txn.clone());
        if let Err(flight) = place.depart(flight) {
            return self.lost(*flight, &Refusal::UpstreamUnreachable).await;
        }
        if let Err(refusal) = self.server.send(permit, line).await
            && let Some(flight) = self.flights.land_if(&id, &txn)
        {
            self.lost(flight, &refusal).await;
        }
    }

    /// A request that will not be answered by the tool server.
    pub(super) async fn lost(&self, flight: Flight, refusal: &Refusal) {
        let Flight { asked: Asked { message, txn, permission }, outcome, .. } = flight;
        not_answered(outcome, refusal).await;
        self.refuse(&message, &txn, (refusal, permission)).await;
    }
}

fn read(line: &[u8]) -> Result<Said, Unread> {
    let value = parse(line)?;
    Ok(match sort(value.clone(), Era::of_params)? {
        Body::One(message) => Said::One(value, message),
        Body::Batch(messages) => {
            let values = if let Value::Array(values) = value { values } else { Vec::new() };
            Said::Batch(values, messages)
        }
    })
}

/// For the record of a message.
fn method(message: &Message) -> &str {
    message.method.as_deref().unwrap_or("answer")
}

/// The request that a message cancels.
fn cancelled(message: &Message) -> Option<&Value> {
    let cancels = message.method.as_deref() == Some("notifications/cancelled");
    message.params.get("requestId").filter(|_| cancels)
}
