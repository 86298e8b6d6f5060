//! `GET /v1/audiences/{audience}/keys`: for a tool server that checks tokens by itself.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use oakallow_policy::canonical::base64url;
use serde::Serialize;

use crate::auth::ToolServer;
use crate::error::ApiError;
use crate::extract::Segment;
use crate::state::App;

/// A symmetric JWK (RFC 7517, RFC 7518 section 6.4): stock JWT libraries take it as it is.
#[derive(Serialize)]
pub(crate) struct Jwk {
    kty: &'static str,
    alg: &'static str,
    #[serde(rename = "use")]
    usage: &'static str,
    kid: String,
    k: String,
}

/// A JWK set; the current key first.
#[derive(Serialize)]
pub(crate) struct KeySet {
    audience: String,
    issuer: String,
    keys: Vec<Jwk>,
}

/// The verification keys of the audience of this credential, and of no other.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    ToolServer(credential): ToolServer,
    audience: Segment,
) -> Result<Json<KeySet>, ApiError> {
    let audience = audience.name("audience")?;
    if credential.key.audience.as_ref() != Some(&audience) {
        return Err(ApiError::forbidden("audience_not_allowed", "This key belongs to another audience."));
    }
    let mut db = app.db.read().await?;
    let keys = app
        .vault
        .token_keys(&mut db, credential.org(), &audience, app.now())
        .await
        .map_err(|e| ApiError::internal(&e))?;
    let keys = keys.iter().map(|key| Jwk {
        kty: "oct",
        alg: "HS256",
        usage: "sig",
        kid: key.kid().to_owned(),
        k: base64url(key.expose()),
    });
    Ok(Json(KeySet {
        audience: audience.to_string(),
        issuer: app.public_url.clone(),
        keys: keys.collect(),
    }))
}
