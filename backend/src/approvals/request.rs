//! Create or join: the same call gets the same approval, however often and from wherever it is asked.

use std::sync::Arc;

use oakallow_policy::approval::{self, Answer, Memory};
use oakallow_policy::audit::EventType;
use oakallow_policy::fingerprint::Fingerprint;
use oakallow_policy::id::{self, Kind, Name};
use oakallow_policy::ruleset::APPROVAL_TIMEOUT_S;
use oakallow_policy::tool::RiskLevel;
use oakallow_policy::wire::{AlreadyExecuted, ApprovalStatus};

use super::{ms, settle, tell};
use crate::error::ApiError;
use crate::ledger::source_of;
use crate::state::App;
use crate::store::approvals::{self, Approval, Step};
use crate::store::audit::Outcome;
use crate::store::{StoreError, Write, arguments, audit, idempotency};

/// A call that needs a person's leave.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) org: Name,
    pub(crate) principal: Name,
    /// E-mail of the person who answers for the principal.
    pub(crate) owner: Option<String>,
    /// E-mail in the caller's token: whoever has it does not decide, vouched for or not.
    pub(crate) token_email: Option<String>,
    pub(crate) tenant: Option<Name>,
    pub(crate) audience: Name,
    pub(crate) tool: Name,
    pub(crate) resource: Option<Name>,
    pub(crate) method: Option<Name>,
    pub(crate) route: Name,
    pub(crate) definition_hash: Option<String>,
    pub(crate) fingerprint: Fingerprint,
    /// JSON text, exact.
    pub(crate) arguments: Vec<u8>,
    pub(crate) reason: Option<String>,
    pub(crate) resolved_from: String,
    pub(crate) rule: Option<String>,
    pub(crate) policy_version: u64,
    pub(crate) txn: String,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) risk_level: RiskLevel,
    pub(crate) levels: u8,
    /// Not yet clamped.
    pub(crate) timeout_s: u32,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) approval: Approval,
    pub(crate) joined: bool,
    pub(crate) already_executed: Option<AlreadyExecuted>,
}

/// Why nothing was created.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("this Idempotency-Key was used for another call: use a new key for a new call")]
    KeyReused,
    #[error("{0} approvals of this principal are pending already: wait until some are decided")]
    TooMany(u32),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Vault(#[from] crate::vault::VaultError),
}

impl From<AskError> for ApiError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::KeyReused => Self::new(
                http::StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                format!("{error}."),
            ),
            AskError::TooMany(_) => Self::new(
                http::StatusCode::TOO_MANY_REQUESTS,
                "too_many_pending_approvals",
                format!("{error}."),
            ),
            AskError::Store(e) => e.into(),
            AskError::Vault(e) => Self::internal(&e),
        }
    }
}

/// Creates an approval for this call, or finds the one that answers it: an open one, a recent denial,
/// or the one under which the call ran a short while ago.
pub(crate) async fn ask(app: &Arc<App>, write: &mut Write, ask: &Ask) -> Result<Asked, AskError> {
    let now = app.now();
    let owner = idempotency::Owner { org: &ask.org, principal: &ask.principal };
    let known = match &ask.idempotency_key {
        Some(key) => idempotency::find(write, owner, key).await?,
        None => None,
    };
    if known.as_ref().is_some_and(|k| k.fingerprint != Some(ask.fingerprint)) {
        return Err(AskError::KeyReused);
    }
    // A key that is known speaks of its own approval first, whatever came after.
    if let Some(known) = &known
        && let Some(own) = current(app, write, &ask.org, &known.approval_id).await?
        && let Some(asked) = answered_by(app, write, own, Memory::Always).await?
    {
        return Ok(asked);
    }
    if let Some(newest) = approvals::newest(write, &ask.org, ask.fingerprint).await?
        && let Some(newest) = current(app, write, &ask.org, &newest.id).await?
    {
        let fresh_key = ask.idempotency_key.is_some();
        let memory = if fresh_key { Memory::Never } else { Memory::Recent };
        if let Some(asked) = answered_by(app, write, newest, memory).await? {
            if let Some(key) = &ask.idempotency_key {
                let stands_for = (ask.fingerprint, asked.approval.id.as_str());
                idempotency::remember(write, owner, key, stands_for, now).await?;
            }
            return Ok(asked);
        }
    }
    let approval = create(app, write, ask).await?;
    if let Some(key) = &ask.idempotency_key {
        idempotency::remember(write, owner, key, (ask.fingerprint, &approval.id), now).await?;
    }
    Ok(Asked { approval, joined: false, already_executed: None })
}

/// Whether this approval answers the call that asks.
async fn answered_by(
    app: &Arc<App>,
    write: &mut Write,
    approval: Approval,
    memory: Memory,
) -> Result<Option<Asked>, StoreError> {
    let limits = &app.config.approvals;
    let (since, kept) = match approval.status {
        ApprovalStatus::Denied => (approval.decided_ms, limits.denial_memory),
        _ => (approval.closed_ms, limits.executed_memory),
    };
    let is_recent = app.now().saturating_sub(since.unwrap_or(0)) < ms(kept);
    let outcome = match approval.status {
        ApprovalStatus::Consumed => outcome(write, &approval).await?,
        _ => Outcome::Open,
    };
    let already_executed = match approval::answer(approval.status, memory, is_recent, outcome.ran()) {
        Answer::Anew => return Ok(None),
        Answer::Join => None,
        Answer::AlreadyExecuted => Some(executed(&approval, outcome)),
    };
    Ok(Some(Asked { approval, joined: true, already_executed }))
}

/// What became of the call that consumed an approval.
fn executed(approval: &Approval, outcome: Outcome) -> AlreadyExecuted {
    AlreadyExecuted {
        execution: approval.consumed_txn.clone().unwrap_or_default(),
        time: approval.closed_ms.unwrap_or_default(),
        outcome: outcome.as_str().to_owned(),
    }
}

/// What is recorded of the call that consumed an approval.
pub(crate) async fn outcome(write: &mut Write, approval: &Approval) -> Result<Outcome, StoreError> {
    let txn = approval.consumed_txn.as_deref().unwrap_or_default();
    let source = approval.consumed_proxy.as_deref().map(source_of);
    audit::outcome(write, &approval.org, txn, source.as_deref()).await
}

/// An approval as it stands now: expired if its time is up.
async fn current(
    app: &Arc<App>,
    write: &mut Write,
    org: &Name,
    id: &str,
) -> Result<Option<Approval>, StoreError> {
    match approvals::find(write, org, id).await? {
        Some(approval) if approval.is_due(app.now()) => {
            Ok(settle(app, write, (org, id), Step::Expire, None).await?.map(super::Settled::into_approval))
        }
        other => Ok(other),
    }
}

async fn create(app: &Arc<App>, write: &mut Write, ask: &Ask) -> Result<Approval, AskError> {
    let now = app.now();
    let max = app.config.approvals.pending_per_principal_max;
    if approvals::count_pending(write, &ask.org, &ask.principal, now).await? >= max {
        return Err(AskError::TooMany(max));
    }
    let (least, most) = (*APPROVAL_TIMEOUT_S.start(), *APPROVAL_TIMEOUT_S.end());
    let timeout_s = ask.timeout_s.clamp(least, most);
    let approval = Approval {
        id: app.random.id(Kind::Approval, now),
        org: ask.org.clone(),
        reference: id::new_reference(app.random.bytes10()),
        status: ApprovalStatus::Pending,
        fingerprint: ask.fingerprint,
        principal: ask.principal.clone(),
        owner: ask.owner.clone(),
        token_email: ask.token_email.clone(),
        tenant: ask.tenant.clone(),
        audience: ask.audience.clone(),
        tool: ask.tool.clone(),
        resource: ask.resource.clone(),
        method: ask.method.clone(),
        route: ask.route.clone(),
        definition_hash: ask.definition_hash.clone(),
        risk_level: ask.risk_level,
        reason: ask.reason.clone(),
        resolved_from: ask.resolved_from.clone(),
        rule: ask.rule.clone(),
        policy_version: ask.policy_version,
        txn: ask.txn.clone(),
        levels: ask.levels,
        created_ms: now,
        expires_ms: now + u64::from(timeout_s) * 1_000,
        decided_ms: None,
        decided_by: None,
        note: None,
        consume_by_ms: None,
        consumed_txn: None,
        consumed_proxy: None,
        closed_ms: None,
    };
    if !approvals::insert(write, &approval).await? {
        // Cannot be while there is one writer; with several, the loser's request is repeated.
        return Err(StoreError::Busy.into());
    }
    let sealed = app.vault.seal_arguments(write, &ask.org, &approval.id, &ask.arguments).await?;
    arguments::insert(write, (&ask.org, &approval.id), &sealed).await?;
    tell(app, write, &approval, EventType::ApprovalCreated, None).await?;
    Ok(approval)
}
