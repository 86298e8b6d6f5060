//! What the files of a policy say, in order and without what goes without saying.

use std::collections::{BTreeMap, BTreeSet};

use oakallow_policy::document::Document;
use oakallow_policy::id::Name;
use oakallow_policy::rule::{Permission, Verdict};
use oakallow_policy::ruleset::Unregistered;
use oakallow_policy::tool::{ApprovalSettings, ResourceUse, RiskLevel, default_audience};
use oakallow_policy::{Category, Rule, Tool};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde_json::Value;

/// What stays as it is in the name of a file.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-').remove(b'.').remove(b'@');
/// Longest name of a file, without its ending; file systems end at 255 bytes.
const FILE_NAME_MAX: usize = 200;

#[derive(Serialize)]
struct Main<'d> {
    org: &'d Name,
    unregistered: Unregistered,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    tenants: BTreeSet<&'d Name>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    categories: Vec<CategoryYaml<'d>>,
}

#[derive(Serialize)]
struct CategoryYaml<'d> {
    name: &'d Name,
    #[serde(skip_serializing_if = "Option::is_none")]
    default_permission: Option<Permission>,
}

#[derive(Serialize)]
struct Tools<'d> {
    tools: Vec<ToolYaml<'d>>,
}

#[derive(Serialize)]
struct ToolYaml<'d> {
    name: &'d Name,
    #[serde(skip_serializing_if = "is_default_audience")]
    audience: &'d Name,
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<&'d Name>,
    risk_level: RiskLevel,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'d str,
    #[serde(skip_serializing_if = "Option::is_none")]
    default_permission: Option<Permission>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    approved: bool,
    #[serde(skip_serializing_if = "Clone::clone")]
    enabled: bool,
    #[serde(skip_serializing_if = "is_optional")]
    resource: ResourceUse,
    #[serde(skip_serializing_if = "is_unset")]
    approval: &'d ApprovalSettings,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter_schema: Option<&'d Value>,
}

fn is_default_audience(audience: &Name) -> bool {
    *audience == default_audience()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's own signature")]
fn is_optional(resource: &ResourceUse) -> bool {
    *resource == ResourceUse::Optional
}

fn is_unset(approval: &ApprovalSettings) -> bool {
    *approval == ApprovalSettings::default()
}

#[derive(Serialize)]
struct Rules<'d> {
    rules: Vec<RuleYaml<'d>>,
}

#[derive(Serialize)]
struct RuleYaml<'d> {
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'d Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<&'d Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<&'d Name>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'d Name>,
    permission: Verdict,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    guardrail: bool,
}

/// Every file, by its path in the directory.
pub(super) fn files(document: &Document) -> anyhow::Result<BTreeMap<String, String>> {
    let policy = &document.policy;
    let mut files = BTreeMap::new();
    let mut add = |name: String, text: String| files.insert(name, text);
    add(super::MAIN.to_owned(), serde_yaml::to_string(&main(document))?);
    let mut by_audience: BTreeMap<&Name, Vec<&Tool>> = BTreeMap::new();
    for tool in &policy.tools {
        by_audience.entry(&tool.audience).or_default().push(tool);
    }
    for (audience, mut tools) in by_audience {
        tools.sort_by(|a, b| a.name.cmp(&b.name));
        let tools = Tools { tools: tools.into_iter().map(tool).collect() };
        add(format!("tools/{}.yaml", file_name(audience)), serde_yaml::to_string(&tools)?);
    }
    if !policy.rules.is_empty() {
        add("rules/org.yaml".to_owned(), serde_yaml::to_string(&rules(&policy.rules))?);
    }
    for (tenant, own) in document.tenant_rules.iter().filter(|(_, own)| !own.is_empty()) {
        add(format!("rules/tenants/{}.yaml", file_name(tenant)), serde_yaml::to_string(&rules(own))?);
    }
    Ok(files)
}

fn main(document: &Document) -> Main<'_> {
    let policy = &document.policy;
    let mut categories: Vec<&Category> = policy.categories.iter().collect();
    categories.sort_by(|a, b| a.name.cmp(&b.name));
    Main {
        org: &policy.org,
        unregistered: policy.unregistered,
        tenants: policy.tenants.iter().collect(),
        categories: categories
            .into_iter()
            .map(|category| CategoryYaml {
                name: &category.name,
                default_permission: category.default_permission,
            })
            .collect(),
    }
}

fn tool(tool: &Tool) -> ToolYaml<'_> {
    ToolYaml {
        name: &tool.name,
        audience: &tool.audience,
        category: tool.category.as_ref(),
        risk_level: tool.risk_level,
        description: &tool.description,
        default_permission: tool.default_permission,
        approved: tool.approved,
        enabled: tool.enabled,
        resource: tool.resource,
        approval: &tool.approval,
        parameter_schema: tool.parameter_schema.as_ref(),
    }
}

/// The ones that say most first, as they win. Ids are the backend's, and not the same at another.
fn rules(rules: &[Rule]) -> Rules<'_> {
    let mut rules: Vec<&Rule> = rules.iter().collect();
    rules.sort_by_key(|rule| (rule.level().number(), &rule.resource, &rule.tool, &rule.method));
    Rules { rules: rules.into_iter().map(rule_yaml).collect() }
}

fn rule_yaml(rule: &Rule) -> RuleYaml<'_> {
    RuleYaml {
        tenant: rule.tenant.as_ref(),
        resource: rule.resource.as_ref(),
        tool: rule.tool.as_ref(),
        method: rule.method.as_ref(),
        permission: rule.permission,
        guardrail: rule.guardrail,
    }
}

/// A name as that of a file. One that is too long ends in a digest of the whole.
fn file_name(name: &Name) -> String {
    let plain = utf8_percent_encode(name, PLAIN).to_string();
    let plain = match plain.strip_prefix('.') {
        Some(rest) => format!("%2E{rest}"),
        None => plain,
    };
    if plain.len() <= FILE_NAME_MAX {
        return plain;
    }
    let digest = oakallow_policy::canonical::hex(&oakallow_policy::canonical::sha256(name.as_bytes()));
    let (start, end) = (plain.get(..FILE_NAME_MAX / 2), digest.get(..32));
    format!("{}%{}", start.unwrap_or_default(), end.unwrap_or_default())
}
