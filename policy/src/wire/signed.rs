//! Signed texts, the keys that sign them, and secrets that travel once.

use std::fmt;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use crate::canonical::{base64url, unbase64url};

/// A text with an Ed25519 signature (RFC 8032) over its purpose and itself. What is parsed is exactly
/// what was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signed {
    /// JSON text.
    pub payload: String,
    /// Which key signed it.
    pub kid: String,
    /// Base64url.
    pub signature: String,
}

/// What a signature is for: a signature for one purpose is worth nothing for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// [`super::Bundle`]
    Bundle,
    /// [`super::StillCurrent`]
    StillCurrent,
    /// [`crate::audit::Head`] of a proxy's chain.
    Head,
}

impl Purpose {
    const fn context(self) -> &'static str {
        match self {
            Self::Bundle => "oakallow/bundle/v1",
            Self::StillCurrent => "oakallow/still-current/v1",
            Self::Head => "oakallow/head/v1",
        }
    }

    fn bytes(self, payload: &str) -> Vec<u8> {
        [self.context().as_bytes(), b"\n", payload.as_bytes()].concat()
    }
}

/// Why a signed text is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum SignedError {
    #[error("signed by the unknown key `{0}`")]
    UnknownKey(String),
    #[error("the signature does not fit")]
    Signature,
    #[error("signed, but not understood: {0}")]
    Payload(String),
}

impl Signed {
    /// Signs a value.
    pub fn seal<T: Serialize>(
        purpose: Purpose,
        value: &T,
        kid: &str,
        key: &SigningKey,
    ) -> Result<Self, serde_json::Error> {
        let payload = serde_json::to_string(value)?;
        let signature = key.sign(&purpose.bytes(&payload));
        Ok(Self { payload, kid: kid.to_owned(), signature: base64url(&signature.to_bytes()) })
    }

    /// Checks the signature, then reads the value.
    pub fn open<T: for<'de> Deserialize<'de>>(
        &self,
        purpose: Purpose,
        key: &PublicKey,
    ) -> Result<T, SignedError> {
        if self.kid != key.kid {
            return Err(SignedError::UnknownKey(self.kid.clone()));
        }
        let bytes: [u8; 64] =
            unbase64url(&self.signature).and_then(|b| b.try_into().ok()).ok_or(SignedError::Signature)?;
        let verifying = key.verifying().ok_or(SignedError::Signature)?;
        verifying
            .verify_strict(&purpose.bytes(&self.payload), &Signature::from_bytes(&bytes))
            .map_err(|_| SignedError::Signature)?;
        serde_json::from_str(&self.payload).map_err(|e| SignedError::Payload(e.to_string()))
    }
}

/// An Ed25519 public key with its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicKey {
    /// Its name.
    pub kid: String,
    /// 32 bytes, base64url.
    pub public_key: String,
}

impl PublicKey {
    /// Of a signing key.
    #[must_use]
    pub fn of(kid: &str, key: &SigningKey) -> Self {
        Self { kid: kid.to_owned(), public_key: base64url(key.verifying_key().as_bytes()) }
    }

    fn verifying(&self) -> Option<VerifyingKey> {
        let bytes: [u8; 32] = unbase64url(&self.public_key)?.try_into().ok()?;
        VerifyingKey::from_bytes(&bytes).ok()
    }
}

/// A secret that travels once. Debug prints nothing of it; comparing takes the same time wherever two of
/// one length differ.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(secret: String) -> Self {
        Self(secret)
    }

    /// The secret itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}
