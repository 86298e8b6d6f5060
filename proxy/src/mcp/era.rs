//! Whether the headers of a request say what its body says, in the era that they name.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;

pub(super) use crate::call::era::Era;
use crate::call::era::STATELESS;
use crate::call::mcp::Message;

/// JSON-RPC code of a header that disagrees with the body (2026-07-28, streamable HTTP).
pub(super) const HEADER_MISMATCH: i64 = -32_020;

/// Fields that say one thing. Of two that stand there, readers take the first, the last, or both.
const SINGULAR: [&str; 5] =
    ["mcp-session-id", "mcp-protocol-version", "mcp-method", "mcp-name", "last-event-id"];

/// Refuses a request that says twice what can be said once.
pub(super) fn check_singular(headers: &HeaderMap) -> Result<(), String> {
    let twice = headers.keys().find(|name| {
        let singular = SINGULAR.contains(&name.as_str());
        singular && headers.get_all(*name).iter().count() > 1
    });
    twice.map_or(Ok(()), |name| Err(format!("the header {name} stands twice")))
}

/// Checks the headers of a request against its only message. In the stateless era they are required;
/// in either, one that is there must be true: somebody on the way may act on it.
pub(super) fn check(headers: &HeaderMap, message: &Message) -> Result<Era, String> {
    let era = Era::of(headers);
    let required = era == Era::Stateless;
    agree(headers, "mcp-protocol-version", message.version(), required && message.version().is_some())?;
    if message.version().is_some_and(|v| v >= STATELESS) && !required {
        return Err("the body speaks a version that the header MCP-Protocol-Version does not name".to_owned());
    }
    if let Some(method) = message.method.as_deref() {
        agree(headers, "mcp-method", Some(method), required)?;
    }
    agree(headers, "mcp-name", message.header_name(), required && message.header_name().is_some())?;
    Ok(era)
}

fn agree(headers: &HeaderMap, name: &str, expected: Option<&str>, required: bool) -> Result<(), String> {
    let mut found = headers.get_all(name).iter();
    let (first, second) = (found.next(), found.next());
    let Some(first) = first else {
        return if required { Err(format!("the header {name} is missing")) } else { Ok(()) };
    };
    // A version or a name that the body does not have to repeat is not contradicted by it.
    let Some(expected) = expected else {
        return if second.is_none() { Ok(()) } else { Err(format!("the header {name} stands twice")) };
    };
    let decoded = first.to_str().ok().and_then(decode);
    if second.is_none() && decoded.as_deref() == Some(expected) {
        Ok(())
    } else {
        Err(format!("the header {name} and the body disagree"))
    }
}

/// A value as it is meant: `=?base64?…?=` carries what a header cannot.
pub(super) fn decode(value: &str) -> Option<String> {
    let value = value.trim();
    match value.strip_prefix("=?base64?").and_then(|v| v.strip_suffix("?=")) {
        Some(encoded) => String::from_utf8(STANDARD.decode(encoded).ok()?).ok(),
        None => Some(value.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::mcp::{Body, read};
    use http::{HeaderName, HeaderValue};

    fn call(meta: &str) -> Message {
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"größe","_meta":{meta}}}}}"#
        );
        match read(text.as_bytes(), Era::Sessions).unwrap() {
            Body::One(message) => message,
            Body::Batch(_) => panic!("a batch"),
        }
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    const NEW: (&str, &str) = ("mcp-protocol-version", "2026-07-28");
    const METHOD: (&str, &str) = ("mcp-method", "tools/call");
    const NAME: (&str, &str) = ("mcp-name", "=?base64?Z3LDtsOfZQ==?=");
    const META: &str = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;

    #[test]
    fn the_stateless_era_needs_true_headers() {
        assert_eq!(check(&headers(&[NEW, METHOD, NAME]), &call(META)), Ok(Era::Stateless));
        for bad in [
            vec![NEW, METHOD],
            vec![NEW, NAME],
            vec![METHOD, NAME],
            vec![NEW, ("mcp-method", "tools/list"), NAME],
            vec![NEW, METHOD, ("mcp-name", "other")],
            vec![NEW, METHOD, ("mcp-name", "=?base64?!?=")],
            vec![("mcp-protocol-version", "2027-01-01"), METHOD, NAME],
        ] {
            assert!(check(&headers(&bad), &call(META)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sessions_need_none_and_lie_in_none() {
        assert_eq!(check(&headers(&[]), &call("{}")), Ok(Era::Sessions));
        assert_eq!(
            check(&headers(&[("mcp-protocol-version", "2025-11-25")]), &call("{}")),
            Ok(Era::Sessions)
        );
        assert!(check(&headers(&[("mcp-method", "ping")]), &call("{}")).is_err());
        assert!(check(&headers(&[("mcp-name", "other")]), &call("{}")).is_err());
    }

    #[test]
    fn a_header_that_stands_twice_is_refused() {
        let mut twice = headers(&[NEW, METHOD, NAME]);
        twice.append("mcp-name", HeaderValue::from_static("other"));
        assert!(check(&twice, &call(META)).is_err());
    }
}
