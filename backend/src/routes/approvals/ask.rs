//! `POST /v1/approvals`: by a proxy, which knows the call, or through REST, where we work it out.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use oakallow_policy::call::CallNames;
use oakallow_policy::fingerprint::Fingerprint;
use oakallow_policy::id::{Kind, Name};
use oakallow_policy::principal::is_external;
use oakallow_policy::rule::Permission;
use oakallow_policy::tool::RiskLevel;
use oakallow_policy::wire::{ApprovalAnswer, ApprovalRequest, ProxyContext};
use serde_json::{Value, json};

use super::{ApprovalView, must_serve};
use crate::answer::Json;
use crate::approvals::decide::answered_for;
use crate::approvals::request::{Ask, Asked, ask};
use crate::auth::{Credential, ProxyIdentity};
use crate::decide::undecided;
use crate::error::ApiError;
use crate::extract::{Body, flat_enough, tame};
use crate::keys::KeyKind;
use crate::routes::keys::owner_email;
use crate::routes::permissions::CallFields;
use crate::secrets::none_is_a_secret;
use crate::state::App;
use crate::store::keys::Key;
use crate::store::{self, Conn, StoreError, agents, orgs};

/// The route of calls that come through REST.
pub(crate) const REST_ROUTE: &str = "rest";
const IDEMPOTENCY_HEADER: &str = "idempotency-key";

/// `POST /v1/approvals`: creates an approval for this call, or joins the one that answers it. 201 when
/// it is new, else 200.
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    credential: Credential,
    headers: HeaderMap,
    Body(mut request): Body<ApprovalRequest>,
) -> Result<Response, ApiError> {
    none_is_a_secret([
        ("/tool_name", Some(&request.tool_name)),
        ("/resource_id", request.resource_id.as_ref()),
        ("/method", request.method.as_ref()),
    ])?;
    // A proxy has parsed the call; it sends what stands beside the arguments too, a level further out.
    if credential.kind() != KeyKind::Proxy {
        flat_enough("/parameters", &request.parameters)?;
    }
    if credential.kind() == KeyKind::Proxy {
        let context = request.proxy.take().ok_or_else(|| {
            ApiError::invalid_value("/proxy", "A proxy says what it knows of the call in `proxy`.")
        })?;
        let proxy = ProxyIdentity::of(credential, &app).await?;
        let wanted = ask_of_proxy(&app, &proxy, request, context).await?;
        let asked = submit(&app, &proxy.credential, &wanted).await?;
        let status = created(&asked);
        let answer = ApprovalAnswer {
            approval: asked.approval.state(),
            joined: asked.joined,
            already_executed: asked.already_executed,
        };
        return Ok((status, Json(answer)).into_response());
    }
    credential.require(&[KeyKind::Standard, KeyKind::Agent], "Requesting an approval")?;
    if request.proxy.is_some() {
        return Err(ApiError::invalid_value("/proxy", "Only a proxy may send `proxy`."));
    }
    let wanted = ask_of_rest(&app, &credential, request, idempotency_key(&headers)?).await?;
    let asked = submit(&app, &credential, &wanted).await?;
    let status = created(&asked);
    let mut view = ApprovalView::new(asked.approval, app.now());
    view.joined = Some(asked.joined);
    view.already_executed = asked.already_executed.map(Into::into);
    Ok((status, Json(view)).into_response())
}

fn created(asked: &Asked) -> StatusCode {
    if asked.joined { StatusCode::OK } else { StatusCode::CREATED }
}

async fn submit(app: &Arc<App>, credential: &Credential, wanted: &Ask) -> Result<Asked, ApiError> {
    answered_for(wanted.owner.as_deref())?;
    let mut write = credential.write(app).await?;
    let asked = ask(app, &mut write, wanted).await?;
    write.commit().await?;
    Ok(asked)
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(IDEMPOTENCY_HEADER) else { return Ok(None) };
    let key = value.to_str().unwrap_or_default().trim();
    if key.is_empty() || key.len() > 255 {
        return Err(ApiError::invalid_request("Idempotency-Key: 1 to 255 visible ASCII characters."));
    }
    Ok(Some(key.to_owned()))
}

async fn ask_of_proxy(
    app: &Arc<App>,
    proxy: &ProxyIdentity,
    request: ApprovalRequest,
    context: ProxyContext,
) -> Result<Ask, ApiError> {
    let org = proxy.credential.org().clone();
    must_serve(proxy, &context.audience, request.tenant_id.as_ref())?;
    let policy = app.rulesets.policy(app, &org, None).await?;
    let tool = policy.tool(&request.tool_name).filter(|t| t.audience == context.audience);
    let mut db = app.db.read(&org).await?;
    let settings = orgs::settings(&mut db, &org).await?;
    let risk_level = tool.map_or(RiskLevel::Critical, |t| t.risk_level);
    let owner = match is_external(&context.principal) {
        true => context.owner.map(|owner| owner_email("/proxy/owner", &owner)).transpose()?,
        false => owner_of(&mut db, &org, &context.principal).await?,
    };
    let token_email =
        context.token_email.map(|email| owner_email("/proxy/token_email", &email)).transpose()?;
    Ok(Ask {
        owner,
        token_email,
        risk_level,
        levels: tool.and_then(|t| t.approval.levels).unwrap_or(1),
        timeout_s: tool.and_then(|t| t.approval.timeout_s).unwrap_or(settings.approval_timeout_s),
        org,
        principal: context.principal,
        tenant: request.tenant_id,
        audience: context.audience,
        tool: request.tool_name,
        resource: request.resource_id,
        method: request.method,
        route: context.route,
        definition_hash: context
            .definition_hash
            .map(|hash| tame("/proxy/definition_hash", &hash))
            .transpose()?,
        fingerprint: context.fingerprint,
        arguments: exact(&request.parameters)?,
        reason: reason(request.reason)?,
        resolved_from: tame("/proxy/resolved_from", &context.resolved_from)?,
        rule: context.rule.map(|rule| tame("/proxy/rule", &rule)).transpose()?,
        policy_version: context.policy_version,
        txn: tame("/proxy/txn", &context.txn)?,
        idempotency_key: context
            .idempotency_key
            .map(|key| tame("/proxy/idempotency_key", &key))
            .transpose()?,
    })
}

async fn ask_of_rest(
    app: &Arc<App>,
    credential: &Credential,
    mut request: ApprovalRequest,
    idempotency_key: Option<String>,
) -> Result<Ask, ApiError> {
    // What is approved is a call with its arguments, also when it takes none.
    if request.parameters.is_null() {
        request.parameters = json!({});
    }
    let org = credential.org().clone();
    let tenant = credential.tenant(request.tenant_id.as_ref())?;
    let policy = app.rulesets.policy(app, &org, tenant.as_ref()).await?;
    let tool = policy.tool(&request.tool_name);
    let fields = CallFields {
        tool_name: request.tool_name,
        tenant_id: request.tenant_id,
        resource_id: request.resource_id,
        method: request.method,
        audience: None,
    };
    let call = fields.names(&policy, &org, credential.principal_name()?, tenant);
    let decision = policy.decide(&call).map_err(|e| undecided(&e))?;
    if let Some(tool) = tool {
        app.validators.check(tool, &request.parameters)?;
    }
    match decision.permission() {
        Permission::RequiresApproval => {}
        Permission::Allowed => {
            return Err(ApiError::conflict(
                "approval_not_needed",
                "This call is allowed as it is: mint a token for it, or send it through the proxy.",
            )
            .with("resolved_from", decision.resolved_from().as_str()));
        }
        Permission::Disabled => return Err(disabled(&decision)),
    }
    let hash = tool.map(|t| t.definition_hash()).transpose().map_err(|e| ApiError::internal(&e))?;
    let mut db = app.db.read(&org).await?;
    let settings = orgs::settings(&mut db, &org).await?;
    Ok(Ask {
        owner: credential.key.owner.clone(),
        token_email: None,
        risk_level: decision.risk_level(),
        levels: tool.and_then(|t| t.approval.levels).unwrap_or(1),
        timeout_s: tool.and_then(|t| t.approval.timeout_s).unwrap_or(settings.approval_timeout_s),
        fingerprint: rest_fingerprint(&call, hash, &request.parameters)?,
        definition_hash: hash.map(|h| oakallow_policy::canonical::hex(&h)),
        arguments: exact(&request.parameters)?,
        reason: reason(request.reason)?,
        resolved_from: decision.resolved_from().as_str().to_owned(),
        rule: decision.rule().map(str::to_owned),
        policy_version: decision.policy_version(),
        txn: app.random.id(Kind::Txn, app.now()),
        org,
        principal: call.principal,
        tenant: call.tenant,
        audience: call.audience,
        tool: call.tool,
        resource: call.resource,
        method: call.method,
        route: rest_route()?,
        idempotency_key,
    })
}

/// 403: the policy says no, and no person can lift it.
pub(crate) fn disabled(decision: &oakallow_policy::Decision<'_>) -> ApiError {
    ApiError::forbidden("disabled", "This call is disabled by policy; an approval does not lift that.")
        .with("resolved_from", decision.resolved_from().as_str())
        .with("policy_version", decision.policy_version())
}

/// The fingerprint of a call that comes through REST.
pub(crate) fn rest_fingerprint(
    call: &CallNames,
    definition_hash: Option<[u8; 32]>,
    parameters: &Value,
) -> Result<Fingerprint, ApiError> {
    Fingerprint::of(&call.as_call(), REST_ROUTE, definition_hash, parameters)
        .map_err(|e| ApiError::invalid_value("/parameters", format!("{e}.")))
}

fn rest_route() -> Result<Name, ApiError> {
    Name::new(REST_ROUTE).map_err(|e| ApiError::internal(&e))
}

fn exact(parameters: &Value) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(parameters).map_err(|e| ApiError::internal(&e))
}

fn reason(reason: Option<String>) -> Result<Option<String>, ApiError> {
    match reason {
        Some(text) if text.chars().count() > 2_000 => {
            Err(ApiError::invalid_value("/reason", "A reason is at most 2000 characters long."))
        }
        other => Ok(other.filter(|text| !text.trim().is_empty())),
    }
}

/// The person who answers for a principal that a proxy names.
async fn owner_of(db: &mut Conn, org: &Name, principal: &Name) -> Result<Option<String>, StoreError> {
    if let Some(owner) = agents::owner(db, org, principal).await? {
        return Ok(Some(owner));
    }
    Ok(store::one::<Key>(db, org, principal).await?.and_then(|key| key.owner))
}
