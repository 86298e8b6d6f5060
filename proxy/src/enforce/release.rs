//! A held call is released: decided again as if it came now, its approval consumed, then forwarded.

use std::time::Duration;

use oakallow_policy::audit::{ApprovalRecord, DecisionRecord, EventData, EventType};
use oakallow_policy::life::{self, Closing, Step};
use oakallow_policy::permit::{Consumption, PermitReason};
use oakallow_policy::token::TokenKey;
use oakallow_policy::wire::ConsumeRequest;
use oakallow_policy::{Decision, Permission, Permit};

use crate::backend::BackendError;
use crate::enforce::{Life, Prints, Ready, unavailable};
use crate::event::{self, Subject};
use crate::observe::{Phase, Trail};
use crate::outcome::Outcome;
use crate::policy::View;
use crate::refusal::Refusal;

/// How long the answer is asked for whether an approval is consumed.
const CONSUME_MAX: Duration = Duration::from_secs(5);
const CONSUME_PAUSE: Duration = Duration::from_millis(100);

impl Life<'_> {
    /// An approved call: decided again, then consumed, then forwarded.
    pub(super) async fn release(&mut self, approval: &str, prints: Prints) -> Result<Ready, Refusal> {
        let view = self.view().await?;
        let decision = self.decide_again(&view, prints)?;
        self.note(DecisionRecord::from(&decision));
        self.validate(&view, prints)?;
        self.fresh(&decision)?;
        let key = self.token_key(&view)?;
        if decision.permission() == Permission::Allowed {
            self.withdraw(approval).await;
            let permit = Permit::by_rule(&decision).map_err(|e| unavailable(&e))?;
            return self.forward(permit, &decision, (prints, key)).await;
        }
        let (trail, began) = (Trail::current(), Trail::current().now());
        let consumed = self.consume(approval, prints).await;
        trail.passed(Phase::Consume, began);
        match consumed? {
            Ok(consumption) => self.spend(&consumption, &decision, (prints, key)).await,
            // Consumed or not: if it is, then by this call, which does not run.
            Err(BackendError::Unreachable(_)) => {
                self.not_forwarded(&Refusal::BackendUnavailable).await;
                Err(Refusal::BackendUnavailable)
            }
            // Consumed by another call, or expired meanwhile.
            Err(BackendError::Refused(_)) => Err(self.ended_as(&decision, prints).await),
        }
    }

    /// Consumes the approval. That this is under way is stored before: should the process end now, the
    /// next one tells the backend that the call did not run.
    async fn consume(
        &mut self,
        approval: &str,
        prints: Prints,
    ) -> Result<Result<Consumption, BackendError>, Refusal> {
        let of = ApprovalRecord { id: approval.to_owned(), ..ApprovalRecord::default() };
        let data = EventData { approval: Some(of), ..EventData::default() };
        let opening = event::of_call(self.call, EventType::ApprovalConsumed, data);
        self.advance(Step::Open)?;
        let events = std::mem::take(&mut self.pending);
        let stored = self.app.spool.append_opening(events, opening).await;
        stored.map_err(|e| Refusal::AuditUnavailable(e.to_string()))?;
        let request = ConsumeRequest { txn: self.call.txn.clone(), fingerprint: prints.fingerprint };
        let end = tokio::time::Instant::now() + CONSUME_MAX;
        let mut pause = CONSUME_PAUSE;
        loop {
            // The same call gets the same answer, however often it asks.
            let answer = self.app.backend.consume(approval, &request).await;
            let lost = matches!(answer, Err(BackendError::Unreachable(_)));
            if !lost || tokio::time::Instant::now() + pause > end {
                return Ok(answer);
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    /// The policy changed while the call waits. An error ends it now, whatever a person would say.
    pub(super) async fn look_again(&mut self, prints: Prints) -> Result<(), Refusal> {
        self.call.caller.check_again(self.app, &self.app.policy.snapshot())?;
        // A policy that cannot be had now is asked again when the call is released.
        let Ok(view) = self.view().await else { return Ok(()) };
        match self.decide_again(&view, prints) {
            Ok(_) | Err(Refusal::PolicyUnavailable(_)) => Ok(()),
            Err(end) => Err(end),
        }
    }

    /// Decides a call that has waited. Its caller may be none by now. And what a person is asked about is
    /// one tool as it was described then: a tool that is described otherwise is another one.
    fn decide_again<'v>(&mut self, view: &'v View, prints: Prints) -> Result<Decision<'v>, Refusal> {
        self.call.caller.check_again(self.app, view.snapshot())?;
        let decision = view.resolve(&self.call.names.as_call()).map_err(|e| unavailable(&e))?;
        self.advance(Step::Decide(decision.permission()))?;
        if decision.permission() == Permission::Disabled {
            let record = DecisionRecord::from(&decision);
            self.note(record.clone());
            return Err(Refusal::Disabled(record));
        }
        let same = self.prints(view)?.fingerprint == prints.fingerprint;
        if !same || self.is_described_anew(view, &decision) {
            return Err(Refusal::DefinitionChanged);
        }
        Ok(decision)
    }

    /// Whether the tool server began to describe the tool otherwise while the call waited.
    fn is_described_anew(&self, view: &View, decision: &Decision<'_>) -> bool {
        let trusted = view.snapshot().rules.trusts_changed_definitions();
        let knew = self.decision.as_ref().is_some_and(|asked| asked.definition_changed);
        decision.definition_changed() && !knew && !trusted
    }

    /// Writes down a decision that is not the one before.
    fn note(&mut self, record: DecisionRecord) {
        if self.decision.as_ref() == Some(&record) {
            return;
        }
        let data = EventData { decision: Some(record.clone()), ..EventData::default() };
        self.pending.push(event::of_call(self.call, EventType::CallDecided, data));
        Trail::current().note(|noted| noted.decided(&record));
        self.decision = Some(record);
    }

    pub(super) async fn withdraw(&self, approval: &str) {
        if let Err(e) = self.app.backend.cancel(approval).await {
            tracing::warn!(error = %e, approval, "an approval that is not needed stays open");
        }
    }

    /// Forwards under an approval that is spent now: whatever fails from here on is recorded as
    /// `call.not_forwarded`, or the next try would be told that this one still runs.
    async fn spend(
        &mut self,
        consumption: &Consumption,
        decision: &Decision<'_>,
        (prints, key): (Prints, &TokenKey),
    ) -> Result<Ready, Refusal> {
        self.advance(Step::Spend)?;
        let permit = Permit::by_approval(decision, consumption, prints.fingerprint, &self.call.txn);
        let ready = match permit {
            Ok(permit) => self.forward(permit, decision, (prints, key)).await,
            Err(e) => Err(unavailable(&e)),
        };
        if let Err(refusal) = &ready {
            self.not_forwarded(refusal).await;
        }
        ready
    }

    async fn not_forwarded(&mut self, refusal: &Refusal) {
        // How it ended may be recorded already.
        let Some(stage) = life::after(self.stage, Step::Close(Closing::NotForwarded)) else { return };
        self.stage = stage;
        let subject = Subject::call(self.call);
        let outcome = Outcome::begin(self.app.clone(), subject, PermitReason::Approval);
        outcome.not_forwarded(refusal.code()).await;
    }
}
