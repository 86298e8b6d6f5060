//! The one path of every call: resolve → validate → [hold] → intent → token. What comes out is a permit
//! to forward, with everything that has to be written down about it written down.
//!
//! Here: arriving, deciding, refusing. [`approve`]: a person is asked. [`release`]: what was approved is
//! decided again. [`intent`]: the last steps before the call is sent. [`waiter`]: who waits meanwhile.

mod approve;
mod intent;
mod release;
mod waiter;

use std::sync::Arc;
use std::time::Instant;

use http::{Method, Uri};
use oakallow_policy::audit::{DecisionRecord, Event, EventData, EventType};
use oakallow_policy::canonical::sha256;
use oakallow_policy::fingerprint::Fingerprint;
use oakallow_policy::life::{self, Closing, Stage, Step};
use oakallow_policy::token::TokenKey;
use oakallow_policy::{Decision, Permission, Permit, ResolveError};
use tokio::sync::OwnedSemaphorePermit;

use crate::app::App;
use crate::call::IdentifiedCall;
use crate::event;
use crate::live::Live;
use crate::observe::{Phase, Trail};
use crate::outcome::Outcome;
use crate::policy::View;
use crate::refusal::Refusal;
pub use waiter::Waiter;

/// What exactly will be sent, and the token is bound to besides the call.
#[derive(Clone, Copy)]
pub enum Bound<'a> {
    /// An HTTP request.
    Request(&'a Target),
    /// A message that will carry the token itself, and so cannot be covered by it: the SHA-256 of what it
    /// is without.
    Message([u8; 32]),
}

impl<'a> Bound<'a> {
    /// SHA-256 of what is sent.
    fn sha256(&self) -> &[u8; 32] {
        match self {
            Self::Request(target) => &target.body_sha256,
            Self::Message(sha256) => sha256,
        }
    }

    fn request(&self) -> Option<&'a Target> {
        match self {
            Self::Request(target) => Some(target),
            Self::Message(_) => None,
        }
    }
}

/// An HTTP request that will be sent.
pub struct Target {
    /// HTTP method.
    pub method: Method,
    /// The tool server's URI, query included.
    pub uri: Uri,
    /// SHA-256 of the body.
    pub body_sha256: [u8; 32],
}

/// A call that may be forwarded now; its intent is stored.
pub struct Ready {
    /// Leave to forward.
    pub permit: Permit,
    /// The execution token.
    pub token: String,
    /// To be finished with what became of it.
    pub outcome: Outcome,
}

/// A call that is not forwarded.
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// What resolution said, if it was asked.
    pub permission: Option<Permission>,
}

/// Why a call ended that nobody ended.
const BROKEN_OFF: &str = "internal_error";

/// Takes a call from its identification to the moment before it is sent.
pub async fn admit(
    (app, live): (&Arc<App>, &Arc<Live>),
    call: &IdentifiedCall,
    bound: Bound<'_>,
    waiter: &mut impl Waiter,
) -> Result<Ready, Refused> {
    let mut life = Life {
        app,
        live,
        call,
        bound,
        pending: Vec::new(),
        decision: None,
        stage: Stage::Arrived,
        place: None,
    };
    Trail::current().note(|noted| noted.call(call));
    let refusal = match life.run(waiter).await {
        Ok(ready) => return Ok(ready),
        Err(refusal) => refusal,
    };
    let permission = life.decision.as_ref().map(|d| d.permission);
    let refusal = life.record_refusal(refusal).await;
    life.stage = Stage::Closed;
    Err(Refused { refusal, permission })
}

/// One call on its way.
struct Life<'a> {
    app: &'a Arc<App>,
    /// The configuration that it began with.
    live: &'a Arc<Live>,
    call: &'a IdentifiedCall,
    bound: Bound<'a>,
    /// Events that are written with the next append: one write for the whole of a short life.
    pending: Vec<Event>,
    decision: Option<DecisionRecord>,
    /// Where it stands: what may be done next.
    stage: Stage,
    /// Of a released call: its place among those that are with a tool server.
    place: Option<OwnedSemaphorePermit>,
}

/// What is computed from the call and the tool it names. That it can be computed at all is known
/// before anything is decided, so nothing fails on it later, when an approval is spent.
#[derive(Clone, Copy)]
struct Prints {
    fingerprint: Fingerprint,
    /// Of the tool's definition; `None` when it is not registered.
    definition: Option<[u8; 32]>,
}

impl Life<'_> {
    async fn run(&mut self, waiter: &mut impl Waiter) -> Result<Ready, Refusal> {
        if self.app.is_draining() {
            return Err(Refusal::Draining);
        }
        let started = Instant::now();
        let view = self.view().await?;
        let prints = self.arrive(&view)?;
        let decision = self.decide(&view)?;
        let route = self.call.route.name.as_str();
        Trail::current().passed(Phase::Decide, Some(started));
        let decided = &self.app.metrics.decision_seconds;
        decided.with_label_values(&[route]).observe(started.elapsed().as_secs_f64());
        if decision.permission() == Permission::Disabled {
            return Err(Refusal::Disabled(DecisionRecord::from(&decision)));
        }
        self.validate(&view, prints)?;
        let key = self.token_key(&view)?;
        if decision.permission() == Permission::Allowed {
            let permit = Permit::by_rule(&decision).map_err(|e| unavailable(&e))?;
            return self.forward(permit, &decision, (prints, key)).await;
        }
        // Apart: most calls are not held, and need no room for it.
        Box::pin(self.approve(&decision, prints, waiter)).await
    }

    /// Takes a step in the order that [`oakallow_policy::life`] allows. It stands before each effect, so one
    /// out of order does not happen.
    fn advance(&mut self, step: Step) -> Result<(), Refusal> {
        let Some(stage) = life::after(self.stage, step) else {
            tracing::error!(stage = ?self.stage, ?step, txn = self.call.txn, "a step out of order is refused");
            return Err(Refusal::OutOfOrder);
        };
        self.stage = stage;
        Ok(())
    }

    async fn view(&self) -> Result<View, Refusal> {
        self.app.policy.view(self.call.names.tenant.as_ref()).await.map_err(|e| unavailable(&e))
    }

    /// Writes down that the call arrived.
    fn arrive(&mut self, view: &View) -> Result<Prints, Refusal> {
        let call = self.call;
        let prints = self.prints(view)?;
        let requested = EventData {
            parameters: Some(self.live.redactor.recorded(call)),
            fingerprint: Some(prints.fingerprint.to_string()),
            ..EventData::default()
        };
        self.pending.push(event::of_call(call, EventType::CallRequested, requested));
        Ok(prints)
    }

    fn prints(&self, view: &View) -> Result<Prints, Refusal> {
        let call = self.call;
        let rules = &view.snapshot().rules;
        let definition =
            rules.definition_hash(&call.names.tool, &call.names.audience).map_err(|e| unavailable(&e))?;
        // An approval is for the tool as it is described now, whatever was pinned.
        let served = view.served(&call.names.as_call());
        let described = match (definition, served) {
            (Some(registered), Some(served)) => Some(sha256(&[registered, served].concat())),
            (registered, _) => registered,
        };
        let fingerprint = Fingerprint::of(&call.names.as_call(), &call.route.name, described, &call.args)
            .map_err(|e| Refusal::InvalidRequest(e.to_string()))?;
        Ok(Prints { fingerprint, definition })
    }

    /// Arguments against the tool's schema. After the decision: what a disabled tool expects is not told
    /// (docs/decisions/0012-validate-after-decision.md).
    fn validate(&self, view: &View, prints: Prints) -> Result<(), Refusal> {
        let names = &self.call.names;
        match (view.snapshot().rules.tool(&names.tool, &names.audience), prints.definition) {
            (Some(tool), Some(hash)) => self.app.schemas.check(tool, hash, &self.call.parameters),
            _ => Ok(()),
        }
    }

    /// The key that will sign: looked for before a person is asked, and before an approval is spent.
    fn token_key<'v>(&self, view: &'v View) -> Result<&'v TokenKey, Refusal> {
        let audience = &self.call.route.audience;
        view.snapshot()
            .token_keys
            .get(audience)
            .ok_or_else(|| Refusal::PolicyUnavailable(format!("no token key for the audience `{audience}`")))
    }

    /// Asks the rules, and whether they are fresh enough to be asked.
    fn decide<'v>(&mut self, view: &'v View) -> Result<Decision<'v>, Refusal> {
        let call = self.call;
        let decision = view.resolve(&call.names.as_call()).map_err(|e| match e {
            ResolveError::ResourceRequired => Refusal::InvalidRequest(e.to_string()),
            other => unavailable(&other),
        })?;
        self.advance(Step::Decide(decision.permission()))?;
        let record = DecisionRecord::from(&decision);
        let route = call.route.name.as_str();
        let labels = [record.permission.as_str(), record.resolved_from.as_str(), route];
        self.app.metrics.requests.with_label_values(&labels).inc();
        Trail::current().note(|noted| noted.decided(&record));
        let data = EventData { decision: Some(record.clone()), ..EventData::default() };
        self.pending.push(event::of_call(call, EventType::CallDecided, data));
        self.decision = Some(record);
        if decision.permission() != Permission::Disabled {
            self.fresh(&decision)?;
        }
        Ok(decision)
    }

    /// Whether the policy is confirmed recently enough for a call of this risk.
    fn fresh(&self, decision: &Decision<'_>) -> Result<(), Refusal> {
        let risk = decision.risk_level();
        if self.app.policy.is_fresh_for(risk) {
            return Ok(());
        }
        self.app.metrics.staleness_refusals.with_label_values(&[risk.as_str()]).inc();
        Err(Refusal::PolicyUnavailable(format!(
            "the backend has not confirmed the policy for {} s: too long for a call of {} risk",
            self.app.policy.age_s(),
            risk.as_str()
        )))
    }

    /// Writes what is pending. An event that is not stored did not happen: the call is refused.
    async fn flush(&mut self) -> Result<u64, Refusal> {
        let events = std::mem::take(&mut self.pending);
        self.app.spool.append(events).await.map_err(|e| Refusal::AuditUnavailable(e.to_string()))
    }

    /// A refusal is recorded before it is answered.
    async fn record_refusal(&mut self, refusal: Refusal) -> Refusal {
        self.app.metrics.refusals.with_label_values(&[refusal.code()]).inc();
        Trail::current().note(|noted| noted.error = Some(refusal.code()));
        let is_closed = life::after(self.stage, Step::Close(Closing::Refused)).is_none();
        if is_closed || matches!(refusal, Refusal::AuditUnavailable(_)) {
            return refusal;
        }
        self.stage = Stage::Closed;
        let data = event::reason(refusal.code(), self.decision.clone());
        self.pending.push(event::of_call(self.call, EventType::CallRefused, data));
        match self.flush().await {
            Ok(_) => refusal,
            Err(unrecorded) => unrecorded,
        }
    }
}

/// A call that ends in the middle (its request panicked, or was dropped) does not run, and leaves a record.
impl Drop for Life<'_> {
    fn drop(&mut self) {
        let kind = match self.stage {
            Stage::Arrived | Stage::Decided(_) => EventType::CallRefused,
            // Its approval may be spent.
            Stage::Opened | Stage::Spent => EventType::CallNotForwarded,
            // Its outcome is somebody else's to record by now, or recorded.
            Stage::Intended | Stage::Sent | Stage::Closed => return,
        };
        self.app.metrics.refusals.with_label_values(&[BROKEN_OFF]).inc();
        let closing = event::of_call(self.call, kind, event::reason(BROKEN_OFF, self.decision.take()));
        let events = std::mem::take(&mut self.pending).into_iter().chain([closing]);
        events.for_each(|event| self.app.spool.append_later(event));
    }
}

fn unavailable(e: &dyn std::fmt::Display) -> Refusal {
    Refusal::PolicyUnavailable(e.to_string())
}
