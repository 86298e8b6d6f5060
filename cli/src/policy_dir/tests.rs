use oakallow_policy::rule::Permission;
use oakallow_policy::ruleset::Unregistered;
use oakallow_policy::tool::{ApprovalSettings, ResourceUse, RiskLevel};
use oakallow_policy::{Category, Rule, Tool, id::Name};
use proptest::collection::{btree_map, btree_set};
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// Names that a file or YAML could take for something else.
fn name() -> impl Strategy<Value = Name> {
    let odd = prop_oneof![
        "[a-z_]{1,8}",
        "[ -~]{1,12}",
        "\\PC{1,6}",
        Just("null".to_owned()),
        Just("yes".to_owned()),
        Just("1e3".to_owned()),
        Just("0x1F".to_owned()),
        Just("..".to_owned()),
        Just("~".to_owned()),
        Just("- a: [b".to_owned()),
        Just("x".repeat(300)),
    ];
    odd.prop_filter_map("no name", |text| Name::new(&text).ok())
}

fn permission() -> impl Strategy<Value = Permission> {
    prop_oneof![Just(Permission::Allowed), Just(Permission::RequiresApproval), Just(Permission::Disabled)]
}

fn schema() -> impl Strategy<Value = Option<Value>> {
    let text = "\\PC{0,12}";
    option::of((text, any::<i32>(), -1e9..1e9f64, any::<bool>()).prop_map(|(text, whole, part, flag)| {
        json!({"type": "object", "description": text, "properties": {"a": {"minimum": whole, "maximum": part},
            "on": {"enum": [text, flag, null, "no", "1.0", "2024-01-01", ""]}}, "required": [], "default": {}})
    }))
}

fn tool(categories: Vec<Name>) -> impl Strategy<Value = (Name, Option<Name>, Tool)> {
    let risk = prop_oneof![Just(RiskLevel::Low), Just(RiskLevel::Medium), Just(RiskLevel::Critical)];
    let category = option::of(proptest::sample::select(if categories.is_empty() {
        vec![Name::new("none").unwrap()]
    } else {
        categories.clone()
    }));
    let category = category.prop_map(move |category| category.filter(|_| !categories.is_empty()));
    let approval = (option::of(60u32..1000), option::of(1u8..=2))
        .prop_map(|(timeout_s, levels)| ApprovalSettings { timeout_s, levels });
    let text = prop_oneof![Just(String::new()), "[ -~\n]{0,40}", "\\PC{0,20}"];
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (name(), category, risk, approval, text, (flags, option::of(permission()), schema())).prop_map(
        |(
            audience,
            category,
            risk_level,
            approval,
            description,
            (flags, default_permission, parameter_schema),
        )| {
            let resource = if flags.2 { ResourceUse::Required } else { ResourceUse::Optional };
            let tool = Tool {
                name: audience.clone(),
                audience: audience.clone(),
                description,
                category: category.clone(),
                risk_level,
                parameter_schema,
                default_permission,
                approved: flags.0,
                enabled: flags.1,
                resource,
                approval,
            };
            (audience, category, tool)
        },
    )
}

type Selector = (Option<Name>, Option<Name>, Option<Name>);

fn rules(tenant: Option<Name>) -> impl Strategy<Value = Vec<Rule>> {
    let selector = (option::of(name()), option::of(name()), option::of(name()));
    btree_map(selector, (permission(), any::<bool>()), 0..5).prop_map(move |rules| {
        let rule =
            |((resource, tool, method), (permission, guardrail)): (Selector, (Permission, bool))| Rule {
                id: None,
                tenant: tenant.clone(),
                resource,
                tool,
                method,
                permission: permission.into(),
                guardrail: guardrail && tenant.is_none() && permission == Permission::Disabled,
            };
        rules.into_iter().map(rule).collect()
    })
}

/// Any policy, as it would come from a backend.
pub(crate) fn document() -> impl Strategy<Value = Document> {
    let names = (btree_map(name(), option::of(permission()), 0..4), btree_set(name(), 0..3));
    (names, any::<bool>()).prop_flat_map(|((categories, tenants), by_rule)| {
        let known: Vec<Name> = categories.keys().cloned().collect();
        let tools = btree_map(name(), tool(known), 0..5);
        let own: Vec<_> = tenants.iter().map(|tenant| rules(Some(tenant.clone())).boxed()).collect();
        let categories: Vec<Category> = categories
            .into_iter()
            .map(|(name, default_permission)| Category { name, default_permission })
            .collect();
        (tools, rules(None), own).prop_map(move |(tools, rules, own)| {
            let tools = tools.into_iter().map(|(name, (_, _, tool))| Tool { name, ..tool }).collect();
            let mut document = Document::parse("x", "org: demo").unwrap();
            document.policy.unregistered =
                if by_rule { Unregistered::ByRule } else { Unregistered::RequiresApproval };
            document.policy.categories = categories.clone();
            document.policy.tenants = tenants.iter().cloned().collect();
            document.policy.tools = tools;
            document.policy.rules = rules;
            document.tenant_rules = tenants.iter().cloned().zip(own).collect();
            document
        })
    })
}

/// The same policy, however it is ordered.
pub(crate) fn in_order(mut document: Document) -> Document {
    let selector = |rule: &Rule| (rule.resource.clone(), rule.tool.clone(), rule.method.clone());
    document.policy.tools.sort_by(|a, b| a.name.cmp(&b.name));
    document.policy.categories.sort_by(|a, b| a.name.cmp(&b.name));
    document.policy.tenants.sort();
    document.policy.rules.sort_by_key(selector);
    document.tenant_rules.values_mut().for_each(|rules| rules.sort_by_key(selector));
    document
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_what_is_read_and_always_the_same(policy in document()) {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("policy");
        let first = write(&place, &policy).unwrap();
        let read = read(&place).unwrap();
        prop_assert_eq!(in_order(read.clone()), in_order(policy));
        let again = write(&place, &read).unwrap();
        prop_assert_eq!(&again.written, &Vec::<PathBuf>::new());
        prop_assert_eq!(again.kept, first.written.len());
        prop_assert_eq!(yaml::files(&read).unwrap().len(), first.written.len());
    }
}

fn policy(text: &str) -> Document {
    Document::parse("x", text).unwrap()
}

const POLICY: &str = "org: demo\ntenants: [acme]\ncategories: [{name: data}]\n\
    tools: [{name: read, audience: a, category: data}, {name: drop, audience: b}]\n\
    rules: [{tool: read, permission: allowed}, {tenant: acme, tool: drop, permission: disabled}]\n";

#[test]
fn one_file_for_each_audience_and_each_scope_and_no_more_than_needed() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &policy(POLICY)).unwrap();
    let text = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!(
        text("policy.yaml"),
        "org: demo\nunregistered: requires_approval\ntenants:\n- acme\ncategories:\n- name: data\n"
    );
    assert_eq!(
        text("tools/a.yaml"),
        "tools:\n- name: read\n  audience: a\n  category: data\n  risk_level: medium\n"
    );
    assert_eq!(text("rules/org.yaml"), "rules:\n- tool: read\n  permission: allowed\n");
    assert_eq!(
        text("rules/tenants/acme.yaml"),
        "rules:\n- tenant: acme\n  tool: drop\n  permission: disabled\n"
    );
}

#[test]
fn what_says_the_same_is_not_touched_and_what_is_gone_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &policy(POLICY)).unwrap();
    let commented = "# Because of the audit.\nrules: [{id: reads, permission: allowed, tool: read}]\n";
    fs::write(dir.path().join("rules/org.yaml"), commented).unwrap();
    fs::write(dir.path().join("README.md"), "ours").unwrap();
    let less = policy(
        "org: demo\ntenants: [acme]\ncategories: [{name: data}]\nrules: [{tool: read, permission: allowed}]",
    );
    let done = write(dir.path(), &less).unwrap();
    assert_eq!((done.written.len(), done.kept, done.removed.len()), (0, 2, 3), "{done:?}");
    assert_eq!(fs::read_to_string(dir.path().join("rules/org.yaml")).unwrap(), commented);
    assert!(dir.path().join("README.md").exists());
    assert_eq!(in_order(read(dir.path()).unwrap()).policy.rules.len(), 1);
}

#[test]
fn a_directory_that_is_something_else_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.tex"), "x").unwrap();
    let error = write(dir.path(), &policy(POLICY)).unwrap_err().to_string();
    assert!(error.contains("is not empty and has no policy.yaml"), "{error}");
    assert!(read(dir.path()).unwrap_err().to_string().contains("is no policy"));
}

#[test]
fn a_rule_in_a_file_of_another_kind_is_not_missed() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &policy(POLICY)).unwrap();
    fs::write(dir.path().join("rules/more.yaml.orig"), "rules: []").unwrap();
    let error = read(dir.path()).unwrap_err().to_string();
    assert!(error.contains("more.yaml.orig is no YAML file"), "{error}");
}
