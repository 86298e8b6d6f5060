//! The execution token: a signed, single-use, seconds-lived proof that one call was permitted.
//!
//! It is a JWT in JWS compact form (RFC 7519, RFC 7515) with `alg` fixed to HS256, so any stock library
//! verifies it. Single use is the backend's to enforce: it redeems `jti` once.

use std::borrow::Cow;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::canonical::{base64url, unbase64url};
use crate::strict_json;

/// The header that carries the token to the tool server.
pub const HEADER: &str = "x-oakallow-token";
/// `typ` of the JOSE header.
pub const TYPE: &str = "oakallow-exec+jwt";
/// Longest life of a token, in seconds.
pub const LIFETIME_S_MAX: u64 = 60;
/// How far two clocks may differ, in seconds.
pub const SKEW_S: u64 = 5;
/// Longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// `iss` of an org's tokens, whoever of its backend and proxies minted them: the org is the issuer, and has
/// many addresses. A verifier pins it.
#[must_use]
pub fn issuer(org: &str) -> String {
    format!("oakallow/{org}")
}

/// Domain separation of the derivation (RFC 5869): the purpose and its version.
const SALT: &[u8] = b"oakallow/exec/v1";

/// The key of one tool server (audience) and epoch. Debug shows its id, never its bytes.
#[derive(Clone)]
pub struct TokenKey {
    kid: String,
    bytes: Zeroizing<[u8; 32]>,
}

impl TokenKey {
    /// HKDF-SHA256 of the org's master key, bound to epoch and audience: a leaked key forges for one
    /// tool server and one epoch only.
    #[must_use]
    #[expect(clippy::expect_used, reason = "HKDF-SHA256 yields up to 8160 bytes; 32 are asked for")]
    pub fn derive(master: &[u8; 32], epoch: u32, audience: &str) -> Self {
        let kid = format!("{epoch}.{audience}");
        let mut bytes = Zeroizing::new([0; 32]);
        let info = format!("{epoch}|{audience}");
        Hkdf::<Sha256>::new(Some(SALT), master)
            .expand(info.as_bytes(), bytes.as_mut_slice())
            .expect("32 bytes are within HKDF's limit");
        Self { kid, bytes }
    }

    /// A key that was derived elsewhere.
    #[must_use]
    pub fn from_bytes(kid: String, bytes: [u8; 32]) -> Self {
        Self { kid, bytes: Zeroizing::new(bytes) }
    }

    /// `<epoch>.<audience>`
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The audience that the key's id names.
    fn audience(&self) -> Option<&str> {
        self.kid.split_once('.').map(|(_, audience)| audience)
    }

    /// The bytes, for the one who hands them to a holder of the audience's credential.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.bytes
    }

    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length (RFC 2104)")]
    fn mac(&self, signed: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.bytes.as_slice()).expect("any length is valid");
        mac.update(signed);
        mac
    }
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenKey({})", self.kid)
    }
}

/// What the token is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Binding {
    /// The exact request: `htm`, `htu` and `bdh` are present.
    Request,
    /// No request: minted through REST without a body, or for a message that carries the token itself.
    None,
}

/// The claims, in the order in which they are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// Issuer.
    pub iss: String,
    /// The tool server.
    pub aud: String,
    /// The agent or key that called.
    pub sub: String,
    /// Org.
    pub org: String,
    /// Tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Tool that was decided on.
    pub tool: String,
    /// Resource that was decided on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Method that was decided on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// HTTP method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub htm: Option<String>,
    /// HTTP URI as sent to the tool server, query included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub htu: Option<String>,
    /// What it is bound to.
    pub bnd: Binding,
    /// SHA-256 of the exact forwarded body, base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bdh: Option<String>,
    /// SHA-256 of the canonical form (RFC 8785) of the arguments, base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ah: Option<String>,
    /// Approval, when a person approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apr: Option<String>,
    /// Policy version.
    pub pol: u64,
    /// The gate or level that it was resolved from.
    pub lvl: String,
    /// Token id: single use.
    pub jti: String,
    /// Audit id of the call.
    pub txn: String,
    /// Issued at, seconds since 1970.
    pub iat: u64,
    /// Not before, seconds since 1970.
    pub nbf: u64,
    /// Expires, seconds since 1970.
    pub exp: u64,
}

impl Claims {
    /// Whether all that [`Binding::Request`] promises is there.
    fn names_request(&self) -> bool {
        self.htm.is_some() && self.htu.is_some() && self.bdh.is_some()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    typ: String,
    alg: String,
    kid: String,
}

/// Why a token is not accepted. The names are the API's `reason`s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum TokenError {
    #[error("malformed")]
    Malformed,
    #[error("unsupported_algorithm")]
    Algorithm,
    #[error("unknown_key")]
    UnknownKey,
    #[error("bad_signature")]
    Signature,
    #[error("expired")]
    Expired,
    #[error("not_yet_valid")]
    NotYetValid,
    #[error("lifetime_too_long")]
    Lifetime,
    #[error("wrong_audience")]
    Audience,
}

/// Signs claims. The life is cut to [`LIFETIME_S_MAX`], never refused: a token that lives too long does
/// not exist.
#[must_use]
#[expect(clippy::expect_used, reason = "both are plain structs of strings and numbers")]
pub fn sign(claims: &Claims, key: &TokenKey) -> String {
    let header = Header { typ: TYPE.to_owned(), alg: "HS256".to_owned(), kid: key.kid.clone() };
    let exp = claims.exp.min(claims.iat.saturating_add(LIFETIME_S_MAX));
    let claims =
        if exp == claims.exp { Cow::Borrowed(claims) } else { Cow::Owned(Claims { exp, ..claims.clone() }) };
    let header = serde_json::to_vec(&header).expect("serialises");
    let body = serde_json::to_vec(&claims).expect("serialises");
    let mut token = base64url(&header);
    token.push('.');
    token.push_str(&base64url(&body));
    let signature = key.mac(token.as_bytes()).finalize().into_bytes();
    token.push('.');
    token.push_str(&base64url(&signature));
    token
}

/// The audience that a token claims to be for, read *without* checking anything: only to pick the keys
/// to check it with.
#[must_use]
pub fn claimed_audience(token: &str) -> Option<String> {
    let (_, claims, _, _) = split(token).ok()?;
    Some(claims.aud)
}

/// Checks form, algorithm, key, signature, audience, time and binding, in this order, and returns the
/// claims.
/// It does not redeem: see the module's documentation.
pub fn verify(token: &str, keys: &[TokenKey], audience: &str, now_s: u64) -> Result<Claims, TokenError> {
    let (header, claims, signed, signature) = split(token)?;
    if header.alg != "HS256" || header.typ != TYPE {
        return Err(TokenError::Algorithm);
    }
    let key = keys.iter().find(|k| k.kid == header.kid).ok_or(TokenError::UnknownKey)?;
    // A key speaks for its own audience only, whatever the claims say and whichever keys were handed over.
    if key.audience() != Some(audience) {
        return Err(TokenError::UnknownKey);
    }
    // Constant time.
    key.mac(signed.as_bytes()).verify_slice(&signature).map_err(|_| TokenError::Signature)?;
    if claims.aud != audience {
        return Err(TokenError::Audience);
    }
    if claims.exp.saturating_sub(claims.iat) > LIFETIME_S_MAX {
        return Err(TokenError::Lifetime);
    }
    if now_s.saturating_add(SKEW_S) < claims.nbf.max(claims.iat) {
        return Err(TokenError::NotYetValid);
    }
    // "On or after" is too late (RFC 7519 section 4.1.4).
    if now_s >= claims.exp.saturating_add(SKEW_S) {
        return Err(TokenError::Expired);
    }
    if claims.bnd == Binding::Request && !claims.names_request() {
        return Err(TokenError::Malformed);
    }
    Ok(claims)
}

fn split(token: &str) -> Result<(Header, Claims, &str, Vec<u8>), TokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::Malformed);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let (header, body) = signed.split_once('.').ok_or(TokenError::Malformed)?;
    let signature = unbase64url(signature).ok_or(TokenError::Malformed)?;
    Ok((part(header)?, part(body)?, signed, signature))
}

fn part<T: for<'de> Deserialize<'de>>(encoded: &str) -> Result<T, TokenError> {
    let bytes = unbase64url(encoded).ok_or(TokenError::Malformed)?;
    let value = strict_json::parse(&bytes).map_err(|_| TokenError::Malformed)?;
    serde_json::from_value(value).map_err(|_| TokenError::Malformed)
}
