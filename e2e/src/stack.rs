//! A running oakallow: `oakallow dev`, or its parts as processes of their own.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use serde_json::json;

use crate::agent::Agent;
use crate::control::Control;
use crate::process::{Process, Scratch, oakallow};
use crate::proxy::{Proxy, Route};

/// More than anybody runs with, so that whatever could get into a log does.
const LOG: &str = "info,oakallow=debug,oakallow_proxy=debug,oakallow_backend=debug";

/// `oakallow dev` in a process of its own, with fresh data and free ports.
pub struct Stack {
    env: HashMap<String, String>,
    dev: Process,
    scratch: Scratch,
}

impl Stack {
    /// Starts it, and waits until it is ready.
    pub async fn start() -> Self {
        let scratch = Scratch::new();
        let mut command = quiet(oakallow());
        command.arg("dev").arg("--data-dir").arg(scratch.path().join("data"));
        for flag in ["--proxy", "--backend", "--admin", "--tools"] {
            command.args([flag, "127.0.0.1:0"]);
        }
        let mut dev = Process::spawn("dev", command, scratch.path());
        dev.until("a line `ready`", |all| all.lines().any(|line| line.starts_with("ready")).then_some(()))
            .await;
        let env = read_env(&scratch.path().join("data/dev.env"));
        Self { env, dev, scratch }
    }

    /// A value of `dev.env`.
    #[must_use]
    pub fn env(&self, name: &str) -> &str {
        self.env.get(name).unwrap_or_else(|| panic!("dev.env has no {name}"))
    }

    /// All of `dev.env`.
    #[must_use]
    pub fn envs(&self) -> &HashMap<String, String> {
        &self.env
    }

    /// Everything that this run wrote: the data directory and the logs.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.scratch.path()
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.dev
    }

    /// An agent of the tenant acme.
    #[must_use]
    pub fn acme(&self) -> Agent {
        Agent::new(self.env("OAKALLOW_PROXY"), self.env("OAKALLOW_ACME_KEY"))
    }

    /// An agent of the tenant globex.
    #[must_use]
    pub fn globex(&self) -> Agent {
        Agent::new(self.env("OAKALLOW_PROXY"), self.env("OAKALLOW_GLOBEX_KEY"))
    }

    /// The people and scripts on the backend's side.
    #[must_use]
    pub fn control(&self) -> Control {
        Control::new(
            self.env("OAKALLOW_BACKEND"),
            self.env("OAKALLOW_MANAGEMENT_KEY"),
            self.env("OAKALLOW_APPROVER_KEY"),
        )
    }

    /// How often the demo tools ran.
    pub async fn executions(&self, tool: &str) -> u64 {
        let counts = Agent::new(self.env("OAKALLOW_TOOLS"), "").get("/executions").await.body;
        counts["executions"][tool].as_u64().unwrap_or_else(|| panic!("no count of {tool} in {counts}"))
    }

    /// A second proxy, in a process of its own, in front of other tool servers or ready to be killed.
    pub async fn another_proxy(&self, name: &str, routes: &[Route]) -> Proxy {
        let dir = self.dir().join(name);
        Proxy::enrol(name, &dir, &self.control(), routes).await
    }

    /// SIGTERM, and the end.
    pub async fn terminate(&mut self, limit: Duration) -> ExitStatus {
        self.dev.signal("TERM");
        self.dev.ended(limit).await
    }
}

/// Backend, demo tool server and proxy as three processes, set up through the API by a script.
pub struct Split {
    /// In front of the demo tool server; may be killed and started again.
    pub proxy: Proxy,
    /// A standard key of the tenant acme.
    pub agent_key: String,
    /// Where the demo tools are.
    pub tools_url: String,
    control: Control,
    _tools: Process,
    _backend: Process,
    _scratch: Scratch,
}

impl Split {
    /// Starts the three, one after the other.
    pub async fn start() -> Self {
        let scratch = Scratch::new();
        let dir = scratch.path();
        let data = dir.join("backend-data");
        let management = bootstrap(&data);
        let mut command = quiet(oakallow());
        command.args(["backend", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&data);
        let mut backend = Process::spawn("backend", command, dir);
        let url = format!("http://{}", backend.until("its address", listening).await);
        // Nobody approves here: the first person signs in with the link, not with a key.
        let control = Control::new(&url, &management, "");
        let (agent_key, tool_key) = set_up(&control).await;

        let mut command = quiet(oakallow());
        command.args(["demo-tools", "--listen", "127.0.0.1:0", "--backend", &url]);
        command.env("OAKALLOW_TOOL_KEY", tool_key);
        let mut tools = Process::spawn("demo-tools", command, dir);
        let tools_url = format!("http://{}", tools.until("its address", listening).await);

        let routes = [Route::http("tools", "demo-tools", &tools_url)];
        let proxy = Proxy::enrol("proxy", &dir.join("proxy"), &control, &routes).await;
        Self { proxy, agent_key, tools_url, control, _tools: tools, _backend: backend, _scratch: scratch }
    }

    /// The people and scripts on the backend's side.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }
}

/// Logs without colours, and more of them.
pub(crate) fn quiet(mut command: Command) -> Command {
    command.env("NO_COLOR", "1").env("RUST_LOG", LOG).env("RUST_BACKTRACE", "1");
    command
}

fn bootstrap(data: &PathBuf) -> String {
    let mut command = oakallow();
    command.args(["backend", "bootstrap", "--org", "demo", "--email", "owner@demo.example", "--data-dir"]);
    let output = command.arg(data).output().expect("oakallow runs");
    assert!(output.status.success(), "bootstrap failed: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("a key").trim().to_owned()
}

/// Two tools, a tenant that may use one of them, its agent, and the keys of agent and tool server.
async fn set_up(control: &Control) -> (String, String) {
    control.create("/v1/tenants", json!({"id": "acme", "name": "Acme"})).await;
    for tool in ["read_record", "restart_service"] {
        control
            .create("/v1/tools", json!({"name": tool, "audience": "demo-tools", "risk_level": "low"}))
            .await;
    }
    let rule = json!({"tenant_id": "acme", "tool_name": "read_record", "permission": "allowed"});
    control.create("/v1/rules", rule).await;
    let rule = json!({"tool_name": "restart_service", "permission": "disabled"});
    control.create("/v1/rules", rule).await;
    let reach = json!({"tenancy": "one", "tenants": ["acme"]});
    let mut agent = json!({"id": "ops-bot", "owner": "robin@demo.example"});
    let mut key = json!({"tier": "standard", "name": "ops-bot", "agent_id": "ops-bot"});
    for object in [&mut agent, &mut key] {
        object.as_object_mut().expect("an object").extend(reach.as_object().expect("an object").clone());
    }
    control.create("/v1/agents", agent).await;
    let agent_key = control.create("/v1/keys", key).await;
    let tool = json!({"tier": "tool", "name": "tools", "audience": "demo-tools"});
    let tool_key = control.create("/v1/keys", tool).await;
    let shown = |answer: &serde_json::Value| answer["key"].as_str().expect("shown once").to_owned();
    (shown(&agent_key), shown(&tool_key))
}

/// The address in a log line such as `… is ready listen=127.0.0.1:4000`.
pub(crate) fn listening(all: &str) -> Option<String> {
    let line = all.lines().find(|line| line.contains("is ready"))?;
    let at = line.split("listen=").nth(1)?;
    at.split_whitespace().next().map(str::to_owned)
}

fn read_env(file: &Path) -> HashMap<String, String> {
    let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("cannot read {}: {e}", file.display()));
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned())).collect()
}
