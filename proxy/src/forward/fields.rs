//! Which fields go on, and under which address.

use http::Uri;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use oakallow_policy::secret::words;

use crate::refusal::Refusal;

/// Fields of one connection, never passed on (RFC 9110 section 7.6.1), and those that are ours.
const NEVER_PASSED: [&str; 19] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "expect",
    "host",
    "x-api-key",
    "x-tenant-id",
    "http2-settings",
    // Who is behind the caller is for proxies to say, and callers are agents.
    "forwarded",
    "x-real-ip",
    "x-client-ip",
    "true-client-ip",
];
/// Whatever begins so is ours to say, or for proxies.
const OURS: [&str; 2] = ["x-oakallow-", "x-forwarded-"];

/// The fields of a request or an answer that go on: without those of the connection, without the
/// caller's credential, without anything that looks like ours.
#[must_use]
pub fn passed_on(headers: &HeaderMap) -> HeaderMap {
    passing(headers).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Whether a field is not for a tool server's credential: it frames the message, says what it is, or is ours.
#[must_use]
pub fn forbidden_to_inject(name: &HeaderName) -> bool {
    let text = name.as_str();
    // A tool server may well want a key of its own under this name; the caller's never goes on.
    let connection = NEVER_PASSED.contains(&text) && text != "x-api-key";
    let says = ["content-", "accept", "mcp-", "if-"].iter().any(|start| text.starts_with(start));
    connection || says || OURS.iter().any(|start| text.starts_with(start))
}

/// What goes on, where it stands.
pub fn passing(headers: &HeaderMap) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    let nominated: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    headers.iter().filter(move |(name, value)| {
        let text = name.as_str();
        let dropped = NEVER_PASSED.contains(&text)
            || OURS.iter().any(|start| text.starts_with(start))
            || nominated.iter().any(|n| n == text)
            || (*name == header::AUTHORIZATION && is_our_credential(value));
        !dropped
    })
}

/// Whether a value of `Authorization` is ours: it stays here. A tool server's own may have our prefix inside.
#[must_use]
pub fn is_our_credential(value: &HeaderValue) -> bool {
    let text = String::from_utf8_lossy(value.as_bytes());
    words(&text).any(|word| word.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("oak_")))
}

/// One field for all cookies: over HTTP/2 each may come in its own, and no other version takes that (RFC 9113
/// section 8.2.3).
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    let cookies = headers.get_all(header::COOKIE);
    if cookies.iter().nth(1).is_none() {
        return;
    }
    let values: Vec<&[u8]> = cookies.iter().map(HeaderValue::as_bytes).collect();
    // Parts that were valid, with what is valid between them.
    if let Ok(mut joined) = HeaderValue::from_bytes(&values.join(&b"; "[..])) {
        joined.set_sensitive(true);
        headers.insert(header::COOKIE, joined);
    }
}

/// Puts the token in, in place of any other.
pub fn put_token(headers: &mut HeaderMap, token: &str) {
    if let Ok(mut value) = HeaderValue::from_str(token) {
        value.set_sensitive(true);
        headers.insert(HeaderName::from_static(oakallow_policy::token::HEADER), value);
    }
}

/// The tool server's URI for a request: the route's base, then the path as it came. Queries do not pass.
pub fn target(base: &Uri, path: &str, replaces_path: bool) -> Result<Uri, Refusal> {
    let authority = base.authority().map_or("", http::uri::Authority::as_str);
    let prefix = base.path().trim_end_matches('/');
    // A base with a path of its own is the whole address of an MCP endpoint.
    let path = if replaces_path && !prefix.is_empty() { "" } else { path };
    let scheme = base.scheme_str().unwrap_or("http");
    let text = format!("{scheme}://{authority}{prefix}{path}");
    text.parse().map_err(|_| Refusal::InvalidRequest("the request target is not a URI".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_and_the_credential_stay_here() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-api-key", "oak_live_1"),
            ("x-oakallow-token", "forged"),
            ("connection", "close, x-secret"),
            ("x-secret", "1"),
            ("accept", "*/*"),
            ("te", "trailers"),
            ("host", "proxy"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-prefix", "/admin"),
            ("forwarded", "for=10.0.0.1"),
            ("x-real-ip", "10.0.0.1"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers.append("authorization", HeaderValue::from_static("Bearer oak_live_1"));
        headers.append("authorization", HeaderValue::from_static("Bearer theirs"));
        let mut passed = passed_on(&headers);
        put_token(&mut passed, "t");
        let names: Vec<&str> = passed.keys().map(HeaderName::as_str).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        assert_eq!(passed["authorization"], "Bearer theirs");
        assert_eq!(passed["x-oakallow-token"], "t");
    }

    #[test]
    fn only_what_begins_like_a_key_of_ours_is_one() {
        for (value, ours) in [
            ("Bearer oak_live_1", true),
            ("bearer\tOAK_live_1", true),
            ("oak_live_1", true),
            ("Token oak_agent_1", true),
            ("Token token=\"oak_agent_1\"", true),
            ("Token token=oak_agent_1, nonce=\"x\"", true),
            ("Digest username='a', response='oak_live_1'", true),
            ("<oak_live_1>", true),
            ("Basic eA==,Bearer oak_live_1", true),
            ("Bearer eyJhbGciOi.x9Oak_3f.c2ln", false),
            ("Bearer soak_test", false),
            ("Bearer", false),
            ("", false),
        ] {
            assert_eq!(is_our_credential(&HeaderValue::from_static(value)), ours, "{value}");
        }
    }

    #[test]
    fn a_base_with_a_path_is_the_address_of_an_endpoint() {
        let base: Uri = "http://tools:9000".parse().unwrap();
        assert_eq!(target(&base, "/tools/x", false).unwrap(), "http://tools:9000/tools/x");
        let base: Uri = "https://tools:9000/mcp".parse().unwrap();
        assert_eq!(target(&base, "/agents/mcp", true).unwrap(), "https://tools:9000/mcp");
    }
}
