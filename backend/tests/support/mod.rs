//! A backend of its own for each test, in a temporary directory, and clients for each credential.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod database;

use std::time::Duration;

use database::Raw;
use oakallow_backend::{Bootstrap, Clock, Config, Running};
use oakallow_policy::strict_json;
use oakallow_policy::wire::Secret;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

/// When tests begin: 2026-09-21T14:13:20Z.
pub(crate) const START_MS: u64 = 1_790_000_000_000;
/// The person who owns every org of the tests.
pub(crate) const OWNER: &str = "owner@example.com";

/// A running backend.
pub(crate) struct Backend {
    running: Option<Running>,
    dir: TempDir,
    config: Config,
    pub(crate) url: String,
    pub(crate) clock: Clock,
    http: reqwest::Client,
}

impl Backend {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual(START_MS);
        let mut config = Config::new(([127, 0, 0, 1], 0).into(), dir.path().join("data"));
        config.clock = clock.clone();
        config.database = database::fresh(&config.data_dir).await;
        change(&mut config);
        let running = oakallow_backend::start(config.clone()).await.unwrap();
        let url = format!("http://{}", running.addr);
        let http = reqwest::Client::builder().timeout(Duration::from_secs(60)).build().unwrap();
        Self { running: Some(running), dir, config, url, clock, http }
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub(crate) fn data_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    /// The database, past the backend.
    pub(crate) async fn raw(&self) -> Raw {
        Raw::open(&self.data_dir(), &self.config.database).await
    }

    pub(crate) async fn stop(&mut self) {
        self.running.take().unwrap().shutdown().await;
    }

    /// Stops it in good order and starts it again on the same data.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        let running = oakallow_backend::start(self.config.clone()).await.unwrap();
        self.url = format!("http://{}", running.addr);
        self.running = Some(running);
    }

    /// Creates an org; answers with its management client.
    pub(crate) async fn org(&self, org: &str) -> Client {
        let wanted = Bootstrap { org: org.to_owned(), owner_email: OWNER.to_owned() };
        self.client(self.running().bootstrap(wanted).await.unwrap().expose())
    }

    /// An approver of an org: its owner.
    pub(crate) async fn approver(&self, org: &str) -> Client {
        let key: Secret = self.running().issue_approver_key(org, OWNER).await.unwrap();
        self.client(key.expose())
    }

    pub(crate) fn client(&self, key: &str) -> Client {
        Client { url: self.url.clone(), key: Some(key.to_owned()), tenant: None, http: self.http.clone() }
    }

    pub(crate) fn anonymous(&self) -> Client {
        Client { url: self.url.clone(), key: None, tenant: None, http: self.http.clone() }
    }
}

/// One credential.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) url: String,
    pub(crate) key: Option<String>,
    tenant: Option<String>,
    http: reqwest::Client,
}

impl Client {
    /// A credential at a backend.
    pub(crate) fn new(url: &str, key: Option<&str>) -> Self {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(60)).build().unwrap();
        Self { url: url.to_owned(), key: key.map(str::to_owned), tenant: None, http }
    }

    /// The same credential at another backend.
    pub(crate) fn at(&self, url: &str) -> Self {
        Self { url: url.to_owned(), ..self.clone() }
    }

    /// The same credential, selecting a tenant.
    pub(crate) fn naming(&self, tenant: &str) -> Self {
        Self { tenant: Some(tenant.to_owned()), ..self.clone() }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(key) = &self.key {
            request = request.header("x-api-key", key);
        }
        if let Some(tenant) = &self.tenant {
            request = request.header("x-tenant-id", tenant);
        }
        request
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            // As plain `curl -d` sends it.
            request =
                request.header("content-type", "application/x-www-form-urlencoded").body(body.to_string());
        }
        Answer::of(request.send().await.unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.send(Method::PUT, path, Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send(Method::PATCH, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, None).await
    }

    /// With a management credential: a new standard key of these tenants (none: the whole org).
    pub(crate) async fn standard(&self, tenants: &[&str]) -> Self {
        let tenancy = match tenants.len() {
            0 => "org",
            1 => "one",
            _ => "some",
        };
        let body = json!({"name": "test", "tier": "standard", "tenancy": tenancy, "tenants": tenants});
        self.issued(body).await
    }

    /// With a management credential: a new key.
    pub(crate) async fn issued(&self, body: Value) -> Self {
        let key = self.post("/v1/keys", body).await.created();
        Self { key: Some(key["key"].as_str().unwrap().to_owned()), ..self.clone() }
    }

    /// Everything that an org's admin can read.
    pub(crate) async fn everything(&self) -> Value {
        let mut all = json!({});
        for path in
            ["tenants", "categories", "tools", "rules", "kill-switches", "settings", "agents", "proxies"]
        {
            all[path] = self.get(&format!("/v1/{path}")).await.ok();
        }
        let keys = self.get("/v1/keys").await.ok();
        all["keys"] = keys["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|k| json!([k["id"], k["revoked_at"], k["expires_at"]]))
            .collect();
        all
    }

    /// With a management credential: the tenants, and one tool with one rule for `acme`.
    pub(crate) async fn seed(&self) {
        for tenant in ["acme", "globex"] {
            self.post("/v1/tenants", json!({"id": tenant})).await.created();
        }
        self.post("/v1/tools", json!({"name": "restart_service", "audience": "ops", "risk_level": "low"}))
            .await
            .created();
        let rule = json!({"tenant_id": "acme", "tool_name": "restart_service", "permission": "allowed"});
        self.post("/v1/rules", rule).await.created();
    }
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    async fn of(response: reqwest::Response) -> Self {
        Self {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            text: response.text().await.unwrap(),
        }
    }

    /// The body, if it is JSON.
    pub(crate) fn json_or_null(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// The body, read as strictly as a proxy reads.
    pub(crate) fn json(&self) -> Value {
        strict_json::parse_envelope(self.text.as_bytes()).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json()
    }

    #[track_caller]
    pub(crate) fn created(self) -> Value {
        assert_eq!(self.status, 201, "{}", self.text);
        self.json()
    }

    #[track_caller]
    pub(crate) fn no_content(self) {
        assert_eq!((self.status, self.text.as_str()), (204, ""));
    }

    #[track_caller]
    pub(crate) fn problem(self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|d| !d.is_empty()), "{problem}");
        assert!(problem["request_id"].as_str().is_some_and(|id| id.starts_with("req_")), "{problem}");
        problem
    }
}
