//! A call that a route has identified, whatever protocol it came by.

pub mod http;
pub mod mcp;

use std::sync::Arc;
use std::time::Duration;

use oakallow_policy::Tool;
use oakallow_policy::call::CallNames;
use oakallow_policy::id::Name;
use oakallow_policy::strict_json;
use serde_json::{Map, Value};

use crate::identity::Caller;
use crate::refusal::Refusal;
use crate::route::Route;

/// One tool call.
#[derive(Debug, Clone)]
pub struct IdentifiedCall {
    /// Its life in the audit log.
    pub txn: String,
    /// How it came.
    pub route: Arc<Route>,
    /// Who calls, to be looked up again when the call has waited.
    pub caller: Caller,
    /// What rules select by.
    pub names: CallNames,
    /// What its fingerprint covers.
    pub args: Value,
    /// What the tool gets as arguments: checked by schema, shown to approvers, redacted for the log.
    pub parameters: Value,
    /// The client's name for this call.
    pub idempotency_key: Option<String>,
    /// How long it may be held.
    pub wait: Duration,
    /// Bytes of its body.
    pub bytes: usize,
}

/// The names in the arguments that a route's pointers give: required where configured, so that a rule
/// cannot be dodged by leaving the name out.
pub fn pointed(parameters: &Value, pointer: Option<&String>) -> Result<Option<Name>, Refusal> {
    let Some(pointer) = pointer else { return Ok(None) };
    let wrong =
        |message: &str| Refusal::InvalidArguments { pointer: pointer.clone(), message: message.to_owned() };
    let text = parameters
        .pointer(pointer)
        .and_then(Value::as_str)
        .ok_or_else(|| wrong("a text is required here: rules select by it"))?;
    Name::exact(text).map(Some).map_err(|e| wrong(&e.to_string()))
}

/// Refuses members that a reader which ignores case would take for another one.
pub fn check_members(
    members: &Map<String, Value>,
    tool: Option<&Tool>,
    pointers: &[&String],
) -> Result<(), Refusal> {
    let schema = tool.and_then(|t| t.parameter_schema.as_ref()).and_then(|s| s.get("properties"));
    let known = schema.and_then(Value::as_object).into_iter().flat_map(Map::keys).map(String::as_str);
    let pointed = pointers.iter().filter_map(|p| p.split('/').nth(1));
    strict_json::check_case(members, known.chain(pointed)).map_err(|e| Refusal::InvalidRequest(e.to_string()))
}
