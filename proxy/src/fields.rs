//! The target and the fields of a request, over HTTP/1 and HTTP/2: what the tool server might read otherwise
//! than the proxy does is refused, and so is a credential that would reach it.
//!
//! Out of scope: the bytes of an HTTP/1 head ([`crate::head`]), what is left out of a request that goes on
//! ([`crate::forward`]), and the media type ([`crate::media`]).

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap};
use http::request::Parts;
use oakallow_policy::secret::percent_decoded;

use crate::forward::is_our_credential;
use crate::identity::{KEY_HEADER, is_bearer_token};
use crate::refusal::Refusal;
use crate::route::check_path;

/// Most header fields of a request.
const FIELDS_MAX: usize = 100;
/// Fields by which a request says that it is another one.
const OVERRIDES: [&str; 12] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-method",
    "x-original-method",
    "x-original-url",
    "x-original-uri",
    "x-original-host",
    "x-rewrite-url",
    "x-rewrite-uri",
    "x-override-url",
    "x-host",
];

/// Refuses what the tool server might read otherwise than we do.
pub fn check(parts: &Parts, raw_is_plain: bool, bytes_max: usize) -> Result<(), Refusal> {
    let bad = |what: &str| Err(Refusal::InvalidRequest(what.to_owned()));
    let headers = &parts.headers;
    // Over HTTP/2; `head` has looked at the bytes of HTTP/1.
    if headers.get_all(CONTENT_LENGTH).iter().count() > 1 {
        return bad("a request says once how long its body is");
    }
    if headers.contains_key("upgrade") {
        return bad("upgrades are not passed on");
    }
    if headers.keys().any(|name| OVERRIDES.contains(&name.as_str())) {
        return bad("a request has one method and one path: override fields are not accepted");
    }
    // CGI and its heirs (WSGI, Rack, PHP) see no difference between `_` and `-` in a name.
    if headers.keys().any(|name| name.as_str().contains('_')) {
        return bad("the name of a field has no underscore: some readers take it for a dash");
    }
    let bytes: usize = headers.iter().map(|(n, v)| n.as_str().len() + v.len() + 4).sum();
    if bytes > bytes_max || headers.len() > FIELDS_MAX {
        return bad("the header is too large");
    }
    if !raw_is_plain {
        return bad("the request target is not a path");
    }
    check_path(parts.uri.path()).map_err(|e| Refusal::InvalidRequest(e.to_owned()))?;
    if parts.uri.query().is_some() {
        // Neither a schema nor an approver would see it.
        return bad("a query is not passed on: send arguments in the body, and a key as X-API-Key");
    }
    Ok(())
}

/// Refuses a request that carries the caller's credential anywhere but where it belongs, from where it is
/// not forwarded.
pub fn check_credential(headers: &HeaderMap, credential: Option<&str>) -> Result<(), Refusal> {
    let Some(credential) = credential else { return Ok(()) };
    let stays_here = |name: &http::HeaderName, value: &http::HeaderValue| {
        name == KEY_HEADER
            || name == AUTHORIZATION && (is_our_credential(value) || is_bearer_token(value, credential))
    };
    let carried = headers.iter().filter(|(name, value)| !stays_here(name, value));
    match carried.into_iter().find(|(_, value)| carries(value.as_bytes(), credential.as_bytes())) {
        None => Ok(()),
        Some((name, _)) => Err(Refusal::InvalidRequest(format!(
            "the field {name} has the credential in it, which the tool server must not see: send a key as X-API-Key, a token as Authorization"
        ))),
    }
}

/// Whether a value has the secret in it, as it is, percent-encoded, or in base64.
fn carries(value: &[u8], secret: &[u8]) -> bool {
    // In any disguise it is at least as long.
    if value.len() < secret.len() {
        return false;
    }
    let holds = |text: &[u8]| text.windows(secret.len()).any(|part| part == secret);
    let lenient = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let engines = [GeneralPurpose::new(&STANDARD, lenient), GeneralPurpose::new(&URL_SAFE, lenient)];
    let mut words = value.split(|b| !b.is_ascii_alphanumeric() && !b"+/-_".contains(b));
    holds(value)
        || holds(&percent_decoded(value))
        || words.any(|word| engines.iter().any(|e| e.decode(word).is_ok_and(|decoded| holds(&decoded))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"oak_live_0123456789";

    #[test]
    fn a_credential_is_seen_in_its_usual_disguises() {
        for value in [
            "oak_live_0123456789",
            "session=1; key=oak_live_0123456789",
            "key=oak%5Flive%5f0123456789",
            "Basic dXNlcjpvYWtfbGl2ZV8wMTIzNDU2Nzg5",
            "Basic b2FrX2xpdmVfMDEyMzQ1Njc4OTo=",
        ] {
            assert!(carries(value.as_bytes(), KEY), "{value}");
        }
        for value in ["", "oak_live_012345678", "Basic dXNlcjpwYXNz", "%", "100%", "a%zzb"] {
            assert!(!carries(value.as_bytes(), KEY), "{value}");
        }
    }
}
