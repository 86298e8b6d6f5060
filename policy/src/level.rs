//! The 12 levels of resolution, in order, and the names under which decisions report them.

use std::fmt;

use serde::{Serialize, Serializer};

/// A level of the walk; smaller wins. Levels 1 to 8 are walked for the tenant, then for the org.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "each variant's name is its selector")]
pub enum Level {
    ResourceToolMethod = 1,
    ResourceTool = 2,
    ToolMethod = 3,
    Tool = 4,
    ResourceMethod = 5,
    Resource = 6,
    Method = 7,
    Wildcard = 8,
    ToolDefault = 9,
    CategoryDefault = 10,
    ToolApproved = 11,
    FailSafe = 12,
}

impl Level {
    /// The levels that rules occupy, in the order of the walk.
    pub const RULES: [Self; 8] = [
        Self::ResourceToolMethod,
        Self::ResourceTool,
        Self::ToolMethod,
        Self::Tool,
        Self::ResourceMethod,
        Self::Resource,
        Self::Method,
        Self::Wildcard,
    ];

    /// 1 to 12.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The level of a rule that selects by these names.
    #[must_use]
    pub const fn of_selector(tool: bool, resource: bool, method: bool) -> Self {
        match (tool, resource, method) {
            (true, true, true) => Self::ResourceToolMethod,
            (true, true, false) => Self::ResourceTool,
            (true, false, true) => Self::ToolMethod,
            (true, false, false) => Self::Tool,
            (false, true, true) => Self::ResourceMethod,
            (false, true, false) => Self::Resource,
            (false, false, true) => Self::Method,
            (false, false, false) => Self::Wildcard,
        }
    }

    /// Whether rules of this level name a tool.
    #[must_use]
    pub const fn names_tool(self) -> bool {
        matches!(self, Self::ResourceToolMethod | Self::ResourceTool | Self::ToolMethod | Self::Tool)
    }

    /// Whether rules of this level name a resource.
    #[must_use]
    pub const fn names_resource(self) -> bool {
        matches!(self, Self::ResourceToolMethod | Self::ResourceTool | Self::ResourceMethod | Self::Resource)
    }

    /// Whether rules of this level name a method.
    #[must_use]
    pub const fn names_method(self) -> bool {
        matches!(self, Self::ResourceToolMethod | Self::ToolMethod | Self::ResourceMethod | Self::Method)
    }
}

/// Whose rule it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "named by the product")]
pub enum RuleScope {
    Tenant,
    Org,
}

/// Where a decision came from: a gate, or a level of the walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResolvedFrom {
    /// Gate: the org, tenant, agent or tool is stopped.
    KillSwitch,
    /// Gate: the tool is switched off.
    ToolDisabled,
    /// Gate: an org guardrail matched.
    Guardrail,
    /// Levels 1 to 8.
    Rule(RuleScope, Level),
    /// Level 9.
    ToolDefault,
    /// Level 10.
    CategoryDefault,
    /// Level 11.
    ToolApproved,
    /// Level 12.
    FailSafe,
}

impl ResolvedFrom {
    /// Every value, in the order in which resolution tries them.
    #[expect(clippy::indexing_slicing, reason = "evaluated at compile time: out of bounds does not compile")]
    pub const ALL: [Self; 23] = {
        let mut all = [Self::KillSwitch; 23];
        all[1] = Self::ToolDisabled;
        all[2] = Self::Guardrail;
        let mut i = 0;
        while i < 8 {
            all[3 + i] = Self::Rule(RuleScope::Tenant, Level::RULES[i]);
            all[11 + i] = Self::Rule(RuleScope::Org, Level::RULES[i]);
            i += 1;
        }
        all[19] = Self::ToolDefault;
        all[20] = Self::CategoryDefault;
        all[21] = Self::ToolApproved;
        all[22] = Self::FailSafe;
        all
    };

    /// The value of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|from| from.as_str() == name)
    }

    /// The level, or `None` for a gate.
    #[must_use]
    pub const fn level(self) -> Option<Level> {
        match self {
            Self::KillSwitch | Self::ToolDisabled | Self::Guardrail => None,
            Self::Rule(_, level) => Some(level),
            Self::ToolDefault => Some(Level::ToolDefault),
            Self::CategoryDefault => Some(Level::CategoryDefault),
            Self::ToolApproved => Some(Level::ToolApproved),
            Self::FailSafe => Some(Level::FailSafe),
        }
    }

    /// The stable name in answers, events and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KillSwitch => "kill_switch",
            Self::ToolDisabled => "tool_disabled",
            Self::Guardrail => "guardrail",
            Self::Rule(RuleScope::Tenant, level) => tenant_name(level),
            Self::Rule(RuleScope::Org, level) => org_name(level),
            Self::ToolDefault => "tool_default",
            Self::CategoryDefault => "category_default",
            Self::ToolApproved => "tool_approved",
            Self::FailSafe => "fail_safe",
        }
    }
}

const fn tenant_name(level: Level) -> &'static str {
    match level {
        Level::ResourceToolMethod => "tenant_resource_tool_method",
        Level::ResourceTool => "tenant_resource_tool",
        Level::ToolMethod => "tenant_tool_method",
        Level::Tool => "tenant_tool",
        Level::ResourceMethod => "tenant_resource_method",
        Level::Resource => "tenant_resource",
        Level::Method => "tenant_method",
        _ => "tenant_wildcard",
    }
}

const fn org_name(level: Level) -> &'static str {
    match level {
        Level::ResourceToolMethod => "org_resource_tool_method",
        Level::ResourceTool => "org_resource_tool",
        Level::ToolMethod => "org_tool_method",
        Level::Tool => "org_tool",
        Level::ResourceMethod => "org_resource_method",
        Level::Resource => "org_resource",
        Level::Method => "org_method",
        _ => "org_wildcard",
    }
}

impl fmt::Display for ResolvedFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ResolvedFrom {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}
