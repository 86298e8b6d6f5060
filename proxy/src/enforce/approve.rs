//! A person is asked: the approval is created or joined, the call held, released when it is approved.

use std::time::Instant;

use oakallow_policy::audit::{ApprovalRecord, DecisionRecord, EventData, EventType};
use oakallow_policy::canonical::hex;
use oakallow_policy::permit::{Consumption, PermitReason};
use oakallow_policy::token::TokenKey;
use oakallow_policy::wire::{
    ApprovalAnswer, ApprovalRequest, ApprovalState, ApprovalStatus, ConsumeRequest, ProxyContext,
};
use oakallow_policy::{Decision, Permission, Permit};

use crate::approval::{Hold, Holder};
use crate::backend::BackendError;
use crate::client::Client;
use crate::enforce::{Life, Prints, Ready, unavailable};
use crate::event::{self, Subject};
use crate::outcome::Outcome;
use crate::refusal::Refusal;

impl Life<'_> {
    pub(super) async fn approve(
        &mut self,
        decision: &Decision<'_>,
        prints: Prints,
        client: &mut Client<'_>,
    ) -> Result<Ready, Refusal> {
        let state = self.ask(decision, prints).await?.approval;
        let result = match state.status {
            ApprovalStatus::Approved => Ok(state),
            ApprovalStatus::Pending if self.call.wait.is_zero() => Err(Refusal::Pending(state)),
            ApprovalStatus::Pending => {
                let begun = Instant::now();
                let held = self.hold(state, client).await;
                let label = held.as_ref().map_or_else(Refusal::code, |_| "approved");
                let seconds = begun.elapsed().as_secs_f64();
                self.app.metrics.hold_seconds.with_label_values(&[label]).observe(seconds);
                held
            }
            _ => Err(ended(state)),
        };
        match result {
            Ok(approved) => self.release(approved, prints).await,
            // Another call consumed it: its outcome is ours.
            Err(Refusal::Cancelled(state)) if state.status == ApprovalStatus::Consumed => {
                Err(self.ended_as(decision, prints).await)
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Creates the approval, or joins the open one.
    async fn ask(&self, decision: &Decision<'_>, prints: Prints) -> Result<ApprovalAnswer, Refusal> {
        let call = self.call;
        let request = ApprovalRequest {
            tool_name: call.names.tool.clone(),
            tenant_id: call.names.tenant.clone(),
            resource_id: call.names.resource.clone(),
            method: call.names.method.clone(),
            parameters: call.parameters.clone(),
            reason: None,
            proxy: Some(ProxyContext {
                principal: call.names.principal.clone(),
                route: call.route.name.clone(),
                audience: call.names.audience.clone(),
                fingerprint: prints.fingerprint,
                definition_hash: prints.definition.map(|h| hex(&h)),
                idempotency_key: call.idempotency_key.clone(),
                txn: call.txn.clone(),
                resolved_from: decision.resolved_from().as_str().to_owned(),
                rule: decision.rule().map(str::to_owned),
                policy_version: decision.policy_version(),
            }),
        };
        let answer = self.app.backend.approval(&request).await.map_err(backend_says)?;
        match answer.already_executed {
            Some(ran) => Err(Refusal::AlreadyExecuted(ran)),
            None => Ok(answer),
        }
    }

    /// How an approval ended that this call did not get: the backend knows.
    async fn ended_as(&self, decision: &Decision<'_>, prints: Prints) -> Refusal {
        self.ask(decision, prints).await.map_or_else(|r| r, |a| ended(a.approval))
    }

    /// Waits for a person, the budget, the client's leaving, or the proxy's end.
    async fn hold(
        &mut self,
        state: ApprovalState,
        client: &mut Client<'_>,
    ) -> Result<ApprovalState, Refusal> {
        let call = self.call;
        let holder = Holder {
            txn: call.txn.clone(),
            principal: call.names.principal.clone(),
            tenant: call.names.tenant.clone(),
            tool: call.names.tool.clone(),
            route: call.route.name.clone(),
            bytes: call.bytes,
        };
        let mut hold = self.app.holds.enter(state.clone(), holder)?;
        let data = EventData { approval: Some(approval_record(&state)), ..EventData::default() };
        self.pending.push(event::of_call(call, EventType::CallHeld, data));
        self.flush().await?;
        client.hold_begins().await.map_err(|_| Refusal::Pending(state))?;
        let mut draining = self.app.draining.subscribe();
        let deadline = tokio::time::Instant::now() + call.wait;
        loop {
            if let Some(end) = settled(&hold) {
                return end;
            }
            let beat_at = client.next_beat();
            let stir = tokio::select! {
                () = hold.changed() => Stir::Look,
                () = tokio::time::sleep_until(deadline) => Stir::End,
                () = drained(&mut draining) => Stir::End,
                () = until(beat_at) => Stir::Beat,
                () = client.gone() => Stir::End,
            };
            let end = match stir {
                Stir::Look => false,
                Stir::End => true,
                Stir::Beat => client.beat().await.is_err(),
            };
            if end {
                // An approval that came at this very moment waits for the next try.
                return Err(Refusal::Pending(hold.state()));
            }
        }
    }

    /// An approved call: resolved again, then consumed, then forwarded.
    async fn release(&mut self, approved: ApprovalState, prints: Prints) -> Result<Ready, Refusal> {
        let app = self.app;
        let _gate = app.releases.acquire().await.map_err(|e| unavailable(&e))?;
        let view = self.view().await?;
        let decision = view.resolve(&self.call.names.as_call()).map_err(|e| unavailable(&e))?;
        let record = DecisionRecord::from(&decision);
        if self.decision.as_ref() != Some(&record) {
            let data = EventData { decision: Some(record.clone()), ..EventData::default() };
            self.pending.push(event::of_call(self.call, EventType::CallDecided, data));
            self.decision = Some(record.clone());
        }
        if decision.permission() == Permission::Disabled {
            self.withdraw(&approved.id).await;
            return Err(Refusal::Disabled(record));
        }
        self.fresh(&decision)?;
        let key = self.token_key(&view)?;
        if decision.permission() == Permission::Allowed {
            self.withdraw(&approved.id).await;
            let permit = Permit::by_rule(&decision).map_err(|e| unavailable(&e))?;
            return self.forward(permit, &decision, (prints, key)).await;
        }
        let request = ConsumeRequest { txn: self.call.txn.clone(), fingerprint: prints.fingerprint };
        match app.backend.consume(&approved.id, &request).await {
            Ok(consumption) => self.spend(&consumption, &decision, (prints, key)).await,
            Err(BackendError::Unreachable(_)) => Err(Refusal::BackendUnavailable),
            // Consumed by another call, or expired meanwhile.
            Err(BackendError::Refused(_)) => Err(self.ended_as(&decision, prints).await),
        }
    }

    async fn withdraw(&self, approval: &str) {
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
        let permit = Permit::by_approval(decision, consumption, prints.fingerprint, &self.call.txn);
        let ready = match permit {
            Ok(permit) => self.forward(permit, decision, (prints, key)).await,
            Err(e) => Err(unavailable(&e)),
        };
        if let Err(refusal) = &ready
            && !self.closed
        {
            self.closed = true;
            let subject = Subject::call(self.call);
            Outcome::begin(self.app.clone(), subject, PermitReason::Approval)
                .not_forwarded(refusal.code())
                .await;
        }
        ready
    }
}

fn backend_says(e: BackendError) -> Refusal {
    match e {
        BackendError::Refused(p) if p.code == "too_many_pending_approvals" => {
            Refusal::TooManyPending(p.detail.clone())
        }
        BackendError::Refused(p) if p.code == "idempotency_key_reused" => {
            Refusal::IdempotencyConflict(p.detail.clone())
        }
        BackendError::Refused(p) => {
            tracing::error!(code = p.code, detail = p.detail, "the backend refuses an approval");
            Refusal::BackendUnavailable
        }
        BackendError::Unreachable(_) => Refusal::BackendUnavailable,
    }
}

fn approval_record(state: &ApprovalState) -> ApprovalRecord {
    ApprovalRecord {
        id: state.id.clone(),
        reference: Some(state.reference.clone()),
        status: Some(state.status.as_str().to_owned()),
        ..ApprovalRecord::default()
    }
}

/// Why a call that waits looks up.
enum Stir {
    Look,
    Beat,
    End,
}

async fn drained(draining: &mut tokio::sync::watch::Receiver<bool>) {
    // The sender lives as long as the proxy.
    let _ = draining.wait_for(|d| *d).await;
}

async fn until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// What a state means for a call that waits; `None`: go on waiting.
fn settled(hold: &Hold) -> Option<Result<ApprovalState, Refusal>> {
    let state = hold.state();
    match state.status {
        ApprovalStatus::Pending => None,
        // Of several that wait the newest runs; the others see it consumed.
        ApprovalStatus::Approved => hold.is_newest().then_some(Ok(state)),
        _ => Some(Err(ended(state))),
    }
}

fn ended(state: ApprovalState) -> Refusal {
    match state.status {
        ApprovalStatus::Denied => Refusal::Denied(state),
        ApprovalStatus::Expired => Refusal::Expired(state),
        ApprovalStatus::Pending | ApprovalStatus::Approved => Refusal::Pending(state),
        ApprovalStatus::Cancelled | ApprovalStatus::Consumed => Refusal::Cancelled(state),
    }
}
