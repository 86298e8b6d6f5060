//! Execution tokens: minted for a call that may run ([`mint`]), redeemed once ([`verify`]), and the keys
//! with which a tool server checks them by itself ([`keys`]).

pub(crate) mod keys;
pub(crate) mod mint;
pub(crate) mod verify;

use oakallow_policy::canonical::{base64url, unbase64url, unhex};

use crate::error::ApiError;

/// The digest of a body in the form in which tokens carry it, from hexadecimal or base64url.
fn body_digest(text: &str) -> Result<String, ApiError> {
    unhex(text)
        .or_else(|| unbase64url(text))
        .filter(|bytes| bytes.len() == 32)
        .map(|bytes| base64url(&bytes))
        .ok_or_else(|| {
            ApiError::invalid_value("/body_sha256", "A SHA-256 in lower-case hexadecimal, or in base64url.")
        })
}
