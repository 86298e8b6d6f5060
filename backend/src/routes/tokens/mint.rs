//! `POST /v1/tokens/mint`: a token for a call that is allowed now, or that a person approved and that
//! has not run.

use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;
use oakallow_policy::audit::{ApprovalRecord, DecisionRecord, EventData, EventType};
use oakallow_policy::call::CallNames;
use oakallow_policy::canonical::{base64url, sha256};
use oakallow_policy::fingerprint::Fingerprint;
use oakallow_policy::id::{Kind, Name};
use oakallow_policy::permit::{Consumption, Permit};
use oakallow_policy::rule::Permission;
use oakallow_policy::timestamp;
use oakallow_policy::token::{self, Binding, Claims, LIFETIME_S_MAX};
use oakallow_policy::tool::RiskLevel;
use oakallow_policy::{Decision, Tool};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::bound::{Bound, bound, canonical};
use crate::answer::Json;
use crate::approvals::{Settled, settle};
use crate::auth::Runtime;
use crate::decide::undecided;
use crate::error::ApiError;
use crate::extract::{Body, flat_enough};
use crate::record;
use crate::routes::approvals::act::not_consumable;
use crate::routes::approvals::ask::{disabled, rest_fingerprint};
use crate::routes::permissions::CallFields;
use crate::secrets::none_is_a_secret;
use crate::state::App;
use crate::store::approvals::{self, Step};
use crate::store::{Write, audit, orgs};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MintRequest {
    tool_name: Name,
    #[serde(default)]
    tenant_id: Option<Name>,
    #[serde(default)]
    resource_id: Option<Name>,
    #[serde(default)]
    method: Option<Name>,
    /// The arguments; the token is bound to them. With `body`, they are what it carries.
    #[serde(default)]
    pub(super) parameters: Value,
    #[serde(default)]
    approval_id: Option<String>,
    /// HTTP method, URI and exact body of the request that will carry the token: all or none.
    #[serde(default)]
    pub(super) htm: Option<String>,
    #[serde(default)]
    pub(super) htu: Option<String>,
    #[serde(default)]
    pub(super) body: Option<String>,
    /// In place of a body that is not the arguments alone (an MCP message): its SHA-256.
    #[serde(default)]
    pub(super) body_sha256: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Minted {
    token: String,
    token_id: String,
    expires_at: String,
    audience: Name,
    bound_to: Binding,
    txn: String,
    permission: Permission,
    resolved_from: String,
    policy_version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    approval_id: Option<String>,
}

/// See the module's documentation.
pub(crate) async fn mint(
    State(app): State<Arc<App>>,
    Runtime(credential): Runtime,
    Body(mut request): Body<MintRequest>,
) -> Result<(StatusCode, Json<Minted>), ApiError> {
    none_is_a_secret([
        ("/tool_name", Some(&request.tool_name)),
        ("/resource_id", request.resource_id.as_ref()),
        ("/method", request.method.as_ref()),
    ])?;
    flat_enough("/parameters", &request.parameters)?;
    let org = credential.org().clone();
    let bound = bound(&mut request)?;
    let tenant = credential.tenant(request.tenant_id.as_ref())?;
    // The policy is read under the write lock: no rule changes between decision and token.
    let mut write = credential.write(&app).await?;
    let policy = app.rulesets.policy(&app, &org, tenant.as_ref()).await?;
    let tool = policy.tool(&request.tool_name);
    let call = call(&request).names(&policy, &org, credential.principal_name()?, tenant);
    let decision = policy.decide(&call).map_err(|e| undecided(&e))?;
    // Without arguments there is nothing to check: the token is then bound to none.
    if let (Some(tool), false) = (tool, request.parameters.is_null()) {
        app.validators.check(tool, &request.parameters)?;
    }
    if bound.is_none() && decision.risk_level() >= RiskLevel::High {
        let settings = orgs::settings(&mut write, &org).await?;
        if !settings.unbound_tokens_high_risk {
            return Err(unbound(decision.risk_level()));
        }
    }
    let txn = app.random.id(Kind::Txn, app.now());
    let asked = Asked { org: &org, call: &call, tool, decision: &decision, txn: &txn };
    let permit = permit(&app, &mut write, &asked, &request).await?;
    let claims = claims(&app, &asked, &permit, (&request, bound))?;
    let keys = app
        .vault
        .token_keys(&mut write, &org, &call.audience, app.now())
        .await
        .map_err(|e| ApiError::internal(&e))?;
    let key = keys.first().ok_or_else(|| ApiError::internal(&"an org without token keys"))?;
    let token = token::sign(&claims, key);
    let event =
        record::event(&app, EventType::TokenMinted, Some(txn.clone()), minted(&asked, &permit, &claims));
    audit::record(&mut write, &org, app.now(), event).await?;
    write.commit().await?;
    let answer = Minted {
        token,
        token_id: claims.jti,
        expires_at: timestamp::rfc3339(claims.exp * 1_000),
        audience: call.audience.clone(),
        bound_to: claims.bnd,
        permission: decision.permission(),
        resolved_from: decision.resolved_from().as_str().to_owned(),
        policy_version: decision.policy_version(),
        approval_id: permit.approval().map(str::to_owned),
        txn,
    };
    Ok((StatusCode::CREATED, Json(answer)))
}

struct Asked<'a> {
    org: &'a Name,
    call: &'a CallNames,
    tool: Option<&'a Tool>,
    decision: &'a Decision<'a>,
    txn: &'a str,
}

fn unbound(risk: RiskLevel) -> ApiError {
    ApiError::forbidden(
        "binding_required",
        format!(
            "A token for a {} risk tool is bound to its request: send htm, htu and body (or let the proxy \
             send the call).",
            risk.as_str()
        ),
    )
}

fn call(request: &MintRequest) -> CallFields {
    CallFields {
        tool_name: request.tool_name.clone(),
        tenant_id: request.tenant_id.clone(),
        resource_id: request.resource_id.clone(),
        method: request.method.clone(),
        audience: None,
    }
}

/// The permit, without which there is no token. An approval is consumed by it, in this transaction.
async fn permit(
    app: &Arc<App>,
    write: &mut Write,
    asked: &Asked<'_>,
    request: &MintRequest,
) -> Result<Permit, ApiError> {
    let refused = |e| ApiError::forbidden("not_permitted", format!("{e}."));
    let hash = asked.tool.map(Tool::definition_hash).transpose().map_err(|e| ApiError::internal(&e))?;
    let fingerprint = rest_fingerprint(asked.call, hash, &request.parameters)?;
    match (asked.decision.permission(), &request.approval_id) {
        (Permission::Disabled, _) => Err(disabled(asked.decision)),
        (Permission::Allowed, approval) => {
            if let Some(id) = approval {
                cancel_unneeded(app, write, asked, (id, fingerprint)).await?;
            }
            Permit::by_rule(asked.decision).map_err(refused)
        }
        (Permission::RequiresApproval, None) => Err(ApiError::forbidden(
            "approval_required",
            "This call needs a person's approval: POST /v1/approvals, and mint with its approval_id.",
        )
        .with("resolved_from", asked.decision.resolved_from().as_str())),
        (Permission::RequiresApproval, Some(_)) if request.parameters.is_null() => {
            let detail =
                "An approval is for its own parameters: send exactly those, `{}` when there were none.";
            Err(ApiError::invalid_value("/parameters", detail))
        }
        (Permission::RequiresApproval, Some(id)) => {
            let not_found = || ApiError::not_found("approval", id);
            let own = approvals::find(write, asked.org, id).await?;
            own.filter(|a| a.principal == asked.call.principal).ok_or_else(not_found)?;
            let step = Step::Consume { fingerprint, txn: asked.txn, proxy: None };
            match settle(app, write, (asked.org, id), step, None).await?.ok_or_else(not_found)? {
                Settled::Stayed(approval) => Err(not_consumable(&approval)),
                Settled::Moved(approval) => {
                    let consumption = Consumption {
                        approval_id: approval.id,
                        fingerprint: approval.fingerprint,
                        txn: asked.txn.to_owned(),
                    };
                    Permit::by_approval(asked.decision, &consumption, fingerprint, asked.txn).map_err(refused)
                }
            }
        }
    }
}

/// The call is allowed by now: its own open approval is not needed any more.
async fn cancel_unneeded(
    app: &Arc<App>,
    write: &mut Write,
    asked: &Asked<'_>,
    approval: (&str, Fingerprint),
) -> Result<(), ApiError> {
    let (id, fingerprint) = approval;
    let found = approvals::find(write, asked.org, id).await?;
    if found.is_some_and(|a| a.principal == asked.call.principal && a.fingerprint == fingerprint) {
        settle(app, write, (asked.org, id), Step::Cancel, None).await?;
    }
    Ok(())
}

fn claims(
    app: &App,
    asked: &Asked<'_>,
    permit: &Permit,
    request: (&MintRequest, Option<Bound>),
) -> Result<Claims, ApiError> {
    let (request, bound) = request;
    let arguments = match &request.parameters {
        Value::Null => None,
        given => Some(canonical(given)?),
    };
    let now = app.now();
    let iat = now / 1_000;
    let text = |name: &Option<Name>| name.as_ref().map(ToString::to_string);
    let bnd = if bound.is_some() { Binding::Request } else { Binding::None };
    let (htm, htu, bdh) = bound.map_or((None, None, None), |b| (Some(b.htm), Some(b.htu), Some(b.bdh)));
    Ok(Claims {
        iss: token::issuer(asked.org),
        aud: asked.call.audience.to_string(),
        sub: asked.call.principal.to_string(),
        org: asked.org.to_string(),
        tenant: text(&asked.call.tenant),
        tool: asked.call.tool.to_string(),
        resource: text(&asked.call.resource),
        method: text(&asked.call.method),
        htm,
        htu,
        bnd,
        bdh,
        ah: arguments.map(|bytes| base64url(&sha256(&bytes))),
        apr: permit.approval().map(str::to_owned),
        pol: permit.policy_version(),
        lvl: asked.decision.resolved_from().as_str().to_owned(),
        jti: app.random.id(Kind::Token, now),
        txn: asked.txn.to_owned(),
        iat,
        nbf: iat,
        exp: iat + LIFETIME_S_MAX,
    })
}

fn minted(asked: &Asked<'_>, permit: &Permit, claims: &Claims) -> EventData {
    EventData {
        tenant: claims.tenant.clone(),
        principal: Some(claims.sub.clone()),
        audience: Some(claims.aud.clone()),
        tool: Some(claims.tool.clone()),
        resource: claims.resource.clone(),
        method: claims.method.clone(),
        decision: Some(DecisionRecord::from(asked.decision)),
        permit: Some(permit.reason()),
        approval: permit
            .approval()
            .map(|id| ApprovalRecord { id: id.to_owned(), ..ApprovalRecord::default() }),
        token_id: Some(claims.jti.clone()),
        ..EventData::default()
    }
}
