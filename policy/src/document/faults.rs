//! Faults of a document that reads well and makes no sense, and the places where they stand.
//!
//! A place is a path into the document. Its line and column come from the YAML reader itself: the text
//! is read once more, and the reading fails on purpose when it gets there.

use std::collections::HashMap;
use std::fmt;

use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::DocumentError;
use crate::id::Name;
use crate::rule::{Permission, Rule};
use crate::ruleset::{CompileError, KillSwitch, OrgPolicy, numbered};

/// What is wrong, and where.
pub(super) struct Fault {
    error: CompileError,
    path: Vec<Segment>,
    /// The other of two that exclude each other.
    first: Vec<Segment>,
}

/// One step into a document.
#[derive(Clone, Copy)]
pub(super) enum Segment {
    /// A member, by any of its spellings.
    Key(&'static [&'static str]),
    Item(usize),
}

const TENANT: Segment = Segment::Key(&["tenant", "tenant_id"]);

/// An element of a list at the top of the document.
fn item(list: &'static [&'static str], at: usize) -> Vec<Segment> {
    vec![Segment::Key(list), Segment::Item(at)]
}

impl Fault {
    /// A fault that only the compiler knows of.
    pub(super) fn of(error: CompileError) -> Self {
        Self { error, path: Vec::new(), first: Vec::new() }
    }

    fn at(error: CompileError, path: Vec<Segment>, member: Option<Segment>) -> Self {
        Self { error, path: path.into_iter().chain(member).collect(), first: Vec::new() }
    }

    /// Where it is; empty when that is not known.
    pub(super) fn path(&self) -> &[Segment] {
        &self.path
    }

    /// Where the other of two is that exclude each other; empty when there is none.
    pub(super) fn first(&self) -> &[Segment] {
        &self.first
    }

    /// The same fault at other places.
    pub(super) fn moved(self, path: Vec<Segment>, first: Vec<Segment>) -> Self {
        Self { path, first, ..self }
    }

    /// The fault as people read it.
    pub(super) fn shown(self, file: &str, text: &str, policy: &OrgPolicy) -> DocumentError {
        let place = |path: &[Segment]| (!path.is_empty()).then(|| locate(text, path)).flatten();
        let hint = match place(&self.first) {
            Some((line, _)) => Some(format!("keep one of the two; the first stands in line {line}")),
            None => remedy(&self.error, policy),
        };
        DocumentError { file: file.to_owned(), at: place(&self.path), message: self.error.to_string(), hint }
    }
}

/// Everything that the compiler would refuse in a document, found where it stands; and what only makes no
/// sense in one: an id given twice, a kill switch for a tenant that does not exist.
pub(super) fn check(policy: &OrgPolicy, rules: &[Rule]) -> Result<(), Fault> {
    twice("tenant", &["tenants"], policy.tenants.iter().map(Some), None)?;
    twice("category", &["categories"], policy.categories.iter().map(|c| Some(&c.name)), Some(NAME))?;
    twice("tool", &["tools"], policy.tools.iter().map(|t| Some(&t.name)), Some(NAME))?;
    tools(policy)?;
    kill_switches(policy)?;
    for (i, rule) in rules.iter().enumerate() {
        single(policy, rule)
            .map_err(|(error, member)| Fault::at(error, item(&["rules"], i), Some(member)))?;
    }
    selectors(rules)?;
    twice("rule", &["rules"], rules.iter().map(|r| r.id.as_ref()), Some(Segment::Key(&["id"])))
}

const NAME: Segment = Segment::Key(&["name"]);

fn twice<'n>(
    what: &'static str,
    list: &'static [&'static str],
    names: impl Iterator<Item = Option<&'n Name>>,
    member: Option<Segment>,
) -> Result<(), Fault> {
    let mut seen = HashMap::new();
    for (i, name) in names.enumerate() {
        let Some(name) = name else { continue };
        if let Some(first) = seen.insert(name, i) {
            let error = CompileError::DuplicateName { what, name: name.clone() };
            return Err(Fault { first: item(list, first), ..Fault::at(error, item(list, i), member) });
        }
    }
    Ok(())
}

fn tools(policy: &OrgPolicy) -> Result<(), Fault> {
    for (i, tool) in policy.tools.iter().enumerate() {
        let unknown = tool.category.as_ref().filter(|c| !policy.categories.iter().any(|k| k.name == **c));
        if let Some(category) = unknown {
            let error = CompileError::UnknownCategory { tool: tool.name.clone(), category: category.clone() };
            return Err(Fault::at(error, item(&["tools"], i), Some(Segment::Key(&["category"]))));
        }
        crate::ruleset::check_tool(tool)
            .map_err(|e| Fault::at(e, item(&["tools"], i), Some(Segment::Key(&["approval"]))))?;
    }
    Ok(())
}

fn kill_switches(policy: &OrgPolicy) -> Result<(), Fault> {
    for (i, switch) in policy.kill_switches.iter().enumerate() {
        match switch {
            KillSwitch::Tenant(tenant) if !policy.tenants.contains(tenant) => {
                let error = CompileError::UnknownTenant(tenant.clone());
                return Err(Fault::at(error, item(&["kill_switches"], i), Some(Segment::Key(&["id"]))));
            }
            _ => {}
        }
    }
    Ok(())
}

/// What can be wrong with a rule by itself, and in which of its members.
fn single(policy: &OrgPolicy, rule: &Rule) -> Result<(), (CompileError, Segment)> {
    let permission = rule.permission.otherwise();
    match &rule.tenant {
        Some(_) if rule.guardrail => {
            Err((CompileError::TenantGuardrail { rule: rule.label() }, Segment::Key(&["guardrail"])))
        }
        Some(tenant) if !policy.tenants.contains(tenant) => {
            Err((CompileError::UnknownTenant(tenant.clone()), TENANT))
        }
        _ if rule.guardrail && permission != Permission::Disabled => {
            let error = CompileError::LooseGuardrail { rule: rule.label(), permission };
            Err((error, Segment::Key(&["permission"])))
        }
        _ => Ok(()),
    }
}

fn selectors(rules: &[Rule]) -> Result<(), Fault> {
    let mut seen = HashMap::new();
    for (i, rule) in rules.iter().enumerate() {
        let selector = (&rule.tenant, &rule.resource, &rule.tool, &rule.method);
        if let Some((at, first)) = seen.insert(selector, (i, rule)) {
            let error = CompileError::DuplicateRule { first: numbered(at, first), second: numbered(i, rule) };
            let first = item(&["rules"], at);
            return Err(Fault { first, ..Fault::at(error, item(&["rules"], i), None) });
        }
    }
    Ok(())
}

fn remedy(error: &CompileError, policy: &OrgPolicy) -> Option<String> {
    let text = match error {
        CompileError::TenantGuardrail { .. } => "leave `tenant` out, or leave `guardrail` out".to_owned(),
        CompileError::LooseGuardrail { .. } => {
            "write `permission: disabled`, or leave `guardrail` out".to_owned()
        }
        CompileError::UnknownCategory { category, .. } => {
            super::similar(category, policy.categories.iter().map(|c| c.name.as_str()))
                .unwrap_or_else(|| "add it to `categories`".to_owned())
        }
        CompileError::UnknownTenant(tenant) => {
            super::similar(tenant, policy.tenants.iter().map(|t| t.as_str()))
                .unwrap_or_else(|| "add it to `tenants`".to_owned())
        }
        _ => return None,
    };
    Some(text)
}

/// Line and column, from 1, of what the path leads to.
fn locate(text: &str, path: &[Segment]) -> Option<(usize, usize)> {
    let stopped = Seek(path).deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
    stopped.location().map(|l| (l.line(), l.column()))
}

/// Follows a path and fails at its end; whatever is there fails, and the reader adds the place.
struct Seek<'p>(&'p [Segment]);

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();
    fn deserialize<D: de::Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("to stop here")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Some((Segment::Key(names), rest)) = self.0.split_first() else {
            return Err(de::Error::custom("here"));
        };
        while let Some(key) = members.next_key::<String>()? {
            if names.contains(&key.as_str()) {
                members.next_value_seed(Seek(rest))?;
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Some((Segment::Item(at), rest)) = self.0.split_first() else {
            return Err(de::Error::custom("here"));
        };
        for _ in 0..*at {
            items.next_element::<IgnoredAny>()?;
        }
        items.next_element_seed(Seek(rest)).map(|_| ())
    }
}
