//! The index against a model that anyone can check by reading: a loop over all rules, written from the
//! design's text. Names come from small alphabets, so that matches, ties and near misses are frequent.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::collections::BTreeSet;

use oakallow_policy::pin::{ChangedDefinition, Pin};
use oakallow_policy::resolve::ResolveError;
use oakallow_policy::ruleset::{KillSwitch, OrgPolicy, Unregistered};
use oakallow_policy::tool::{ApprovalSettings, Category, ResourceUse, Tool};
use oakallow_policy::{Call, Name, Permission, RiskLevel, Rule, RuleSet};
use proptest::prelude::*;

const TENANTS: [&str; 3] = ["acme", "globex", "initech"];
const TOOLS: [&str; 4] = ["read", "write", "drop", "nobody"];
const AUDIENCES: [&str; 2] = ["default", "ops"];
const RESOURCES: [&str; 3] = ["db", "web", "vault"];
const METHODS: [&str; 3] = ["now", "later", "erase"];
const AGENTS: [&str; 2] = ["agent-1", "agent-2"];

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

// --- the model -------------------------------------------------------------------------------------------

#[derive(Debug, PartialEq)]
struct Answer {
    permission: Permission,
    from: String,
    rule: Option<String>,
    unregistered: bool,
    definition_changed: bool,
}

fn fits(selector: Option<&Name>, value: Option<&str>) -> bool {
    selector.is_none_or(|wanted| value == Some(wanted.as_str()))
}

fn matches(rule: &Rule, call: &Call<'_>) -> bool {
    fits(rule.tool.as_ref(), Some(call.tool))
        && fits(rule.resource.as_ref(), call.resource)
        && fits(rule.method.as_ref(), call.method)
}

/// The table of the design: selector → number of the level, and its name.
fn level(rule: &Rule) -> (u8, &'static str) {
    match (rule.resource.is_some(), rule.tool.is_some(), rule.method.is_some()) {
        (true, true, true) => (1, "resource_tool_method"),
        (true, true, false) => (2, "resource_tool"),
        (false, true, true) => (3, "tool_method"),
        (false, true, false) => (4, "tool"),
        (true, false, true) => (5, "resource_method"),
        (true, false, false) => (6, "resource"),
        (false, false, true) => (7, "method"),
        (false, false, false) => (8, "wildcard"),
    }
}

fn stops(switch: &KillSwitch, call: &Call<'_>) -> bool {
    match switch {
        KillSwitch::Org => true,
        KillSwitch::Tenant(t) => call.tenant == Some(t.as_str()),
        KillSwitch::Agent(a) => call.principal == a.as_str(),
        KillSwitch::Tool(t) => call.tool == t.as_str(),
    }
}

fn model(policy: &OrgPolicy, tenant_rules: &[Rule], call: &Call<'_>) -> Result<Answer, ResolveError> {
    if call.tenant.is_some_and(|t| !policy.tenants.iter().any(|known| known.as_str() == t)) {
        return Err(ResolveError::UnknownTenant);
    }
    let tool =
        policy.tools.iter().find(|t| t.name.as_str() == call.tool && t.audience.as_str() == call.audience);
    let answer = |permission, from: &str, rule: Option<&Rule>| {
        let distrusted = tool.is_none() && policy.unregistered == Unregistered::RequiresApproval;
        let permission = if permission == Permission::Allowed && distrusted {
            Permission::RequiresApproval
        } else {
            permission
        };
        let definition_changed = tool.is_some_and(|t| {
            policy
                .pins
                .iter()
                .any(|pin| pin.tool == t.name && pin.audience == t.audience && pin.served_sha256.is_some())
        });
        let permission = match (policy.changed_definition, permission) {
            (ChangedDefinition::Disabled, _) if definition_changed => Permission::Disabled,
            (ChangedDefinition::RequiresApproval, Permission::Allowed) if definition_changed => {
                Permission::RequiresApproval
            }
            (_, permission) => permission,
        };
        let rule = rule.map(|r| r.id.as_ref().unwrap().to_string());
        Ok(Answer {
            permission,
            from: from.to_owned(),
            rule,
            unregistered: tool.is_none(),
            definition_changed,
        })
    };
    if policy.kill_switches.iter().any(|s| stops(s, call)) {
        return answer(Permission::Disabled, "kill_switch", None);
    }
    if tool.is_some_and(|t| !t.enabled) {
        return answer(Permission::Disabled, "tool_disabled", None);
    }
    let guardrails = policy.rules.iter().filter(|r| r.guardrail && matches(r, call));
    if let Some(rule) = guardrails.min_by_key(|r| level(r).0) {
        return answer(Permission::Disabled, "guardrail", Some(rule));
    }
    if tool.is_some_and(|t| t.resource == ResourceUse::Required) && call.resource.is_none() {
        return Err(ResolveError::ResourceRequired);
    }
    let own = tenant_rules.iter().filter(|r| r.tenant.as_ref().map(Name::as_str) == call.tenant);
    let own: Vec<&Rule> = if call.tenant.is_some() { own.collect() } else { Vec::new() };
    let orgs: Vec<&Rule> = policy.rules.iter().filter(|r| !r.guardrail).collect();
    for (scope, rules) in [("tenant", own), ("org", orgs)] {
        let usable = |r: &&&Rule| matches(r, call) && (tool.is_some() || r.tool.is_none());
        if let Some(rule) = rules.iter().filter(usable).min_by_key(|r| level(r).0) {
            return answer(rule.permission.otherwise(), &format!("{scope}_{}", level(rule).1), Some(rule));
        }
    }
    let category = tool
        .and_then(|t| t.category.as_ref())
        .and_then(|name| policy.categories.iter().find(|c| c.name == *name));
    if let Some(permission) = tool.and_then(|t| t.default_permission) {
        return answer(permission, "tool_default", None);
    }
    if let Some(permission) = category.and_then(|c| c.default_permission) {
        return answer(permission, "category_default", None);
    }
    if tool.is_some_and(|t| t.approved) {
        return answer(Permission::Allowed, "tool_approved", None);
    }
    answer(Permission::RequiresApproval, "fail_safe", None)
}

// --- random policies and calls -----------------------------------------------------------------------------

fn pick<const N: usize>(from: [&'static str; N]) -> impl Strategy<Value = &'static str> {
    (0..N).prop_map(move |i| from[i])
}

fn maybe<const N: usize>(from: [&'static str; N]) -> impl Strategy<Value = Option<Name>> {
    prop::option::of(pick(from).prop_map(name))
}

fn permission() -> impl Strategy<Value = Permission> {
    prop_oneof![Just(Permission::Allowed), Just(Permission::RequiresApproval), Just(Permission::Disabled)]
}

fn rule() -> impl Strategy<Value = Rule> {
    (maybe(TENANTS), maybe(RESOURCES), maybe(TOOLS), maybe(METHODS), permission(), prop::bool::weighted(0.1))
        .prop_map(|(tenant, resource, tool, method, permission, guardrail)| {
            let guardrail = guardrail && tenant.is_none();
            let permission = if guardrail { Permission::Disabled } else { permission };
            Rule { id: None, tenant, resource, tool, method, permission: permission.into(), guardrail }
        })
}

/// Without duplicates, each with an id of its own.
fn rules() -> impl Strategy<Value = Vec<Rule>> {
    prop::collection::vec(rule(), 0..120).prop_map(|all| {
        let mut seen = BTreeSet::new();
        let mut kept: Vec<Rule> = all
            .into_iter()
            .filter(|r| seen.insert((r.tenant.clone(), r.resource.clone(), r.tool.clone(), r.method.clone())))
            .collect();
        kept.iter_mut().enumerate().for_each(|(i, r)| r.id = Some(name(&format!("rul_{i}"))));
        kept
    })
}

fn tool(tool_name: &'static str) -> impl Strategy<Value = Option<Tool>> {
    let parts = (
        pick(AUDIENCES),
        maybe(["plain", "infra"]),
        prop::option::of(permission()),
        any::<bool>(),
        prop::bool::weighted(0.9),
        prop::bool::weighted(0.2),
    );
    prop::option::weighted(
        0.8,
        parts.prop_map(move |(audience, category, default_permission, approved, enabled, required)| Tool {
            name: name(tool_name),
            audience: name(audience),
            description: String::new(),
            category,
            risk_level: RiskLevel::default(),
            parameter_schema: None,
            default_permission,
            approved,
            enabled,
            resource: if required { ResourceUse::Required } else { ResourceUse::Optional },
            approval: ApprovalSettings::default(),
        }),
    )
}

fn kill_switch() -> impl Strategy<Value = KillSwitch> {
    prop_oneof![
        1 => Just(KillSwitch::Org),
        4 => pick(TENANTS).prop_map(|t| KillSwitch::Tenant(name(t))),
        4 => pick(AGENTS).prop_map(|a| KillSwitch::Agent(name(a))),
        4 => pick(TOOLS).prop_map(|t| KillSwitch::Tool(name(t))),
    ]
}

/// Definitions of some of the tools, at some audience.
fn pins() -> impl Strategy<Value = Vec<Pin>> {
    let pin = (pick(TOOLS), pick(AUDIENCES), any::<bool>());
    prop::collection::vec(pin, 0..4).prop_map(|all| {
        let mut seen = BTreeSet::new();
        let once = all.into_iter().filter(|(tool, audience, _)| seen.insert((*tool, *audience)));
        let pin = |(tool, audience, changed): (&str, &str, bool)| Pin {
            tool: name(tool),
            audience: name(audience),
            sha256: "0f".repeat(32),
            served_sha256: changed.then(|| "1f".repeat(32)),
        };
        once.map(pin).collect()
    })
}

fn changed_definition() -> impl Strategy<Value = ChangedDefinition> {
    use ChangedDefinition::{ByRule, Disabled, RequiresApproval};
    prop_oneof![Just(RequiresApproval), Just(Disabled), Just(ByRule)]
}

/// An org's policy and the rules of its tenants.
fn policy() -> impl Strategy<Value = (OrgPolicy, Vec<Rule>)> {
    let switches = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(kill_switch(), 1..3)];
    let tools = (tool("read"), tool("write"), tool("drop"));
    let pins = (pins(), changed_definition());
    (rules(), tools, switches, prop::option::of(permission()), any::<bool>(), pins).prop_map(
        |(rules, (a, b, c), kill_switches, infra, by_rule, (pins, changed_definition))| {
            let (own, orgs) = rules.into_iter().partition(|r| r.tenant.is_some());
            let unregistered = if by_rule { Unregistered::ByRule } else { Unregistered::RequiresApproval };
            let category = |n: &str, default_permission| Category { name: name(n), default_permission };
            let policy = OrgPolicy {
                org: name("demo"),
                unregistered,
                changed_definition,
                categories: vec![category("plain", None), category("infra", infra)],
                tools: [a, b, c].into_iter().flatten().collect(),
                pins,
                kill_switches,
                rules: orgs,
                tenants: TENANTS.map(name).to_vec(),
            };
            (policy, own)
        },
    )
}

fn of_tenant(rules: &[Rule], tenant: &str) -> Vec<Rule> {
    rules.iter().filter(|r| r.tenant.as_ref().is_some_and(|t| t.as_str() == tenant)).cloned().collect()
}

fn compile(policy: &OrgPolicy, tenant_rules: &[Rule]) -> RuleSet {
    let mut set = RuleSet::compile(policy, 1).unwrap();
    for tenant in TENANTS {
        set.load_tenant(&name(tenant), &of_tenant(tenant_rules, tenant)).unwrap();
    }
    set
}

/// Every call that the alphabets can make.
fn every_call(mut ask: impl FnMut(&Call<'_>)) {
    let optional = |names: [&'static str; 3]| names.map(Some).into_iter().chain([None]).collect::<Vec<_>>();
    for tenant in optional(TENANTS).into_iter().chain([Some("stranger")]) {
        for resource in optional(RESOURCES) {
            for method in optional(METHODS) {
                for tool in TOOLS {
                    for audience in AUDIENCES {
                        let principal = AGENTS[usize::from(resource.is_some())];
                        let org = "demo";
                        ask(&Call { org, tenant, principal, audience, tool, resource, method });
                    }
                }
            }
        }
    }
}

fn answer_of(set: &RuleSet, call: &Call<'_>) -> Result<Answer, ResolveError> {
    set.resolve(call).map(|d| Answer {
        permission: d.permission(),
        from: d.resolved_from().to_string(),
        rule: d.rule().map(str::to_owned),
        unregistered: d.unregistered(),
        definition_changed: d.definition_changed(),
    })
}

proptest! {
    // 256 policies, each asked all 640 calls.
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_index_answers_like_the_model((policy, own) in policy()) {
        let set = compile(&policy, &own);
        every_call(|call| {
            let expected = model(&policy, &own, call);
            assert_eq!(answer_of(&set, call), expected, "{call:?}");
            assert_eq!(set.explain(call).map(|e| e.decision), set.resolve(call), "{call:?}");
        });
    }

    #[test]
    fn a_changed_set_answers_like_one_compiled_from_nothing((policy, before) in policy(), after in rules()) {
        let after: Vec<Rule> = after.into_iter().filter(|r| r.tenant.is_some()).collect();
        let mut changed = compile(&policy, &before);
        for tenant in TENANTS {
            changed = changed.with_tenant(&name(tenant), &of_tenant(&after, tenant), 2).unwrap();
        }
        let fresh = compile(&policy, &after);
        every_call(|call| assert_eq!(answer_of(&changed, call), answer_of(&fresh, call), "{call:?}"));
        prop_assert_eq!(changed.version(), 2);
    }

    #[test]
    fn one_tenants_change_leaves_the_others_alone((policy, before) in policy(), after in rules()) {
        let old = compile(&policy, &before);
        let new = old.with_tenant(&name("acme"), &of_tenant(&after, "acme"), 2).unwrap();
        every_call(|call| {
            if call.tenant != Some("acme") {
                assert_eq!(answer_of(&new, call), answer_of(&old, call), "{call:?}");
            }
        });
    }

    #[test]
    fn normalising_twice_changes_nothing(raw in "\\PC{0,40}") {
        if let Ok(once) = Name::new(&raw) {
            prop_assert_eq!(Name::new(once.as_str()).unwrap(), once);
        }
    }
}
