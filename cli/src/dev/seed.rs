//! The demo org: the policy of `config/policy.yaml`, brought in through the REST API, and its keys.

use std::path::Path;

use anyhow::Context as _;
use oakallow_backend::{Bootstrap, Running};
use oakallow_policy::Rule;
use oakallow_policy::document::Document;
use oakallow_policy::wire::Secret;
use serde_json::{Value, json};

use super::api::{self, Api};
use super::env_file::Keys;

/// The demo's policy.
const POLICY: &str = include_str!("../../../config/policy.yaml");
/// The demo's org.
pub(super) const ORG: &str = "demo";
/// The demo's tool server.
pub(super) const AUDIENCE: &str = "demo-tools";
/// Who signs in through the login link and holds the approver key. Owns none of the agents, so may
/// decide their calls.
pub(super) const APPROVER: &str = "approver@demo.example";
/// Who answers for the agents.
const AGENTS_OWNER: &str = "robin@demo.example";

/// The demo's keys: those of an earlier start, if the backend still knows them, else of a new org.
pub(super) async fn keys(backend: &Running, url: &str, env: &Path) -> anyhow::Result<Keys> {
    if let Some(keys) = Keys::read(env)?
        && Api::new(url, keys.management.clone())?.knows_key().await?
    {
        return Ok(keys);
    }
    let first = Bootstrap { org: ORG.to_owned(), owner_email: APPROVER.to_owned() };
    let management = backend.bootstrap(first).await?;
    let api = Api::new(url, management.clone())?;
    seed_policy(&api).await.context("the demo's policy cannot be set up")?;
    let approver = backend.issue_approver_key(ORG, APPROVER).await?;
    seed_keys(&api, management, approver).await.context("the demo's keys cannot be made")
}

fn policy() -> anyhow::Result<Document> {
    Ok(Document::parse("config/policy.yaml", POLICY)?)
}

async fn seed_policy(api: &Api) -> anyhow::Result<()> {
    let Document { policy, tenant_rules } = policy()?;
    // Otherwise only a signed-in person decides about `transfer_funds`, and scripts could not show it.
    api.patch("/v1/settings", &json!({"approver_keys_decide_high_risk": true})).await?;
    for tenant in &policy.tenants {
        api.ensure("/v1/tenants", &json!({"id": tenant, "name": capitalised(tenant)})).await?;
    }
    for category in &policy.categories {
        api.ensure("/v1/categories", &serde_json::to_value(category)?).await?;
    }
    for tool in &policy.tools {
        api.ensure("/v1/tools", &serde_json::to_value(tool)?).await?;
    }
    for rule in policy.rules.iter().chain(tenant_rules.values().flatten()) {
        // The backend gives rules ids of its own.
        let rule = Rule { id: None, ..rule.clone() };
        api.ensure("/v1/rules", &serde_json::to_value(rule)?).await?;
    }
    Ok(())
}

async fn seed_keys(api: &Api, management: Secret, approver: Secret) -> anyhow::Result<Keys> {
    let standard = async |name: &str, tenancy: &str, tenants: &[&str]| {
        let reach = json!({"tenancy": tenancy, "tenants": tenants});
        let agent = json!({"id": name, "owner": AGENTS_OWNER});
        api.ensure("/v1/agents", &merged(agent, &reach)).await?;
        let key = json!({"tier": "standard", "name": name, "agent_id": name});
        api::secret(&api.create("/v1/keys", &merged(key, &reach)).await?, "key")
    };
    let tool = json!({"tier": "tool", "name": "demo tool server", "audience": AUDIENCE});
    Ok(Keys {
        org: standard("demo-platform", "org", &[]).await?,
        acme: standard("acme-agent", "one", &["acme"]).await?,
        globex: standard("globex-agent", "one", &["globex"]).await?,
        management,
        approver,
        tool: api::secret(&api.create("/v1/keys", &tool).await?, "key")?,
    })
}

/// The members of both objects.
fn merged(mut one: Value, other: &Value) -> Value {
    if let (Some(one), Some(other)) = (one.as_object_mut(), other.as_object()) {
        one.extend(other.clone());
    }
    one
}

/// What people read: `acme` is Acme.
fn capitalised(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
