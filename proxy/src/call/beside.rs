//! What a tool gets besides its arguments, and may act on: header fields, `_meta`, other members of an MCP
//! request. It is part of what a person approves.

use http::{HeaderMap, HeaderValue};
use oakallow_policy::canonical::hex;
use serde_json::{Map, Value};

use crate::forward::passing;
use crate::route::RouteKind;

/// Fields that say how to carry a message or who watches it, not what to do. They differ from one try of a
/// call to the next, and an approval does not cover them.
const CARRIAGE: [&str; 21] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "b3",
    "cache-control",
    "content-language",
    "content-type",
    "date",
    "dnt",
    "idempotency-key",
    "origin",
    "pragma",
    "priority",
    "referer",
    "traceparent",
    "tracestate",
    "user-agent",
    "via",
    "x-correlation-id",
    "x-request-id",
];
/// And those that begin so: what browsers add, and B3.
const CARRIAGE_STARTS: [&str; 3] = ["sec-fetch-", "sec-ch-", "x-b3-"];
/// On a route of MCP also what that repeats of a message, which is held against it.
const MCP_STARTS: [&str; 2] = ["mcp-", "last-event-id"];

/// Members of `_meta` of the same kind.
const META_CARRIAGE: [&str; 4] = ["progressToken", "traceparent", "tracestate", "claudecode/toolUseId"];
const META_CARRIAGE_STARTS: [&str; 2] = ["io.modelcontextprotocol/", "oakallow/"];

/// The fields that a tool may act on, as they go on by a route of this kind; each with its values.
#[must_use]
pub fn headers(all: &HeaderMap, kind: RouteKind) -> Map<String, Value> {
    let mut found: Map<String, Value> = Map::new();
    for (name, value) in passing(all).filter(|(name, value)| !is_carriage(name.as_str(), value, kind)) {
        let values = found.entry(name.as_str()).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(values) = values {
            values.push(text(value).into());
        }
    }
    found
}

fn is_carriage(name: &str, value: &HeaderValue, kind: RouteKind) -> bool {
    let begins = |starts: &[&str]| starts.iter().any(|start| name.starts_with(start));
    CARRIAGE.contains(&name)
        || begins(&CARRIAGE_STARTS)
        || kind != RouteKind::Http && begins(&MCP_STARTS)
        || name == "prefer" && is_for_us(value)
}

/// `Prefer: wait=5` and `respond-async` say how this proxy is to hold the call.
fn is_for_us(prefer: &HeaderValue) -> bool {
    let ours = |part: &str| part == "respond-async" || part.starts_with("wait=");
    prefer.to_str().is_ok_and(|value| value.split(',').all(|part| ours(part.trim())))
}

/// A value as JSON can say it: no two alike.
fn text(value: &HeaderValue) -> String {
    value.to_str().map_or_else(|_| format!("bytes {}", hex(value.as_bytes())), str::to_owned)
}

/// The members of `_meta` that a tool may act on.
#[must_use]
pub fn meta(params: &Map<String, Value>) -> Map<String, Value> {
    let Some(Value::Object(meta)) = params.get("_meta") else { return Map::new() };
    let counts = |name: &str| {
        !META_CARRIAGE.contains(&name) && !META_CARRIAGE_STARTS.iter().any(|start| name.starts_with(start))
    };
    meta.iter().filter(|(name, _)| counts(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Puts a part in, unless there is nothing in it.
pub fn put(beside: &mut Map<String, Value>, name: &str, part: Map<String, Value>) {
    if !part.is_empty() {
        beside.insert(name.to_owned(), Value::Object(part));
    }
}

/// What a fingerprint covers, with the parts that are not in it yet.
#[must_use]
pub fn covered(args: Value, beside: &Map<String, Value>) -> Value {
    let Value::Object(mut members) = args else { return args };
    for (name, part) in beside {
        members.entry(name).or_insert_with(|| part.clone());
    }
    Value::Object(members)
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_tool_may_act_on_counts_and_what_only_carries_does_not() {
        let mut all = HeaderMap::new();
        for (name, value) in [
            ("x-environment", "production"),
            ("x-environment", "staging"),
            ("authorization", "Bearer theirs"),
            ("cookie", "a=b"),
            ("x-api-key", "oak_live_1"),
            ("user-agent", "curl"),
            ("traceparent", "00-1"),
            ("trace-target", "prod"),
            ("prefer", "tx=commit"),
            ("prefer", "wait=5, respond-async"),
            ("mcp-session-id", "s"),
            ("x-forwarded-for", "10.0.0.1"),
        ] {
            all.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let expected = json!({"x-environment": ["production", "staging"], "authorization": ["Bearer theirs"], "cookie": ["a=b"],
                "trace-target": ["prod"], "prefer": ["tx=commit"]});
        assert_eq!(Value::Object(headers(&all, RouteKind::Mcp)), expected);
        // No message is there that it could repeat.
        assert_eq!(headers(&all, RouteKind::Http)["mcp-session-id"], json!(["s"]));

        let params = json!({"name": "pay", "_meta": {"progressToken": 1, "traceparent": "00", "env": "production",
            "io.modelcontextprotocol/clientInfo": {}, "oakallow/call-id": "x"}});
        assert_eq!(Value::Object(meta(params.as_object().unwrap())), json!({"env": "production"}));
    }
}
