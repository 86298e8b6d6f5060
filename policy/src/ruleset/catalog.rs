//! The tools of an org, with what does not depend on the call worked out beforehand.

use std::collections::HashMap;
use std::sync::OnceLock;

use hashbrown::HashTable;

use super::{CompileError, KillSwitch, Map, OrgPolicy, Unregistered};
use crate::canonical::unhex;
use crate::id::Name;
use crate::index::hash_name;
use crate::level::Level;
use crate::pin::{ChangedDefinition, DefinitionDigest};
use crate::rule::Permission;
use crate::tool::{Category, RiskLevel, Tool};

/// A tool as resolution needs it.
pub(crate) struct ToolEntry {
    pub(crate) tool: Tool,
    /// [`Tool::definition_hash`], once somebody has asked: a schema may be large, and is hashed whole.
    pub(super) definition: OnceLock<[u8; 32]>,
    /// Levels 9 to 12, worked out beforehand: they do not depend on the call.
    pub(crate) fallback: (Permission, Level),
    pub(crate) stopped: bool,
    pub(super) pin: Option<DefinitionDigest>,
    /// The other definition that the tool server was last seen with.
    pub(crate) served: Option<DefinitionDigest>,
}

/// The tools, with their fall-backs, and the kill switches.
pub(crate) struct Catalog {
    pub(super) tools: HashTable<ToolEntry>,
    pub(crate) categories: Vec<Category>,
    pub(crate) unregistered: Unregistered,
    pub(crate) changed_definition: ChangedDefinition,
    pub(crate) kill_switches: Vec<KillSwitch>,
    pub(crate) any_stop: bool,
}

impl Catalog {
    /// The tool of that name, whose hash the caller has at hand.
    pub(crate) fn find(&self, hash: u64, name: &str) -> Option<&ToolEntry> {
        self.tools.find(hash, |e| e.tool.name.as_str() == name)
    }

    /// The catalog of an org in which nothing is registered.
    pub(super) fn empty() -> Self {
        Self {
            tools: HashTable::new(),
            categories: Vec::new(),
            unregistered: Unregistered::RequiresApproval,
            changed_definition: ChangedDefinition::RequiresApproval,
            kill_switches: Vec::new(),
            any_stop: false,
        }
    }

    pub(super) fn compile(policy: &OrgPolicy) -> Result<Self, CompileError> {
        let mut defaults: Map<Option<Permission>> = Map::default();
        for category in &policy.categories {
            if defaults.insert(category.name.as_str().into(), category.default_permission).is_some() {
                return Err(CompileError::DuplicateName { what: "category", name: category.name.clone() });
            }
        }
        let pins = pins(policy)?;
        let mut tools = HashTable::with_capacity(policy.tools.len());
        for tool in &policy.tools {
            check_tool(tool)?;
            let category_default = match &tool.category {
                None => None,
                Some(category) => *defaults.get(category.as_str()).ok_or_else(|| {
                    CompileError::UnknownCategory { tool: tool.name.clone(), category: category.clone() }
                })?,
            };
            let pin = pins.get(tool.name.as_str()).filter(|(audience, ..)| **audience == tool.audience);
            let entry = ToolEntry {
                pin: pin.map(|(_, digest, _)| *digest),
                served: pin.and_then(|(.., served)| *served),
                fallback: fallback(tool, category_default),
                stopped: policy.kill_switches.iter().any(|k| *k == KillSwitch::Tool(tool.name.clone())),
                tool: tool.clone(),
                definition: OnceLock::new(),
            };
            let hash = hash_name(&tool.name);
            if tools.find(hash, |e: &ToolEntry| e.tool.name == tool.name).is_some() {
                return Err(CompileError::DuplicateName { what: "tool", name: tool.name.clone() });
            }
            tools.insert_unique(hash, entry, |e| hash_name(&e.tool.name));
        }
        Ok(Self {
            tools,
            categories: policy.categories.clone(),
            unregistered: policy.unregistered,
            changed_definition: policy.changed_definition,
            any_stop: !policy.kill_switches.is_empty(),
            kill_switches: policy.kill_switches.clone(),
        })
    }
}

/// Whose, what it is to be, and what is served if that is another one.
type Pinned<'p> = (&'p Name, DefinitionDigest, Option<DefinitionDigest>);

/// The pins of the tools that are registered. A name that is listed for several audiences is that of one tool
/// only, so the others' pins are left out.
fn pins(policy: &OrgPolicy) -> Result<HashMap<&str, Pinned<'_>>, CompileError> {
    let registered: HashMap<&str, &Name> =
        policy.tools.iter().map(|t| (t.name.as_str(), &t.audience)).collect();
    let mut pins = HashMap::new();
    for pin in &policy.pins {
        let digest = |text: &str| {
            let bytes = unhex(text).and_then(|bytes| bytes.try_into().ok());
            bytes.ok_or_else(|| CompileError::BadPin(pin.tool.clone()))
        };
        let pinned = digest(&pin.sha256)?;
        let served = pin.served_sha256.as_deref().map(digest).transpose()?;
        if registered.get(pin.tool.as_str()) == Some(&&pin.audience) {
            pins.insert(
                pin.tool.as_str(),
                (&pin.audience, pinned, served.filter(|served| *served != pinned)),
            );
        }
    }
    Ok(pins)
}

/// Levels 9 to 12.
fn fallback(tool: &Tool, category_default: Option<Permission>) -> (Permission, Level) {
    if let Some(permission) = tool.default_permission {
        return (permission, Level::ToolDefault);
    }
    if let Some(permission) = category_default {
        return (permission, Level::CategoryDefault);
    }
    if tool.approved { (Permission::Allowed, Level::ToolApproved) } else { FAIL_SAFE }
}

/// Level 12.
pub(crate) const FAIL_SAFE: (Permission, Level) = (Permission::RequiresApproval, Level::FailSafe);

/// An approval lives between one minute and a week.
pub const APPROVAL_TIMEOUT_S: std::ops::RangeInclusive<u32> = 60..=7 * 24 * 3600;

pub(crate) fn check_tool(tool: &Tool) -> Result<(), CompileError> {
    let problem = if tool.approval.levels.is_some_and(|l| !(1..=2).contains(&l)) {
        "approval.levels is 1 or 2"
    } else if tool.approval.timeout_s.is_some_and(|t| !APPROVAL_TIMEOUT_S.contains(&t)) {
        "approval.timeout_s is between 60 (a minute) and 604800 (seven days)"
    } else {
        return Ok(());
    };
    Err(CompileError::BadTool { tool: tool.name.clone(), problem: problem.to_owned() })
}

/// The risk that a tool which nobody registered counts as.
pub(crate) const UNREGISTERED_RISK: RiskLevel = RiskLevel::Critical;
