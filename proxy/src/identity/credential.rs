//! Where a request carries its credential.

use http::{HeaderMap, HeaderValue};

/// Where a key belongs.
pub const KEY_HEADER: &str = "x-api-key";
/// The tenant that a request selects.
pub const TENANT_HEADER: &str = "x-tenant-id";
/// What our keys begin with.
const OURS: &str = "oak_";

/// Several credentials, or one that cannot be read: whose call it is would be left open.
pub(super) struct Unclear;

/// Exactly one key: two that differ would leave open whose call it is.
#[must_use]
pub fn credential(headers: &HeaderMap) -> Option<&str> {
    key(headers).ok().flatten()
}

pub(super) fn key(headers: &HeaderMap) -> Result<Option<&str>, Unclear> {
    let mut found = headers.get_all(KEY_HEADER).iter().map(|v| v.to_str().map_err(|_| Unclear));
    let key = found.next().transpose()?;
    let mut ours = bearers(headers).filter(|token| token.starts_with(OURS));
    let bearer = ours.next();
    if ours.any(|other| Some(other) != bearer) {
        return Err(Unclear);
    }
    match (key, found.next(), bearer) {
        (Some(key), None, None) => Ok(Some(key)),
        (Some(key), None, Some(bearer)) if key == bearer => Ok(Some(key)),
        (None, _, bearer) => Ok(bearer),
        _ => Err(Unclear),
    }
}

/// The one bearer token that is not a key of ours.
pub(super) fn token(headers: &HeaderMap) -> Result<Option<&str>, Unclear> {
    let mut tokens = bearers(headers).filter(|token| !token.starts_with(OURS));
    match (tokens.next(), tokens.next()) {
        (token, None) => Ok(token),
        _ => Err(Unclear),
    }
}

/// Every word of every `Authorization`, whatever the scheme.
pub(super) fn words(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let texts = headers
        .get_all("authorization")
        .iter()
        .filter_map(|value| std::str::from_utf8(value.as_bytes()).ok());
    texts.flat_map(|text| text.split(|c: char| c.is_whitespace() || c == ',')).filter(|word| !word.is_empty())
}

fn bearers(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers.get_all("authorization").iter().filter_map(bearer)
}

fn bearer(value: &HeaderValue) -> Option<&str> {
    let text = value.to_str().ok()?;
    text.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("bearer "))?;
    text.get(7..).map(str::trim)
}

/// Whether a value of `Authorization` is this token, as bearers carry it.
#[must_use]
pub fn is_bearer_token(value: &HeaderValue, token: &str) -> bool {
    bearer(value) == Some(token)
}
