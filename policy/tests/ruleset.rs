//! Facts about large rule sets: their size, what a change shares, and the errors of putting one together.

#![allow(clippy::unwrap_used, reason = "a test")]

use oakallow_policy::id::{Kind, new_id};
use oakallow_policy::pin::{ChangedDefinition, Pin};
use oakallow_policy::resolve::ResolveError;
use oakallow_policy::ruleset::{CompileError, OrgPolicy, Unregistered};
use oakallow_policy::{Call, Name, Permission, Rule, RuleSet, Tool};

const TENANTS: usize = 1_000;
const RULES_PER_TENANT: usize = 100;
const BYTES_PER_RULE_MAX: usize = 64;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn policy(tenants: Vec<Name>) -> OrgPolicy {
    OrgPolicy {
        org: name("demo"),
        unregistered: Unregistered::ByRule,
        changed_definition: ChangedDefinition::default(),
        categories: Vec::new(),
        tools: Vec::new(),
        pins: Vec::new(),
        kill_switches: Vec::new(),
        rules: Vec::new(),
        tenants,
    }
}

/// Ten resources with ten methods each; ids as the backend makes them, of 30 characters.
fn rules_of(tenant: &Name, number: usize, permission: Permission) -> Vec<Rule> {
    let rule = |i: usize| Rule {
        id: Some(name(&new_id(Kind::Rule, (number * RULES_PER_TENANT + i) as u64, [7; 10]))),
        tenant: Some(tenant.clone()),
        resource: Some(name(&format!("server-{:03}", i / 10))),
        tool: None,
        method: Some(name(&format!("method-{:03}", i % 10))),
        permission: permission.into(),
        guardrail: false,
    };
    (0..RULES_PER_TENANT).map(rule).collect()
}

fn ask<'r>(set: &'r RuleSet, tenant: &str) -> Result<(Permission, &'r str), ResolveError> {
    let call = Call {
        org: "demo",
        tenant: Some(tenant),
        principal: "agent-1",
        audience: "default",
        tool: "any",
        resource: Some("server-003"),
        method: Some("method-004"),
    };
    set.resolve(&call).map(|d| (d.permission(), d.rule().unwrap()))
}

#[test]
fn a_rule_takes_few_bytes_and_a_change_shares_the_rest() {
    let tenants: Vec<Name> = (0..TENANTS).map(|i| name(&format!("tenant-{i:04}"))).collect();
    let mut set = RuleSet::compile(&policy(tenants.clone()), 1).unwrap();
    for (i, tenant) in tenants.iter().enumerate() {
        set.load_tenant(tenant, &rules_of(tenant, i, Permission::Allowed)).unwrap();
    }
    assert_eq!(set.rule_count(), TENANTS * RULES_PER_TENANT);
    let bytes = set.heap_bytes() / set.rule_count();
    assert!(bytes <= BYTES_PER_RULE_MAX, "{bytes} bytes per rule");

    let changed = tenants.first().unwrap();
    let next = set.with_tenant(changed, &rules_of(changed, 0, Permission::Disabled), 2).unwrap();
    assert_eq!((set.version(), next.version()), (1, 2));
    assert_eq!(ask(&set, changed).unwrap().0, Permission::Allowed);
    assert_eq!(ask(&next, changed).unwrap().0, Permission::Disabled);
    // A decision borrows the rule's id from its set: the same address is the same compiled rules.
    for tenant in &tenants {
        let (before, after) = (ask(&set, tenant).unwrap().1, ask(&next, tenant).unwrap().1);
        assert_eq!(std::ptr::eq(before, after), tenant != changed, "{tenant}");
    }
}

#[test]
fn a_tenants_rules_stay_with_the_tenant() {
    let (acme, globex) = (name("acme"), name("globex"));
    let mut set = RuleSet::compile(&policy(vec![acme.clone()]), 1).unwrap();
    let own = RuleSet::compile_tenant(&globex, &rules_of(&globex, 0, Permission::Allowed)).unwrap();
    assert_eq!(set.attach(&globex, own).unwrap_err(), CompileError::UnknownTenant(globex.clone()));
    let foreign = rules_of(&globex, 0, Permission::Allowed);
    assert!(matches!(set.load_tenant(&acme, &foreign), Err(CompileError::WrongScope { .. })));
    assert!(!set.is_loaded("acme"), "a refused change leaves nothing behind");
    assert_eq!(ask(&set, "acme"), Err(ResolveError::TenantNotLoaded));
    let policy = OrgPolicy { rules: foreign, ..policy(vec![globex]) };
    assert!(matches!(RuleSet::compile(&policy, 1), Err(CompileError::WrongScope { .. })));
}

#[test]
fn the_second_of_two_rules_with_one_selector_is_refused() {
    let acme = name("acme");
    let mut rules = rules_of(&acme, 0, Permission::Allowed);
    let mut again = rules.last().unwrap().clone();
    again.id = Some(name("again"));
    again.permission = Permission::Disabled.into();
    let first = rules.last().unwrap().label();
    rules.push(again);
    let Err(error) = RuleSet::compile_tenant(&acme, &rules) else { panic!("accepted") };
    assert_eq!(error, CompileError::DuplicateRule { first, second: "again".to_owned() });
}

#[test]
fn a_pin_is_of_one_tool_at_one_audience_and_is_a_digest() {
    let pin = |audience: &str, sha256: &str| Pin {
        tool: name("pay"),
        audience: name(audience),
        sha256: sha256.to_owned(),
        served_sha256: None,
    };
    let tool: Tool = serde_json::from_value(serde_json::json!({"name": "pay", "audience": "bank"})).unwrap();
    let with = |pins| OrgPolicy { tools: vec![tool.clone()], pins, ..policy(Vec::new()) };
    let digest = "0f".repeat(32);
    let set = RuleSet::compile(&with(vec![pin("bank", &digest), pin("shop", &"1f".repeat(32))]), 1).unwrap();
    assert_eq!(set.pin("pay", "bank"), Some((&[0x0f; 32], None)));
    assert_eq!((set.pin("pay", "shop"), set.pin("sell", "bank")), (None, None));
    for bad in ["", "0f", "xx", &digest.to_uppercase()] {
        let refused = RuleSet::compile(&with(vec![pin("bank", bad)]), 1).err();
        assert_eq!(refused, Some(CompileError::BadPin(name("pay"))), "{bad}");
    }
}
