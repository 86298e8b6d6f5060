//! What an import would change at a backend.
//!
//! The definition of a tool (description, schema) follows its source. What people decide about it (category,
//! risk, permission, approval) is set when the tool is created, and from then on theirs.

use std::collections::{BTreeMap, BTreeSet};

use oakallow_policy::Tool;
use oakallow_policy::id::Name;
use serde_json::{Map, Value, json};

use super::found::{Found, FoundTool};
use crate::changes::{Act, Change, Verb};
use crate::client::{self, Client, segment};
use crate::differences::{differences, patch};

/// What the backend has, and at which version of the policy.
pub(super) struct Present {
    pub(super) version: u64,
    pub(super) tools: BTreeMap<Name, Tool>,
    pub(super) categories: BTreeSet<Name>,
}

impl Present {
    /// Asks the backend.
    pub(super) async fn fetch(client: &Client) -> anyhow::Result<Self> {
        let version = client.policy_version().await?;
        let mut tools = BTreeMap::new();
        for row in client.list("/v1/tools?status=active").await? {
            let tool = client::tool(row)?;
            tools.insert(tool.name.clone(), tool);
        }
        let mut categories = BTreeSet::new();
        for row in client.list("/v1/categories").await? {
            categories.insert(client::category(row)?.name);
        }
        Ok(Self { version, tools, categories })
    }
}

/// What an import comes to.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) changes: Vec<Change>,
    pub(super) unchanged: usize,
    /// What cannot be imported, and why.
    pub(super) refused: Vec<(String, String)>,
    /// What else to know, by tool.
    pub(super) notes: Vec<(String, String)>,
    /// Tools of the same audience that the source does not have. They stay.
    pub(super) missing: Vec<Name>,
}

impl Plan {
    /// What was found against what is there.
    pub(super) fn new(found: Found, present: &Present, audience: &Name) -> Self {
        let mut plan = Self::default();
        let known: BTreeSet<&Name> = found.tools.iter().map(|found| &found.tool.name).collect();
        let registered = present.tools.values().filter(|tool| tool.audience == *audience);
        plan.missing =
            registered.map(|tool| &tool.name).filter(|name| !known.contains(name)).cloned().collect();
        for name in found.categories().into_iter().filter(|name| !present.categories.contains(*name)) {
            plan.changes.push(new_category(name));
        }
        plan.refused = found.refused;
        for one in found.tools {
            plan.take(one, &present.tools);
        }
        plan
    }

    fn take(&mut self, found: FoundTool, tools: &BTreeMap<Name, Tool>) {
        let name = found.tool.name.to_string();
        match tools.get(&found.tool.name) {
            None => self.changes.push(new_tool(&found)),
            Some(old) if old.audience != found.tool.audience => {
                let reason = format!(
                    "its name `{name}` is registered for audience `{}`, and a name is one tool in an org",
                    old.audience
                );
                return self.refused.push((found.origin, reason));
            }
            Some(old) => match changed_tool(old, &found) {
                None => self.unchanged += 1,
                Some(change) => self.changes.push(change),
            },
        }
        self.notes.extend(found.notes.into_iter().map(|note| (name.clone(), note)));
    }
}

fn new_category(name: &Name) -> Change {
    Change {
        act: Act::Create,
        what: format!("category {name}"),
        details: Vec::new(),
        method: Verb::Post,
        path: "/v1/categories".to_owned(),
        body: category_body(name),
    }
}

/// Without a permission of its own: an approved tool of the category is allowed.
pub(super) fn category_body(name: &Name) -> Value {
    json!({"name": name, "default_permission": null})
}

fn new_tool(found: &FoundTool) -> Change {
    let tool = &found.tool;
    let permission =
        tool.default_permission.map_or("no default permission", |permission| permission.as_str());
    Change {
        act: Act::Create,
        what: format!("tool {}", tool.name),
        details: vec![format!("{}: {} risk, {permission}", found.origin, tool.risk_level.as_str())],
        method: Verb::Post,
        path: "/v1/tools".to_owned(),
        body: json!(tool),
    }
}

fn changed_tool(old: &Tool, found: &FoundTool) -> Option<Change> {
    let (was, is) = (definition(old), definition(&found.tool));
    let body = patch(&was, &is, &["parameter_schema"]);
    if body.is_empty() {
        return None;
    }
    let (was, is) = (Value::Object(was), Value::Object(is));
    let mut details: Vec<String> = differences(&was, &is).iter().map(ToString::to_string).collect();
    if old.approved {
        details.insert(0, "/approved: true -> false (what was approved is not what it is now)".to_owned());
    }
    Some(Change {
        act: Act::Change,
        what: format!("tool {}", old.name),
        details,
        method: Verb::Patch,
        path: format!("/v1/tools/{}", segment(&old.name)),
        body: Value::Object(body),
    })
}

/// What follows the source.
pub(super) fn definition(tool: &Tool) -> Map<String, Value> {
    let mut definition = Map::new();
    definition.insert("description".to_owned(), tool.description.clone().into());
    definition.insert("parameter_schema".to_owned(), json!(tool.parameter_schema));
    definition
}
