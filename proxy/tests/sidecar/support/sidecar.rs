//! A proxy in this process, between a scripted backend and a recording tool server.

use std::path::Path;

use oakallow_proxy::config::Config;
use oakallow_proxy::spool::SpoolError;
use oakallow_proxy::{Running, StartError};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::backend::Backend;
use super::policy::{AGENT, AUDIENCE, OrgBundle};
use super::until;
use super::upstream::Upstream;

/// All three; ends with this value.
pub(crate) struct Sidecar {
    pub(crate) backend: Backend,
    pub(crate) upstream: Upstream,
    pub(crate) proxy: Running,
    dir: TempDir,
    more: Value,
}

/// A body limit that is reached quickly.
pub(crate) const BODY_BYTES_MAX: usize = 64 * 1024;

impl Sidecar {
    pub(crate) async fn start() -> Self {
        Self::with(json!({})).await
    }

    /// With more top-level members of the configuration.
    pub(crate) async fn with(more: Value) -> Self {
        Self::deciding(OrgBundle::new(5), more).await
    }

    /// By this policy.
    pub(crate) async fn deciding(bundle: OrgBundle, more: Value) -> Self {
        let (backend, upstream) = (Backend::start(bundle.signed()), Upstream::start().await);
        let dir = tempfile::tempdir().expect("a directory");
        let proxy = oakallow_proxy::start(config(dir.path(), &backend.url, &upstream.url, &more)).await;
        Self { backend, upstream, proxy: proxy.expect("it starts"), dir, more }
    }

    /// Ends the proxy in good order, and starts it again over the same state.
    pub(crate) async fn restart(self) -> Self {
        self.restart_without_spool(false).await
    }

    /// The same; the spool may be lost in between.
    pub(crate) async fn restart_without_spool(mut self, lost: bool) -> Self {
        self.proxy.shutdown().await;
        if lost {
            lose_spool(&self.dir);
        }
        let config = || config(self.dir.path(), &self.backend.url, &self.upstream.url, &self.more);
        // The spool is free when the last connection of the old proxy has ended.
        self.proxy =
            until("a start over the same state", async || match oakallow_proxy::start(config()).await {
                Err(StartError::Spool(SpoolError::Open(_))) => None,
                started => Some(started.expect("it starts again")),
            })
            .await;
        self
    }

    /// Removes the spool under the running proxy.
    pub(crate) fn lose_spool(&self) {
        lose_spool(&self.dir);
    }

    /// What `/readyz` says.
    pub(crate) async fn ready(&self) -> (u16, String) {
        let answer = client().get(format!("http://{}/readyz", self.proxy.ops)).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// A call of a tool.
    pub(crate) fn call(&self, tool: &str) -> RequestBuilder {
        let url = format!("http://{}/tools/{tool}", self.proxy.data);
        client().post(url).header("x-api-key", AGENT).json(&json!({"id": "42"}))
    }

    /// A message to the MCP route.
    pub(crate) fn rpc(&self, message: &Value) -> RequestBuilder {
        self.rpc_as(AGENT, message)
    }

    /// The same, under another key.
    pub(crate) fn rpc_as(&self, key: &str, message: &Value) -> RequestBuilder {
        let url = format!("http://{}/mcp", self.proxy.data);
        let accepts = "application/json, text/event-stream";
        client().post(url).header("x-api-key", key).header("accept", accepts).json(message)
    }

    /// The sum of a metric's series; 0 when there is none.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = client().get(format!("http://{}/metrics", self.proxy.ops)).send().await.unwrap();
        metric(&text.text().await.unwrap(), name)
    }
}

fn lose_spool(dir: &TempDir) {
    std::fs::remove_dir_all(dir.path().join("state/spool")).expect("it is there");
}

/// The sum of a metric's series in the Prometheus text format.
pub(crate) fn metric(text: &str, name: &str) -> f64 {
    let ours = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
    let values = text.lines().filter(ours).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum()
}

/// A client that neither waits for ever nor tries again.
pub(crate) fn client() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().timeout(super::PATIENCE).no_proxy().build().expect("a client")
}

/// The configuration, as a file's text.
pub(crate) fn config_text(dir: &Path, backend: &str, upstream: &str, more: &Value) -> String {
    let token = dir.join("join-token");
    std::fs::write(&token, "oak_join_test").expect("a file");
    let route = |name: &str, kind: &str, path: &str| json!({"name": name, "kind": kind, "path": path, "audience": AUDIENCE, "upstream": upstream});
    let mut config = json!({
        "listen": {"data": "127.0.0.1:0", "ops": "127.0.0.1:0", "admin": "127.0.0.1:0"},
        "state_dir": dir.join("state"),
        "name": "test",
        "backend": {"url": backend, "join_token_file": token},
        "limits": {"body_bytes_max": BODY_BYTES_MAX},
        "routes": [route("http", "http", "/tools/{tool}"), route("mcp", "mcp", "/mcp")],
    });
    for (name, value) in more.as_object().expect("members") {
        if name == "hold" {
            // It stands in each route.
            config["routes"]
                .as_array_mut()
                .expect("routes")
                .iter_mut()
                .for_each(|r| r["hold"] = value.clone());
        } else {
            config[name] = value.clone();
        }
    }
    // JSON is YAML.
    format!("{config:#}")
}

fn config(dir: &Path, backend: &str, upstream: &str, more: &Value) -> Config {
    let text = config_text(dir, backend, upstream, more);
    Config::parse("test.yaml", &text).expect("a configuration")
}
