//! Approvals, between proxy and backend.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fingerprint::Fingerprint;
use crate::id::Name;
use crate::timestamp::UnixMs;

/// The states of an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "named by the product")]
pub enum ApprovalStatus {
    Pending,
    Approved,
    Denied,
    Expired,
    Cancelled,
    Consumed,
}

impl ApprovalStatus {
    /// The stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Consumed => "consumed",
        }
    }

    /// The status of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Pending, Self::Approved, Self::Denied, Self::Expired, Self::Cancelled, Self::Consumed]
            .into_iter()
            .find(|s| s.as_str() == name)
    }
}

/// What a proxy needs to know of an approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalState {
    /// `apr_…`
    pub id: String,
    /// `REF-…`
    pub reference: String,
    /// Its state.
    pub status: ApprovalStatus,
    /// When it expires if nobody decides, or by when an approved one must be consumed.
    pub expires_at: UnixMs,
    /// What the approver wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// `POST /v1/approvals` by a proxy: create an approval for this call, or join the open one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalRequest {
    /// Tool.
    pub tool_name: Name,
    /// Tenant.
    #[serde(default)]
    pub tenant_id: Option<Name>,
    /// Resource.
    #[serde(default)]
    pub resource_id: Option<Name>,
    /// Method.
    #[serde(default)]
    pub method: Option<Name>,
    /// Exact arguments: shown to approvers, stored encrypted, never in the audit log.
    #[serde(default)]
    pub parameters: Value,
    /// What the agent says it is for.
    #[serde(default)]
    pub reason: Option<String>,
    /// From a proxy: what only it can know. Refused from anyone else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxyContext>,
}

/// The part of an [`ApprovalRequest`] that only a proxy may set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyContext {
    /// Who calls.
    pub principal: Name,
    /// E-mail of the person who answers for a principal that is known by a token or a certificate, and who may
    /// not approve its calls. Of other principals the backend knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Name>,
    /// E-mail that the caller's own token names, whether or not anybody vouches for it. Whoever has it may not
    /// approve the call either; it makes nobody the owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_email: Option<Name>,
    /// The proxy's route.
    pub route: Name,
    /// The tool server.
    pub audience: Name,
    /// The call's fingerprint.
    pub fingerprint: Fingerprint,
    /// SHA-256 of the tool's definition, hex; `None` when it is not registered.
    pub definition_hash: Option<String>,
    /// The client's `Idempotency-Key`, if it sent one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// The life of the call that asks.
    pub txn: String,
    /// Gate or level of the decision.
    pub resolved_from: String,
    /// The rule that matched, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Version of the policy that decided.
    pub policy_version: u64,
}

/// The answer to [`ApprovalRequest`] (the REST answer has these fields and more).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalAnswer {
    /// The approval: new, joined, or the remembered one.
    #[serde(flatten)]
    pub approval: ApprovalState,
    /// It existed before.
    pub joined: bool,
    /// The same call ran a short while ago: it must not run again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub already_executed: Option<AlreadyExecuted>,
}

/// The same call ran already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlreadyExecuted {
    /// The life of the call that ran.
    pub execution: String,
    /// When its approval was consumed.
    pub time: UnixMs,
    /// `success`, `failed`, `error`, `unknown`; `running` while no outcome has been recorded.
    pub outcome: String,
}

/// `POST /v1/approvals/{id}/consume`. 200 with a [`crate::permit::Consumption`] for one call, and the same
/// again for the same request until its call has ended; 409 for every other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsumeRequest {
    /// The life of the call that will run.
    pub txn: String,
    /// Its fingerprint; must be the approval's.
    pub fingerprint: Fingerprint,
}

/// `POST /v1/proxies/{id}/approvals`: what became of these? Asked once after each reconnect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalStatesRequest {
    /// `apr_…`, at most 1,000.
    pub ids: Vec<String>,
}

/// The answer: the states of those that exist and belong to the proxy's org.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalStates {
    /// In no particular order.
    pub approvals: Vec<ApprovalState>,
}
