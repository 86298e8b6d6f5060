//! Resolution: gates, then the walk over the levels. Pure, and without allocation unless explained.

use serde::Serialize;

use crate::call::Call;
use crate::id::Name;
use crate::index::{Found, Hashes, Index, hash_name};
use crate::level::{Level, ResolvedFrom, RuleScope};
use crate::rule::Permission;
use crate::ruleset::{
    FAIL_SAFE, KillSwitch, RuleSet, TenantRules, ToolEntry, UNREGISTERED_RISK, Unregistered,
};
use crate::tool::{ResourceUse, RiskLevel};

/// What was decided, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Decision<'r> {
    /// The answer.
    pub permission: Permission,
    /// The gate or level it came from.
    pub resolved_from: ResolvedFrom,
    /// The rule that matched, if one did.
    pub rule: Option<&'r str>,
    /// The version of the policy that was asked.
    pub policy_version: u64,
    /// The tool is not registered for this audience.
    pub unregistered: bool,
    /// The tool's risk; critical when it is not registered.
    pub risk_level: RiskLevel,
}

impl Decision<'_> {
    /// The level, or `None` for a gate.
    #[must_use]
    pub fn level(&self) -> Option<Level> {
        self.resolved_from.level()
    }
}

/// There is no decision. Never an allow: the caller refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// [`RuleSet::closed`].
    #[error("no policy is loaded")]
    Closed,
    /// The call belongs to another org than the rule set.
    #[error("the call belongs to another org")]
    WrongOrg,
    /// The org has no such tenant.
    #[error("the tenant does not exist")]
    UnknownTenant,
    /// The tenant exists, its rules are not here.
    #[error("the tenant's rules are not loaded")]
    TenantNotLoaded,
    /// The tool demands a resource and the call names none.
    #[error("the tool requires a resource")]
    ResourceRequired,
}

/// What one step of a trace found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Nothing applies here.
    NoMatch,
    /// The call lacks a name that this level selects by.
    NotApplicable,
    /// This decided.
    Matched,
    /// This would have decided, had nothing before it.
    Overridden,
}

/// One gate or level of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Step<'r> {
    /// The gate or level.
    pub at: ResolvedFrom,
    /// 1 to 12; absent for a gate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<u8>,
    /// What it found.
    pub outcome: Outcome,
    /// What it says, when it says something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permission: Option<Permission>,
    /// The rule that says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<&'r str>,
}

/// A decision with every step that led to it, and what it overrode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation<'r> {
    /// The decision.
    pub decision: Decision<'r>,
    /// All gates and levels, in order.
    pub trace: Vec<Step<'r>>,
}

/// What a gate or level says about a call.
#[derive(Clone, Copy)]
struct Says<'r> {
    permission: Permission,
    rule: Option<&'r str>,
}

impl<'r> From<Found<'r>> for Says<'r> {
    fn from(found: Found<'r>) -> Self {
        Self { permission: found.permission, rule: Some(found.id) }
    }
}

const DISABLED: Says<'static> = Says { permission: Permission::Disabled, rule: None };

/// A rule set applied to one call: what both resolution and explanation ask.
struct Question<'r, 'c> {
    rules: &'r RuleSet,
    tenant: Option<&'r Index>,
    tool: Option<&'r ToolEntry>,
    call: &'c Call<'c>,
    hashes: Hashes,
}

impl RuleSet {
    /// Decides a call; the tenant's rules must be in the set.
    pub fn resolve<'r>(&'r self, call: &Call<'_>) -> Result<Decision<'r>, ResolveError> {
        let tenant = self.loaded_tenant(call)?;
        self.ask(call, tenant)?.decide()
    }

    /// Decides a call with the tenant's rules given apart (from a cache). Whose rules they are is the
    /// caller's word; that the tenant exists is checked here.
    pub fn resolve_with<'r>(
        &'r self,
        call: &Call<'_>,
        tenant_rules: &'r TenantRules,
    ) -> Result<Decision<'r>, ResolveError> {
        self.speaks_for(call)?;
        if !call.tenant.is_some_and(|tenant| self.has_tenant(tenant)) {
            return Err(ResolveError::UnknownTenant);
        }
        self.ask(call, Some(&tenant_rules.0))?.decide()
    }

    /// Decides a call and says what every gate and level found.
    pub fn explain<'r>(&'r self, call: &Call<'_>) -> Result<Explanation<'r>, ResolveError> {
        let tenant = self.loaded_tenant(call)?;
        let question = self.ask(call, tenant)?;
        let decision = question.decide()?;
        Ok(Explanation { trace: question.trace(&decision), decision })
    }

    /// [`RuleSet::explain`] with the tenant's rules given apart, as in [`RuleSet::resolve_with`].
    pub fn explain_with<'r>(
        &'r self,
        call: &Call<'_>,
        tenant_rules: &'r TenantRules,
    ) -> Result<Explanation<'r>, ResolveError> {
        let decision = self.resolve_with(call, tenant_rules)?;
        let question = self.ask(call, Some(&tenant_rules.0))?;
        Ok(Explanation { trace: question.trace(&decision), decision })
    }

    fn loaded_tenant<'r>(&'r self, call: &Call<'_>) -> Result<Option<&'r Index>, ResolveError> {
        self.speaks_for(call)?;
        let Some(tenant) = call.tenant else { return Ok(None) };
        match self.tenants.get(tenant) {
            Some(Some(index)) => Ok(Some(index)),
            Some(None) => Err(ResolveError::TenantNotLoaded),
            None => Err(ResolveError::UnknownTenant),
        }
    }

    fn speaks_for(&self, call: &Call<'_>) -> Result<(), ResolveError> {
        if self.closed {
            return Err(ResolveError::Closed);
        }
        if call.org != self.org.as_str() {
            return Err(ResolveError::WrongOrg);
        }
        Ok(())
    }

    fn ask<'r, 'c>(
        &'r self,
        call: &'c Call<'c>,
        tenant: Option<&'r Index>,
    ) -> Result<Question<'r, 'c>, ResolveError> {
        self.speaks_for(call)?;
        let hash = hash_name(call.tool);
        let tool = self.catalog.find(hash, call.tool).filter(|t| t.tool.audience.as_str() == call.audience);
        Ok(Question { rules: self, tenant, tool, call, hashes: Hashes::of(call, hash) })
    }
}

impl<'r> Question<'r, '_> {
    fn decide(&self) -> Result<Decision<'r>, ResolveError> {
        if let Some((from, says)) = self.gate() {
            return Ok(self.decision(from, says));
        }
        let wants_resource = self.tool.is_some_and(|t| t.tool.resource == ResourceUse::Required);
        if wants_resource && self.call.resource.is_none() {
            return Err(ResolveError::ResourceRequired);
        }
        let walk = [(RuleScope::Tenant, self.tenant), (RuleScope::Org, Some(&*self.rules.org_rules))];
        for (scope, index) in walk {
            let Some(index) = index else { continue };
            // A tool that nobody registered is not the one that a rule's author had in mind.
            if let Some((level, found)) = index.first(&self.hashes, self.call, self.tool.is_some()) {
                return Ok(self.decision(ResolvedFrom::Rule(scope, level), found.into()));
            }
        }
        let (permission, level) = self.tool.map_or(FAIL_SAFE, |t| t.fallback);
        Ok(self.decision(fallback_name(level), Says { permission, rule: None }))
    }

    fn gate(&self) -> Option<(ResolvedFrom, Says<'r>)> {
        self.kill_switch()
            .map(|says| (ResolvedFrom::KillSwitch, says))
            .or_else(|| self.tool_disabled().map(|says| (ResolvedFrom::ToolDisabled, says)))
            .or_else(|| self.guardrail().map(|says| (ResolvedFrom::Guardrail, says)))
    }

    fn kill_switch(&self) -> Option<Says<'r>> {
        let catalog = &self.rules.catalog;
        if !catalog.any_stop {
            return None;
        }
        let call = self.call;
        let stopped = self.tool.is_some_and(|t| t.stopped)
            || catalog.kill_switches.iter().any(|switch| match switch {
                KillSwitch::Org => true,
                KillSwitch::Tenant(tenant) => call.tenant == Some(tenant.as_str()),
                KillSwitch::Agent(agent) => call.principal == agent.as_str(),
                KillSwitch::Tool(tool) => call.tool == tool.as_str(),
            });
        stopped.then_some(DISABLED)
    }

    fn tool_disabled(&self) -> Option<Says<'r>> {
        self.tool.is_some_and(|t| !t.tool.enabled).then_some(DISABLED)
    }

    fn guardrail(&self) -> Option<Says<'r>> {
        // A guardrail that names a tool holds for every tool of that name, registered here or not.
        let index = &*self.rules.guardrails;
        if index.len() == 0 {
            return None;
        }
        index.first(&self.hashes, self.call, true).map(|(_, found)| found.into())
    }

    fn rule(&self, index: &'r Index, level: Level) -> Option<Says<'r>> {
        if self.tool.is_none() && level.names_tool() {
            return None;
        }
        index.find(level, &self.hashes, self.call).map(Says::from)
    }

    fn decision(&self, resolved_from: ResolvedFrom, says: Says<'r>) -> Decision<'r> {
        let unregistered = self.tool.is_none();
        let distrust = unregistered && self.rules.catalog.unregistered == Unregistered::RequiresApproval;
        let permission = match says.permission {
            Permission::Allowed if distrust => Permission::RequiresApproval,
            permission => permission,
        };
        Decision {
            permission,
            resolved_from,
            rule: says.rule,
            policy_version: self.rules.version,
            unregistered,
            risk_level: self.tool.map_or(UNREGISTERED_RISK, |t| t.tool.risk_level),
        }
    }

    fn trace(&self, decision: &Decision<'r>) -> Vec<Step<'r>> {
        let mut decided = false;
        ResolvedFrom::ALL
            .into_iter()
            .map(|at| {
                let (applicable, says) = self.look(at);
                let outcome = match says {
                    _ if at == decision.resolved_from => Outcome::Matched,
                    Some(_) if decided => Outcome::Overridden,
                    _ if applicable => Outcome::NoMatch,
                    _ => Outcome::NotApplicable,
                };
                decided |= outcome == Outcome::Matched;
                Step {
                    at,
                    level: at.level().map(Level::number),
                    outcome,
                    permission: says.map(|s| s.permission),
                    rule: says.and_then(|s| s.rule),
                }
            })
            .collect()
    }

    /// Whether a gate or level can apply to this call, and what it says by itself.
    fn look(&self, at: ResolvedFrom) -> (bool, Option<Says<'r>>) {
        let says =
            |permission: Option<Permission>| permission.map(|permission| Says { permission, rule: None });
        match at {
            ResolvedFrom::KillSwitch => (true, self.kill_switch()),
            ResolvedFrom::ToolDisabled => (self.tool.is_some(), self.tool_disabled()),
            ResolvedFrom::Guardrail => (true, self.guardrail()),
            ResolvedFrom::Rule(scope, level) => {
                let index = match scope {
                    RuleScope::Tenant => self.tenant,
                    RuleScope::Org => Some(&*self.rules.org_rules),
                };
                let applicable = index.is_some()
                    && (!level.names_tool() || self.tool.is_some())
                    && (!level.names_resource() || self.call.resource.is_some())
                    && (!level.names_method() || self.call.method.is_some());
                (applicable, index.and_then(|index| self.rule(index, level)))
            }
            ResolvedFrom::ToolDefault => {
                (self.tool.is_some(), says(self.tool.and_then(|t| t.tool.default_permission)))
            }
            ResolvedFrom::CategoryDefault => {
                let category = self.tool.and_then(|t| t.tool.category.as_ref());
                (category.is_some(), says(category.and_then(|c| self.category_default(c))))
            }
            ResolvedFrom::ToolApproved => {
                let approved = self.tool.is_some_and(|t| t.tool.approved);
                (self.tool.is_some(), says(approved.then_some(Permission::Allowed)))
            }
            ResolvedFrom::FailSafe => (true, says(Some(FAIL_SAFE.0))),
        }
    }

    fn category_default(&self, name: &Name) -> Option<Permission> {
        self.rules.catalog.categories.iter().find(|c| c.name == *name)?.default_permission
    }
}

const fn fallback_name(level: Level) -> ResolvedFrom {
    match level {
        Level::ToolDefault => ResolvedFrom::ToolDefault,
        Level::CategoryDefault => ResolvedFrom::CategoryDefault,
        Level::ToolApproved => ResolvedFrom::ToolApproved,
        _ => ResolvedFrom::FailSafe,
    }
}
