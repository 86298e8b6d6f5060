//! Permission checks: what a call would get, decided by the engine that the proxy uses.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use http::StatusCode;
use oakallow_policy::audit::{DecisionRecord, EventData, EventType};
use oakallow_policy::call::CallNames;
use oakallow_policy::id::{Kind, Name};
use oakallow_policy::resolve::Step;
use oakallow_policy::tool::{RiskLevel, default_audience};
use oakallow_policy::wire::Tenancy;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::answer::Json;
use crate::auth::{Credential, Runtime};
use crate::decide::{Policy, undecided};
use crate::drafts;
use crate::error::ApiError;
use crate::extract::{Body, flat_enough};
use crate::record;
use crate::secrets::none_is_a_secret;
use crate::state::App;
use crate::store::{self, Write};

/// Its endpoints.
pub(crate) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/permissions/check", post(check))
        .route("/v1/permissions/check/batch", post(check_batch))
}

/// The names of a call, as every endpoint that decides takes them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CallFields {
    pub(crate) tool_name: Name,
    #[serde(default)]
    pub(crate) tenant_id: Option<Name>,
    #[serde(default)]
    pub(crate) resource_id: Option<Name>,
    #[serde(default)]
    pub(crate) method: Option<Name>,
    #[serde(default)]
    pub(crate) audience: Option<Name>,
}

impl CallFields {
    /// The call. The audience is the registered tool's own when the request names none.
    pub(crate) fn names(
        self,
        policy: &Policy,
        org: &Name,
        principal: Name,
        tenant: Option<Name>,
    ) -> CallNames {
        let audience = self
            .audience
            .or_else(|| policy.tool(&self.tool_name).map(|t| t.audience.clone()))
            .unwrap_or_else(default_audience);
        CallNames {
            org: org.clone(),
            tenant,
            principal,
            audience,
            tool: self.tool_name,
            resource: self.resource_id,
            method: self.method,
        }
    }
}

/// One check. The fields of [`CallFields`] stand beside these (serde cannot both flatten and refuse
/// unknown fields).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Check {
    tool_name: Name,
    #[serde(default)]
    tenant_id: Option<Name>,
    #[serde(default)]
    resource_id: Option<Name>,
    #[serde(default)]
    method: Option<Name>,
    #[serde(default)]
    audience: Option<Name>,
    /// Checked against the tool's schema; not stored.
    #[serde(default)]
    parameters: Option<Value>,
    #[serde(default)]
    explain: bool,
}

#[derive(Serialize)]
pub(crate) struct Answer {
    #[serde(flatten)]
    decision: DecisionRecord,
    risk_level: RiskLevel,
    check_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<Value>,
}

/// `POST /v1/permissions/check`
pub(crate) async fn check(
    State(app): State<Arc<App>>,
    Runtime(who): Runtime,
    Body(asked): Body<Check>,
) -> Result<Json<Answer>, ApiError> {
    let (answer, call) = decide(&app, &who, asked).await?;
    let mut write = who.write(&app).await?;
    record(&app, &mut write, &answer, &call).await?;
    write.commit().await?;
    Ok(Json(answer))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Batch {
    checks: Vec<Check>,
}

const BATCH_MAX: usize = 100;

/// `POST /v1/permissions/check/batch`: each check has an answer or a problem in its place.
pub(crate) async fn check_batch(
    State(app): State<Arc<App>>,
    Runtime(who): Runtime,
    Body(batch): Body<Batch>,
) -> Result<Json<Value>, ApiError> {
    if batch.checks.is_empty() || batch.checks.len() > BATCH_MAX {
        return Err(ApiError::invalid_value("/checks", format!("A batch has 1 to {BATCH_MAX} checks.")));
    }
    let mut decided = Vec::with_capacity(batch.checks.len());
    for asked in batch.checks {
        decided.push(decide(&app, &who, asked).await);
    }
    let mut write = who.write(&app).await?;
    let mut results = Vec::with_capacity(decided.len());
    for (at, one) in decided.into_iter().enumerate() {
        results.push(match one {
            Ok((answer, call)) => {
                record(&app, &mut write, &answer, &call).await?;
                json!(answer)
            }
            Err(e) if e.status() == StatusCode::INTERNAL_SERVER_ERROR => return Err(e),
            Err(e) => problem_of(at, &e),
        });
    }
    write.commit().await?;
    Ok(Json(json!({"results": results})))
}

/// The problem of the check at that place of its batch.
fn problem_of(at: usize, e: &ApiError) -> Value {
    let mut problem =
        json!({"error": {"code": e.code(), "status": e.status().as_u16(), "detail": e.detail()}});
    let error = problem.pointer_mut("/error").and_then(Value::as_object_mut);
    if let (Some(error), Some(pointer)) = (error, e.member("pointer").and_then(Value::as_str)) {
        error.insert("pointer".to_owned(), format!("/checks/{at}{pointer}").into());
    }
    problem
}

async fn decide(app: &Arc<App>, who: &Credential, asked: Check) -> Result<(Answer, CallNames), ApiError> {
    none_is_a_secret([
        ("/tool_name", Some(&asked.tool_name)),
        ("/resource_id", asked.resource_id.as_ref()),
        ("/method", asked.method.as_ref()),
        ("/audience", asked.audience.as_ref()),
    ])?;
    flat_enough("/parameters", asked.parameters.as_ref().unwrap_or_default())?;
    // A trace tells what other rules there are: for a trusted platform component only.
    if asked.explain && who.key.tenancy != Tenancy::Org {
        let detail = "A trace needs a key with tenancy `org`; or simulate with a management key.";
        return Err(ApiError::forbidden("explain_not_allowed", detail));
    }
    let tenant = who.tenant(asked.tenant_id.as_ref())?;
    let principal = who.principal_name()?;
    let policy = app.rulesets.policy(app, who.org(), tenant.as_ref()).await?;
    let fields = CallFields {
        tool_name: asked.tool_name,
        tenant_id: asked.tenant_id,
        resource_id: asked.resource_id,
        method: asked.method,
        audience: asked.audience,
    };
    let call = fields.names(&policy, who.org(), principal, tenant);
    if let (Some(parameters), Some(tool)) = (&asked.parameters, policy.tool(&call.tool))
        && tool.audience == call.audience
    {
        app.validators.check(tool, parameters)?;
    }
    let (decision, trace) = if asked.explain {
        let (decision, trace) = policy.explain(&call).map_err(|e| undecided(&e))?;
        (decision, Some(shown_trace(&trace)?))
    } else {
        (policy.decide(&call).map_err(|e| undecided(&e))?, None)
    };
    let answer = Answer {
        decision: DecisionRecord::from(&decision),
        risk_level: decision.risk_level(),
        check_id: app.random.id(Kind::Check, app.now()),
        trace,
    };
    app.metrics.decided(decision.permission().as_str(), decision.resolved_from().as_str());
    Ok((answer, call))
}

fn shown_trace(trace: &[Step<'_>]) -> Result<Value, ApiError> {
    serde_json::to_value(trace).map_err(|e| ApiError::internal(&e))
}

/// Writes `permission.checked`, and a draft of a tool that is seen for the first time.
async fn record(app: &App, write: &mut Write, answer: &Answer, call: &CallNames) -> Result<(), ApiError> {
    let data = EventData {
        tenant: call.tenant.as_ref().map(ToString::to_string),
        principal: Some(call.principal.to_string()),
        audience: Some(call.audience.to_string()),
        tool: Some(call.tool.to_string()),
        resource: call.resource.as_ref().map(ToString::to_string),
        method: call.method.as_ref().map(ToString::to_string),
        decision: Some(answer.decision.clone()),
        ..EventData::default()
    };
    let event = record::event(app, EventType::PermissionChecked, Some(answer.check_id.clone()), data);
    store::audit::record(write, &call.org, app.now(), event).await?;
    if answer.decision.unregistered {
        drafts::sighted(app, write, call).await?;
    }
    Ok(())
}
