//! Calls that are JSON-RPC messages of the Model Context Protocol: read once, strictly, and sorted by a
//! closed [table of methods](crate::call::methods) into what passes, what is decided, and what is refused.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use oakallow_policy::call::CallNames;
use oakallow_policy::canonical::hex;
use oakallow_policy::id::Name;
use oakallow_policy::strict_json;
use serde_json::{Map, Value, json};

use crate::call::beside;
use crate::call::era::Era;
pub use crate::call::methods::Class;
use crate::call::methods::classify;
use crate::call::strict::{self, check_members};
use crate::call::{IdentifiedCall, digest, pointed, without_secrets};
use crate::identity::Caller;
use crate::policy::Snapshot;
use crate::refusal::Refusal;
use crate::route::{Route, RouteKind};

/// JSON-RPC 2.0 section 5.1.
pub const PARSE_ERROR: i64 = -32_700;
/// As above.
pub const INVALID_REQUEST: i64 = -32_600;
/// As above.
pub const METHOD_NOT_FOUND: i64 = -32_601;
/// As above.
pub const INVALID_PARAMS: i64 = -32_602;
/// Messages in a batch.
const BATCH_MAX: usize = 100;
/// Members that readers must agree on; one that differs from them by case only is refused.
const MESSAGE_MEMBERS: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];
const PARAMS_MEMBERS: [&str; 7] =
    ["name", "arguments", "uri", "_meta", "requestId", "requestState", "inputResponses"];
const META_MEMBERS: [&str; 4] = ["progressToken", META_VERSION, META_CALL_ID, META_TOKEN];
/// Where a message of the stateless era says its version.
pub const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// The client's own name for a call: what `Idempotency-Key` is to plain HTTP.
const META_CALL_ID: &str = "oakallow/call-id";
/// Where the execution token stands in a call that has no header to carry it.
pub const META_TOKEN: &str = "oakallow/token";

/// A message that cannot be read, with its id if that much could be.
#[derive(Debug, PartialEq, Eq)]
pub struct Unread {
    /// The id to answer to.
    pub id: Value,
    /// JSON-RPC code.
    pub code: i64,
    /// What is wrong.
    pub message: String,
}

/// A body.
#[derive(Debug)]
pub enum Body {
    /// One message.
    One(Message),
    /// Several (2025-03-26 only).
    Batch(Vec<Message>),
}

/// One message.
#[derive(Debug)]
pub struct Message {
    /// `None` for notifications and for answers to the server's requests.
    pub id: Option<Value>,
    /// `None` for answers.
    pub method: Option<String>,
    /// Empty when left out.
    pub params: Map<String, Value>,
    /// What is to be done with it.
    pub class: Class,
    /// The era that it was read in.
    pub era: Era,
}

/// Reads a body that speaks this era.
pub fn read(bytes: &[u8], era: Era) -> Result<Body, Unread> {
    sort(parse(bytes)?, |_| era)
}

/// Reads a body strictly, whatever it says.
pub fn parse(bytes: &[u8]) -> Result<Value, Unread> {
    strict::parse(bytes).map_err(|e| unread(None, PARSE_ERROR, &e.to_string()))
}

/// Makes messages of a body that was [read](parse); `era` is told a message's `params`.
pub fn sort(body: Value, era: impl Fn(&Map<String, Value>) -> Era + Copy) -> Result<Body, Unread> {
    match body {
        Value::Array(items) if items.is_empty() || items.len() > BATCH_MAX => {
            Err(unread(None, INVALID_REQUEST, &format!("a batch has 1 to {BATCH_MAX} messages")))
        }
        Value::Array(items) => {
            items.into_iter().map(|one| message(one, era)).collect::<Result<_, _>>().map(Body::Batch)
        }
        one => message(one, era).map(Body::One),
    }
}

fn unread(id: Option<&Value>, code: i64, message: &str) -> Unread {
    Unread { id: id.cloned().unwrap_or(Value::Null), code, message: message.to_owned() }
}

fn message(value: Value, era: impl Fn(&Map<String, Value>) -> Era) -> Result<Message, Unread> {
    let Value::Object(mut members) = value else {
        return Err(unread(None, INVALID_REQUEST, "a message is a JSON object"));
    };
    let id = members.get("id").cloned();
    let bad = |code: i64, message: &str| unread(id.as_ref().filter(|id| is_id(id)), code, message);
    strict_json::check_case(&members, MESSAGE_MEMBERS).map_err(|e| bad(INVALID_REQUEST, &e.to_string()))?;
    if members.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Err(bad(INVALID_REQUEST, "`jsonrpc` is \"2.0\""));
    }
    if id.as_ref().is_some_and(|id| !is_id(id)) {
        return Err(bad(INVALID_REQUEST, "`id` is a text or a whole number"));
    }
    let is_answer = members.contains_key("result") || members.contains_key("error");
    let method = match members.get("method") {
        Some(Value::String(method)) if !is_answer => method.clone(),
        None if is_answer && id.is_some() => {
            let params = Map::new();
            let era = era(&params);
            return Ok(Message { id: None, method: None, params, class: Class::Pass, era });
        }
        _ => return Err(bad(INVALID_REQUEST, "a message has either a `method` or an `id` with a result")),
    };
    let params = match members.remove("params") {
        None => Map::new(),
        Some(Value::Object(params)) => params,
        Some(_) => return Err(bad(INVALID_PARAMS, "`params` is a JSON object")),
    };
    check_params(&params).map_err(|problem| bad(INVALID_PARAMS, &problem))?;
    let era = era(&params);
    let asked = id.is_some().then_some(era);
    let class = classify(&method, asked, &params).map_err(|problem| bad(INVALID_PARAMS, problem))?;
    Ok(Message { id, method: Some(method), params, class, era })
}

fn is_id(id: &Value) -> bool {
    id.is_string() || id.is_i64() || id.is_u64()
}

fn check_params(params: &Map<String, Value>) -> Result<(), String> {
    strict_json::check_case(params, PARAMS_MEMBERS).map_err(|e| e.to_string())?;
    match params.get("_meta") {
        None => Ok(()),
        Some(Value::Object(meta)) => strict_json::check_case(meta, META_MEMBERS).map_err(|e| e.to_string()),
        Some(_) => Err("`_meta` is a JSON object".to_owned()),
    }
}

impl Message {
    fn meta(&self, member: &str) -> Option<&Value> {
        self.params.get("_meta").and_then(|meta| meta.get(member))
    }

    /// The token under which the client wants to hear of progress.
    #[must_use]
    pub fn progress_token(&self) -> Option<&Value> {
        self.meta("progressToken").filter(|token| is_id(token))
    }

    /// The version of the protocol that the message itself names.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.meta(META_VERSION).and_then(Value::as_str)
    }

    /// What `Mcp-Name` has to say (2026-07-28), if this method has such a name.
    #[must_use]
    pub fn header_name(&self) -> Option<&str> {
        let member = match self.method.as_deref() {
            Some("tools/call" | "prompts/get") => "name",
            Some("resources/read") => "uri",
            _ => return None,
        };
        self.params.get(member).and_then(Value::as_str)
    }

    /// Whether this is a call of a tool, whose result can say `isError`.
    #[must_use]
    pub fn is_tool_call(&self) -> bool {
        self.method.as_deref() == Some("tools/call")
    }
}

/// What [`identify`] needs to know besides the message.
pub struct Arrival<'a> {
    /// How it came.
    pub route: &'a Arc<Route>,
    /// Its life in the audit log.
    pub txn: &'a str,
    /// The request's fields; none over stdio.
    pub headers: &'a HeaderMap,
    /// Bytes of its body.
    pub bytes: usize,
    /// Who calls.
    pub caller: &'a Caller,
}

/// Reads the call out of a message that is to be [decided](Class::Decide).
pub fn identify(
    arrival: &Arrival<'_>,
    message: &Message,
    wait: Duration,
    snapshot: &Snapshot,
) -> Result<IdentifiedCall, Refusal> {
    let bad = |e: &dyn std::fmt::Display| Refusal::InvalidRequest(e.to_string());
    let Class::Decide { tool, resource } = &message.class else {
        return Err(Refusal::InvalidRequest("this message is not a call".to_owned()));
    };
    let route = arrival.route;
    // The tool server compares bytes: a name that only its normal form makes known is another name.
    let tool = Name::exact(tool).map_err(|e| bad(&e))?;
    let parameters = if message.is_tool_call() {
        message.params.get("arguments").cloned().unwrap_or_else(|| json!({}))
    } else {
        without_meta(&message.params)
    };
    let pointers = (route.resources.get(&tool), route.method_pointers.get(&tool));
    let known: Vec<&String> = [pointers.0, pointers.1].into_iter().flatten().collect();
    check_members(&parameters, snapshot.rules.tool(&tool, &route.audience), &known)?;
    let resource = match resource {
        Some(resource) => Some(Name::exact(resource).map_err(|e| bad(&e))?),
        None => pointed(&parameters, pointers.0)?,
    };
    let names = CallNames {
        org: snapshot.rules.org().clone(),
        tenant: arrival.caller.tenant.clone(),
        principal: arrival.caller.principal.clone(),
        audience: route.audience.clone(),
        resource,
        method: pointed(&parameters, pointers.1)?,
        tool,
    };
    let beside = beside((arrival.headers, route.kind), message);
    let arguments_sha256 = digest(&parameters)?;
    // Arguments that are left out are not the same as none.
    let has_arguments = !message.is_tool_call() || message.params.contains_key("arguments");
    let covered = has_arguments.then(|| hex(&arguments_sha256));
    let args = json!({"method": message.method, "arguments_sha256": covered});
    Ok(IdentifiedCall {
        txn: arrival.txn.to_owned(),
        caller: arrival.caller.clone(),
        names: without_secrets(names)?,
        args: beside::covered(args, &beside),
        arguments_sha256,
        parameters,
        beside,
        idempotency_key: idempotency_key(arrival.headers, message)?,
        wait,
        bytes: arrival.bytes,
        route: route.clone(),
    })
}

/// What the tool gets beside the arguments of a call, or beside the parameters of another method.
fn beside((headers, kind): (&HeaderMap, RouteKind), message: &Message) -> Map<String, Value> {
    let mut parts = Map::new();
    beside::put(&mut parts, "headers", beside::headers(headers, kind));
    beside::put(&mut parts, "_meta", beside::meta(&message.params));
    if message.is_tool_call() {
        let known = |name: &str| matches!(name, "name" | "arguments" | "_meta");
        let others = message.params.iter().filter(|(name, _)| !known(name));
        beside::put(&mut parts, "params", others.map(|(k, v)| (k.clone(), v.clone())).collect());
    }
    parts
}

/// Most of `_meta` differs from one retry to the next; what does not is [`beside`].
fn without_meta(params: &Map<String, Value>) -> Value {
    Value::Object(params.iter().filter(|(k, _)| *k != "_meta").map(|(k, v)| (k.clone(), v.clone())).collect())
}

/// `Idempotency-Key`, else the call id in `_meta`: once, printable, short.
fn idempotency_key(headers: &HeaderMap, message: &Message) -> Result<Option<String>, Refusal> {
    let wrong =
        || Refusal::InvalidRequest("an idempotency key stands once and has 1 to 255 characters".to_owned());
    let mut found = headers.get_all("idempotency-key").iter();
    let key = match (found.next(), message.meta(META_CALL_ID)) {
        (Some(value), _) => value.to_str().map_err(|_| wrong())?,
        (None, Some(value)) => value.as_str().ok_or_else(wrong)?,
        (None, None) => return Ok(None),
    };
    let good = found.next().is_none() && (1..=255).contains(&key.len());
    if good { Ok(Some(key.to_owned())) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<Message, Unread> {
        match read(text.as_bytes(), Era::Sessions)? {
            Body::One(message) => Ok(message),
            Body::Batch(_) => panic!("a batch"),
        }
    }

    #[test]
    fn what_hides_a_call_is_refused() {
        for bad in [
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","Name":"b"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","argument\u017f":{}}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":[1]}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[]}"#,
            r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"a"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","result":{},"params":{"name":"a"}}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"tools/call","params":{"name":"a"}}"#,
            r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#,
            r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
            r#"{"id":1,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","result":{}}"#,
            r#"[[{"jsonrpc":"2.0","id":1,"method":"ping"}]]"#,
            "[]",
            "7",
            "{",
        ] {
            assert!(read(bad.as_bytes(), Era::Sessions).is_err(), "{bad} passed");
        }
    }

    #[test]
    fn answers_and_notifications_pass() {
        for good in [
            r#"{"jsonrpc":"2.0","id":7,"result":{"roots":[]}}"#,
            r#"{"jsonrpc":"2.0","id":"a","error":{"code":1,"message":"no"}}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        ] {
            let message = one(good).unwrap();
            assert_eq!((message.class, message.id), (Class::Pass, None), "{good}");
        }
    }

    #[test]
    fn an_error_answers_to_the_id() {
        let unread = one(r#"{"jsonrpc":"2.0","id":"x","method":"tools/call"}"#).unwrap_err();
        assert_eq!((unread.id, unread.code), (json!("x"), INVALID_PARAMS));
    }
}
