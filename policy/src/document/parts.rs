//! A policy that is kept in several files: each is a part, and all of them together are the document.

use serde::Deserialize;

use super::faults::{Fault, Segment};
use super::{Document, DocumentError, Written, WrittenRule, from_yaml};
use crate::id::Name;
use crate::rule::Rule;
use crate::ruleset::{OrgPolicy, Unregistered};
use crate::tool::{Category, Tool};

/// One file. What it says, it says for the whole.
#[derive(Debug, Clone)]
pub struct Part {
    file: String,
    text: String,
    says: Says,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a part of a policy: a mapping")]
struct Says {
    #[serde(default)]
    org: Option<Name>,
    #[serde(default)]
    unregistered: Option<Unregistered>,
    #[serde(default)]
    tenants: Vec<Name>,
    #[serde(default)]
    categories: Vec<Category>,
    #[serde(default)]
    tools: Vec<Tool>,
    #[serde(default)]
    rules: Vec<WrittenRule>,
}

impl Part {
    /// Reads a part; `file` is for errors.
    pub fn parse(file: &str, text: &str) -> Result<Self, DocumentError> {
        let says = from_yaml(file, text)?;
        Ok(Self { file: file.to_owned(), text: text.to_owned(), says })
    }

    /// Whether two parts differ in nothing but order, spelling and the names of rules.
    #[must_use]
    pub fn says_the_same_as(&self, other: &Self) -> bool {
        self.says.in_order() == other.says.in_order()
    }
}

impl Says {
    fn in_order(&self) -> Self {
        let mut says = self.clone();
        says.tenants.sort();
        says.categories.sort_by(|a, b| a.name.cmp(&b.name));
        says.tools.sort_by(|a, b| a.name.cmp(&b.name));
        for rule in &mut says.rules {
            rule.id = None;
        }
        let selector = |rule: &WrittenRule| {
            (rule.tenant.clone(), rule.resource.clone(), rule.tool.clone(), rule.method.clone())
        };
        says.rules.sort_by_key(selector);
        says
    }
}

impl Document {
    /// Puts the parts together and checks the whole. One of them names the org.
    pub fn of_parts(parts: &[Part]) -> Result<Self, DocumentError> {
        let org = only(parts, "org", |says| says.org.clone())?;
        let unregistered = only(parts, "unregistered", |says| says.unregistered)?;
        let Some(org) = org else {
            let file = parts.first().map(|part| part.file.clone()).unwrap_or_default();
            let message = "no file of the policy names the `org`".to_owned();
            return Err(DocumentError { file, at: None, message, hint: None });
        };
        let mut whole = Written {
            org,
            unregistered: unregistered.unwrap_or_default(),
            tenants: Vec::new(),
            categories: Vec::new(),
            tools: Vec::new(),
            kill_switches: Vec::new(),
            rules: Vec::new(),
        };
        for part in parts {
            whole.tenants.extend_from_slice(&part.says.tenants);
            whole.categories.extend_from_slice(&part.says.categories);
            whole.tools.extend_from_slice(&part.says.tools);
            whole.rules.extend_from_slice(&part.says.rules);
        }
        let (policy, rules): (OrgPolicy, Vec<Rule>) = whole.split();
        Self::check(policy.clone(), &rules).map_err(|fault| shown(fault, parts, &policy))
    }
}

/// What one part says, and no other.
fn only<T>(
    parts: &[Part],
    what: &str,
    says: impl Fn(&Says) -> Option<T>,
) -> Result<Option<T>, DocumentError> {
    let mut said = parts.iter().filter_map(|part| Some((part, says(&part.says)?)));
    let Some((first, value)) = said.next() else { return Ok(None) };
    let Some((second, _)) = said.next() else { return Ok(Some(value)) };
    Err(DocumentError {
        file: second.file.clone(),
        at: None,
        message: format!("`{what}` stands in {} already", first.file),
        hint: Some("keep one of the two".to_owned()),
    })
}

/// A fault of the whole, in the file where it stands.
fn shown(fault: Fault, parts: &[Part], policy: &OrgPolicy) -> DocumentError {
    let at = |path: &[Segment]| place(parts, path);
    let (part, path) = at(fault.path()).unzip();
    let first = at(fault.first());
    let Some((part, path)) = part.zip(path) else {
        let file = parts.first().map(|part| part.file.clone()).unwrap_or_default();
        return fault.shown(&file, "", policy);
    };
    let elsewhere = first.filter(|(first, _)| first.file != part.file);
    let first = first_of(&fault, parts, part);
    let mut error = fault.moved(path, first).shown(&part.file, &part.text, policy);
    if let Some((first, _)) = elsewhere {
        error.hint = Some(format!("keep one of the two; the first stands in {}", first.file));
    }
    error
}

/// The other place, when it is in the same file.
fn first_of(fault: &Fault, parts: &[Part], part: &Part) -> Vec<Segment> {
    place(parts, fault.first())
        .filter(|(first, _)| first.file == part.file)
        .map(|(_, path)| path)
        .unwrap_or_default()
}

/// The part that a path into the whole leads to, and the path in it.
fn place<'p>(parts: &'p [Part], path: &[Segment]) -> Option<(&'p Part, Vec<Segment>)> {
    let [Segment::Key(list), Segment::Item(at), rest @ ..] = path else { return None };
    let mut left = *at;
    for part in parts {
        let length = match list.first().copied()? {
            "tenants" => part.says.tenants.len(),
            "categories" => part.says.categories.len(),
            "tools" => part.says.tools.len(),
            "rules" => part.says.rules.len(),
            _ => return None,
        };
        if left < length {
            let mut local = vec![Segment::Key(list), Segment::Item(left)];
            local.extend_from_slice(rest);
            return Some((part, local));
        }
        left -= length;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(texts: &[&str]) -> Result<Document, DocumentError> {
        let parts = texts.iter().enumerate().map(|(i, text)| Part::parse(&format!("{i}.yaml"), text));
        Document::of_parts(&parts.collect::<Result<Vec<_>, _>>()?)
    }

    #[test]
    fn parts_are_one_document() {
        let parts = document(&[
            "org: demo\ntenants: [acme]\n",
            "tools: [{name: read, category: data}]\n",
            "categories: [{name: data}]\nrules: [{tenant: acme, tool: read, permission: allowed}]\n",
        ])
        .unwrap();
        let whole = "org: demo\ntenants: [acme]\ntools: [{name: read, category: data}]\ncategories: [{name: data}]\n\
                     rules: [{tenant: acme, tool: read, permission: allowed}]\n";
        assert_eq!(parts, Document::parse("x", whole).unwrap());
    }

    #[test]
    fn a_fault_is_shown_in_the_file_where_it_stands() {
        for (texts, told) in [
            (
                ["org: demo\n", "tools:\n  - name: a\n", "tools:\n  - name: b\n  - name: a\n"],
                "2.yaml:3:11: tool `a` is defined twice\n  hint: keep one of the two; the first stands in 1.yaml",
            ),
            (
                ["org: demo\n", "tools:\n  - name: b\n  - name: a\n    category: none\n", ""],
                "1.yaml:4:15: tool `a` names the category `none`",
            ),
            (["org: demo\n", "org: demo\n", ""], "1.yaml: `org` stands in 0.yaml already"),
            (["tenants: []\n", "rules: []\n", ""], "0.yaml: no file of the policy names the `org`"),
            (["org: demo\n", "rules:\n  - tool: x\n", ""], "1.yaml:2:5: "),
            (["org: demo\n", "kill_switches: []\n", ""], "1.yaml:1:1: unknown field"),
        ] {
            let texts: Vec<&str> = texts.into_iter().filter(|text| !text.is_empty()).collect();
            let error = document(&texts).unwrap_err().to_string();
            assert!(error.contains(told), "{error}\n{told}");
        }
    }

    #[test]
    fn order_and_the_names_of_rules_say_nothing() {
        let part = |text: &str| Part::parse("x", text).unwrap();
        let one = part("rules: [{id: a, tool: x, permission: allowed}, {tool: y, permission: disabled}]");
        let other =
            part("rules:\n  - {tool: y, permission: disabled} # never\n  - {tool: x, permission: allowed}\n");
        assert!(one.says_the_same_as(&other));
        assert!(!one.says_the_same_as(&part("rules: [{tool: x, permission: allowed}]")));
    }
}
