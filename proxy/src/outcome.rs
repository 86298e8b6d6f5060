//! What became of a forwarded call. Every intent gets exactly one outcome, even when the request panics.

use std::sync::Arc;
use std::time::Instant;

use oakallow_policy::audit::{Event, EventData, EventType, ExecutionRecord};
use oakallow_policy::permit::PermitReason;
use tokio::sync::OwnedSemaphorePermit;

use crate::app::App;
use crate::event::Subject;
use crate::observe::{Phase, Trail};

/// An intent without an outcome yet. Dropped without one, it records `call.unknown`.
pub struct Outcome {
    app: Arc<App>,
    subject: Option<Subject>,
    permit: PermitReason,
    begun: Instant,
    trail: Trail,
    /// Released calls: their place among those that are with a tool server.
    place: Option<OwnedSemaphorePermit>,
}

impl Outcome {
    /// Just after the intent was stored.
    #[must_use]
    pub fn begin(app: Arc<App>, subject: Subject, permit: PermitReason) -> Self {
        Self {
            app,
            subject: Some(subject),
            permit,
            begun: Instant::now(),
            trail: Trail::current(),
            place: None,
        }
    }

    /// Gives the place back when the outcome is known.
    #[must_use]
    pub fn holding(mut self, place: Option<OwnedSemaphorePermit>) -> Self {
        self.place = place;
        self
    }

    /// A whole answer came: `failed` when it says so. The agent has it already, so nobody waits until that is stored;
    /// the next call's intent stands behind it.
    pub fn answered(mut self, failed: bool, execution: ExecutionRecord) {
        let (kind, result) =
            if failed { (EventType::CallFailed, "failed") } else { (EventType::CallCompleted, "success") };
        if let Some(event) = self.event(kind, result, None, execution) {
            self.app.spool.append_later(event);
        }
    }

    /// Sent, and no whole answer came.
    pub async fn unknown(self, reason: &'static str, execution: ExecutionRecord) {
        self.finish(EventType::CallUnknown, "unknown", Some(reason), execution).await;
    }

    /// Nothing was sent.
    pub async fn not_forwarded(self, reason: &'static str) {
        self.finish(EventType::CallNotForwarded, "error", Some(reason), ExecutionRecord::default()).await;
    }

    async fn finish(
        mut self,
        kind: EventType,
        result: &'static str,
        reason: Option<&'static str>,
        execution: ExecutionRecord,
    ) {
        let Some(event) = self.event(kind, result, reason, execution) else { return };
        if let Err(e) = self.app.spool.append_outcome(event).await {
            // The intent is stored: after a restart the call becomes `call.unknown`.
            tracing::error!(error = %e, "an outcome could not be stored");
        }
    }

    fn event(
        &mut self,
        kind: EventType,
        result: &'static str,
        reason: Option<&'static str>,
        execution: ExecutionRecord,
    ) -> Option<Event> {
        let subject = self.subject.take()?;
        let (metrics, route) = (&self.app.metrics, subject.route());
        metrics.upstream_outcomes.with_label_values(&[result, label(self.permit), route]).inc();
        let why = reason.and_then(upstream_error);
        self.trail.note(|noted| {
            noted.permit = Some(label(self.permit));
            noted.outcome = Some(result);
            noted.error = noted.error.or(why);
        });
        if kind != EventType::CallNotForwarded {
            self.trail.passed(Phase::Upstream, Some(self.begun));
        }
        if let Some(why) = why {
            metrics.upstream_errors.with_label_values(&[why, route]).inc();
        }
        // A session's stream lasts as long as the session: no measure of the tool server.
        if self.permit != PermitReason::Passthrough && kind != EventType::CallNotForwarded {
            metrics.upstream_seconds.with_label_values(&[route]).observe(self.begun.elapsed().as_secs_f64());
        }
        let execution = ExecutionRecord {
            result: Some(result.to_owned()),
            duration_ms: u64::try_from(self.begun.elapsed().as_millis()).ok(),
            ..execution
        };
        let data = EventData {
            execution: Some(execution),
            reason: reason.map(str::to_owned),
            ..EventData::default()
        };
        Some(subject.into_event(kind, data))
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        let why = Some("the request ended before its outcome was known");
        if let Some(event) = self.event(EventType::CallUnknown, "unknown", why, ExecutionRecord::default()) {
            self.app.spool.append_later(event);
        }
    }
}

/// An answer that stopped in the midst.
pub const BROKE_OFF: &str = "the answer broke off";
/// A stream that ended in good order, but without what it was for.
pub const NO_ANSWER: &str = "the stream ended without the answer";

/// A reason that the tool server gave, as a label.
fn upstream_error(reason: &'static str) -> Option<&'static str> {
    match reason {
        BROKE_OFF => Some("broke_off"),
        NO_ANSWER => Some("no_answer"),
        code if code.starts_with("upstream_") => Some(code),
        _ => None,
    }
}

/// The permit's reason as a label.
fn label(permit: PermitReason) -> &'static str {
    match permit {
        PermitReason::Rule => "rule",
        PermitReason::Approval => "approval",
        PermitReason::Grant => "grant",
        PermitReason::Passthrough => "passthrough",
        PermitReason::Shadow => "shadow",
    }
}
