//! What a tool gets besides its arguments, and may act on: header fields, `_meta`, other members of an MCP
//! request. It is part of what a person approves.

use http::HeaderMap;
use serde_json::{Map, Value};

use crate::forward::passed_on;

/// Fields that say how to carry a message or who watches it, not what to do. They differ from one try of a
/// call to the next, and an approval does not cover them.
const CARRIAGE: [&str; 19] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "cache-control",
    "content-language",
    "content-type",
    "date",
    "dnt",
    "idempotency-key",
    "origin",
    "pragma",
    "prefer",
    "priority",
    "referer",
    "user-agent",
    "via",
    "x-request-id",
    "x-correlation-id",
];
/// And those that begin so: trace context (W3C), what browsers add, what MCP repeats of a message.
const CARRIAGE_STARTS: [&str; 6] = ["trace", "baggage", "sec-", "mcp-", "last-event-id", "b3"];

/// Members of `_meta` of the same kind.
const META_CARRIAGE: [&str; 2] = ["progressToken", "claudecode/toolUseId"];
const META_CARRIAGE_STARTS: [&str; 4] = ["io.modelcontextprotocol/", "oakallow/", "trace", "baggage"];

/// The fields that a tool may act on, as they go on; each with its values.
#[must_use]
pub fn headers(all: &HeaderMap) -> Map<String, Value> {
    let passed = passed_on(all);
    let mut found: Map<String, Value> = Map::new();
    for (name, value) in &passed {
        let name = name.as_str();
        let carriage =
            CARRIAGE.contains(&name) || CARRIAGE_STARTS.iter().any(|start| name.starts_with(start));
        if !carriage {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned().into();
            let values = found.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(values) = values {
                values.push(value);
            }
        }
    }
    found
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
    use http::{HeaderName, HeaderValue};
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
            ("mcp-session-id", "s"),
            ("x-forwarded-for", "10.0.0.1"),
        ] {
            all.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let expected = json!({"x-environment": ["production", "staging"], "authorization": ["Bearer theirs"], "cookie": ["a=b"]});
        assert_eq!(Value::Object(headers(&all)), expected);

        let params = json!({"name": "pay", "_meta": {"progressToken": 1, "traceparent": "00", "env": "production",
            "io.modelcontextprotocol/clientInfo": {}, "oakallow/call-id": "x"}});
        assert_eq!(Value::Object(meta(params.as_object().unwrap())), json!({"env": "production"}));
    }
}
