//! Execution tokens: minted for a call that may run ([`mint`]), redeemed once ([`verify`]), and the keys
//! with which a tool server checks them by itself ([`keys`]).

mod bound;
pub(crate) mod keys;
pub(crate) mod mint;
pub(crate) mod verify;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};
use oakallow_policy::canonical::{base64url, unbase64url, unhex};

use crate::error::ApiError;
use crate::state::App;

/// Its endpoints.
pub(crate) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/tokens/mint", post(mint::mint))
        .route("/v1/tokens/verify", post(verify::verify))
        .route("/v1/audiences/{audience}/keys", get(keys::list))
        .route("/v1/token-keys/rotate", post(keys::rotate))
}

/// A digest in the form in which tokens carry it, from hexadecimal or base64url.
fn digest(pointer: &str, text: &str) -> Result<String, ApiError> {
    unhex(text)
        .or_else(|| unbase64url(text))
        .filter(|bytes| bytes.len() == 32)
        .map(|bytes| base64url(&bytes))
        .ok_or_else(|| {
            ApiError::invalid_value(pointer, "A SHA-256 in lower-case hexadecimal, or in base64url.")
        })
}
