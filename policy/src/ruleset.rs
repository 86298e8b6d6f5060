//! The compiled rule set: everything that a decision needs, checked and indexed.
//!
//! It is immutable. A change of one tenant makes a new set that shares every other part with the old
//! one ([`RuleSet::with_tenant`]).

mod catalog;

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;
use serde::{Deserialize, Serialize};

use crate::canonical::CanonicalError;
use crate::id::Name;
use crate::index::{Index, hash_name};
use crate::pin::{ChangedDefinition, DefinitionDigest, Pin};
use crate::rule::{Permission, Rule};
use crate::tool::{Category, Tool};
pub use catalog::APPROVAL_TIMEOUT_S;
use catalog::Catalog;
pub(crate) use catalog::{FAIL_SAFE, ToolEntry, UNREGISTERED_RISK, check_tool};

type Map<V> = HashMap<Box<str>, V, FixedState>;

/// What an `allowed` becomes for a tool that nobody registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unregistered {
    /// A person looks at every such call.
    #[default]
    RequiresApproval,
    /// The rules' word stands.
    ByRule,
}

/// A kill switch that is on: everything it covers is disabled at once, whatever the rules say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "scope", content = "id", rename_all = "snake_case", deny_unknown_fields)]
pub enum KillSwitch {
    /// The whole org.
    Org,
    /// One tenant.
    Tenant(Name),
    /// One agent or key, by its principal id.
    Agent(Name),
    /// One tool.
    Tool(Name),
}

/// The policy of an org, as stored and sent; [`RuleSet::compile`] checks and indexes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrgPolicy {
    /// The org.
    pub org: Name,
    /// See [`Unregistered`].
    #[serde(default)]
    pub unregistered: Unregistered,
    /// See [`ChangedDefinition`].
    #[serde(default, skip_serializing_if = "ChangedDefinition::is_default")]
    pub changed_definition: ChangedDefinition,
    /// Categories.
    #[serde(default)]
    pub categories: Vec<Category>,
    /// Tools.
    #[serde(default)]
    pub tools: Vec<Tool>,
    /// What the tools' definitions are to be; for a tool that none was seen of, nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pins: Vec<Pin>,
    /// Kill switches that are on.
    #[serde(default)]
    pub kill_switches: Vec<KillSwitch>,
    /// Rules of the org itself (`tenant` is `None`), guardrails included.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// The tenants that exist. Their rules travel apart.
    #[serde(default)]
    pub tenants: Vec<Name>,
}

/// Why a policy cannot be used. The whole of it is refused: a part of a policy is not a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum CompileError {
    #[error("rules `{first}` and `{second}` have the same scope and selector")]
    DuplicateRule { first: String, second: String },
    #[error("rule `{rule}`: a guardrail is an org rule, it cannot name a tenant")]
    TenantGuardrail { rule: String },
    #[error("rule `{rule}`: a guardrail is always `disabled`, not `{permission}`")]
    LooseGuardrail { rule: String, permission: Permission },
    #[error("rule `{rule}` belongs to {found}, expected {expected}")]
    WrongScope { rule: String, found: String, expected: String },
    #[error("{what} `{name}` is defined twice")]
    DuplicateName { what: &'static str, name: Name },
    #[error("tool `{tool}` names the category `{category}`, which does not exist")]
    UnknownCategory { tool: Name, category: Name },
    #[error("tool `{tool}`: {problem}")]
    BadTool { tool: Name, problem: String },
    #[error("the pin of tool `{0}` is no SHA-256")]
    BadPin(Name),
    #[error("tenant `{0}` does not exist in this org")]
    UnknownTenant(Name),
}

/// The compiled policy of one org.
#[derive(Clone)]
pub struct RuleSet {
    pub(crate) org: Name,
    pub(crate) version: u64,
    pub(crate) closed: bool,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) org_rules: Index,
    pub(crate) guardrails: Index,
    /// `None`: the tenant exists, its rules are not loaded.
    pub(crate) tenants: Map<Option<Index>>,
}

impl RuleSet {
    /// The set that decides nothing: every call is an error, so every caller refuses. What a proxy
    /// starts with, and the one value that stands for "no policy".
    #[must_use]
    pub fn closed(org: Name) -> Self {
        Self {
            org,
            version: 0,
            closed: true,
            catalog: Arc::new(Catalog::empty()),
            org_rules: Index::default(),
            guardrails: Index::default(),
            tenants: Map::default(),
        }
    }

    /// Checks and indexes an org's policy. Its tenants are known but not loaded: a call of one is an
    /// error until [`RuleSet::with_tenant`] brought its rules.
    pub fn compile(policy: &OrgPolicy, version: u64) -> Result<Self, CompileError> {
        let expected = "the org";
        if let Some(rule) = policy.rules.iter().find(|r| r.tenant.is_some()) {
            if rule.guardrail {
                return Err(CompileError::TenantGuardrail { rule: rule.label() });
            }
            return Err(wrong_scope(rule, expected));
        }
        check_guardrails(&policy.rules)?;
        let (guardrails, plain): (Vec<&Rule>, Vec<&Rule>) = policy.rules.iter().partition(|r| r.guardrail);
        let guardrail_index = compile_index(&guardrails)?;
        let org_rules = compile_index(&plain)?;
        if let Some((rule, first)) =
            guardrails.iter().find_map(|r| org_rules.same_selector(r).map(|id| (r, id)))
        {
            return Err(CompileError::DuplicateRule { first: first.to_owned(), second: rule.label() });
        }
        let mut tenants = Map::default();
        for tenant in &policy.tenants {
            if tenants.insert(tenant.as_str().into(), None).is_some() {
                return Err(CompileError::DuplicateName { what: "tenant", name: tenant.clone() });
            }
        }
        Ok(Self {
            org: policy.org.clone(),
            version,
            closed: false,
            catalog: Arc::new(Catalog::compile(policy)?),
            org_rules,
            guardrails: guardrail_index,
            tenants,
        })
    }

    /// The same set with this tenant's rules. Only they are compiled; all else is shared.
    pub fn with_tenant(&self, tenant: &Name, rules: &[Rule], version: u64) -> Result<Self, CompileError> {
        let mut next = self.clone();
        next.load_tenant(tenant, rules)?;
        next.version = version;
        Ok(next)
    }

    /// Puts this tenant's rules into a set that is still being put together.
    pub fn load_tenant(&mut self, tenant: &Name, rules: &[Rule]) -> Result<(), CompileError> {
        let rules = Self::compile_tenant(tenant, rules)?;
        self.attach(tenant, rules)
    }

    /// Puts compiled rules of a tenant into the set; an error when the org has no such tenant.
    pub fn attach(&mut self, tenant: &Name, rules: TenantRules) -> Result<(), CompileError> {
        match self.tenants.get_mut(tenant.as_str()) {
            Some(slot) => {
                *slot = Some(rules.0);
                Ok(())
            }
            None => Err(CompileError::UnknownTenant(tenant.clone())),
        }
    }

    /// Compiles one tenant's rules on their own, to be kept in a cache and put into sets by
    /// [`RuleSet::attach`].
    pub fn compile_tenant(tenant: &Name, rules: &[Rule]) -> Result<TenantRules, CompileError> {
        if let Some(rule) = rules.iter().find(|r| r.tenant.as_ref() != Some(tenant)) {
            return Err(wrong_scope(rule, &format!("tenant `{tenant}`")));
        }
        if let Some(rule) = rules.iter().find(|r| r.guardrail) {
            return Err(CompileError::TenantGuardrail { rule: rule.label() });
        }
        let rules: Vec<&Rule> = rules.iter().collect();
        compile_index(&rules).map(TenantRules)
    }

    /// The org.
    #[must_use]
    pub fn org(&self) -> &Name {
        &self.org
    }

    /// The version of the policy that this set was compiled from.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether this is [`RuleSet::closed`].
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// The registered tool of that name at that audience.
    #[must_use]
    pub fn tool(&self, name: &str, audience: &str) -> Option<&Tool> {
        self.tool_anywhere(name).filter(|t| t.audience.as_str() == audience)
    }

    /// [`Tool::definition_hash`] of that tool at that audience; `None` when it is not registered.
    pub fn definition_hash(&self, name: &str, audience: &str) -> Result<Option<[u8; 32]>, CanonicalError> {
        let found = self.catalog.find(hash_name(name), name);
        let Some(entry) = found.filter(|e| e.tool.audience.as_str() == audience) else { return Ok(None) };
        if let Some(known) = entry.definition.get() {
            return Ok(Some(*known));
        }
        let hash = entry.tool.definition_hash()?;
        Ok(Some(*entry.definition.get_or_init(|| hash)))
    }

    /// The registered tool of that name, wherever it lives.
    #[must_use]
    pub fn tool_anywhere(&self, name: &str) -> Option<&Tool> {
        self.catalog.find(hash_name(name), name).map(|e| &e.tool)
    }

    /// What the definition of that tool at that audience is to be, if it is registered and one is pinned; and
    /// what is served, if this set knows that to be another one.
    #[must_use]
    pub fn pin(&self, name: &str, audience: &str) -> Option<(&DefinitionDigest, Option<&DefinitionDigest>)> {
        let entry = self.catalog.find(hash_name(name), name)?;
        let pin = entry.pin.as_ref().filter(|_| entry.tool.audience.as_str() == audience)?;
        Some((pin, entry.served.as_ref()))
    }

    /// Whether a tool is trusted as its rules say when its definition is not the pinned one.
    #[must_use]
    pub fn trusts_changed_definitions(&self) -> bool {
        self.catalog.changed_definition == ChangedDefinition::ByRule
    }

    /// All registered tools, in no particular order.
    pub fn tools(&self) -> impl Iterator<Item = &Tool> {
        self.catalog.tools.iter().map(|e| &e.tool)
    }

    /// Whether the tenant exists in this org.
    #[must_use]
    pub fn has_tenant(&self, tenant: &str) -> bool {
        self.tenants.contains_key(tenant)
    }

    /// Whether the tenant exists and its rules are in the set.
    #[must_use]
    pub fn is_loaded(&self, tenant: &str) -> bool {
        self.tenants.get(tenant).is_some_and(Option::is_some)
    }

    /// The number of rules in the set.
    #[must_use]
    pub fn rule_count(&self) -> usize {
        self.org_rules.len()
            + self.guardrails.len()
            + self.tenants.values().flatten().map(Index::len).sum::<usize>()
    }

    /// Bytes that the compiled rules take on the heap (tools not counted).
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        let tenants: usize = self
            .tenants
            .iter()
            .map(|(name, i)| name.len() + size_of::<Index>() + i.as_ref().map_or(0, Index::heap_bytes))
            .sum();
        self.org_rules.heap_bytes() + self.guardrails.heap_bytes() + tenants
    }
}

/// One tenant's compiled rules. Cheap to clone.
#[derive(Clone)]
pub struct TenantRules(pub(crate) Index);

fn check_guardrails(rules: &[Rule]) -> Result<(), CompileError> {
    match rules.iter().find(|r| r.guardrail && r.permission.otherwise() != Permission::Disabled) {
        Some(rule) => {
            Err(CompileError::LooseGuardrail { rule: rule.label(), permission: rule.permission.otherwise() })
        }
        None => Ok(()),
    }
}

fn compile_index(rules: &[&Rule]) -> Result<Index, CompileError> {
    Index::compile(rules).map_err(|duplicate| {
        let name = |at: usize| rules.get(at).map_or_else(String::new, |rule| numbered(at, rule));
        CompileError::DuplicateRule { first: name(duplicate.first), second: name(duplicate.second) }
    })
}

fn wrong_scope(rule: &Rule, expected: &str) -> CompileError {
    let found = rule.tenant.as_ref().map_or_else(|| "the org".to_owned(), |t| format!("tenant `{t}`"));
    CompileError::WrongScope { rule: rule.label(), found, expected: expected.to_owned() }
}

/// How an error names one of two rules with the same selector: by id, else by its place in the list.
pub(crate) fn numbered(at: usize, rule: &Rule) -> String {
    rule.id.as_ref().map_or_else(|| format!("#{} ({})", at + 1, rule.label()), ToString::to_string)
}
