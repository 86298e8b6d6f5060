//! A decision with its reasons: what every gate and level found, and what a match overrode.

use serde::Serialize;

use super::{Decision, Question, ResolveError, Says};
use crate::call::Call;
use crate::id::Name;
use crate::index::{Index, RuleRef};
use crate::level::{Level, ResolvedFrom, RuleScope};
use crate::rule::Permission;
use crate::ruleset::{FAIL_SAFE, RuleSet, TenantRules};

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

impl RuleSet {
    /// Decides a call and says what every gate and level found.
    pub fn explain<'r>(&'r self, call: &Call<'_>) -> Result<Explanation<'r>, ResolveError> {
        let tenant = self.loaded_tenant(call)?;
        let question = self.ask(call, tenant);
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
        let question = self.ask(call, Some(&tenant_rules.0));
        Ok(Explanation { trace: question.trace(&decision), decision })
    }
}

impl<'r> Question<'r, '_> {
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
                    rule: says.and_then(|s| s.rule).map(RuleRef::id),
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
                    RuleScope::Org => Some(&self.rules.org_rules),
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

    fn rule(&self, index: &'r Index, level: Level) -> Option<Says<'r>> {
        if self.tool.is_none() && level.names_tool() {
            return None;
        }
        index.find(level, &self.hashes, self.call).map(Says::from)
    }
}
