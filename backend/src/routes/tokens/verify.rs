//! `POST /v1/tokens/verify`: checks a token, and redeems it. The second one to ask is told `replayed`.

use std::sync::Arc;

use axum::extract::State;
use oakallow_policy::audit::{ApprovalRecord, EventData, EventType};
use oakallow_policy::id::Name;
use oakallow_policy::token::{self, Claims, SKEW_S};
use serde::{Deserialize, Serialize};

use super::digest;
use crate::answer::Json;
use crate::auth::Credential;
use crate::error::ApiError;
use crate::extract::Body;
use crate::keys::KeyKind;
use crate::record;
use crate::state::App;
use crate::store::{audit, redemptions};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerifyRequest {
    token: String,
    tool_name: Name,
    #[serde(default)]
    tenant_id: Option<Name>,
    #[serde(default)]
    resource_id: Option<Name>,
    #[serde(default)]
    method: Option<Name>,
    #[serde(default)]
    htm: Option<String>,
    #[serde(default)]
    htu: Option<String>,
    #[serde(default)]
    body_sha256: Option<String>,
    /// Of the canonical form (RFC 8785) of the arguments as the tool server read them.
    #[serde(default)]
    arguments_sha256: Option<String>,
}

/// Valid, with its claims; or not, with the reason.
#[derive(Serialize)]
pub(crate) struct Verified {
    valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    claims: Option<Claims>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Which of the given values is not the token's.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'static str>,
}

impl Verified {
    fn no(reason: impl Into<String>, field: Option<&'static str>) -> Json<Self> {
        Json(Self { valid: false, claims: None, reason: Some(reason.into()), field })
    }
}

/// See the module's documentation.
pub(crate) async fn verify(
    State(app): State<Arc<App>>,
    credential: Credential,
    Body(request): Body<VerifyRequest>,
) -> Result<Json<Verified>, ApiError> {
    credential.require(&[KeyKind::Tool, KeyKind::Standard, KeyKind::Agent], "Verifying a token")?;
    let expected = Expected::new(&request)?;
    // A tool server's audience is its key's. Another caller's is the token's own, checked by its key.
    let audience = match credential.kind() {
        KeyKind::Tool => credential.key.audience.as_ref().map(ToString::to_string),
        _ => token::claimed_audience(&request.token),
    };
    let Some(audience) = audience else { return Ok(Verified::no("malformed", None)) };
    let org = credential.org();
    let now = app.now();
    let keys = {
        let mut db = app.db.read(org).await?;
        app.vault.token_keys(&mut db, org, &audience, now).await.map_err(|e| ApiError::internal(&e))?
    };
    let claims = match token::verify(&request.token, &keys, &audience, now / 1_000) {
        Ok(claims) => claims,
        Err(reason) => return Ok(Verified::no(refused(reason, &request.token, &audience), None)),
    };
    // The key is derived from the org's master, so this cannot differ; it is checked all the same.
    if claims.org != org.as_str() || !credential.reaches(claims.tenant.as_deref()) {
        return Ok(Verified::no("wrong_tenant", None));
    }
    if let Some(field) = expected.differs(&claims) {
        return Ok(Verified::no("mismatch", Some(field)));
    }
    if claims.ah.is_some() && expected.ah.is_none() && minted_here(&app, org, &claims).await? {
        return Ok(Verified::no("arguments_required", Some("arguments_sha256")));
    }
    redeem(&app, &credential, claims).await
}

/// A tool server that is shown another audience's token finds no key for it; the reason says what it is.
fn refused(reason: token::TokenError, presented: &str, audience: &str) -> String {
    let other = token::claimed_audience(presented).is_some_and(|claimed| claimed != audience);
    match reason {
        token::TokenError::UnknownKey if other => token::TokenError::Audience.to_string(),
        reason => reason.to_string(),
    }
}

/// A proxy has seen body and arguments of the call that it signs for. Of a token that was minted here, only
/// the tool server sees both.
async fn minted_here(app: &App, org: &Name, claims: &Claims) -> Result<bool, ApiError> {
    let mut db = app.db.read(org).await?;
    Ok(audit::was_minted(&mut db, org, &claims.jti).await?)
}

async fn redeem(app: &Arc<App>, credential: &Credential, claims: Claims) -> Result<Json<Verified>, ApiError> {
    let org = credential.org();
    let mut write = credential.write(app).await?;
    let now = app.now();
    // Verification accepts the token until exp + skew, to the second; one more second is the rest.
    let keep_until = (claims.exp + SKEW_S + 1) * 1_000;
    // What is forgotten by then is still in the record: a clock that is set back makes no token good again.
    let first = redemptions::redeem(&mut write, org, &claims.jti, now, keep_until).await?
        && !audit::was_redeemed(&mut write, org, &claims.jti).await?;
    let kind = if first { EventType::TokenRedeemed } else { EventType::TokenReplayed };
    let data = EventData {
        tenant: claims.tenant.clone(),
        principal: Some(credential.principal().to_owned()),
        audience: Some(claims.aud.clone()),
        tool: Some(claims.tool.clone()),
        resource: claims.resource.clone(),
        method: claims.method.clone(),
        approval: claims.apr.clone().map(|id| ApprovalRecord { id, ..ApprovalRecord::default() }),
        token_id: Some(claims.jti.clone()),
        ..EventData::default()
    };
    let event = record::event(app, kind, Some(claims.txn.clone()), data);
    audit::record(&mut write, org, now, event).await?;
    write.commit().await?;
    if !first {
        return Ok(Verified::no("replayed", None));
    }
    Ok(Json(Verified { valid: true, claims: Some(claims), reason: None, field: None }))
}

/// What the tool server saw of the request that carried the token.
struct Expected<'a> {
    request: &'a VerifyRequest,
    bdh: Option<String>,
    ah: Option<String>,
}

impl<'a> Expected<'a> {
    fn new(request: &'a VerifyRequest) -> Result<Self, ApiError> {
        let read = |pointer, text: &Option<String>| text.as_deref().map(|t| digest(pointer, t)).transpose();
        Ok(Self {
            request,
            bdh: read("/body_sha256", &request.body_sha256)?,
            ah: read("/arguments_sha256", &request.arguments_sha256)?,
        })
    }

    /// The first given value that the token does not have.
    fn differs(&self, claims: &Claims) -> Option<&'static str> {
        let r = self.request;
        let given = [
            ("tool_name", Some(r.tool_name.as_str()), Some(claims.tool.as_str())),
            ("tenant_id", r.tenant_id.as_deref(), claims.tenant.as_deref()),
            ("resource_id", r.resource_id.as_deref(), claims.resource.as_deref()),
            ("method", r.method.as_deref(), claims.method.as_deref()),
            ("htm", r.htm.as_deref(), claims.htm.as_deref()),
            ("htu", r.htu.as_deref(), claims.htu.as_deref()),
            ("body_sha256", self.bdh.as_deref(), claims.bdh.as_deref()),
            ("arguments_sha256", self.ah.as_deref(), claims.ah.as_deref()),
        ];
        given.into_iter().find(|(_, want, have)| want.is_some() && want != have).map(|(field, _, _)| field)
    }
}
