//! Who may decide, and the decision.

use std::sync::Arc;

use oakallow_policy::audit::EventType;
use oakallow_policy::id::Name;
use oakallow_policy::principal::subject_of_token;
use oakallow_policy::timestamp;
use oakallow_policy::tool::RiskLevel;
use oakallow_policy::wire::ApprovalStatus;
use serde::Deserialize;

use super::{Settled, ms, settle, tell};
use crate::error::ApiError;
use crate::state::App;
use crate::store::approvals::{self, Approval, Step};
use crate::store::{StoreError, Write, orgs, votes};

/// Longest note.
const NOTE_CHARS_MAX: usize = 2_000;

/// A person who decides.
#[derive(Debug, Clone)]
pub(crate) struct Decider {
    /// Who they are, in events and to others.
    pub(crate) email: String,
    /// Whether their role lets them decide at all.
    pub(crate) may_decide: bool,
    /// With a key, not in a session.
    pub(crate) by_key: bool,
}

/// What they decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Approved,
    Denied,
}

/// Why a decision is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecideError {
    #[error("there is no approval `{0}` in this org")]
    NotFound(String),
    #[error("your role does not decide approvals")]
    Role,
    #[error("you answer for the agent that asks: somebody else must decide")]
    SelfApproval,
    #[error(
        "nobody is known to answer for who asks, so whoever decides may be the caller: set `owner_claim`, `owner` or `client_owner` in the proxy, the `owner` of a key"
    )]
    OwnerUnknown,
    #[error("a key does not decide calls of high and critical tools: sign in to the dashboard")]
    KeyNotEnough,
    #[error("say why: a denial needs a note")]
    NoteMissing,
    #[error("a note is at most {NOTE_CHARS_MAX} characters long")]
    NoteTooLong,
    #[error("you approved this already: the second approval must come from somebody else")]
    SameApprover,
    #[error("this approval is {} already", .0.status.as_str())]
    Settled(Box<Approval>),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<DecideError> for ApiError {
    fn from(error: DecideError) -> Self {
        let detail = format!("{error}.");
        match error {
            DecideError::NotFound(id) => Self::not_found("approval", &id),
            DecideError::Role => Self::forbidden("role_not_enough", detail),
            DecideError::SelfApproval => Self::forbidden("self_approval", detail),
            DecideError::OwnerUnknown => Self::forbidden("owner_unknown", detail),
            DecideError::KeyNotEnough => Self::forbidden("key_not_enough", detail),
            DecideError::NoteMissing | DecideError::NoteTooLong => Self::invalid_value("/note", detail),
            DecideError::SameApprover => Self::forbidden("same_approver", detail),
            DecideError::Settled(winner) => settled(detail, &winner),
            DecideError::Store(e) => e.into(),
        }
    }
}

/// 409 that names the state and, when a person decided, who and when.
pub(crate) fn settled(detail: String, winner: &Approval) -> ApiError {
    let mut error = ApiError::conflict("already_settled", detail)
        .with("approval_status", winner.status.as_str())
        .with("approval_id", winner.id.clone());
    if let Some(by) = &winner.decided_by {
        error = error.with("decided_by", by.clone());
    }
    if let Some(at) = winner.decided_ms {
        error = error.with("decided_at", timestamp::rfc3339(at));
    }
    error
}

/// Whether this person may decide this approval, and see its arguments.
pub(crate) fn eligible(
    approval: &Approval,
    decider: &Decider,
    keys_decide_high_risk: bool,
) -> Result<(), DecideError> {
    if !decider.may_decide {
        return Err(DecideError::Role);
    }
    let owner = approval.owner.as_deref();
    let themselves = [owner, approval.token_email.as_deref(), subject_of_token(&approval.principal)];
    if themselves.into_iter().flatten().any(|person| same_person(person, &decider.email)) {
        return Err(DecideError::SelfApproval);
    }
    answered_for(owner)?;
    if decider.by_key && approval.risk_level >= RiskLevel::High && !keys_decide_high_risk {
        return Err(DecideError::KeyNotEnough);
    }
    Ok(())
}

/// Somebody has to be known to answer for the caller: otherwise whoever approves may be who asks, whatever the risk
/// (docs/decisions/0051-nobody-decides-for-whom-nobody-answers.md).
pub(crate) fn answered_for(owner: Option<&str>) -> Result<(), DecideError> {
    owner.map(|_| ()).ok_or(DecideError::OwnerUnknown)
}

fn same_person(one: &str, other: &str) -> bool {
    one.trim().to_lowercase() == other.trim().to_lowercase()
}

/// Decides. The first decision wins; every other learns of it.
pub(crate) async fn decide(
    app: &Arc<App>,
    write: &mut Write,
    of: (&Name, &str),
    decider: &Decider,
    decision: (Verdict, Option<&str>),
) -> Result<Approval, DecideError> {
    let (org, id) = of;
    let (verdict, note) = decision;
    let note = note.map(str::trim).filter(|n| !n.is_empty());
    if note.is_some_and(|n| n.chars().count() > NOTE_CHARS_MAX) {
        return Err(DecideError::NoteTooLong);
    }
    let not_found = || DecideError::NotFound(id.to_owned());
    let approval = approvals::find(write, org, id).await?.ok_or_else(not_found)?;
    let settings = orgs::settings(write, org).await?;
    eligible(&approval, decider, settings.approver_keys_decide_high_risk)?;
    let by = decider.email.as_str();
    let now = app.now();
    let step = match verdict {
        Verdict::Denied => Step::Deny { by, note: note.ok_or(DecideError::NoteMissing)? },
        Verdict::Approved => {
            if approval.levels > 1 && approval.status == ApprovalStatus::Pending && !approval.is_due(now) {
                let first = votes::vote(write, of, &by.to_lowercase(), note, now).await?;
                let yes = votes::voters(write, of).await?.len();
                if yes < usize::from(approval.levels) {
                    if !first {
                        return Err(DecideError::SameApprover);
                    }
                    tell(app, write, &approval, EventType::ApprovalDecided, Some(by)).await?;
                    return Ok(approval);
                }
            }
            Step::Approve { by, note, consume_by: now + ms(app.config.approvals.consume_within) }
        }
    };
    match settle(app, write, of, step, Some(by)).await?.ok_or_else(not_found)? {
        Settled::Moved(approval) => Ok(approval),
        Settled::Stayed(approval) => Err(DecideError::Settled(Box::new(approval))),
    }
}
