//! The one path of every call: resolve → validate → [hold] → intent → token. What comes out is a permit
//! to forward, with everything that has to be written down about it written down.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, Uri};
use oakallow_policy::audit::{ApprovalRecord, DecisionRecord, Event, EventData, EventType, ExecutionRecord};
use oakallow_policy::canonical::{base64url, hex, json_bytes, sha256};
use oakallow_policy::fingerprint::Fingerprint;
use oakallow_policy::id::Kind;
use oakallow_policy::token::{Binding, Claims, LIFETIME_S_MAX, TokenKey, issuer, sign};
use oakallow_policy::wire::{
    ApprovalAnswer, ApprovalRequest, ApprovalState, ApprovalStatus, ConsumeRequest, ProxyContext,
};
use oakallow_policy::{Decision, Permission, Permit, ResolveError, RiskLevel};

use crate::app::App;
use crate::approval::{Hold, Holder};
use crate::backend::BackendError;
use crate::call::IdentifiedCall;
use crate::client::Client;
use crate::clock;
use crate::event;
use crate::outcome::Outcome;
use crate::policy::View;
use crate::refusal::Refusal;

/// How long a critical intent may take to reach the backend.
const CRITICAL_ACK_MAX: Duration = Duration::from_secs(5);

/// What exactly will be sent.
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

/// Takes a call from its identification to the moment before it is sent.
pub async fn admit(
    app: &Arc<App>,
    call: &IdentifiedCall,
    target: &Target,
    client: &mut Client<'_>,
) -> Result<Ready, Refused> {
    let mut life =
        Life { app, call, target, pending: Vec::new(), decision: None, fingerprint: None, hash: None };
    let refusal = match life.run(client).await {
        Ok(ready) => return Ok(ready),
        Err(refusal) => refusal,
    };
    let permission = life.decision.as_ref().map(|d| d.permission);
    let refusal = life.record_refusal(refusal).await;
    Err(Refused { refusal, permission })
}

/// One call on its way.
struct Life<'a> {
    app: &'a Arc<App>,
    call: &'a IdentifiedCall,
    target: &'a Target,
    /// Events that are written with the next append: one write for the whole of a short life.
    pending: Vec<Event>,
    decision: Option<DecisionRecord>,
    fingerprint: Option<Fingerprint>,
    hash: Option<[u8; 32]>,
}

impl Life<'_> {
    async fn run(&mut self, client: &mut Client<'_>) -> Result<Ready, Refusal> {
        if self.app.is_draining() {
            return Err(Refusal::Draining);
        }
        let started = Instant::now();
        let view = self.view().await?;
        let fingerprint = self.arrive(&view)?;
        let decision = self.decide(&view)?;
        let route = self.call.route.name.as_str();
        self.app
            .metrics
            .decision_seconds
            .with_label_values(&[route])
            .observe(started.elapsed().as_secs_f64());
        if decision.permission() != Permission::Disabled {
            self.validate(&view)?;
        }
        match decision.permission() {
            Permission::Disabled => Err(Refusal::Disabled(DecisionRecord::from(&decision))),
            Permission::Allowed => {
                let permit = Permit::by_rule(&decision).map_err(|e| unavailable(&e))?;
                self.forward(permit, &decision, &view).await
            }
            Permission::RequiresApproval => self.approve(&decision, fingerprint, client).await,
        }
    }

    async fn view(&self) -> Result<View, Refusal> {
        self.app.policy.view(self.call.names.tenant.as_ref()).await.map_err(|e| unavailable(&e))
    }

    /// The fingerprint; writes down that the call arrived.
    fn arrive(&mut self, view: &View) -> Result<Fingerprint, Refusal> {
        let (app, call) = (self.app, self.call);
        let tool = view.snapshot().rules.tool(&call.names.tool, &call.names.audience);
        let hash =
            tool.map(oakallow_policy::Tool::definition_hash).transpose().map_err(|e| unavailable(&e))?;
        let fingerprint = Fingerprint::of(&call.names.as_call(), &call.route.name, hash, &call.args)
            .map_err(|e| Refusal::InvalidRequest(e.to_string()))?;
        (self.fingerprint, self.hash) = (Some(fingerprint), hash);
        let requested = EventData {
            parameters: Some(app.redactor.redact(&call.parameters)),
            fingerprint: Some(fingerprint.to_string()),
            ..EventData::default()
        };
        self.pending.push(event::of_call(call, EventType::CallRequested, requested));
        Ok(fingerprint)
    }

    /// Arguments against the tool's schema. After the decision: a disabled tool says that it is, whatever
    /// the arguments.
    fn validate(&self, view: &View) -> Result<(), Refusal> {
        let names = &self.call.names;
        match (view.snapshot().rules.tool(&names.tool, &names.audience), self.hash) {
            (Some(tool), Some(hash)) => self.app.schemas.check(tool, hash, &self.call.parameters),
            _ => Ok(()),
        }
    }

    /// Asks the rules, and whether they are fresh enough to be asked.
    fn decide<'v>(&mut self, view: &'v View) -> Result<Decision<'v>, Refusal> {
        let call = self.call;
        let decision = view.resolve(&call.names.as_call()).map_err(|e| match e {
            ResolveError::ResourceRequired => Refusal::InvalidRequest(e.to_string()),
            other => unavailable(&other),
        })?;
        let record = DecisionRecord::from(&decision);
        let route = call.route.name.as_str();
        let labels = [record.permission.as_str(), record.resolved_from.as_str(), route];
        self.app.metrics.requests.with_label_values(&labels).inc();
        let data = EventData { decision: Some(record.clone()), ..EventData::default() };
        self.pending.push(event::of_call(call, EventType::CallDecided, data));
        self.decision = Some(record);
        let fresh = self.app.policy.is_fresh_for(decision.risk_level());
        if decision.permission() != Permission::Disabled && !fresh {
            return Err(Refusal::PolicyUnavailable(format!(
                "the backend has not confirmed the policy for {} s: too long for a call of {} risk",
                self.app.policy.age_s(),
                decision.risk_level().as_str()
            )));
        }
        Ok(decision)
    }

    async fn approve(
        &mut self,
        decision: &Decision<'_>,
        fingerprint: Fingerprint,
        client: &mut Client<'_>,
    ) -> Result<Ready, Refusal> {
        let answer = self.ask(decision, fingerprint).await?;
        let state = answer.approval;
        let begun = Instant::now();
        let result = match state.status {
            ApprovalStatus::Approved => Ok(state),
            ApprovalStatus::Pending if self.call.wait.is_zero() => Err(Refusal::Pending(state)),
            ApprovalStatus::Pending => self.hold(state, client).await,
            _ => Err(ended(state)),
        };
        let label = result.as_ref().map_or_else(Refusal::code, |_| "approved");
        self.app.metrics.hold_seconds.with_label_values(&[label]).observe(begun.elapsed().as_secs_f64());
        match result {
            Ok(approved) => self.release(approved, fingerprint).await,
            // Another call consumed it: its outcome is ours.
            Err(Refusal::Cancelled(state)) if state.status == ApprovalStatus::Consumed => {
                Err(self.ask(decision, fingerprint).await.map_or_else(|r| r, |a| ended(a.approval)))
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Creates the approval, or joins the open one.
    async fn ask(
        &self,
        decision: &Decision<'_>,
        fingerprint: Fingerprint,
    ) -> Result<ApprovalAnswer, Refusal> {
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
                fingerprint,
                definition_hash: self.hash.map(|h| hex(&h)),
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
    async fn release(&mut self, approved: ApprovalState, fingerprint: Fingerprint) -> Result<Ready, Refusal> {
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
        if decision.permission() != Permission::RequiresApproval {
            if let Err(e) = app.backend.cancel(&approved.id).await {
                tracing::warn!(error = %e, approval = approved.id, "an approval that is not needed stays open");
            }
            if decision.permission() == Permission::Disabled {
                return Err(Refusal::Disabled(record));
            }
            let permit = Permit::by_rule(&decision).map_err(|e| unavailable(&e))?;
            return self.forward(permit, &decision, &view).await;
        }
        let request = ConsumeRequest { txn: self.call.txn.clone(), fingerprint };
        let consumption = match app.backend.consume(&approved.id, &request).await {
            Ok(consumption) => consumption,
            Err(BackendError::Unreachable(_)) => return Err(Refusal::BackendUnavailable),
            // Consumed by another call, or expired meanwhile: the backend knows which.
            Err(BackendError::Refused(_)) => {
                return Err(self.ask(&decision, fingerprint).await.map_or_else(|r| r, |a| ended(a.approval)));
            }
        };
        let permit = Permit::by_approval(&decision, &consumption, fingerprint, &self.call.txn)
            .map_err(|e| unavailable(&e))?;
        self.forward(permit, &decision, &view).await
    }

    /// Writes the intent, then mints.
    async fn forward(
        &mut self,
        permit: Permit,
        decision: &Decision<'_>,
        view: &View,
    ) -> Result<Ready, Refusal> {
        let (app, call) = (self.app, self.call);
        let key = view.snapshot().token_keys.get(&call.route.audience).ok_or_else(|| {
            Refusal::PolicyUnavailable(format!("no token key for the audience `{}`", call.route.audience))
        })?;
        let jti = clock::new_id(Kind::Token);
        let data = EventData {
            permit: Some(permit.reason()),
            decision: self.decision.clone(),
            approval: permit
                .approval()
                .map(|id| ApprovalRecord { id: id.to_owned(), ..ApprovalRecord::default() }),
            token_id: Some(jti.clone()),
            fingerprint: self.fingerprint.map(|f| f.to_string()),
            execution: Some(ExecutionRecord {
                request_sha256: Some(hex(&self.target.body_sha256)),
                ..ExecutionRecord::default()
            }),
            ..EventData::default()
        };
        self.pending.push(event::of_call(call, EventType::CallForwarded, data));
        let seq = self.flush().await?;
        let outcome = Outcome::begin(app.clone(), call.clone());
        if decision.risk_level() == RiskLevel::Critical
            && tokio::time::timeout(CRITICAL_ACK_MAX, app.spool.acknowledged(seq)).await.is_err()
        {
            outcome.not_forwarded("the backend did not acknowledge the intent of a critical call").await;
            return Err(Refusal::BackendUnavailable);
        }
        let token = self.mint(key, &permit, decision, jti)?;
        Ok(Ready { permit, token, outcome })
    }

    fn mint(
        &self,
        key: &TokenKey,
        permit: &Permit,
        d: &Decision<'_>,
        jti: String,
    ) -> Result<String, Refusal> {
        let (call, target) = (self.call, self.target);
        let now_s = clock::now_ms() / 1_000;
        let text = |name: &Option<oakallow_policy::Name>| name.as_ref().map(|n| n.as_str().to_owned());
        let arguments = json_bytes(&call.parameters).map_err(|e| Refusal::InvalidRequest(e.to_string()))?;
        let claims = Claims {
            iss: issuer(&call.names.org),
            aud: call.names.audience.as_str().to_owned(),
            sub: call.names.principal.as_str().to_owned(),
            org: call.names.org.as_str().to_owned(),
            tenant: text(&call.names.tenant),
            tool: call.names.tool.as_str().to_owned(),
            resource: text(&call.names.resource),
            method: text(&call.names.method),
            htm: Some(target.method.as_str().to_owned()),
            htu: Some(target.uri.to_string()),
            bnd: Binding::Request,
            bdh: Some(base64url(&target.body_sha256)),
            ah: Some(base64url(&sha256(&arguments))),
            apr: permit.approval().map(str::to_owned),
            pol: permit.policy_version(),
            lvl: d.resolved_from().as_str().to_owned(),
            jti,
            txn: call.txn.clone(),
            iat: now_s,
            nbf: now_s,
            exp: now_s + LIFETIME_S_MAX,
        };
        Ok(sign(&claims, key))
    }

    /// Writes what is pending. An event that is not stored did not happen: the call is refused.
    async fn flush(&mut self) -> Result<u64, Refusal> {
        let events = std::mem::take(&mut self.pending);
        self.app.spool.append(events).await.map_err(|e| Refusal::AuditUnavailable(e.to_string()))
    }

    /// A refusal is recorded before it is answered.
    async fn record_refusal(&mut self, refusal: Refusal) -> Refusal {
        self.app.metrics.refusals.with_label_values(&[refusal.code()]).inc();
        if self.fingerprint.is_none() || matches!(refusal, Refusal::AuditUnavailable(_)) {
            return refusal;
        }
        let data = event::reason(refusal.code(), self.decision.clone());
        self.pending.push(event::of_call(self.call, EventType::CallRefused, data));
        match self.flush().await {
            Ok(_) => refusal,
            Err(unrecorded) => unrecorded,
        }
    }
}

fn unavailable(e: &dyn std::fmt::Display) -> Refusal {
    Refusal::PolicyUnavailable(e.to_string())
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
