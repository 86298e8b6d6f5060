//! The changes that make a backend's policy that of the files.
//!
//! They are several requests, so there are moments between the one policy and the other. What becomes stricter comes
//! before the rules and what becomes looser after them: in no such moment is a call allowed that both policies refuse,
//! unless by rules of several scopes that change at once.

use std::collections::BTreeMap;

use oakallow_policy::document::Document;
use oakallow_policy::id::Name;
use oakallow_policy::rule::Permission;
use oakallow_policy::ruleset::Unregistered;
use oakallow_policy::tool::ResourceUse;
use oakallow_policy::{Category, Rule, Tool};
use serde_json::{Value, json};

use crate::changes::{Act, Change, Verb};
use crate::client::segment;
use crate::differences::{differences, patch};

/// When a change is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    /// What others name.
    Names,
    Stricter,
    Rules,
    Looser,
    /// Tools before the categories that they were in.
    GoneTools,
    GoneCategories,
}

/// Everything that has to be changed, in order; none: the policies are the same. Tenants that the files do not name
/// are left alone, with their rules.
pub(super) fn changes(present: &Document, wanted: &Document) -> Vec<Change> {
    let mut changes = Vec::new();
    changes.extend(settings(present, wanted));
    changes.extend(tenants(present, wanted));
    categories(present, wanted, &mut changes);
    tools(present, wanted, &mut changes);
    changes.extend(scope(None, &present.policy.rules, &wanted.policy.rules));
    let none = Vec::new();
    for (tenant, rules) in &wanted.tenant_rules {
        changes.extend(scope(Some(tenant), present.tenant_rules.get(tenant).unwrap_or(&none), rules));
    }
    // Keeps the order within a turn.
    changes.sort_by_key(|(turn, _)| *turn);
    changes.into_iter().map(|(_, change)| change).collect()
}

/// The tenants that only the backend has.
pub(super) fn unmanaged<'d>(
    present: &'d Document,
    wanted: &'d Document,
) -> impl Iterator<Item = (&'d Name, usize)> {
    let others = present.tenant_rules.iter().filter(|(tenant, _)| !wanted.tenant_rules.contains_key(*tenant));
    others.map(|(tenant, rules)| (tenant, rules.len()))
}

type Step = (Turn, Change);

fn settings(present: &Document, wanted: &Document) -> Option<Step> {
    let (was, is) = (present.policy.unregistered, wanted.policy.unregistered);
    let turn = if is == Unregistered::ByRule { Turn::Looser } else { Turn::Stricter };
    (was != is).then(|| {
        let body = json!({"unregistered": is});
        let details = told(&json!({"unregistered": was}), &body);
        (turn, step(Act::Change, "the org's settings", details, (Verb::Patch, "/v1/settings", body)))
    })
}

fn tenants<'d>(present: &'d Document, wanted: &'d Document) -> impl Iterator<Item = Step> {
    let new = wanted.policy.tenants.iter().filter(|tenant| !present.policy.tenants.contains(tenant));
    new.map(|tenant| {
        let request = (Verb::Post, "/v1/tenants", json!({"id": tenant}));
        (Turn::Names, step(Act::Create, format!("tenant {tenant}"), Vec::new(), request))
    })
}

fn categories(present: &Document, wanted: &Document, changes: &mut Vec<Step>) {
    let key = |category: &Category| category.name.clone();
    for (was, is) in pairs(&present.policy.categories, &wanted.policy.categories, key) {
        let name = was.or(is).map(|category| category.name.to_string()).unwrap_or_default();
        let (what, path) = (format!("category {name}"), format!("/v1/categories/{}", segment(&name)));
        match (was, is) {
            (None, Some(is)) => {
                let request = (Verb::Post, "/v1/categories", json!(is));
                changes.push((
                    Turn::Names,
                    step(Act::Create, what, facts(&json!(is), &["default_permission"]), request),
                ));
            }
            (Some(was), None) => {
                let request = (Verb::Delete, path.as_str(), Value::Null);
                changes
                    .push((Turn::GoneCategories, step(Act::Delete, what, facts(&json!(was), &[]), request)));
            }
            (Some(was), Some(is)) if was != is => {
                let looser = rank(is.default_permission) < rank(was.default_permission);
                let body = json!({"default_permission": is.default_permission});
                let change =
                    step(Act::Change, what, told(&json!(was), &json!(is)), (Verb::Patch, &path, body));
                changes.push((if looser { Turn::Looser } else { Turn::Stricter }, change));
            }
            _ => {}
        }
    }
}

fn tools(present: &Document, wanted: &Document, changes: &mut Vec<Step>) {
    for (was, is) in pairs(&present.policy.tools, &wanted.policy.tools, |tool| tool.name.clone()) {
        let name = was.or(is).map(|tool| tool.name.to_string()).unwrap_or_default();
        let (what, path) = (format!("tool {name}"), format!("/v1/tools/{}", segment(&name)));
        match (was, is) {
            (None, Some(is)) => {
                let shown = facts(
                    &json!(is),
                    &["audience", "category", "risk_level", "default_permission", "approved"],
                );
                changes.push((
                    Turn::Looser,
                    step(Act::Create, what, shown, (Verb::Post, "/v1/tools", json!(is))),
                ));
            }
            (Some(was), None) => {
                let shown = facts(&json!(was), &["audience"]);
                let request = (Verb::Delete, path.as_str(), Value::Null);
                changes.push((Turn::GoneTools, step(Act::Delete, what, shown, request)));
            }
            (Some(was), Some(is)) => changes.extend(changed_tool(was, is, what, &path)),
            (None, None) => {}
        }
    }
}

fn changed_tool(was: &Tool, is: &Tool, what: String, path: &str) -> Option<Step> {
    let (old, new) = (json!(was), json!(is));
    let mut body = patch(old.as_object()?, new.as_object()?, &["parameter_schema"]);
    if body.is_empty() {
        return None;
    }
    // A new definition takes `approved` away, unless it is said along with it.
    body.insert("approved".to_owned(), is.approved.into());
    let turn = if is_stricter(was, is) { Turn::Stricter } else { Turn::Looser };
    Some((turn, step(Act::Change, what, told(&old, &new), (Verb::Patch, path, Value::Object(body)))))
}

/// Whether nothing is allowed by the new one that was not by the old.
fn is_stricter(was: &Tool, is: &Tool) -> bool {
    was.audience == is.audience
        && was.category == is.category
        && rank(is.default_permission) >= rank(was.default_permission)
        && is.risk_level >= was.risk_level
        && (was.approved || !is.approved)
        && (was.enabled || !is.enabled)
        && (was.resource == ResourceUse::Optional || is.resource == ResourceUse::Required)
}

/// How strict a default is; without one, what follows may allow or ask.
fn rank(permission: Option<Permission>) -> u8 {
    match permission {
        Some(Permission::Allowed) => 0,
        None => 1,
        Some(Permission::RequiresApproval) => 2,
        Some(Permission::Disabled) => 3,
    }
}

/// All rules of a scope are replaced at once.
fn scope(tenant: Option<&Name>, present: &[Rule], wanted: &[Rule]) -> Option<Step> {
    let mut details = Vec::new();
    for (was, is) in pairs(present, wanted, label) {
        match (was, is) {
            (None, Some(is)) => details.push(format!("+ {}: {}", label(is), verdict(is))),
            (Some(was), None) => details.push(format!("- {}: {}", label(was), verdict(was))),
            (Some(was), Some(is)) if verdict(was) != verdict(is) => {
                details.push(format!("~ {}: {} -> {}", label(is), verdict(was), verdict(is)));
            }
            _ => {}
        }
    }
    if details.is_empty() {
        return None;
    }
    let rules: Vec<Rule> = wanted.iter().map(|rule| Rule { id: None, ..rule.clone() }).collect();
    let what =
        tenant.map_or_else(|| "rules of the org".to_owned(), |tenant| format!("rules of tenant {tenant}"));
    let body = json!({"tenant_id": tenant, "rules": rules});
    Some((Turn::Rules, step(Act::Change, what, details, (Verb::Put, "/v1/rules", body))))
}

/// What a rule selects; no two of a scope have the same.
fn label(rule: &Rule) -> String {
    Rule { id: None, tenant: None, ..rule.clone() }.label()
}

fn verdict(rule: &Rule) -> String {
    let guardrail = if rule.guardrail { " (guardrail)" } else { "" };
    format!("{}{guardrail}", rule.permission.otherwise())
}

/// What was and what is to be, by key and in its order.
fn pairs<'d, T, K: Ord>(
    present: &'d [T],
    wanted: &'d [T],
    key: impl Fn(&T) -> K,
) -> Vec<(Option<&'d T>, Option<&'d T>)> {
    let mut pairs: BTreeMap<K, (Option<&T>, Option<&T>)> = BTreeMap::new();
    for one in present {
        pairs.entry(key(one)).or_default().0 = Some(one);
    }
    for one in wanted {
        pairs.entry(key(one)).or_default().1 = Some(one);
    }
    pairs.into_values().collect()
}

fn told(was: &Value, is: &Value) -> Vec<String> {
    differences(was, is).iter().map(ToString::to_string).collect()
}

/// The members that somebody who reads a plan looks for, where they are set.
fn facts(value: &Value, members: &[&str]) -> Vec<String> {
    let set = members.iter().filter_map(|name| Some((name, value.get(*name)?)));
    let facts: Vec<String> = set
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| {
            format!("{name}: {}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        })
        .collect();
    if facts.is_empty() { facts } else { vec![facts.join(", ")] }
}

fn step(act: Act, what: impl Into<String>, details: Vec<String>, request: (Verb, &str, Value)) -> Change {
    let (method, path, body) = request;
    Change { act, what: what.into(), details, method, path: path.to_owned(), body }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Document {
        Document::parse("x", text).unwrap()
    }

    fn made(was: &str, is: &str) -> Vec<String> {
        changes(&document(was), &document(is)).into_iter().map(|change| change.what).collect()
    }

    #[test]
    fn the_same_policy_needs_no_change() {
        let policy = "org: demo\ntenants: [a]\ncategories: [{name: c}]\ntools: [{name: t, category: c}]\n\
                      rules: [{id: one, tool: t, permission: allowed}, {tenant: a, permission: disabled}]\n";
        let other = policy.replace("id: one", "id: two");
        assert!(made(policy, &other).is_empty());
    }

    #[test]
    fn what_is_stricter_comes_before_the_rules_and_what_is_looser_after_them() {
        let was = "org: demo\ncategories: [{name: old}]\n\
                   tools: [{name: a}, {name: b, enabled: false}, {name: gone, category: old}]\n";
        let is = "org: demo\nunregistered: by_rule\ntenants: [acme]\ncategories: [{name: new}]\n\
                  tools: [{name: a, enabled: false}, {name: b}, {name: made, category: new}]\n\
                  rules: [{tool: a, permission: allowed}, {tenant: acme, tool: b, permission: disabled}]\n";
        let expected = [
            "tenant acme",
            "category new",
            "tool a",
            "rules of the org",
            "rules of tenant acme",
            "the org's settings",
            "tool b",
            "tool made",
            "tool gone",
            "category old",
        ];
        assert_eq!(made(was, is), expected);
        assert_eq!(
            made(
                "org: demo\nunregistered: by_rule\ntools: [{name: t}]",
                "org: demo\ntools: [{name: t, approved: true}]"
            ),
            ["the org's settings", "tool t"]
        );
    }

    #[test]
    fn a_tenant_that_the_files_do_not_name_is_left_alone_and_told() {
        let was = "org: demo\ntenants: [other]\nrules: [{tenant: other, permission: allowed}]\n";
        let (was, is) = (document(was), document("org: demo\n"));
        assert!(changes(&was, &is).is_empty());
        assert_eq!(
            unmanaged(&was, &is).map(|(tenant, rules)| (tenant.as_str(), rules)).collect::<Vec<_>>(),
            [("other", 1)]
        );
    }

    #[test]
    fn a_changed_tool_says_whether_it_is_approved_still() {
        let was = document("org: demo\ntools: [{name: t, approved: true, approval: {levels: 2}}]\n");
        let is = document("org: demo\ntools: [{name: t, approved: true, description: new}]\n");
        let made = changes(&was, &is);
        let body = &made.first().unwrap().body;
        assert_eq!(body, &json!({"description": "new", "approved": true, "approval": {"levels": null}}));
    }
}
