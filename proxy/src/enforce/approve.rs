//! A person is asked: the approval is created or joined, and the call held until that is decided.

use std::time::Instant;

use oakallow_policy::Decision;
use oakallow_policy::audit::{ApprovalRecord, EventData, EventType};
use oakallow_policy::canonical::hex;
use oakallow_policy::wire::{ApprovalAnswer, ApprovalRequest, ApprovalState, ApprovalStatus, ProxyContext};
use tokio::sync::{AcquireError, OwnedSemaphorePermit};

use crate::approval::{Hold, Holder};
use crate::backend::BackendError;
use crate::call::weight;
use crate::enforce::{Life, Prints, Ready, Waiter, unavailable};
use crate::event;
use crate::observe::{Phase, Trail};
use crate::refusal::Refusal;

impl Life<'_> {
    pub(super) async fn approve(
        &mut self,
        decision: &Decision<'_>,
        prints: Prints,
        waiter: &mut impl Waiter,
    ) -> Result<Ready, Refusal> {
        let state = self.ask(decision, prints).await?.approval;
        let approval = state.id.clone();
        Trail::current().note(|noted| noted.approval = Some(approval.clone()));
        let waited = match state.status {
            ApprovalStatus::Approved if self.takes_place() => Ok(state),
            ApprovalStatus::Pending | ApprovalStatus::Approved if self.call.wait.is_zero() => {
                Err(Refusal::Pending(state))
            }
            ApprovalStatus::Pending | ApprovalStatus::Approved => {
                let begun = Instant::now();
                let held = self.hold(state, prints, waiter).await;
                let label = held.as_ref().map_or_else(Refusal::code, |_| "approved");
                Trail::current().passed(Phase::Hold, Some(begun));
                let seconds = begun.elapsed().as_secs_f64();
                self.app.metrics.hold_seconds.with_label_values(&[label]).observe(seconds);
                held
            }
            _ => Err(ended(state)),
        };
        let result = match waited {
            Ok(_) => self.release(&approval, prints).await,
            // Another call consumed it: its outcome is ours.
            Err(Refusal::Cancelled(state)) if state.status == ApprovalStatus::Consumed => {
                Err(self.ended_as(decision, prints).await)
            }
            Err(refusal) => Err(refusal),
        };
        // Nobody else waits for it: who left before this call did not withdraw it either.
        if result.as_ref().is_err_and(is_void) && !self.app.holds.is_awaited(&approval) {
            self.withdraw(&approval).await;
        }
        result
    }

    /// Takes a place among the released calls that are with the tool servers, if there is one. Otherwise the
    /// call waits for it as it would for a person: within the limits, and heard.
    fn takes_place(&mut self) -> bool {
        if self.app.is_draining() {
            return false;
        }
        self.place = self.live.releases.clone().try_acquire_owned().ok();
        self.place.is_some()
    }

    /// Creates the approval, or joins the open one.
    async fn ask(&self, decision: &Decision<'_>, prints: Prints) -> Result<ApprovalAnswer, Refusal> {
        let call = self.call;
        let request = ApprovalRequest {
            tool_name: call.names.tool.clone(),
            tenant_id: call.names.tenant.clone(),
            resource_id: call.names.resource.clone(),
            method: call.names.method.clone(),
            parameters: self.live.redactor.shown(call),
            reason: None,
            proxy: Some(ProxyContext {
                principal: call.names.principal.clone(),
                owner: call.caller.owner.clone(),
                token_email: call.caller.token_email.clone(),
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
    pub(super) async fn ended_as(&self, decision: &Decision<'_>, prints: Prints) -> Refusal {
        self.ask(decision, prints).await.map_or_else(|r| r, |a| ended(a.approval))
    }

    /// Waits for a person, the budget, the client's leaving, a policy that ends the call, or the proxy's
    /// end.
    async fn hold(
        &mut self,
        state: ApprovalState,
        prints: Prints,
        waiter: &mut impl Waiter,
    ) -> Result<ApprovalState, Refusal> {
        let call = self.call;
        let holder = Holder {
            txn: call.txn.clone(),
            principal: call.names.principal.clone(),
            tenant: call.names.tenant.clone(),
            tool: call.names.tool.clone(),
            route: call.route.name.clone(),
            bytes: weight::of(call),
        };
        let mut hold = self.app.holds.enter(state.clone(), holder)?;
        let data = EventData { approval: Some(approval_record(&state)), ..EventData::default() };
        self.pending.push(event::of_call(call, EventType::CallHeld, data));
        self.flush().await?;
        waiter.hold_begins().await.map_err(|_| Refusal::Pending(state))?;
        self.wait(&mut hold, prints, waiter).await
    }

    /// Until it is approved, and there is a place for it among the calls that are with the tool servers.
    async fn wait(
        &mut self,
        hold: &mut Hold,
        prints: Prints,
        waiter: &mut impl Waiter,
    ) -> Result<ApprovalState, Refusal> {
        let mut draining = self.app.draining.subscribe();
        let mut policy = self.app.policy.subscribe();
        let releases = self.live.releases.clone();
        let mut turn = std::pin::pin!(releases.clone().acquire_owned());
        // What changed since the call was decided.
        self.look_again(prints).await?;
        let deadline = tokio::time::Instant::now() + self.call.wait;
        loop {
            let approved = match settled(hold) {
                Some(Err(end)) => return Err(end),
                Some(Ok(state)) => {
                    if let Ok(place) = releases.clone().try_acquire_owned() {
                        self.place = Some(place);
                        return Ok(state);
                    }
                    true
                }
                None => {
                    // Not its turn any more: what it stands in line for, or was given, is for others.
                    turn.set(releases.clone().acquire_owned());
                    false
                }
            };
            let beat_at = waiter.next_beat();
            let stir = tokio::select! {
                place = turn.as_mut(), if approved => Stir::Turn(place),
                () = hold.changed() => Stir::Look,
                () = changed(&mut policy) => Stir::Policy,
                () = tokio::time::sleep_until(deadline) => Stir::End,
                () = drained(&mut draining) => Stir::End,
                () = until(beat_at) => Stir::Beat,
                () = waiter.gone() => Stir::End,
            };
            let end = match stir {
                // Unless another call came for the same approval meanwhile.
                Stir::Turn(place) if matches!(settled(hold), Some(Ok(_))) => {
                    self.place = Some(place.map_err(|e| unavailable(&e))?);
                    return Ok(hold.state());
                }
                Stir::Turn(_) => {
                    turn.set(releases.clone().acquire_owned());
                    false
                }
                Stir::Look => false,
                Stir::Policy => {
                    self.look_again(prints).await?;
                    false
                }
                Stir::End => true,
                Stir::Beat => waiter.beat().await.is_err(),
            };
            if end {
                // An approval that came at this very moment waits for the next try.
                return Err(Refusal::Pending(hold.state()));
            }
        }
    }
}

/// Whether what was asked for is not to run any more, whatever a person says.
fn is_void(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::Unauthenticated
            | Refusal::TenantNotAllowed(_)
            | Refusal::Disabled(_)
            | Refusal::DefinitionChanged
            | Refusal::InvalidArguments { .. }
    )
}

fn backend_says(e: BackendError) -> Refusal {
    match e {
        BackendError::Refused(p) if p.code == "too_many_pending_approvals" => {
            Refusal::TooManyPending(p.detail.clone())
        }
        BackendError::Refused(p) if p.code == "owner_unknown" => Refusal::OwnerUnknown,
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
    Turn(Result<OwnedSemaphorePermit, AcquireError>),
    Look,
    Policy,
    Beat,
    End,
}

async fn drained(draining: &mut tokio::sync::watch::Receiver<bool>) {
    // The sender lives as long as the proxy.
    let _ = draining.wait_for(|d| *d).await;
}

async fn changed(policy: &mut tokio::sync::watch::Receiver<()>) {
    // The sender lives as long as the proxy.
    let _ = policy.changed().await;
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
