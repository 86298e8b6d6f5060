//! The policy that a backend has, at one moment.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use oakallow_policy::Rule;
use oakallow_policy::document::Document;
use oakallow_policy::id::Name;
use oakallow_policy::pin::ChangedDefinition;
use oakallow_policy::rule::{Permission, Verdict};
use oakallow_policy::ruleset::{OrgPolicy, Unregistered};
use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;

use crate::client::{self, Client};

/// Reads until nobody changed the policy meanwhile.
const ATTEMPTS: usize = 5;

/// A policy, and its version.
#[derive(Debug)]
pub(crate) struct Present {
    pub(crate) version: u64,
    /// Rules are without their ids.
    pub(crate) document: Document,
}

#[derive(Deserialize)]
struct Settings {
    org: Name,
    unregistered: Unregistered,
}

impl Present {
    /// Asks the backend for everything, as of one version.
    pub(crate) async fn fetch(client: &Client) -> anyhow::Result<Self> {
        for _ in 0..ATTEMPTS {
            let version = client.policy_version().await?;
            let document = document(client).await?;
            if client.policy_version().await? == version {
                return Ok(Self { version, document });
            }
        }
        bail!("the policy is being changed: try again")
    }
}

async fn document(client: &Client) -> anyhow::Result<Document> {
    let settings = client.send(&Method::GET, "/v1/settings", None).await?;
    let settings: Settings = serde_json::from_value(settings).context("the backend's settings")?;
    let mut policy = OrgPolicy {
        org: settings.org,
        unregistered: settings.unregistered,
        changed_definition: ChangedDefinition::default(),
        categories: each(client, "/v1/categories", client::category).await?,
        tools: each(client, "/v1/tools?status=active", client::tool).await?,
        pins: Vec::new(),
        kill_switches: Vec::new(),
        rules: Vec::new(),
        tenants: each(client, "/v1/tenants", |row| tenant(&row)).await?,
    };
    let mut tenant_rules: BTreeMap<Name, Vec<Rule>> =
        policy.tenants.iter().map(|tenant| (tenant.clone(), Vec::new())).collect();
    for rule in each(client, "/v1/rules", rule).await? {
        match &rule.tenant {
            None => policy.rules.push(rule),
            Some(tenant) => tenant_rules.entry(tenant.clone()).or_default().push(rule),
        }
    }
    Ok(Document { policy, tenant_rules })
}

async fn each<T>(
    client: &Client,
    path: &str,
    read: impl Fn(Value) -> anyhow::Result<T>,
) -> anyhow::Result<Vec<T>> {
    client.list(path).await?.into_iter().map(read).collect()
}

fn tenant(row: &Value) -> anyhow::Result<Name> {
    let id = row.get("id").and_then(Value::as_str).context("a tenant without an id")?;
    Ok(Name::new(id)?)
}

/// A rule, without what the backend shows beside it.
fn rule(row: Value) -> anyhow::Result<Rule> {
    let any = Some(oakallow_policy::tool::default_audience());
    let every = Rule {
        id: any.clone(),
        tenant: any.clone(),
        resource: any.clone(),
        tool: any.clone(),
        method: any,
        permission: Verdict::from(Permission::Disabled),
        guardrail: true,
    };
    let rule: Rule = serde_json::from_value(client::with_fields_of(row, &every)?).context("a rule")?;
    Ok(Rule { id: None, ..rule })
}
