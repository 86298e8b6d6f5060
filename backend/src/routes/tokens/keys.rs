//! The keys of execution tokens: fetched by tool servers that check tokens by themselves, and rotated.

use std::sync::Arc;

use axum::extract::State;
use oakallow_policy::audit::EventType;
use oakallow_policy::canonical::base64url;
use oakallow_policy::token;
use serde::Serialize;
use serde_json::json;

use crate::answer::Json;
use crate::auth::{Management, ToolServer};
use crate::error::ApiError;
use crate::extract::Segment;
use crate::record::Change;
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

/// `GET /v1/audiences/{audience}/keys`: those of the audience of this credential, and of no other.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    ToolServer(credential): ToolServer,
    audience: Segment,
) -> Result<Json<KeySet>, ApiError> {
    let audience = audience.name("audience")?;
    if credential.key.audience.as_ref() != Some(&audience) {
        return Err(ApiError::forbidden("audience_not_allowed", "This key belongs to another audience."));
    }
    let mut db = app.db.read(credential.org()).await?;
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
        issuer: token::issuer(credential.org()),
        keys: keys.collect(),
    }))
}

/// What a rotation made.
#[derive(Serialize)]
pub(crate) struct Rotated {
    epoch: u32,
}

/// `POST /v1/token-keys/rotate`: a new key for every audience of the org. The old ones are accepted for
/// as long as a token of theirs may live; the new policy version brings the new ones to the proxies.
pub(crate) async fn rotate(
    State(app): State<Arc<App>>,
    Management(credential): Management,
) -> Result<Json<Rotated>, ApiError> {
    let org = credential.org();
    let mut write = credential.write(&app).await?;
    let epoch =
        app.vault.rotate_token_keys(&mut write, org, app.now()).await.map_err(|e| ApiError::internal(&e))?;
    let detail = json!({"kind": "execution_token", "epoch": epoch});
    Change::by(&credential, EventType::KeyCreated, detail).publish(&app, write, None).await?;
    Ok(Json(Rotated { epoch }))
}
