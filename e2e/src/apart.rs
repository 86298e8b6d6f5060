//! The demo in processes that can be taken away one by one: backend, tool server, and proxies in front of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::agent::Agent;
use crate::control::Control;
use crate::process::{Process, free_port, oakallow};
use crate::proxy::{Proxy, Route};
use crate::stack::{Stack, listening, quiet};
use crate::wait::until_within;

/// How long a start, or an end, may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The demo's data and keys, and a process for each of its parts.
pub struct Apart {
    /// May be killed and started again.
    pub backend: Backend,
    /// Runs from the beginning to the end: it counts what was executed.
    tools: Process,
    tools_url: String,
    stack: Stack,
}

impl Apart {
    /// Has `oakallow dev` set everything up, ends it, and starts its parts.
    pub async fn start() -> Self {
        let mut stack = Stack::start().await;
        assert_eq!(stack.terminate(PATIENCE).await.code(), Some(0));
        let backend = Backend::start(stack.dir()).await;
        let mut command = quiet(oakallow());
        command.args(["demo-tools", "--listen", "127.0.0.1:0", "--backend", &backend.url]);
        command.env("OAKALLOW_TOOL_KEY", stack.env("OAKALLOW_TOOL_KEY"));
        let mut tools = Process::spawn("demo-tools", command, stack.dir());
        let tools_url = format!("http://{}", tools.until("its address", listening).await);
        Self { backend, tools, tools_url, stack }
    }

    /// A value of `dev.env`.
    #[must_use]
    pub fn env(&self, name: &str) -> &str {
        self.stack.env(name)
    }

    /// The people and scripts on the backend's side.
    #[must_use]
    pub fn control(&self) -> Control {
        let [management, approver] =
            ["MANAGEMENT", "APPROVER"].map(|k| self.env(&format!("OAKALLOW_{k}_KEY")));
        Control::new(&self.backend.url, management, approver)
    }

    /// A proxy in front of the demo tools.
    pub async fn proxy(&self, name: &str) -> Proxy {
        let routes = [Route::http(name, "demo-tools", &self.tools_url)];
        Proxy::enrol(name, &self.stack.dir().join(name), &self.control(), &routes).await
    }

    /// How often the demo tools ran.
    pub async fn executions(&mut self, tool: &str) -> usize {
        assert!(self.tools.runs(), "the tool server ended: {}", self.tools.logged());
        let counts = Agent::new(&self.tools_url, "").get("/executions").await.body;
        let count = counts["executions"][tool].as_u64().unwrap_or_else(|| panic!("no {tool} in {counts}"));
        usize::try_from(count).expect("a count")
    }

    /// What `oakallow audit verify` finds.
    #[must_use]
    pub fn verified(&self) -> Value {
        let mut command = oakallow();
        command.args(["audit", "verify", "--org", "demo", "--json", "--data-dir"]);
        let output = command.arg(self.stack.dir().join("data")).output().expect("oakallow runs");
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

/// The backend, on a port that it keeps.
pub struct Backend {
    /// Where it is.
    pub url: String,
    dir: PathBuf,
    process: Process,
}

impl Backend {
    async fn start(dir: &Path) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let process = spawn(&address, dir);
        let mut backend = Self { url: format!("http://{address}"), dir: dir.to_owned(), process };
        backend.ready().await;
        backend
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again, over the same data.
    pub async fn restart(&mut self) {
        self.process = spawn(self.url.trim_start_matches("http://"), &self.dir);
        self.ready().await;
    }

    async fn ready(&mut self) {
        let agent = Agent::new(&self.url, "");
        until_within(PATIENCE, "the backend's /readyz", async || {
            assert!(self.process.runs(), "the backend ended: {}", self.process.logged());
            let asked = agent.request(reqwest::Method::GET, "/readyz", "").timeout(Duration::from_secs(2));
            asked.try_send().await.ok().filter(|answer| answer.status == 200)
        })
        .await;
    }
}

fn spawn(address: &str, dir: &Path) -> Process {
    let mut command = quiet(oakallow());
    command.args(["backend", "--listen", address, "--data-dir"]).arg(dir.join("data"));
    Process::spawn("backend", command, dir)
}
