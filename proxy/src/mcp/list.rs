//! The list of tools, as the caller may see it.
//!
//! A tool is left out when a call of it, without a resource or a method, is `disabled` or cannot be
//! decided; a tool that only some resource makes `disabled` stays. The list is a courtesy: every call is
//! decided again.

use oakallow_policy::call::CallNames;
use oakallow_policy::id::Name;
use oakallow_policy::{Permission, ResolveError};
use serde_json::{Value, json};

use crate::identity::Caller;
use crate::policy::{Definitions, View};

/// A list that is kept longer than this would hide a change of policy (2026-07-28, `ttlMs`).
const TTL_MS_MAX: u64 = 60_000;

/// Who looks at the list.
pub(super) struct Viewer<'a> {
    /// Whose it is.
    pub(super) caller: &'a Caller,
    /// The tool server.
    pub(super) audience: &'a Name,
    /// What decides.
    pub(super) view: &'a View,
    /// Where all that is listed is noted.
    pub(super) definitions: &'a Definitions,
}

impl Viewer<'_> {
    /// Filters the answer to `tools/list`; whether `message` is one, or a batch with one in it.
    pub(super) fn filter(&self, message: &mut Value) -> bool {
        if let Value::Array(messages) = message {
            let mut any = false;
            for message in messages {
                any |= self.filter(message);
            }
            return any;
        }
        let Some(result) = message.get_mut("result").and_then(Value::as_object_mut) else { return false };
        let Some(tools) = result.get_mut("tools").and_then(Value::as_array_mut) else { return false };
        self.definitions.note(&self.view.snapshot().rules, self.audience, tools);
        tools.retain(|tool| tool.get("name").and_then(Value::as_str).is_some_and(|name| self.sees(name)));
        // What one caller may see is nobody else's to cache.
        if result.contains_key("cacheScope") || result.contains_key("ttlMs") {
            result.insert("cacheScope".to_owned(), json!("private"));
        }
        if let Some(ttl) = result.get_mut("ttlMs")
            && ttl.as_u64().is_none_or(|ms| ms > TTL_MS_MAX)
        {
            *ttl = json!(TTL_MS_MAX);
        }
        true
    }

    fn sees(&self, name: &str) -> bool {
        let Ok(tool) = Name::new(name) else { return false };
        let names = CallNames {
            org: self.view.snapshot().rules.org().clone(),
            tenant: self.caller.tenant.clone(),
            principal: self.caller.principal.clone(),
            audience: self.audience.clone(),
            tool,
            resource: None,
            method: None,
        };
        match self.view.resolve(&names.as_call()) {
            Ok(decision) => decision.permission() != Permission::Disabled,
            Err(e) => matches!(e, ResolveError::ResourceRequired),
        }
    }
}
