//! Execution tokens: minted for a call that may run ([`mint`]), redeemed once ([`verify`]), and the keys
//! with which a tool server checks them by itself ([`keys`]).

mod bound;
pub(crate) mod keys;
pub(crate) mod mint;
pub(crate) mod verify;

use oakallow_policy::canonical::{base64url, unbase64url, unhex};

use crate::error::ApiError;

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
