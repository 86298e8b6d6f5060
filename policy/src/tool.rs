//! Tools and their categories: the catalogue against which calls are decided.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::canonical::{self, CanonicalError};
use crate::id::Name;
use crate::rule::Permission;

/// How bad a mistake would be; sets how stale a rule set may be and what approvers must expand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "named by the product")]
pub enum RiskLevel {
    Low,
    #[default]
    Medium,
    High,
    Critical,
}

impl RiskLevel {
    /// The stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// Whether a call must, may or must not leave the resource out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "named by the product")]
pub enum ResourceUse {
    #[default]
    Optional,
    Required,
}

/// How approvals of a tool's calls work.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalSettings {
    /// Seconds until a pending approval expires; the org's default when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u32>,
    /// One or two approvers, one after the other; one when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub levels: Option<u8>,
}

/// A registered tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// Unique in the org.
    pub name: Name,
    /// The tool server that offers it. The same name at another audience is another, unregistered tool.
    #[serde(default = "default_audience")]
    pub audience: Name,
    /// What people read.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Its category.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<Name>,
    /// How bad a mistake would be.
    #[serde(default)]
    pub risk_level: RiskLevel,
    /// JSON Schema 2020-12 of the arguments; any arguments when `None`.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::strict_json::optional_value"
    )]
    pub parameter_schema: Option<Value>,
    /// Level 9.
    #[serde(default)]
    pub default_permission: Option<Permission>,
    /// Level 11: somebody looked at it and let it in.
    #[serde(default)]
    pub approved: bool,
    /// Gate: `false` refuses every call.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Whether a call must name a resource.
    #[serde(default)]
    pub resource: ResourceUse,
    /// How its approvals work.
    #[serde(default)]
    pub approval: ApprovalSettings,
}

/// The audience of tools that name none: an org with one tool server need not think about it.
#[must_use]
#[expect(clippy::expect_used, reason = "a constant that is a name")]
pub fn default_audience() -> Name {
    Name::new("default").expect("a constant")
}

const fn yes() -> bool {
    true
}

impl Tool {
    /// SHA-256 over the canonical form of what an approver relies on: name, description and schema.
    /// Part of the fingerprint, so an approval never covers a tool that has changed since.
    pub fn definition_hash(&self) -> Result<[u8; 32], CanonicalError> {
        let definition = serde_json::json!({
            "v": 1, "name": self.name, "description": self.description, "parameter_schema": self.parameter_schema,
        });
        Ok(canonical::sha256(&canonical::value_bytes(&definition)?))
    }
}

/// A category of tools, with the permission that its tools fall back to (level 10).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Category {
    /// Unique in the org.
    pub name: Name,
    /// Level 10.
    #[serde(default)]
    pub default_permission: Option<Permission>,
}
