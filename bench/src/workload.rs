//! A policy of `n` rules over 1,000 tenants × 100 tools × 50 resources × 5 methods, and calls.

use std::collections::HashSet;
use std::sync::Arc;

use oakallow_policy::pin::ChangedDefinition;
use oakallow_policy::rule::Permission;
use oakallow_policy::ruleset::{CompileError, OrgPolicy, Unregistered};
use oakallow_policy::tool::default_audience;
use oakallow_policy::{Call, Name, Rule, RuleSet, Tool};

/// The sizes that are measured.
pub const SIZES: [usize; 4] = [10, 1_000, 100_000, 1_000_000];

const TENANTS: usize = 1_000;
const TOOLS: usize = 100;
const RESOURCES: usize = 50;
const METHODS: usize = 5;
/// Of every 1,000 rules, so many are the org's; the others are spread evenly over the tenants.
const ORG_PER_MILLE: usize = 10;
/// The org has at most so many, so that its share of a million does not exceed what is plausible.
const ORG_MAX: usize = 1_000;

/// SplitMix64: small, good enough, and the same everywhere.
pub struct Random(u64);

impl Random {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

/// The rules as data: what each engine is built from.
pub struct Workload {
    /// The org's part.
    pub policy: OrgPolicy,
    /// Each tenant with its rules.
    pub tenants: Vec<(Name, Vec<Rule>)>,
}

/// The names of a call. They are shared between calls, as the names of real calls are warm: a proxy has
/// just parsed them. What varies is which rules a call needs.
#[derive(Clone)]
pub struct OwnedCall {
    /// Tenant.
    pub tenant: Arc<str>,
    /// Tool.
    pub tool: Arc<str>,
    /// Resource.
    pub resource: Arc<str>,
    /// Method.
    pub method: Arc<str>,
}

impl OwnedCall {
    /// Borrowed, as resolution takes it.
    #[must_use]
    pub fn as_call(&self) -> Call<'_> {
        Call {
            org: "bench",
            tenant: Some(&self.tenant),
            principal: "agent-1",
            audience: "default",
            tool: &self.tool,
            resource: Some(&self.resource),
            method: Some(&self.method),
        }
    }
}

/// Each distinct name once.
#[derive(Default)]
struct Shared(HashSet<Arc<str>>);

impl Shared {
    fn name(&mut self, name: &Name) -> Arc<str> {
        if let Some(known) = self.0.get(name.as_str()) {
            return known.clone();
        }
        let new: Arc<str> = name.as_str().into();
        self.0.insert(new.clone());
        new
    }
}

#[expect(clippy::expect_used, reason = "formatted from numbers")]
fn name(what: &str, n: usize) -> Name {
    Name::new(&format!("{what}-{n:04}")).expect("a plain name")
}

fn tool(n: usize) -> Name {
    name("tool", n)
}

fn resource(n: usize) -> Name {
    name("server-prod", n)
}

fn method(n: usize) -> Name {
    name("method", n)
}

impl Workload {
    /// A policy with exactly `rules` rules.
    #[must_use]
    pub fn new(rules: usize) -> Self {
        let mut random = Random::new(rules as u64);
        let org_rules = (rules * ORG_PER_MILLE / 1_000).clamp(1, ORG_MAX);
        let tenant_rules = rules - org_rules;
        let tenant_count = (tenant_rules / 990).clamp(1, TENANTS);
        let mut serial = 0;
        let tenants = (0..tenant_count)
            .map(|t| {
                let own = tenant_rules / tenant_count + usize::from(t < tenant_rules % tenant_count);
                let tenant = name("tenant", t);
                let rules = scope_rules(&mut random, Some(&tenant), own, &mut serial);
                (tenant, rules)
            })
            .collect::<Vec<_>>();
        let policy = OrgPolicy {
            org: name("bench", 0),
            unregistered: Unregistered::default(),
            changed_definition: ChangedDefinition::default(),
            categories: Vec::new(),
            tools: (0..TOOLS).map(bench_tool).collect(),
            pins: Vec::new(),
            kill_switches: Vec::new(),
            rules: scope_rules(&mut random, None, org_rules, &mut serial),
            tenants: tenants.iter().map(|(t, _)| t.clone()).collect(),
        };
        Self { policy: OrgPolicy { org: plain("bench"), ..policy }, tenants }
    }

    /// Compiles it.
    pub fn compile(&self) -> Result<RuleSet, CompileError> {
        let mut set = RuleSet::compile(&self.policy, 1)?;
        for (tenant, rules) in &self.tenants {
            set.load_tenant(tenant, rules)?;
        }
        Ok(set)
    }

    /// Calls over all tenants, tools, resources and methods; half of them are what some rule names.
    #[must_use]
    pub fn calls(&self, count: usize) -> Vec<OwnedCall> {
        let mut random = Random::new(count as u64 ^ 0xCA11);
        let mut shared = Shared::default();
        (0..count).map(|i| self.call(&mut random, &mut shared, i % 2 == 0)).collect()
    }

    #[expect(clippy::indexing_slicing, reason = "drawn below the length; there is at least one tenant")]
    fn call(&self, random: &mut Random, shared: &mut Shared, from_rule: bool) -> OwnedCall {
        let (tenant, rules) = &self.tenants[random.below(self.tenants.len())];
        let (t, r, m) =
            (tool(random.below(TOOLS)), resource(random.below(RESOURCES)), method(random.below(METHODS)));
        let rule = (from_rule && !rules.is_empty()).then(|| &rules[random.below(rules.len())]);
        let mut pick = |named: Option<&Name>, drawn: &Name| shared.name(named.unwrap_or(drawn));
        OwnedCall {
            tool: pick(rule.and_then(|r| r.tool.as_ref()), &t),
            resource: pick(rule.and_then(|r| r.resource.as_ref()), &r),
            method: pick(rule.and_then(|r| r.method.as_ref()), &m),
            tenant: shared.name(tenant),
        }
    }
}

#[expect(clippy::expect_used, reason = "a constant")]
fn plain(text: &str) -> Name {
    Name::new(text).expect("a plain name")
}

fn bench_tool(n: usize) -> Tool {
    Tool {
        name: tool(n),
        audience: default_audience(),
        description: String::new(),
        category: None,
        risk_level: oakallow_policy::RiskLevel::Medium,
        parameter_schema: None,
        default_permission: None,
        approved: n.is_multiple_of(2),
        enabled: true,
        resource: oakallow_policy::tool::ResourceUse::Optional,
        approval: oakallow_policy::tool::ApprovalSettings::default(),
    }
}

/// `count` rules of one scope, all with different selectors, over all eight levels.
fn scope_rules(random: &mut Random, tenant: Option<&Name>, count: usize, serial: &mut usize) -> Vec<Rule> {
    let mut seen = HashSet::new();
    let mut rules = Vec::with_capacity(count);
    while rules.len() < count {
        let selector = selector(random);
        if !seen.insert(selector) {
            continue;
        }
        let (t, r, m) = selector;
        *serial += 1;
        rules.push(Rule {
            id: Some(name("rul_000000000000000000000", *serial)),
            tenant: tenant.cloned(),
            tool: t.map(tool),
            resource: r.map(resource),
            method: m.map(method),
            permission: permission(random).into(),
            guardrail: false,
        });
    }
    rules
}

type Selector = (Option<usize>, Option<usize>, Option<usize>);

/// Weighted like a policy that people write: most rules name a tool, few are wildcards.
fn selector(random: &mut Random) -> Selector {
    let (t, r, m) = (random.below(TOOLS), random.below(RESOURCES), random.below(METHODS));
    match random.below(100) {
        0..40 => (Some(t), Some(r), Some(m)),
        40..65 => (Some(t), Some(r), None),
        65..80 => (Some(t), None, Some(m)),
        80..88 => (Some(t), None, None),
        88..95 => (None, Some(r), Some(m)),
        95..98 => (None, Some(r), None),
        98 => (None, None, Some(m)),
        _ => (None, None, None),
    }
}

fn permission(random: &mut Random) -> Permission {
    match random.below(3) {
        0 => Permission::Allowed,
        1 => Permission::RequiresApproval,
        _ => Permission::Disabled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_has_exactly_the_rules_asked_for() {
        for n in [10, 1_000, 20_000] {
            let workload = Workload::new(n);
            assert_eq!(workload.compile().unwrap().rule_count(), n);
        }
    }

    #[test]
    fn calls_reach_all_answers() {
        let workload = Workload::new(1_000);
        let set = workload.compile().unwrap();
        let mut seen = HashSet::new();
        for call in workload.calls(2_000) {
            let decision = set.resolve(&call.as_call()).unwrap();
            seen.insert((decision.permission(), decision.level()));
        }
        assert!(seen.len() > 15, "{seen:?}");
    }
}
