//! Audit events: their closed list, their form, and the chain that shows a missing or changed one.
//!
//! An event is a CloudEvents 1.0 envelope. Whoever writes events (each proxy, each backend) numbers its
//! own without gaps and puts the hash of the one before into each, so that a reader of any stretch sees
//! whether something was left out, added or altered.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::permit::PermitReason;
use crate::rule::Permission;
pub use chain::{ChainError, Chained, Head};

mod chain;
pub mod export;
pub mod leave;
pub mod verify;

macro_rules! event_types {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Everything that can happen. The list is closed: an event of another type is refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum EventType {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
        }

        impl EventType {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

event_types! {
    /// A call arrived and was identified.
    CallRequested = "call.requested",
    /// Resolution answered.
    CallDecided = "call.decided",
    /// The call was refused: by decision, or because it could not be decided.
    CallRefused = "call.refused",
    /// The call waits for a person.
    CallHeld = "call.held",
    /// Intent: the call is about to be sent; carries the permit's reason.
    CallForwarded = "call.forwarded",
    /// The tool answered 2xx and no error.
    CallCompleted = "call.completed",
    /// The tool answered an error.
    CallFailed = "call.failed",
    /// Sent, without a complete answer.
    CallUnknown = "call.unknown",
    /// Permitted, but nothing was sent.
    CallNotForwarded = "call.not_forwarded",
    /// An approval was created.
    ApprovalCreated = "approval.created",
    /// A person decided.
    ApprovalDecided = "approval.decided",
    /// Nobody decided in time.
    ApprovalExpired = "approval.expired",
    /// Withdrawn.
    ApprovalCancelled = "approval.cancelled",
    /// Used, for exactly one call.
    ApprovalConsumed = "approval.consumed",
    /// A check through the REST API.
    PermissionChecked = "permission.checked",
    /// An execution was reported: a report, not an observation.
    ExecutionReported = "execution.reported",
    /// A token was minted.
    TokenMinted = "token.minted",
    /// A token was redeemed.
    TokenRedeemed = "token.redeemed",
    /// A token was presented again.
    TokenReplayed = "token.replayed",
    /// A grant was created.
    GrantCreated = "grant.created",
    /// A grant was used.
    GrantUsed = "grant.used",
    /// A grant was revoked.
    GrantRevoked = "grant.revoked",
    /// A kill switch was switched on.
    KillSwitchOn = "kill_switch.on",
    /// A kill switch was switched off.
    KillSwitchOff = "kill_switch.off",
    /// A key was created.
    KeyCreated = "key.created",
    /// A key was revoked.
    KeyRevoked = "key.revoked",
    /// A rule was created.
    RuleCreated = "rule.created",
    /// A rule was changed.
    RuleUpdated = "rule.updated",
    /// A rule was deleted.
    RuleDeleted = "rule.deleted",
    /// The whole rule set of a scope was replaced.
    RuleReplaced = "rule.replaced",
    /// A tool was created.
    ToolCreated = "tool.created",
    /// A tool was changed.
    ToolUpdated = "tool.updated",
    /// A tool was deleted.
    ToolDeleted = "tool.deleted",
    /// A tool's definition is not the one that was pinned.
    ToolDefinitionChanged = "tool.definition_changed",
    /// A tool's definition was pinned: at its first sight, or because somebody accepted it.
    ToolDefinitionPinned = "tool.definition_pinned",
    /// A tenant was created.
    TenantCreated = "tenant.created",
    /// A tenant was changed.
    TenantUpdated = "tenant.updated",
    /// A tenant was deleted.
    TenantDeleted = "tenant.deleted",
    /// A category was created.
    CategoryCreated = "category.created",
    /// A category was changed.
    CategoryUpdated = "category.updated",
    /// A category was deleted.
    CategoryDeleted = "category.deleted",
    /// An agent was created.
    AgentCreated = "agent.created",
    /// An agent was deleted, its keys revoked.
    AgentDeleted = "agent.deleted",
    /// The org's settings were changed.
    SettingsUpdated = "settings.updated",
    /// A user was created.
    UserCreated = "user.created",
    /// A user was changed.
    UserUpdated = "user.updated",
    /// Somebody signed in.
    SessionCreated = "session.created",
    /// Somebody signed out, or was signed out.
    SessionEnded = "session.ended",
    /// A proxy enrolled.
    ProxyEnrolled = "proxy.enrolled",
    /// A proxy was removed, its key revoked.
    ProxyRemoved = "proxy.removed",
    /// A proxy started.
    ProxyStarted = "proxy.started",
    /// A proxy stopped in good order.
    ProxyStopped = "proxy.stopped",
    /// A proxy's chain has a gap or does not fit its head.
    ProxyChainBroken = "proxy.chain_broken",
}

/// One event, without its place in a chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// `evt_…`, unique; the backend dedupes by it.
    pub id: String,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// When, RFC 3339 UTC with milliseconds.
    pub time: String,
    /// The life of a call that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub txn: Option<String>,
    /// What is known about it.
    pub data: EventData,
}

/// What an event says. Absent where it does not apply; bodies only as digests, parameters only after
/// redaction. The members stand in canonical order, here and in what is inside, so that events are written without
/// sorting.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventData {
    /// The approval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalRecord>,
    /// The tool server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// The decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionRecord>,
    /// Anything else that belongs to this type of event (the changed rule, the proxy's version).
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub detail: Map<String, Value>,
    /// What was sent and what came back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution: Option<ExecutionRecord>,
    /// The call's fingerprint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Arguments, redacted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
    /// Why it may run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permit: Option<PermitReason>,
    /// Who called, or acted: agent, key, user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// A stable code or a short sentence: why refused, why unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// The proxy's route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The execution token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_id: Option<String>,
    /// Tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
}

/// A decision as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionRecord {
    /// The tool server describes the tool otherwise than it was pinned.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub definition_changed: bool,
    /// The answer.
    pub permission: Permission,
    /// Version of the policy.
    pub policy_version: u64,
    /// Gate or level.
    pub resolved_from: String,
    /// The rule that matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The tool is not registered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unregistered: bool,
}

impl From<&crate::Decision<'_>> for DecisionRecord {
    fn from(d: &crate::Decision<'_>) -> Self {
        Self {
            permission: d.permission(),
            resolved_from: d.resolved_from().as_str().to_owned(),
            rule: d.rule().map(str::to_owned),
            policy_version: d.policy_version(),
            unregistered: d.unregistered(),
            definition_changed: d.definition_changed(),
        }
    }
}

/// An approval as recorded.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApprovalRecord {
    /// Who decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
    /// `apr_…`
    pub id: String,
    /// What they wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// `REF-…`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// Its state after the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

/// What was sent and what came back.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExecutionRecord {
    /// Milliseconds from sending to the end of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// SHA-256 of the body that was sent, hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_sha256: Option<String>,
    /// Its length in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_bytes: Option<u64>,
    /// SHA-256 of the body of the answer, hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_sha256: Option<String>,
    /// `success`, `failed`, `error` or `unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// HTTP status of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

#[cfg(test)]
mod tests;
