//! Refusals as MCP says them: a result that the model can read, or a JSON-RPC error, always with HTTP
//! 200. Other statuses make clients start anew, log in, or fall back to an older transport.

use oakallow_policy::Permission;
use serde_json::{Value, json};

use crate::call::mcp::{INVALID_PARAMS, METHOD_NOT_FOUND, Message};
use crate::mcp::era::Era;
use crate::refusal::{Refusal, more};

/// Our errors; the reserved range is -32768 to -32000 (JSON-RPC 2.0 section 5.1).
const REFUSED: i64 = -31_403;
const UNAVAILABLE: i64 = -31_503;
const UNREADABLE: i64 = -31_502;
/// The member of `_meta` that says what was decided.
pub(super) const DECISION_META: &str = "oakallow/decision";

/// A JSON-RPC error.
#[must_use]
pub(super) fn error(id: &Value, code: i64, message: &str, data: Option<Value>) -> Value {
    let mut error = json!({"code": code, "message": message});
    if let (Some(data), Some(members)) = (data, error.as_object_mut()) {
        members.insert("data".to_owned(), data);
    }
    json!({"jsonrpc": "2.0", "id": id, "error": error})
}

/// Stands for an answer of the tool server that is not handed on.
#[must_use]
pub(super) fn unreadable(id: Option<&Value>, why: &str) -> Value {
    error(id.unwrap_or(&Value::Null), UNREADABLE, why, None)
}

/// What is said instead of an answer, or of each in a batch, that could not be recorded.
pub(super) fn instead(body: &Value, unrecorded: &Refusal) -> Value {
    let answer = unrecorded.answer();
    let text = format!("{} ({}): {}", answer.title, answer.code, answer.detail);
    let instead = |body: &Value| error(body.get("id").unwrap_or(&Value::Null), UNAVAILABLE, &text, None);
    match body {
        Value::Array(errors) => errors.iter().map(instead).collect(),
        one => instead(one),
    }
}

/// The answer to a method that the table does not have.
pub(super) fn unknown_method(message: &Message) -> Value {
    let id = message.id.as_ref().unwrap_or(&Value::Null);
    let method = message.method.as_deref().unwrap_or_default();
    error(id, METHOD_NOT_FOUND, &format!("this proxy does not pass the method `{method}` on"), None)
}

/// What a refused message is answered with.
pub(super) struct Refused<'a> {
    /// Why.
    pub(super) refusal: &'a Refusal,
    /// What resolution said.
    pub(super) permission: Option<Permission>,
    /// The call's life in the audit log.
    pub(super) txn: &'a str,
    /// Tools that are disabled look as if they did not exist.
    pub(super) hide_disabled: bool,
}

impl Refused<'_> {
    /// The answer to `message`.
    #[must_use]
    pub(super) fn answer(&self, message: &Message, era: Era) -> Value {
        let id = message.id.clone().unwrap_or(Value::Null);
        if self.hide_disabled && matches!(self.refusal, Refusal::Disabled(_)) {
            let name = message.header_name().unwrap_or_default();
            return error(&id, INVALID_PARAMS, &format!("Unknown tool: {name}"), None);
        }
        let answer = self.refusal.answer();
        let text = format!("{} ({}): {}", answer.title, answer.code, answer.detail);
        let decision = self.decision(answer.code);
        if self.is_result() && message.is_tool_call() {
            let mut result = json!({
                "content": [{"type": "text", "text": text}], "isError": true, "_meta": {DECISION_META: decision},
            });
            if let (Era::Stateless, Some(members)) = (era, result.as_object_mut()) {
                members.insert("resultType".to_owned(), json!("complete"));
            }
            return json!({"jsonrpc": "2.0", "id": id, "result": result});
        }
        error(&id, self.code(), &text, Some(decision))
    }

    /// What the model should read; the rest is for the program that runs it.
    fn is_result(&self) -> bool {
        matches!(
            self.refusal,
            Refusal::InvalidArguments { .. }
                | Refusal::SecretInName(_)
                | Refusal::Disabled(_)
                | Refusal::Denied(_)
                | Refusal::Expired(_)
                | Refusal::Cancelled(_)
                | Refusal::Pending(_)
                | Refusal::AlreadyExecuted(_)
                | Refusal::DefinitionChanged
                | Refusal::TooManyHolds
                | Refusal::TooManyPending(_)
                | Refusal::IdempotencyConflict(_)
                | Refusal::UpstreamTimeout
                | Refusal::UpstreamBroken
        )
    }

    fn code(&self) -> i64 {
        match self.refusal {
            Refusal::InvalidRequest(_) | Refusal::InvalidArguments { .. } | Refusal::SecretInName(_) => {
                INVALID_PARAMS
            }
            Refusal::PolicyUnavailable(_)
            | Refusal::BackendUnavailable
            | Refusal::AuditUnavailable(_)
            | Refusal::OutOfOrder
            | Refusal::Draining
            | Refusal::UpstreamUnreachable
            | Refusal::UpstreamTimeout
            | Refusal::UpstreamBroken => UNAVAILABLE,
            _ => REFUSED,
        }
    }

    fn decision(&self, reason: &str) -> Value {
        let mut decision = json!({"reason": reason, "txn": self.txn});
        let mut set = |member: &str, value: Option<Value>| {
            if let (Some(value), Some(members)) = (value, decision.as_object_mut()) {
                members.insert(member.to_owned(), value);
            }
        };
        set("permission", self.permission.map(|p| json!(p)));
        set("retry_after_s", self.refusal.answer().retry_after_s.map(|s| json!(s)));
        set("outcome", self.refusal.outcome_unknown().then(|| json!("unknown")));
        more(self.refusal, &mut decision);
        decision
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::mcp::{Body, read};
    use oakallow_policy::audit::DecisionRecord;

    fn message(method: &str) -> Message {
        let text = json!({"jsonrpc": "2.0", "id": "a", "method": method, "params": {"name": "drop", "uri": "x://y"}});
        match read(text.to_string().as_bytes(), Era::Sessions).unwrap() {
            Body::One(message) => message,
            Body::Batch(_) => panic!("a batch"),
        }
    }

    fn answer(refusal: &Refusal, method: &str, era: Era, hide_disabled: bool) -> Value {
        let refused =
            Refused { refusal, permission: Some(Permission::Disabled), txn: "txn_1", hide_disabled };
        refused.answer(&message(method), era)
    }

    fn disabled() -> Refusal {
        Refusal::Disabled(DecisionRecord {
            permission: Permission::Disabled,
            resolved_from: "guardrail".to_owned(),
            rule: None,
            policy_version: 3,
            unregistered: false,
            definition_changed: false,
        })
    }

    #[test]
    fn the_model_reads_why() {
        let said = answer(&disabled(), "tools/call", Era::Sessions, false);
        assert_eq!(said["id"], "a");
        assert_eq!(said["result"]["isError"], true);
        assert!(said["result"]["content"][0]["text"].as_str().unwrap().contains("disabled"));
        let decision = &said["result"]["_meta"][DECISION_META];
        assert_eq!(decision["resolved_from"], "guardrail");
        assert_eq!((&decision["txn"], &decision["permission"]), (&json!("txn_1"), &json!("disabled")));
        assert!(said["result"].get("resultType").is_none());
        let said = answer(&disabled(), "tools/call", Era::Stateless, false);
        assert_eq!(said["result"]["resultType"], "complete");
    }

    #[test]
    fn what_has_no_such_result_is_an_error_of_ours() {
        for (refusal, method) in [(disabled(), "resources/read"), (Refusal::BackendUnavailable, "tools/call")]
        {
            let code = answer(&refusal, method, Era::Sessions, false)["error"]["code"].as_i64().unwrap();
            assert!(!(-32_768..=-32_000).contains(&code), "{code}");
        }
    }

    #[test]
    fn a_hidden_tool_looks_unknown() {
        let said = answer(&disabled(), "tools/call", Era::Sessions, true);
        assert_eq!(said["error"], json!({"code": -32602, "message": "Unknown tool: drop"}));
    }
}
