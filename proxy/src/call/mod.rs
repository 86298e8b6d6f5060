//! A call that a route has identified, whatever protocol it came by.

pub mod beside;
pub mod era;
pub mod http;
pub mod mcp;
pub mod methods;
pub mod strict;
pub mod weight;

use std::sync::Arc;
use std::time::Duration;

use oakallow_policy::call::CallNames;
use oakallow_policy::canonical::{sha256, value_bytes};
use oakallow_policy::id::Name;
use serde_json::{Map, Value};

use crate::identity::Caller;
use crate::redact::is_secret;
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
    /// What its fingerprint covers beside the names: a digest of the arguments, and all that is not in them.
    pub args: Value,
    /// SHA-256 of the arguments' canonical form.
    pub arguments_sha256: [u8; 32],
    /// What the tool gets as arguments: checked by schema, shown to approvers, redacted for the log.
    pub parameters: Value,
    /// What else it gets that it may act on, see [`beside`].
    pub beside: Map<String, Value>,
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

/// SHA-256 of the arguments' canonical form.
fn digest(parameters: &Value) -> Result<[u8; 32], Refusal> {
    let bytes = value_bytes(parameters).map_err(|e| Refusal::InvalidRequest(e.to_string()))?;
    Ok(sha256(&bytes))
}

/// Refuses a call one of whose names is or holds a secret. Names stand in rules, events and approvals as
/// they are: they cannot be redacted.
pub fn without_secrets(names: CallNames) -> Result<CallNames, Refusal> {
    let named = [
        ("tool", Some(&names.tool)),
        ("resource", names.resource.as_ref()),
        ("method", names.method.as_ref()),
    ];
    let secret = |name: Option<&Name>| name.is_some_and(|name| is_secret(name.as_str()));
    let found = named.into_iter().find_map(|(what, name)| secret(name).then_some(what));
    found.map_or(Ok(names), |what| Err(Refusal::SecretInName(what)))
}
