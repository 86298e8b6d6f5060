//! Resolution: gates, then the walk over the levels. Pure, and without allocation unless explained.

mod explain;

pub use explain::{Explanation, Outcome, Step};

use serde::Serialize;

use crate::call::Call;
use crate::index::{Found, Hashes, Index, RuleRef, hash_name};
use crate::level::{Level, ResolvedFrom, RuleScope};
use crate::pin::ChangedDefinition;
use crate::rule::Permission;
use crate::ruleset::{
    FAIL_SAFE, KillSwitch, RuleSet, TenantRules, ToolEntry, UNREGISTERED_RISK, Unregistered,
};
use crate::tool::{ResourceUse, RiskLevel};

/// What was decided, and why.
///
/// Only resolution makes one, so that nothing but a rule set's word leads to a
/// [`Permit`](crate::Permit):
///
/// ```compile_fail,E0451
/// use oakallow_policy::{Decision, Permission, ResolvedFrom, RiskLevel};
/// let forged = Decision {
///     permission: Permission::Allowed,
///     resolved_from: ResolvedFrom::ToolApproved,
///     rule: None,
///     policy_version: 7,
///     unregistered: false,
///     definition_changed: false,
///     risk_level: RiskLevel::Low,
/// };
/// ```
///
/// nor can it be bent afterwards:
///
/// ```compile_fail,E0616
/// fn soften(mut decision: oakallow_policy::Decision<'_>) {
///     decision.permission = oakallow_policy::Permission::Allowed;
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Decision<'r> {
    permission: Permission,
    resolved_from: ResolvedFrom,
    rule: Option<RuleRef<'r>>,
    policy_version: u64,
    unregistered: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    definition_changed: bool,
    risk_level: RiskLevel,
}

impl<'r> Decision<'r> {
    /// The answer.
    #[must_use]
    pub fn permission(&self) -> Permission {
        self.permission
    }

    /// The gate or level it came from.
    #[must_use]
    pub fn resolved_from(&self) -> ResolvedFrom {
        self.resolved_from
    }

    /// The level, or `None` for a gate.
    #[must_use]
    pub fn level(&self) -> Option<Level> {
        self.resolved_from.level()
    }

    /// The rule that matched, if one did.
    #[must_use]
    pub fn rule(&self) -> Option<&'r str> {
        self.rule.map(RuleRef::id)
    }

    /// The version of the policy that was asked.
    #[must_use]
    pub fn policy_version(&self) -> u64 {
        self.policy_version
    }

    /// Whether the tool is not registered for this audience.
    #[must_use]
    pub fn unregistered(&self) -> bool {
        self.unregistered
    }

    /// Whether the tool server describes the tool otherwise than it was pinned.
    #[must_use]
    pub fn definition_changed(&self) -> bool {
        self.definition_changed
    }

    /// The tool's risk; critical when it is not registered.
    #[must_use]
    pub fn risk_level(&self) -> RiskLevel {
        self.risk_level
    }

    /// The same decision under another version number: for a caller that keeps an org's part and its
    /// tenants' rules apart, each compiled at its own last change, and knows the version of the whole.
    #[must_use]
    pub fn at_version(self, policy_version: u64) -> Self {
        Self { policy_version, ..self }
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

/// What a gate or level says about a call.
#[derive(Clone, Copy)]
struct Says<'r> {
    permission: Permission,
    rule: Option<RuleRef<'r>>,
}

impl<'r> From<Found<'r>> for Says<'r> {
    fn from(found: Found<'r>) -> Self {
        Self { permission: found.permission, rule: Some(found.rule) }
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
        self.ask(call, tenant).decide()
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
        self.ask(call, Some(&tenant_rules.0)).decide()
    }

    /// The same decision about a tool that was just seen with another definition than the pinned one, which
    /// this set does not know yet. Never a looser one.
    #[must_use]
    pub fn distrusted<'r>(&self, decision: Decision<'r>) -> Decision<'r> {
        let permission = match (decision.permission, self.catalog.changed_definition) {
            (_, ChangedDefinition::Disabled) => Permission::Disabled,
            (Permission::Allowed, ChangedDefinition::RequiresApproval) => Permission::RequiresApproval,
            (permission, _) => permission,
        };
        Decision { permission, definition_changed: true, ..decision }
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

    /// Of a call that [`RuleSet::speaks_for`].
    fn ask<'r, 'c>(&'r self, call: &'c Call<'c>, tenant: Option<&'r Index>) -> Question<'r, 'c> {
        let hash = hash_name(call.tool);
        let tool = self.catalog.find(hash, call.tool).filter(|t| t.tool.audience.as_str() == call.audience);
        Question { rules: self, tenant, tool, call, hashes: Hashes::of(call, hash) }
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
        let walk = [(RuleScope::Tenant, self.tenant), (RuleScope::Org, Some(&self.rules.org_rules))];
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
        let index = &self.rules.guardrails;
        if index.len() == 0 {
            return None;
        }
        index.first(&self.hashes, self.call, true).map(|(_, found)| found.into())
    }

    fn decision(&self, resolved_from: ResolvedFrom, says: Says<'r>) -> Decision<'r> {
        let unregistered = self.tool.is_none();
        let distrust = unregistered && self.rules.catalog.unregistered == Unregistered::RequiresApproval;
        let permission = match says.permission {
            Permission::Allowed if distrust => Permission::RequiresApproval,
            permission => permission,
        };
        let decision = Decision {
            permission,
            resolved_from,
            rule: says.rule,
            policy_version: self.rules.version,
            unregistered,
            definition_changed: false,
            risk_level: self.tool.map_or(UNREGISTERED_RISK, |t| t.tool.risk_level),
        };
        if self.tool.is_some_and(|t| t.served.is_some()) { self.rules.distrusted(decision) } else { decision }
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
