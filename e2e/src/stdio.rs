//! A proxy around an MCP server that speaks over standard input and output: its configuration, and one that
//! runs, driven line by line.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ExitStatus};
use std::time::Duration;

use serde_json::{Value, json};

use crate::clients::{clients, node};
use crate::process::{Process, oakallow};
use crate::stack::{Stack, quiet};
use crate::wait::until;

/// The route's audience in all of this.
pub const AUDIENCE: &str = "files";
/// How long an end may take: the server's grace, and the last events.
const END: Duration = Duration::from_secs(15);

/// A configuration, with a state directory of its own.
pub struct Wrapping {
    dir: PathBuf,
}

impl Wrapping {
    /// Writes it, with a fresh join token. `more` is merged into the route.
    pub async fn new(stack: &Stack, name: &str, more: Value) -> Self {
        Self::listening(stack, name, more, json!({})).await
    }

    /// The same, with more members of the whole file.
    pub async fn with(stack: &Stack, name: &str, more: &Value) -> Self {
        let made = Self::new(stack, name, json!({})).await;
        let file = made.dir.join("stdio.yaml");
        let text = fs::read_to_string(&file).expect("just written");
        let mut config: Value = serde_json::from_str(&text).expect("JSON");
        config.as_object_mut().expect("an object").extend(more.as_object().expect("members").clone());
        fs::write(file, format!("{config:#}")).expect("a file");
        made
    }

    /// The same, with listeners.
    pub async fn listening(stack: &Stack, name: &str, more: Value, listen: Value) -> Self {
        let dir = stack.dir().join(name);
        fs::create_dir_all(&dir).expect("a directory");
        let join = json!({"audiences": [AUDIENCE], "tenants": null});
        let token = stack.control().create("/v1/proxies/join-tokens", join).await;
        let token_file = dir.join("join-token");
        fs::write(&token_file, token["join_token"].as_str().expect("a join token")).expect("a file");
        let mut route =
            json!({"name": name, "kind": "stdio", "audience": AUDIENCE, "hold": {"progress_every_s": 1}});
        let more = more.as_object().expect("members").clone();
        route.as_object_mut().expect("an object").extend(more);
        // JSON is YAML.
        let config = json!({
            "state_dir": dir.join("state"),
            "name": name,
            "listen": listen,
            "backend": {"url": stack.env("OAKALLOW_BACKEND"), "join_token_file": token_file},
            "routes": [route],
        });
        fs::write(dir.join("stdio.yaml"), format!("{config:#}")).expect("a file");
        Self { dir }
    }

    /// The words after the name of the program: what a client's configuration has as `args`.
    #[must_use]
    pub fn arguments(&self, server: &[String]) -> Vec<String> {
        let config = self.dir.join("stdio.yaml").display().to_string();
        let own = ["proxy", "--stdio", "--config", &config, "--"].map(str::to_owned);
        own.into_iter().chain(server.iter().cloned()).collect()
    }

    /// The whole command of a client's configuration.
    #[must_use]
    pub fn command(&self, server: &[String]) -> Vec<String> {
        let program = oakallow().get_program().to_string_lossy().into_owned();
        [program].into_iter().chain(self.arguments(server)).collect()
    }

    /// Where its files are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// `e2e/clients/stdio_server.mjs`, which notes in `file` what reached it.
#[must_use]
pub fn bare_server(file: &Path) -> Vec<String> {
    let script = clients().join("stdio_server.mjs");
    words(&[&node().get_program().to_string_lossy(), &script.to_string_lossy(), &file.to_string_lossy()])
}

/// The MCP project's reference server.
#[must_use]
pub fn everything_server() -> Vec<String> {
    let script = clients().join("node_modules/@modelcontextprotocol/server-everything/dist/index.js");
    words(&[&node().get_program().to_string_lossy(), &script.to_string_lossy(), "stdio"])
}

/// The MCP project's filesystem server, for this directory.
#[must_use]
pub fn filesystem_server(directory: &Path) -> Vec<String> {
    let script = clients().join("node_modules/@modelcontextprotocol/server-filesystem/dist/index.js");
    words(&[&node().get_program().to_string_lossy(), &script.to_string_lossy(), &directory.to_string_lossy()])
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// What reached [`bare_server`].
#[must_use]
pub fn reached(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// A running one, and us as its client.
pub struct Wrapper {
    /// The proxy's process.
    pub process: Process,
    input: Option<ChildStdin>,
}

impl Wrapper {
    /// Starts it with these environment variables.
    #[must_use]
    pub fn start(wrapping: &Wrapping, server: &[String], variables: &[(&str, &str)]) -> Self {
        let mut command = quiet(oakallow());
        command.args(wrapping.arguments(server)).envs(variables.iter().copied());
        let (process, input) = Process::spawn_with_input("stdio", command, wrapping.dir());
        Self { process, input: Some(input) }
    }

    /// Starts it, and shakes hands.
    pub async fn ready(wrapping: &Wrapping, server: &[String], key: &str) -> Self {
        let mut wrapper = Self::start(wrapping, server, &[("OAKALLOW_API_KEY", key)]);
        let hands = json!({
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "e2e", "version": "1"},
        });
        // Its output is kept from one start to the next.
        let id = format!("hands-{}", wrapper.process.id());
        wrapper.request(&json!(id), "initialize", &hands);
        let _ = wrapper.answer(&json!(id)).await;
        wrapper.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        wrapper
    }

    /// Sends a request.
    pub fn request(&mut self, id: &Value, method: &str, params: &Value) {
        self.say(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
    }

    /// Sends a call.
    pub fn call(&mut self, id: u64, tool: &str, arguments: &Value) {
        self.request(&json!(id), "tools/call", &json!({"name": tool, "arguments": arguments}));
    }

    /// Sends a message.
    pub fn say(&mut self, message: &Value) {
        self.write(&format!("{message}\n"));
    }

    /// Sends any text. That nobody reads it is no failure here.
    pub fn write(&mut self, text: &str) {
        let input = self.input.as_mut().expect("it is open");
        let _ = input.write_all(text.as_bytes()).and_then(|()| input.flush());
    }

    /// Ends its input.
    pub fn close(&mut self) {
        self.input = None;
    }

    /// What it said so far.
    #[must_use]
    pub fn said(&self) -> Vec<Value> {
        let all = self.process.said();
        all.lines()
            .map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("no message: {e}: {l}")))
            .collect()
    }

    /// The answer to a request.
    pub async fn answer(&mut self, id: &Value) -> Value {
        let what = format!("an answer to {id}");
        let answers = |line: &str| {
            let said = serde_json::from_str::<Value>(line).ok()?;
            (said["id"] == *id && said["method"].is_null()).then_some(said)
        };
        self.process.until(&what, |all| all.lines().find_map(answers)).await
    }

    /// The tool server's process id, of the last start.
    pub async fn server(&mut self) -> u32 {
        let wrapped = |line: &str| {
            let rest = line.split("the tool server is wrapped").nth(1)?;
            rest.split("pid=").nth(1)?.split_whitespace().next()?.parse().ok()
        };
        self.process.until("the server's pid", |all| all.lines().rev().find_map(wrapped)).await
    }

    /// The end.
    pub async fn ended(&mut self) -> ExitStatus {
        self.process.ended(END).await
    }
}

/// Waits until there is no such process any more (or only its parent has not asked for its end yet).
pub async fn gone(process: u32) {
    let what = format!("the end of process {process}");
    until(&what, async || {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let state =
            status.lines().find_map(|line| line.strip_prefix("State:")).unwrap_or("X").trim().to_owned();
        state.starts_with(['X', 'Z']).then_some(())
    })
    .await;
}
