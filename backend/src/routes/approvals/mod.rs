//! Approvals: ask ([`ask`]), watch ([`read`]), decide, cancel and consume ([`act`]).

pub(crate) mod act;
pub(crate) mod ask;
pub(crate) mod read;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use oakallow_policy::fingerprint::Fingerprint;
use oakallow_policy::id::Name;
use oakallow_policy::timestamp::{self, UnixMs};
use oakallow_policy::tool::RiskLevel;
use oakallow_policy::wire::{AlreadyExecuted, ApprovalStatus};
use serde::Serialize;
use serde_json::Value;

use crate::auth::ProxyIdentity;
use crate::error::ApiError;
use crate::state::App;
use crate::store::approvals::Approval;

/// Its endpoints.
pub(crate) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/approvals", get(read::list).post(ask::create))
        .route("/v1/approvals/events", get(read::events))
        .route("/v1/approvals/{id}", get(read::one))
        .route("/v1/approvals/{id}/decide", post(act::decide))
        .route("/v1/approvals/{id}/cancel", post(act::cancel))
        .route("/v1/approvals/{id}/consume", post(act::consume))
        .route("/v1/proxies/{id}/approvals", post(read::states))
}

/// An approval as the API shows it.
#[derive(Debug, Serialize)]
pub(crate) struct ApprovalView {
    id: String,
    reference: String,
    status: ApprovalStatus,
    expires_at: String,
    tool_name: Name,
    tenant_id: Option<Name>,
    resource_id: Option<Name>,
    method: Option<Name>,
    principal: Name,
    audience: Name,
    route: Name,
    risk_level: RiskLevel,
    reason: Option<String>,
    resolved_from: String,
    /// The rule that asks for a person, if one does.
    rule: Option<String>,
    policy_version: u64,
    fingerprint: Fingerprint,
    txn: String,
    levels: u8,
    created_at: String,
    decided_at: Option<String>,
    decided_by: Option<String>,
    note: Option<String>,
    consumed_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    joined: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    already_executed: Option<ExecutedView>,
    /// Exact; to eligible deciders only.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Value>,
}

#[derive(Debug, Serialize)]
struct ExecutedView {
    execution: String,
    time: String,
    outcome: String,
}

impl From<AlreadyExecuted> for ExecutedView {
    fn from(e: AlreadyExecuted) -> Self {
        Self { execution: e.execution, time: timestamp::rfc3339(e.time), outcome: e.outcome }
    }
}

impl ApprovalView {
    /// As it stands at `now`, whether or not the expirer has been there.
    pub(crate) fn new(a: Approval, now: UnixMs) -> Self {
        Self {
            status: if a.is_due(now) { ApprovalStatus::Expired } else { a.status },
            expires_at: timestamp::rfc3339(a.deadline()),
            id: a.id,
            reference: a.reference,
            tool_name: a.tool,
            tenant_id: a.tenant,
            resource_id: a.resource,
            method: a.method,
            principal: a.principal,
            audience: a.audience,
            route: a.route,
            risk_level: a.risk_level,
            reason: a.reason,
            resolved_from: a.resolved_from,
            rule: a.rule,
            policy_version: a.policy_version,
            fingerprint: a.fingerprint,
            txn: a.txn,
            levels: a.levels,
            created_at: timestamp::rfc3339(a.created_ms),
            decided_at: a.decided_ms.map(timestamp::rfc3339),
            decided_by: a.decided_by,
            note: a.note,
            consumed_by: a.consumed_txn,
            joined: None,
            already_executed: None,
            parameters: None,
        }
    }
}

/// 403 unless the proxy may serve calls of this audience and tenant.
fn must_serve(proxy: &ProxyIdentity, audience: &str, tenant: Option<&Name>) -> Result<(), ApiError> {
    if !proxy.proxy.serves_audience(audience) {
        return Err(ApiError::forbidden("audience_not_allowed", "This proxy does not serve that audience."));
    }
    if !proxy.proxy.serves_tenant(tenant.map(Name::as_str)) {
        return Err(ApiError::forbidden("tenant_not_allowed", "This proxy does not serve that tenant."));
    }
    Ok(())
}
