//! What a body is announced to be. It is read as JSON here, so that is what the tool must take it for: a
//! form that is valid JSON too would name another resource to each reader.

use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

use crate::refusal::Refusal;
use crate::route::RouteKind;

/// What is forwarded.
const JSON: &str = "application/json";
/// What clients say of JSON when nobody asks them: `curl -d`, `fetch` with a text.
const MISTAKEN: [&str; 2] = ["application/x-www-form-urlencoded", "text/plain"];

/// Refuses a body that is announced as anything but JSON in UTF-8. An `http` route takes what careless
/// clients say for it as well: what is forwarded says JSON.
pub fn check(kind: RouteKind, headers: &HeaderMap, body: &[u8]) -> Result<(), Refusal> {
    let refuse = |why| Err(Refusal::UnsupportedMediaType(why));
    let mut announced = headers.get_all(CONTENT_TYPE).iter();
    let (first, second) = (announced.next(), announced.next());
    if second.is_some() {
        return refuse("Content-Type stands once");
    }
    if body.is_empty() {
        return Ok(());
    }
    let Some(first) = first else {
        return match kind {
            RouteKind::Http => Ok(()),
            RouteKind::Mcp | RouteKind::Stdio => refuse("send `Content-Type: application/json`"),
        };
    };
    let text = first.to_str().unwrap_or_default().to_ascii_lowercase();
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    let accepted =
        essence == JSON || kind == RouteKind::Http && (MISTAKEN.contains(&essence) || is_json_like(essence));
    if !accepted {
        return refuse("the body is JSON: send `Content-Type: application/json`");
    }
    let charsets = parts.filter_map(|p| p.split_once('=')).filter(|(name, _)| name.trim() == "charset");
    if charsets.map(|(_, value)| value.trim().trim_matches('"')).any(|c| c != "utf-8" && c != "utf8") {
        return refuse("the body is JSON in UTF-8");
    }
    Ok(())
}

/// `application/…+json` (RFC 6839).
fn is_json_like(essence: &str) -> bool {
    let name = essence.strip_prefix("application/").and_then(|e| e.strip_suffix("+json"));
    name.is_some_and(|n| {
        !n.is_empty() && n.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.+_".contains(&b))
    })
}

/// Says of a body that goes on what it was read as.
pub fn put(headers: &mut HeaderMap, body: &[u8]) {
    if body.is_empty() {
        headers.remove(CONTENT_TYPE);
    } else {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(kind: RouteKind, announced: &[&'static str]) -> u16 {
        let fields = announced.iter().map(|value| (CONTENT_TYPE, HeaderValue::from_static(value)));
        check(kind, &fields.collect(), b"{}").map_or_else(|refusal| refusal.answer().status, |()| 200)
    }

    #[test]
    fn json_passes_however_clients_call_it() {
        for good in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "application/json;charset=\"utf-8\"",
            "application/json;",
        ] {
            assert_eq!(status(RouteKind::Http, &[good]), 200, "{good}");
            assert_eq!(status(RouteKind::Mcp, &[good]), 200, "{good}");
        }
        for careless in [
            &["application/x-www-form-urlencoded"][..],
            &["text/plain;charset=UTF-8"],
            &["application/vnd.api+json"],
            &[],
        ] {
            assert_eq!(status(RouteKind::Http, careless), 200, "{careless:?}");
            assert_eq!(status(RouteKind::Mcp, careless), 415, "{careless:?}");
        }
    }

    #[test]
    fn what_is_no_json_in_utf_8_is_refused() {
        for bad in [
            &["multipart/form-data; boundary=x"][..],
            &["text/xml"],
            &["application/xml"],
            &["application/octet-stream"],
            &["application/+json"],
            &["application/json; charset=utf-16"],
            &["application/json; charset=utf-8; charset=utf-7"],
            &["application/json, text/xml"],
            &["application/x-www-form-urlencoded; charset=\"iso-8859-1\""],
            &[""],
            &["application/json", "application/json"],
            &["application/json", "text/xml"],
        ] {
            assert_eq!(status(RouteKind::Http, bad), 415, "{bad:?}");
            assert_eq!(status(RouteKind::Mcp, bad), 415, "{bad:?}");
        }
    }
}
