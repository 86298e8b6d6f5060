//! A proxy in a process of its own: enrolled with a join token, configured by a file, on ports that it
//! keeps, so that it can be killed and come back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use serde_json::{Value, json};

use crate::agent::Agent;
use crate::control::Control;
use crate::process::{Process, free_port, oakallow};
use crate::stack::quiet;
use crate::wait::until_within;

/// How long a start may take.
const START: Duration = Duration::from_secs(30);

/// One route of the proxy's configuration.
#[derive(Debug, Clone)]
pub struct Route(Value);

impl Route {
    /// `POST /tools/{tool}`
    #[must_use]
    pub fn http(name: &str, audience: &str, upstream: &str) -> Self {
        Self(json!({
            "name": name, "kind": "http", "path": "/tools/{tool}", "audience": audience, "upstream": upstream,
            "resources": {"restart_service": "/service"},
        }))
    }

    /// MCP at `/mcp`.
    #[must_use]
    pub fn mcp(name: &str, audience: &str, upstream: &str) -> Self {
        Self(json!({
            "name": name, "kind": "mcp", "path": "/mcp", "audience": audience, "upstream": upstream,
            "resources": {"restart_service": "/service"},
        }))
    }

    /// Holds a call for so long at a time.
    #[must_use]
    pub fn holding_for(mut self, seconds: u64) -> Self {
        self.0["hold"] = json!({"budget_s": seconds});
        self
    }

    fn audience(&self) -> &Value {
        &self.0["audience"]
    }
}

/// A running proxy.
pub struct Proxy {
    /// Where agents connect.
    pub url: String,
    /// Where its metrics are.
    pub ops: String,
    name: String,
    dir: PathBuf,
    process: Process,
}

impl Proxy {
    /// Writes its configuration into `dir`, with a fresh join token, and starts it.
    pub async fn enrol(name: &str, dir: &Path, control: &Control, routes: &[Route]) -> Self {
        Self::configured(name, dir, control, (routes, json!({}))).await
    }

    /// The same, with more members of the configuration; `listener` is the one for agents, without its address.
    /// `{proxy}` in them is the proxy's URL.
    pub async fn configured(
        name: &str,
        dir: &Path,
        control: &Control,
        (routes, more): (&[Route], Value),
    ) -> Self {
        fs::create_dir_all(dir).expect("a directory");
        let audiences: Vec<&Value> = routes.iter().map(Route::audience).collect();
        let join = json!({"audiences": audiences, "tenants": null});
        let token = control.create("/v1/proxies/join-tokens", join).await;
        let token_file = dir.join("join-token");
        fs::write(&token_file, token["join_token"].as_str().expect("a join token")).expect("a file");
        let [data, ops, admin] = [(); 3].map(|()| format!("127.0.0.1:{}", free_port()));
        // JSON is YAML.
        let mut config = json!({
            "listen": {"data": data, "ops": ops, "admin": admin},
            "state_dir": dir.join("state"),
            "name": name,
            "backend": {"url": control.url, "join_token_file": token_file},
            "routes": routes.iter().map(|route| &route.0).collect::<Vec<_>>(),
        });
        for (name, value) in more.as_object().expect("members") {
            config[name] = value.clone();
        }
        if let Some(mut listener) = config.as_object_mut().and_then(|all| all.remove("listener")) {
            listener["address"] = json!(data);
            config["listen"]["data"] = json!([listener]);
        }
        let [url, ops] = [data, ops].map(|addr| format!("http://{addr}"));
        let text = format!("{config:#}").replace("{proxy}", &url);
        fs::write(dir.join("proxy.yaml"), text).expect("a file");
        let process = start(name, dir);
        let mut proxy = Self { url, ops, name: name.to_owned(), dir: dir.to_owned(), process };
        proxy.ready().await;
        proxy
    }

    /// An agent that calls through it.
    #[must_use]
    pub fn agent(&self, key: &str) -> Agent {
        Agent::new(&self.url, key)
    }

    /// The value of a metric without labels, or of all its series together; `None` when there is none.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        metric(&Agent::new(&self.ops, "").get("/metrics").await.expect(200).text, name)
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again, with the same state and ports.
    pub async fn restart(&mut self) {
        self.process = start(&self.name, &self.dir);
        self.ready().await;
    }

    /// SIGTERM, and the end.
    pub async fn terminate(&mut self, limit: Duration) -> ExitStatus {
        self.process.signal("TERM");
        self.process.ended(limit).await
    }

    async fn ready(&mut self) {
        let ops = Agent::new(&self.ops, "");
        let path = reqwest::Method::GET;
        until_within(START, "the proxy's /readyz", async || {
            assert!(self.process.runs(), "the proxy ended: {}", self.process.logged());
            let asked = ops.request(path.clone(), "/readyz", "").timeout(Duration::from_secs(2)).try_send();
            asked.await.ok().filter(|answer| answer.status == 200)
        })
        .await;
    }
}

fn start(name: &str, dir: &Path) -> Process {
    let mut command = quiet(oakallow());
    command.arg("proxy").arg("--config").arg(dir.join("proxy.yaml"));
    Process::spawn(name, command, dir)
}

/// The sum of a metric's series in the Prometheus text format.
#[must_use]
pub fn metric(text: &str, name: &str) -> Option<f64> {
    let series =
        text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
    let values = series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.reduce(|sum, value| sum + value)
}
