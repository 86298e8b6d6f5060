//! The methods of the Model Context Protocol: a closed table of what passes, what is decided, and what is
//! refused.

use serde_json::{Map, Value};

use crate::call::era::Era;

/// Protocol plumbing: forwarded as it is.
const PASSED: [&str; 8] = [
    "initialize",
    "ping",
    "resources/list",
    "resources/templates/list",
    "prompts/list",
    "logging/setLevel",
    "completion/complete",
    "server/discover",
];

/// What a client may tell a server without being asked. One that is not known could stand for anything.
const TOLD: [&str; 5] = [
    "notifications/initialized",
    "notifications/cancelled",
    "notifications/progress",
    "notifications/roots/list_changed",
    "notifications/tasks/status",
];

/// Methods that are looked into.
const SEEN: [&str; 7] = [
    "tools/list",
    "tools/call",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "prompts/get",
    "subscriptions/listen",
];

/// A method's name, if it is one of those: anything else is the client's own text.
#[must_use]
pub fn known(method: &str) -> Option<&'static str> {
    PASSED.iter().chain(&TOLD).chain(&SEEN).find(|known| **known == method).copied()
}

/// What is done with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Class {
    /// Forwarded.
    Pass,
    /// Forwarded; the list of tools in the answer is filtered.
    List,
    /// Decided, as a call of this tool on this resource.
    Decide {
        /// Its name, or `mcp:<method>`.
        tool: String,
        /// The URI or name that the method acts on.
        resource: Option<String>,
    },
    /// Refused: no such method is known here.
    Unknown,
}

/// The table. What is not in it is refused, whatever the tool server would make of it. `asked` is the era of
/// a message that wants an answer.
pub(super) fn classify(
    method: &str,
    asked: Option<Era>,
    params: &Map<String, Value>,
) -> Result<Class, &'static str> {
    let Some(era) = asked else {
        // A call without an id would run without an answer, and so without an outcome.
        return if TOLD.contains(&method) {
            Ok(Class::Pass)
        } else {
            Err("this method needs an `id`, or is not known")
        };
    };
    let text = |member: &str| params.get(member).and_then(Value::as_str).map(str::to_owned);
    let whole = |resource: Option<String>| Class::Decide { tool: format!("mcp:{method}"), resource };
    match method {
        "tools/list" => Ok(Class::List),
        "tools/call" => match (text("name"), params.get("arguments")) {
            (Some(tool), None | Some(Value::Object(_))) => Ok(Class::Decide { tool, resource: None }),
            _ => Err("a call has a `name`, and `arguments` that are a JSON object"),
        },
        // `subscriptions/listen` has taken their place.
        "resources/subscribe" | "resources/unsubscribe" if era == Era::Stateless => Ok(Class::Unknown),
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => {
            text("uri").map(|uri| whole(Some(uri))).ok_or("this method needs a `uri`")
        }
        "prompts/get" => text("name").map(|name| whole(Some(name))).ok_or("this method needs a `name`"),
        "subscriptions/listen" => {
            listened(params).map(|uris| uris.map_or(Class::Pass, |uri| whole(Some(uri))))
        }
        passed if PASSED.contains(&passed) => Ok(Class::Pass),
        _ => Ok(Class::Unknown),
    }
}

/// The resource that a stream of changes is about; a stream about lists only names none.
fn listened(params: &Map<String, Value>) -> Result<Option<String>, &'static str> {
    let named = params.get("notifications").and_then(|n| n.get("resourceSubscriptions"));
    match named.map(|uris| uris.as_array().map(Vec::as_slice)) {
        None | Some(Some([])) => Ok(None),
        Some(Some([Value::String(uri)])) => Ok(Some(uri.clone())),
        Some(_) => Err("name one resource a stream: each is decided for itself"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn class_in(era: Era, method: &str, params: &Value) -> Result<Class, &'static str> {
        classify(method, Some(era), params.as_object().unwrap())
    }

    fn decide(tool: &str, resource: Option<&str>) -> Class {
        Class::Decide { tool: tool.to_owned(), resource: resource.map(str::to_owned) }
    }

    #[test]
    fn the_table_of_methods_is_closed() {
        let class = |method: &str, params: &Value| class_in(Era::Sessions, method, params).unwrap();
        assert_eq!(class("initialize", &json!({})), Class::Pass);
        assert_eq!(class("tools/list", &json!({})), Class::List);
        assert_eq!(class("tools/call", &json!({"name": "x"})), decide("x", None));
        assert_eq!(
            class("resources/read", &json!({"uri": "a://b"})),
            decide("mcp:resources/read", Some("a://b"))
        );
        assert_eq!(class("prompts/get", &json!({"name": "p"})), decide("mcp:prompts/get", Some("p")));
        assert_eq!(class("subscriptions/listen", &json!({})), Class::Pass);
        let one = json!({"notifications": {"resourceSubscriptions": ["a://b"]}});
        assert_eq!(class("subscriptions/listen", &one), decide("mcp:subscriptions/listen", Some("a://b")));
        for unknown in ["tools/Call", "tasks/get", "rpc.discover", "notifications/x", ""] {
            assert_eq!(class(unknown, &json!({})), Class::Unknown, "{unknown}");
        }
    }

    #[test]
    fn what_left_the_protocol_is_unknown_whatever_it_says() {
        for gone in ["resources/subscribe", "resources/unsubscribe"] {
            assert_eq!(class_in(Era::Stateless, gone, &json!({})), Ok(Class::Unknown), "{gone}");
            assert!(class_in(Era::Sessions, gone, &json!({})).is_err(), "{gone}");
        }
    }
}
