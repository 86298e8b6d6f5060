//! A file of policy tests: a policy, and calls with what must be decided.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use oakallow_policy::document::{Document, DocumentError, from_yaml};
use oakallow_policy::id::Name;
use oakallow_policy::resolve::ResolveError;
use oakallow_policy::{Permission, ResolvedFrom, RuleSet};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::kind::Kind;
use crate::policy_file::{self, WrittenCall};

/// A test file as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Suite {
    /// For readers.
    #[serde(default, rename = "about")]
    _about: String,
    /// A policy's path (a document, or a directory), relative to the test file; or, over several lines, the document itself.
    policy: String,
    /// Tenants whose rules are not there, as in a proxy that has not fetched them yet.
    #[serde(default)]
    unloaded: Vec<Name>,
    /// No policy is there at all, as in a proxy that has just started.
    #[serde(default)]
    closed: bool,
    pub(super) cases: Vec<Case>,
}

/// A call, and what must come out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) call: WrittenCall,
    pub(super) expect: Expected,
    /// Every gate and level: its name, its outcome, the permission, the rule.
    #[serde(default, deserialize_with = "present")]
    pub(super) trace: Option<Vec<String>>,
}

/// What must come out: a permission or an error. What else is left out may be anything.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expected {
    #[serde(default, deserialize_with = "present")]
    pub(super) permission: Option<Permission>,
    #[serde(default, deserialize_with = "gate_or_level")]
    pub(super) resolved_from: Option<ResolvedFrom>,
    /// `none`: no rule.
    #[serde(default, deserialize_with = "present")]
    pub(super) rule: Option<String>,
    #[serde(default, deserialize_with = "present")]
    pub(super) unregistered: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    pub(super) error: Option<NoDecision>,
}

/// A [`ResolveError`] by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum NoDecision {
    Closed,
    WrongOrg,
    UnknownTenant,
    TenantNotLoaded,
    ResourceRequired,
}

impl Suite {
    /// Reads a test file; `file` is only for errors.
    pub(crate) fn parse(file: &str, text: &str) -> Result<Self, DocumentError> {
        let suite: Self = from_yaml(file, text)?;
        match suite.cases.iter().find_map(|case| Some((case, case.fault()?))) {
            None => Ok(suite),
            Some((case, fault)) => Err(DocumentError {
                file: file.to_owned(),
                at: None,
                message: format!("the case `{}` {fault}", case.name),
                hint: None,
            }),
        }
    }

    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let file = path.display().to_string();
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {file}"))?;
        Ok(Kind::PolicyTests.read(&file, &text, Self::parse)?)
    }

    /// How many cases it has.
    pub(crate) fn len(&self) -> usize {
        self.cases.len()
    }

    /// The document that it is about, or the one that is given in its place, and what is asked; `path` is the test
    /// file's.
    pub(crate) fn policy(&self, path: &Path, instead: Option<&Path>) -> anyhow::Result<(Document, RuleSet)> {
        let file = path.display();
        let mut document = if let Some(instead) = instead {
            policy_file::read(instead)?
        } else if self.policy.contains('\n') {
            Kind::Policy.read(&format!("{file}, its policy"), &self.policy, Document::parse)?
        } else {
            let beside = path.parent().map_or_else(PathBuf::new, Path::to_owned);
            policy_file::read(&beside.join(&self.policy))
                .with_context(|| format!("{file} names a policy that cannot be used"))?
        };
        for tenant in &self.unloaded {
            if document.tenant_rules.remove(tenant).is_none() {
                bail!("{file}: `unloaded` names `{tenant}`, which is no tenant of the policy");
            }
        }
        let rules =
            if self.closed { RuleSet::closed(document.policy.org.clone()) } else { document.compile(0)? };
        Ok((document, rules))
    }
}

impl Case {
    /// Why it cannot be meant so.
    fn fault(&self) -> Option<&'static str> {
        let Expected { permission, resolved_from, rule, unregistered, error } = &self.expect;
        let decision = resolved_from.is_some() || rule.is_some() || unregistered.is_some();
        match (permission, error) {
            (None, None) => Some("must expect a `permission` or an `error`"),
            (Some(_), Some(_)) => Some("expects both a `permission` and an `error`"),
            (None, Some(_)) if decision || self.trace.is_some() => {
                Some("expects an `error`, and with it what only a decision has")
            }
            _ => None,
        }
    }
}

impl NoDecision {
    pub(super) fn of(error: &ResolveError) -> Self {
        match error {
            ResolveError::Closed => Self::Closed,
            ResolveError::WrongOrg => Self::WrongOrg,
            ResolveError::UnknownTenant => Self::UnknownTenant,
            ResolveError::TenantNotLoaded => Self::TenantNotLoaded,
            ResolveError::ResourceRequired => Self::ResourceRequired,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::WrongOrg => "wrong_org",
            Self::UnknownTenant => "unknown_tenant",
            Self::TenantNotLoaded => "tenant_not_loaded",
            Self::ResourceRequired => "resource_required",
        }
    }
}

/// A key without a value would look like an expectation and be none.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(d: D) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

fn gate_or_level<'de, D: Deserializer<'de>>(d: D) -> Result<Option<ResolvedFrom>, D::Error> {
    let name = String::deserialize(d)?;
    match ResolvedFrom::parse(&name) {
        Some(from) => Ok(Some(from)),
        None => Err(D::Error::custom(format!("`{name}` is no gate or level"))),
    }
}
