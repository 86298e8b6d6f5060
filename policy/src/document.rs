//! Policy as a YAML document: what people keep in git.
//!
//! Anything that is not understood is refused, with file, line, column and a hint; a part of a policy
//! is not a policy.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};

mod faults;
mod parts;

use crate::id::Name;
use crate::pin::ChangedDefinition;
use crate::rule::{Rule, Verdict};
use crate::ruleset::{CompileError, KillSwitch, OrgPolicy, RuleSet, Unregistered};
use crate::tool::{Category, Tool};
use faults::Fault;
pub use parts::Part;

/// A whole org's policy in one document.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The org with its own rules.
    pub policy: OrgPolicy,
    /// Each tenant's rules; a tenant without rules has an empty list.
    pub tenant_rules: BTreeMap<Name, Vec<Rule>>,
}

/// A document that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentError {
    /// The file, as the caller named it.
    pub file: String,
    /// Line and column, from 1, when known.
    pub at: Option<(usize, usize)>,
    /// What is wrong.
    pub message: String,
    /// What was probably meant.
    pub hint: Option<String>,
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some((line, column)) = self.at {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)?;
        self.hint.iter().try_for_each(|hint| write!(f, "\n  hint: {hint}"))
    }
}

impl std::error::Error for DocumentError {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a policy: a mapping with `org`")]
struct Written {
    org: Name,
    #[serde(default)]
    unregistered: Unregistered,
    #[serde(default)]
    tenants: Vec<Name>,
    #[serde(default)]
    categories: Vec<Category>,
    #[serde(default)]
    tools: Vec<Tool>,
    #[serde(default)]
    kill_switches: Vec<KillSwitch>,
    #[serde(default)]
    rules: Vec<WrittenRule>,
}

/// A [`Rule`] whose selectors have a value or are left out: a line that was left half-written must not
/// make a rule that matches everything.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a rule: a mapping with `permission`")]
struct WrittenRule {
    #[serde(default, deserialize_with = "present")]
    id: Option<Name>,
    #[serde(default, rename = "tenant_id", alias = "tenant", deserialize_with = "present")]
    tenant: Option<Name>,
    #[serde(default, rename = "resource_id", alias = "resource", deserialize_with = "present")]
    resource: Option<Name>,
    #[serde(default, rename = "tool_name", alias = "tool", deserialize_with = "present")]
    tool: Option<Name>,
    #[serde(default, deserialize_with = "present")]
    method: Option<Name>,
    permission: Verdict,
    #[serde(default)]
    guardrail: bool,
}

fn present<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Name>, D::Error> {
    d.deserialize_option(Present).map(Some)
}

struct Present;

impl<'de> Visitor<'de> for Present {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_none<E: de::Error>(self) -> Result<Name, E> {
        Err(E::custom(NO_VALUE))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Name, E> {
        Err(E::custom(NO_VALUE))
    }

    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Name, D::Error> {
        Name::deserialize(d)
    }
}

const NO_VALUE: &str = "`id`, `tenant`, `resource`, `tool` or `method` stands there without a value";

impl From<WrittenRule> for Rule {
    fn from(written: WrittenRule) -> Self {
        let WrittenRule { id, tenant, resource, tool, method, permission, guardrail } = written;
        Self { id, tenant, resource, tool, method, permission, guardrail }
    }
}

impl Document {
    /// Reads and checks a document; `file` is only for errors.
    pub fn parse(file: &str, text: &str) -> Result<Self, DocumentError> {
        let written: Written = from_yaml(file, text)?;
        let (policy, rules) = written.split();
        Self::check(policy.clone(), &rules).map_err(|fault| fault.shown(file, text, &policy))
    }

    /// Compiles the document into a rule set.
    pub fn compile(&self, version: u64) -> Result<RuleSet, CompileError> {
        let mut rules = RuleSet::compile(&self.policy, version)?;
        for (tenant, own) in &self.tenant_rules {
            rules.load_tenant(tenant, own)?;
        }
        Ok(rules)
    }

    /// Sorts the rules by scope, and lets the compiler have the last word.
    fn check(mut policy: OrgPolicy, rules: &[Rule]) -> Result<Self, Fault> {
        faults::check(&policy, rules)?;
        let mut tenant_rules: BTreeMap<Name, Vec<Rule>> =
            policy.tenants.iter().map(|t| (t.clone(), Vec::new())).collect();
        for rule in rules {
            let scope = match &rule.tenant {
                None => &mut policy.rules,
                Some(tenant) => tenant_rules
                    .get_mut(tenant)
                    .ok_or_else(|| Fault::of(CompileError::UnknownTenant(tenant.clone())))?,
            };
            scope.push(rule.clone());
        }
        let document = Self { policy, tenant_rules };
        document.compile(0).map_err(Fault::of)?;
        Ok(document)
    }
}

impl Written {
    /// The org without rules, and all rules as they stand.
    fn split(self) -> (OrgPolicy, Vec<Rule>) {
        let policy = OrgPolicy {
            org: self.org,
            unregistered: self.unregistered,
            changed_definition: ChangedDefinition::default(),
            categories: self.categories,
            tools: self.tools,
            pins: Vec::new(),
            kill_switches: self.kill_switches,
            rules: Vec::new(),
            tenants: self.tenants,
        };
        (policy, self.rules.into_iter().map(Rule::from).collect())
    }
}

/// Reads any YAML into a checked type, with errors that point at the place. Configuration files use it
/// too, so that all of them fail in the same way.
pub fn from_yaml<T: for<'de> Deserialize<'de>>(file: &str, text: &str) -> Result<T, DocumentError> {
    if let Some(at) = too_deep(text) {
        let message = format!("more than {NESTING_MAX} brackets are open");
        return Err(DocumentError { file: file.to_owned(), at: Some(at), message, hint: None });
    }
    serde_yaml::from_str(text).map_err(|e| {
        let whole = e.to_string();
        let at = e.location().map(|l| (l.line(), l.column()));
        let place = at.map(|(line, column)| format!(" at line {line} column {column}"));
        let message = match place.and_then(|place| whole.rsplit_once(&place).map(|(a, b)| format!("{a}{b}")))
        {
            Some(message) => message,
            None => whole,
        };
        let message = if is_empty(text) { "the file is empty".to_owned() } else { message };
        DocumentError { file: file.to_owned(), at, hint: hint(&message), message }
    })
}

fn is_empty(text: &str) -> bool {
    text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with('#') || line == "---")
}

/// Far beyond what people write, and little enough for a reader whose time grows with its square.
const NESTING_MAX: usize = 1_000;

/// Where brackets are nested too deeply to be read in good time. Quotes are not looked at: nobody opens a
/// thousand brackets in text without closing one.
fn too_deep(text: &str) -> Option<(usize, usize)> {
    let mut open = 0usize;
    for (i, line) in text.lines().enumerate() {
        for (j, byte) in line.bytes().enumerate() {
            match byte {
                b'[' | b'{' => open += 1,
                b']' | b'}' => open = open.saturating_sub(1),
                _ => {}
            }
            if open > NESTING_MAX {
                return Some((i + 1, j + 1));
            }
        }
    }
    None
}

/// The expected word nearest to the one that was written, for a message of serde's about an unknown field
/// or variant.
#[must_use]
pub fn hint(message: &str) -> Option<String> {
    let advice = |text: &str| Some(text.to_owned());
    if message.contains("unknown field `when`") || message.contains("(`when`)") {
        return advice("write one permission, such as `requires_approval`");
    }
    if message.contains("unknown field") || message.contains("unknown variant") {
        return nearest(message);
    }
    if message.contains("duplicate field") || message.contains("duplicate key") {
        return advice("keep one of the two");
    }
    if message.contains("missing field `permission`") {
        return advice("add `permission: allowed`, `requires_approval` or `disabled`");
    }
    if message.contains("expected a boolean") {
        return advice("write `true` or `false`, without quotes");
    }
    if message.ends_with(NO_VALUE) {
        return advice("give it one, or leave the line out to mean any");
    }
    None
}

fn nearest(message: &str) -> Option<String> {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let written = quoted.next()?;
    similar(written, quoted)
}

/// Names the one that is most like what was written, if any is.
fn similar<'w>(written: &str, known: impl Iterator<Item = &'w str>) -> Option<String> {
    let (distance, nearest) = known.map(|word| (edits(written, word), word)).min()?;
    (distance <= written.len().div_ceil(2)).then(|| format!("did you mean `{nearest}`?"))
}

/// The number of single-character edits between two words (Levenshtein).
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (y, cell) in b.chars().zip(row.iter_mut().skip(1)) {
            let cost = (diagonal + usize::from(x != y)).min(left + 1).min(*cell + 1);
            diagonal = *cell;
            *cell = cost;
            left = cost;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        assert_eq!(edits("permision", "permission"), 1);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
