//! Policy as a YAML document: what people keep in git.
//!
//! Anything that is not understood is refused, with file, line, column and a hint; a part of a policy
//! is not a policy.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use crate::id::Name;
use crate::rule::Rule;
use crate::ruleset::{CompileError, KillSwitch, OrgPolicy, RuleSet, Unregistered, shown};
use crate::tool::{Category, Tool};

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
#[serde(deny_unknown_fields)]
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
    rules: Vec<Rule>,
}

impl Document {
    /// Reads and checks a document; `file` is only for errors.
    pub fn parse(file: &str, text: &str) -> Result<Self, DocumentError> {
        let written: Written = from_yaml(file, text)?;
        let document = Self::from_written(written).map_err(|e| semantic(file, text, &e))?;
        document.compile(0).map_err(|e| semantic(file, text, &e))?;
        Ok(document)
    }

    /// Compiles the document into a rule set.
    pub fn compile(&self, version: u64) -> Result<RuleSet, CompileError> {
        let mut rules = RuleSet::compile(&self.policy, version)?;
        for (tenant, own) in &self.tenant_rules {
            rules.load_tenant(tenant, own)?;
        }
        Ok(rules)
    }

    fn from_written(written: Written) -> Result<Self, CompileError> {
        let mut tenant_rules: BTreeMap<Name, Vec<Rule>> =
            written.tenants.iter().map(|t| (t.clone(), Vec::new())).collect();
        let mut rules = Vec::new();
        for rule in written.rules {
            let Some(tenant) = rule.tenant.clone() else {
                rules.push(rule);
                continue;
            };
            if rule.guardrail {
                return Err(CompileError::TenantGuardrail { rule: shown(&rule) });
            }
            tenant_rules.get_mut(&tenant).ok_or(CompileError::UnknownTenant(tenant))?.push(rule);
        }
        let policy = OrgPolicy {
            org: written.org,
            unregistered: written.unregistered,
            categories: written.categories,
            tools: written.tools,
            kill_switches: written.kill_switches,
            rules,
            tenants: written.tenants,
        };
        Ok(Self { policy, tenant_rules })
    }
}

/// Reads any YAML into a checked type, with errors that point at the place. Configuration files use it
/// too, so that all of them fail in the same way.
pub fn from_yaml<T: for<'de> Deserialize<'de>>(file: &str, text: &str) -> Result<T, DocumentError> {
    serde_yaml::from_str(text).map_err(|e| {
        let whole = e.to_string();
        let message = match whole.rfind(" at line ") {
            Some(end) => whole.get(..end).unwrap_or(&whole).to_owned(),
            None => whole,
        };
        DocumentError {
            file: file.to_owned(),
            at: e.location().map(|l| (l.line(), l.column())),
            hint: hint(&message),
            message,
        }
    })
}

/// A rule set that cannot be: shows where the thing named in the error is written, if it can be found.
fn semantic(file: &str, text: &str, error: &CompileError) -> DocumentError {
    let message = error.to_string();
    DocumentError { file: file.to_owned(), at: place(text, error), message, hint: remedy(error) }
}

/// The line of the last mention of what the error is about: the second of two duplicates.
fn place(text: &str, error: &CompileError) -> Option<(usize, usize)> {
    let word = match error {
        CompileError::DuplicateRule { second: word, .. }
        | CompileError::TenantGuardrail { rule: word }
        | CompileError::LooseGuardrail { rule: word, .. }
        | CompileError::WrongScope { rule: word, .. } => word.as_str(),
        CompileError::DuplicateName { name, .. } => name.as_str(),
        CompileError::UnknownCategory { category, .. } => category.as_str(),
        CompileError::BadTool { tool, .. } => tool.as_str(),
        CompileError::UnknownTenant(tenant) => tenant.as_str(),
    };
    let lines = text.lines().enumerate();
    lines.filter_map(|(i, line)| line.find(word).map(|column| (i + 1, column + 1))).last()
}

fn remedy(error: &CompileError) -> Option<String> {
    let text = match error {
        CompileError::DuplicateRule { .. } => "keep one of the two",
        CompileError::TenantGuardrail { .. } => "leave `tenant` out, or leave `guardrail` out",
        CompileError::LooseGuardrail { .. } => "write `permission: disabled`, or leave `guardrail` out",
        CompileError::UnknownCategory { .. } => "add it to `categories`",
        CompileError::UnknownTenant(_) => "add it to `tenants`",
        _ => return None,
    };
    Some(text.to_owned())
}

/// The expected word nearest to the one that was written, for a message of serde's about an unknown field
/// or variant.
#[must_use]
pub fn hint(message: &str) -> Option<String> {
    let mut quoted = message.split('`').skip(1).step_by(2);
    if !message.contains("unknown field") && !message.contains("unknown variant") {
        return None;
    }
    let written = quoted.next()?;
    let (distance, nearest) = quoted.map(|word| (edits(written, word), word)).min()?;
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

    #[test]
    fn an_error_points_at_the_place() {
        let e = Document::parse("p.yaml", "org: demo\nrules:\n  - tool: x\n    permision: allowed\n")
            .unwrap_err();
        assert_eq!(e.at, Some((4, 5)), "{e}");
        assert_eq!(e.hint.as_deref(), Some("did you mean `permission`?"), "{e}");
        let e = Document::parse("p.yaml", "org: demo\nrules:\n  - tool: x\n    permission: alowed\n")
            .unwrap_err();
        assert_eq!(e.hint.as_deref(), Some("did you mean `allowed`?"), "{e}");
    }
}
