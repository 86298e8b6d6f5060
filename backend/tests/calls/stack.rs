//! A backend with an org, two tenants, three tools, their rules, and a key of each kind.

use std::time::Duration;

use ed25519_dalek::SigningKey;
use oakallow_backend::audit::Verified;
use oakallow_backend::{Bootstrap, Clock, Config, Database, Running};
use oakallow_policy::audit::{Chained, Event, EventData, EventType, Head};
use oakallow_policy::canonical::{base64url, hex, sha256};
use oakallow_policy::fingerprint::Fingerprint;
use oakallow_policy::strict_json;
use oakallow_policy::timestamp;
use oakallow_policy::wire::{Purpose, Signed};
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::database::{self, Raw};

/// The approver.
pub(crate) const OWNER: &str = "owner@example.com";
/// Answers for the agents.
pub(crate) const DEVELOPER: &str = "dev@example.com";
/// When a manual clock starts.
pub(crate) const START: u64 = 1_790_000_000_000;

pub(crate) struct Stack {
    pub(crate) dir: TempDir,
    pub(crate) database: Database,
    pub(crate) clock: Clock,
    pub(crate) running: Running,
    pub(crate) url: String,
    pub(crate) http: Client,
    pub(crate) management: String,
    pub(crate) approver: String,
    pub(crate) acme: String,
    pub(crate) globex: String,
    pub(crate) tool: String,
}

/// Starts one whose clock stands until it is moved.
pub(crate) async fn start() -> Stack {
    start_with(|_| {}).await
}

pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Stack {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(START);
    let mut config = Config::new("127.0.0.1:0".parse().unwrap(), dir.path().to_owned());
    config.clock = clock.clone();
    config.database = database::fresh(dir.path()).await;
    config.sweep_interval = Duration::from_millis(50);
    change(&mut config);
    let database = config.database.clone();
    let running = oakallow_backend::start(config).await.unwrap();
    let owner = Bootstrap { org: "demo".to_owned(), owner_email: OWNER.to_owned() };
    let management = running.bootstrap(owner).await.unwrap().expose().to_owned();
    let approver = running.issue_approver_key("demo", OWNER).await.unwrap().expose().to_owned();
    let url = format!("http://localhost:{}", running.addr.port());
    let http = Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let mut stack = Stack {
        dir,
        database,
        clock,
        running,
        url,
        http,
        management,
        approver,
        acme: String::new(),
        globex: String::new(),
        tool: String::new(),
    };
    stack.seed().await;
    stack
}

impl Stack {
    /// The database, past the backend.
    pub(crate) async fn raw(&self) -> Raw {
        Raw::open(self.dir.path(), &self.database).await
    }

    /// What a check of the whole record finds.
    pub(crate) async fn verified(&self) -> Verified {
        oakallow_backend::audit::verify_in(self.dir.path(), &self.database, "demo").await.unwrap()
    }

    async fn seed(&mut self) {
        for tenant in ["acme", "globex"] {
            self.made("/v1/tenants", json!({"id": tenant, "name": tenant})).await;
        }
        for (tool, risk, default) in [
            ("read_record", "low", "allowed"),
            ("transfer_funds", "medium", "requires_approval"),
            ("wipe_disk", "critical", "requires_approval"),
            ("drop_database", "critical", "disabled"),
        ] {
            let body = json!({"name": tool, "audience": "demo-tools", "risk_level": risk, "default_permission": default});
            self.made("/v1/tools", body).await;
        }
        for tenant in ["acme", "globex"] {
            let agent = format!("agent-{tenant}");
            let body = json!({"id": agent, "owner": DEVELOPER, "tenants": [tenant]});
            let made = self.made("/v1/agents", body).await;
            let key = made["key"]["key"].as_str().unwrap().to_owned();
            if tenant == "acme" { self.acme = key } else { self.globex = key }
        }
        let tool =
            self.made("/v1/keys", json!({"name": "tools", "tier": "tool", "audience": "demo-tools"})).await;
        self.tool = tool["key"].as_str().unwrap().to_owned();
    }

    async fn made(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.post(&self.management, path, &body).await;
        assert_eq!(status, 201, "{path} {body}: {answer}");
        answer
    }

    pub(crate) async fn send(&self, method: Method, key: &str, path: &str, body: Option<&Value>) -> Response {
        let mut request = self.http.request(method, format!("{}{path}", self.url)).header("x-api-key", key);
        if let Some(body) = body {
            request = request.json(body);
        }
        request.send().await.unwrap()
    }

    pub(crate) async fn post(&self, key: &str, path: &str, body: &Value) -> (u16, Value) {
        read(self.send(Method::POST, key, path, Some(body)).await).await
    }

    pub(crate) async fn get(&self, key: &str, path: &str) -> (u16, Value) {
        read(self.send(Method::GET, key, path, None).await).await
    }

    /// Asks for an approval of `tool` as acme's agent.
    pub(crate) async fn ask(&self, tool: &str, parameters: Value) -> Value {
        let body = json!({"tool_name": tool, "parameters": parameters, "reason": "because"});
        let (status, answer) = self.post(&self.acme, "/v1/approvals", &body).await;
        assert!(status == 200 || status == 201, "{answer}");
        answer
    }

    pub(crate) async fn decide(&self, id: &str, decision: &str) -> (u16, Value) {
        let body = json!({"decision": decision, "note": "seen"});
        self.post(&self.approver, &format!("/v1/approvals/{id}/decide"), &body).await
    }

    pub(crate) async fn status(&self, id: &str) -> String {
        let (_, answer) = self.get(&self.approver, &format!("/v1/approvals/{id}")).await;
        answer["status"].as_str().unwrap_or_default().to_owned()
    }

    /// The events of a type, newest first.
    pub(crate) async fn events(&self, kind: &str) -> Vec<Value> {
        let (status, page) = self.get(&self.management, &format!("/v1/audit?type={kind}&limit=500")).await;
        assert_eq!(status, 200, "{page}");
        page["data"].as_array().unwrap().clone()
    }

    /// Enrols a proxy for every tenant.
    pub(crate) async fn enrol(&self) -> Proxy {
        self.enrol_in(&self.management).await
    }

    /// The same in the org of that management key.
    pub(crate) async fn enrol_in(&self, management: &str) -> Proxy {
        let (_, token) =
            self.post(management, "/v1/proxies/join-tokens", &json!({"audiences": ["demo-tools"]})).await;
        let signing = SigningKey::from_bytes(&[7; 32]);
        let body = json!({"join_token": token["join_token"], "name": "proxy-1", "version": "0.1.0",
                          "public_key": base64url(signing.verifying_key().as_bytes())});
        let (status, enrolled) = self.post("", "/v1/proxies/enroll", &body).await;
        assert_eq!(status, 201, "{enrolled}");
        Proxy {
            id: enrolled["proxy_id"].as_str().unwrap().to_owned(),
            key: enrolled["proxy_key"].as_str().unwrap().to_owned(),
            signing,
            head: Head::default(),
            made: 0,
        }
    }

    /// Waits until `done` says so: for what happens in the background.
    pub(crate) async fn until<F: Future<Output = bool>>(&self, what: &str, done: impl Fn() -> F) {
        let limit = tokio::time::Instant::now() + Duration::from_secs(10);
        while !done().await {
            assert!(tokio::time::Instant::now() < limit, "never happened: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn read(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    // As strictly as a proxy reads; what is no JSON is a list of lines.
    if serde_json::from_str::<Value>(&text).is_err() {
        return (status, Value::String(text));
    }
    (status, strict_json::parse_envelope(text.as_bytes()).unwrap_or_else(|e| panic!("{e}: {text}")))
}

/// A proxy as the backend sees it.
pub(crate) struct Proxy {
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) signing: SigningKey,
    pub(crate) head: Head,
    made: u64,
}

impl Proxy {
    /// The next event of its chain.
    pub(crate) fn event(&mut self, kind: EventType, txn: &str, data: EventData) -> Chained {
        self.made += 1;
        let event = Event {
            id: format!("evt_{}_{}", self.id, self.made),
            kind,
            time: timestamp::rfc3339(START + self.made),
            txn: Some(txn.to_owned()),
            data,
        };
        let (chained, _, head) = Chained::append(&format!("proxy/{}", self.id), &self.head, event).unwrap();
        self.head = head;
        chained
    }

    /// A batch that ends at the head.
    pub(crate) fn batch(&self, events: &[Chained]) -> Value {
        self.batch_to(events, &self.head)
    }

    pub(crate) fn batch_to(&self, events: &[Chained], head: &Head) -> Value {
        let head = Signed::seal(Purpose::Head, head, &self.id, &self.signing).unwrap();
        json!({"events": events, "head": head})
    }

    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/v1/proxies/{}/{rest}", self.id)
    }

    /// What a proxy asks when a call of acme's agent needs a person.
    pub(crate) fn asks(&self, tool: &str, about: &str, txn: &str) -> (Value, Fingerprint) {
        let fingerprint = Fingerprint::parse(&hex(&sha256(format!("{tool}|{about}").as_bytes()))).unwrap();
        let body = json!({
            "tool_name": tool, "tenant_id": "acme", "parameters": {"about": about},
            "proxy": {"principal": "agent-acme", "route": "demo", "audience": "demo-tools",
                      "fingerprint": fingerprint, "definition_hash": null, "txn": txn,
                      "resolved_from": "tool_default", "policy_version": 1}
        });
        (body, fingerprint)
    }
}
