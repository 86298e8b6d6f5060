//! What the layout must hold for rule sets larger and odder than the model's.

use super::cell::RuleCell;
use super::names::NameRef;
use super::{Hashes, Index, first_with, hash_name};
use crate::call::Call;
use crate::id::Name;
use crate::level::Level;
use crate::rule::{Permission, Rule};

fn rule(tool: Option<usize>, resource: Option<usize>, method: Option<usize>, serial: usize) -> Rule {
    // Of all lengths, so that tools' names take one cell, or several, or end where a cell ends.
    let name = |what: &str, n: Option<usize>| {
        n.map(|n| Name::new(&format!("{what}{n}{}", "x".repeat(n % 40))).unwrap())
    };
    Rule {
        id: Some(Name::new(&format!("rule-{serial}")).unwrap()),
        tenant: None,
        tool: name("tool", tool),
        resource: name("resource", resource),
        method: name("method", method),
        permission: Permission::Disabled.into(),
        guardrail: false,
    }
}

#[test]
fn every_rule_is_found_by_its_own_selector_and_has_its_own_id() {
    let some = |n: usize| (0..n).map(Some).chain([None]);
    let mut rules = Vec::new();
    for tool in some(120) {
        // One tool has many rules, the others few.
        let resources = if tool == Some(7) { 900 } else { 5 };
        for resource in some(resources) {
            for method in some(3) {
                rules.push(rule(tool, resource, method, rules.len()));
            }
        }
    }
    let index = Index::compile(&rules.iter().collect::<Vec<_>>()).ok().unwrap();
    assert_eq!(index.len(), rules.len());
    for rule in &rules {
        assert_eq!(index.same_selector(rule), rule.id.as_deref());
    }
    for absent in [rule(Some(120), None, None, 0), rule(Some(3), Some(900), None, 0)] {
        assert_eq!(index.same_selector(&absent), None);
    }
}

#[test]
fn the_place_of_a_tag_is_found_however_uneven_the_tags_are() {
    let even = (0..1_000).map(|n| n * 4_000_000).collect::<Vec<u32>>();
    let low = (0..1_000).map(|n| n * 3).collect::<Vec<u32>>();
    let high = (0..1_000).map(|n| u32::MAX - 3_000 + n * 3).collect::<Vec<u32>>();
    let same = vec![77; 1_000];
    for tags in [even, low, high, same, vec![5], Vec::new()] {
        let cells: Vec<_> = tags.iter().map(|tag| cell(*tag)).collect();
        for tag in tags.iter().flat_map(|tag| [tag.saturating_sub(1), *tag, tag.saturating_add(1)]) {
            assert_eq!(first_with(&cells, tag), tags.partition_point(|t| *t < tag), "{tag}");
        }
        assert_eq!(first_with(&cells, 0), 0);
        assert_eq!(first_with(&cells, u32::MAX), tags.partition_point(|t| *t < u32::MAX));
    }
}

fn cell(tag: u32) -> super::Cell {
    let (level, permission) = (Level::Wildcard, Permission::Allowed);
    RuleCell { tag, resource: NameRef::NONE, method: NameRef::NONE, level, permission }.write()
}

#[test]
fn an_empty_name_is_not_an_absent_one() {
    let rules = [rule(Some(1), None, None, 0), rule(None, None, None, 1)];
    let index = Index::compile(&rules.iter().collect::<Vec<_>>()).ok().unwrap();
    let (org, principal, audience) = ("o", "p", "a");
    let tool = rules[0].tool.as_deref().unwrap();
    let call = Call { org, tenant: None, principal, audience, tool, resource: Some(""), method: Some("") };
    let hashes = Hashes::of(&call, hash_name(tool));
    for level in Level::RULES {
        let found = index.find(level, &hashes, &call).is_some();
        assert_eq!(found, matches!(level, Level::Tool | Level::Wildcard), "{level:?}");
    }
}
