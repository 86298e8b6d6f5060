//! Reading a policy, and asking it about a call that somebody wrote down.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use oakallow_policy::call::CallNames;
use oakallow_policy::document::Document;
use oakallow_policy::id::Name;
use oakallow_policy::tool::default_audience;
use serde::Deserialize;

use crate::kind::Kind;
use crate::policy_dir;

/// Reads and checks a policy: a document in one file, or a directory of them.
pub(crate) fn read(path: &Path) -> anyhow::Result<Document> {
    if path.is_dir() {
        return policy_dir::read(path);
    }
    let file = path.display().to_string();
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {file}"))?;
    Ok(Kind::Policy.read(&file, &text, Document::parse)?)
}

/// A call as people write it down, with what can be left out left out.
#[derive(Debug, Clone, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrittenCall {
    /// The org that is called for [default: the document's]
    #[arg(skip)]
    #[serde(default)]
    pub(crate) org: Option<Name>,
    /// The tool that is called
    #[arg(long)]
    pub(crate) tool: Name,
    /// The tenant that calls; none: the org itself
    #[arg(long)]
    #[serde(default)]
    pub(crate) tenant: Option<Name>,
    /// What the tool acts on
    #[arg(long)]
    #[serde(default)]
    pub(crate) resource: Option<Name>,
    /// The kind of act
    #[arg(long)]
    #[serde(default)]
    pub(crate) method: Option<Name>,
    /// The tool server that is called [default: the one that the tool is registered for]
    #[arg(long)]
    #[serde(default)]
    pub(crate) audience: Option<Name>,
    /// Who calls (agent or key id); matters to kill switches only
    #[arg(long, value_name = "ID", default_value_t = somebody())]
    #[serde(default = "somebody")]
    pub(crate) principal: Name,
}

#[expect(clippy::expect_used, reason = "a constant that is a name")]
fn somebody() -> Name {
    Name::new("somebody").expect("a constant")
}

impl WrittenCall {
    /// The whole call, as the document's org would see it.
    pub(crate) fn names(&self, document: &Document) -> CallNames {
        let registered = document.policy.tools.iter().find(|tool| tool.name == self.tool);
        let audience = self.audience.clone().or_else(|| registered.map(|tool| tool.audience.clone()));
        CallNames {
            org: self.org.clone().unwrap_or_else(|| document.policy.org.clone()),
            tenant: self.tenant.clone(),
            principal: self.principal.clone(),
            audience: audience.unwrap_or_else(default_audience),
            tool: self.tool.clone(),
            resource: self.resource.clone(),
            method: self.method.clone(),
        }
    }
}
