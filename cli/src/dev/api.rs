//! The backend's REST API, as the seeding uses it: with a management key, like any other client.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use oakallow_policy::wire::{Problem, Secret};
use reqwest::{Method, StatusCode};
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(20);

/// A client with one key.
pub(super) struct Api {
    client: reqwest::Client,
    base: String,
    key: Secret,
}

impl Api {
    pub(super) fn new(base: &str, key: Secret) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build()?;
        Ok(Self { client, base: base.to_owned(), key })
    }

    /// Whether the backend knows the key.
    pub(super) async fn knows_key(&self) -> anyhow::Result<bool> {
        let request = self.client.get(format!("{}/v1/tenants", self.base));
        let response = request.header("x-api-key", self.key.expose()).send().await?;
        Ok(response.status() != StatusCode::UNAUTHORIZED)
    }

    /// Creates something; its representation.
    pub(super) async fn create(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.send(Method::POST, path, body).await?.ok_or_else(|| anyhow!("POST {path}: it exists already"))
    }

    /// Creates something, unless it is there.
    pub(super) async fn ensure(&self, path: &str, body: &Value) -> anyhow::Result<()> {
        self.send(Method::POST, path, body).await.map(drop)
    }

    /// Changes something.
    pub(super) async fn patch(&self, path: &str, body: &Value) -> anyhow::Result<()> {
        self.send(Method::PATCH, path, body).await.map(drop)
    }

    /// `None`: it is there already (409).
    async fn send(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<Option<Value>> {
        let what = format!("{method} {path}");
        let request = self.client.request(method, format!("{}{path}", self.base)).json(body);
        let response = request.header("x-api-key", self.key.expose()).send().await;
        let response = response.with_context(|| what.clone())?;
        let status = response.status();
        if status == StatusCode::CONFLICT {
            return Ok(None);
        }
        if !status.is_success() {
            let said = response.json::<Problem>().await.map(|problem| problem.detail).unwrap_or_default();
            bail!("{what} was answered {status}: {said}");
        }
        response.json().await.map(Some).context(what)
    }
}

/// A secret that an answer shows once.
pub(super) fn secret(answer: &Value, member: &str) -> anyhow::Result<Secret> {
    let secret = answer.get(member).and_then(Value::as_str);
    secret
        .map(|secret| Secret::new(secret.to_owned()))
        .with_context(|| format!("the answer has no `{member}`"))
}
