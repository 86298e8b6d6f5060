//! Clients in other languages: small scripts in `e2e/clients` around stock libraries. They print one JSON
//! object a line, each with a `step`.

use std::collections::HashMap;
use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::process::{Process, Scratch, repository};

/// How long a script may take for one step.
const STEP: Duration = Duration::from_secs(90);

/// A running script.
pub struct Script {
    process: Process,
    _scratch: Scratch,
}

impl Script {
    /// Starts `e2e/clients/<file>` (`.py` or `.mjs`) with these environment variables.
    #[must_use]
    pub fn start(file: &str, variables: &[(&str, &str)]) -> Self {
        let scratch = Scratch::new();
        let mut command = interpreter(file);
        command.arg(clients().join(file)).envs(variables.iter().copied());
        let process = Process::spawn(file, command, scratch.path());
        Self { process, _scratch: scratch }
    }

    /// Waits for a step; what the script says of it.
    pub async fn step(&mut self, step: &str) -> Value {
        let what = format!("step {step}");
        let found = self.process.until(&what, |all| {
            let mut said = all.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            said.find(|said| said["step"] == step || said["step"] == "failed")
        });
        let said = found.await;
        assert_eq!(said["step"], step, "{said:#}");
        said
    }

    /// Waits for the end, which must be a good one; all steps by name.
    pub async fn end(mut self) -> HashMap<String, Value> {
        let status = self.process.ended(STEP).await;
        let said = self.process.said();
        assert!(status.success(), "{status}\n{said}\n{}", self.process.logged());
        let steps = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        steps.map(|said| (said["step"].as_str().expect("a step").to_owned(), said)).collect()
    }
}

/// An MCP server, on loopback only.
pub struct Server {
    /// Where it is; its MCP endpoint is `/mcp` there.
    pub url: String,
    _process: Process,
    _scratch: Scratch,
}

impl Server {
    /// `server-everything` of the MCP project.
    pub async fn everything() -> Self {
        let mut command = node();
        command.arg("--import").arg(clients().join("loopback.mjs"));
        command.arg(clients().join("node_modules/@modelcontextprotocol/server-everything/dist/index.js"));
        command.arg("streamableHttp").env("PORT", "0");
        Self::start("server-everything", command).await
    }

    /// Ours, which has what the conformance suite asks for.
    pub async fn fixture() -> Self {
        let mut command = node();
        command.arg(clients().join("fixture/server.mjs"));
        Self::start("fixture", command).await
    }

    async fn start(name: &str, command: Command) -> Self {
        let scratch = Scratch::new();
        let mut process = Process::spawn(name, command, scratch.path());
        let port = process.until("its port", |all| {
            let line = all.lines().find_map(|line| line.strip_prefix("loopback port "))?;
            line.trim().parse::<u16>().ok()
        });
        let url = format!("http://127.0.0.1:{}", port.await);
        Self { url, _process: process, _scratch: scratch }
    }
}

pub(crate) fn clients() -> PathBuf {
    repository().join("e2e/clients")
}

fn cache() -> PathBuf {
    let home = || PathBuf::from(env::var_os("HOME").expect("HOME is set")).join(".cache/oakallow");
    env::var_os("OAKALLOW_CACHE").map_or_else(home, PathBuf::from)
}

/// What runs a script of this name.
#[must_use]
pub fn interpreter(file: &str) -> Command {
    if file.ends_with(".mjs") {
        return node();
    }
    let python = cache().join("venv/bin/python");
    assert!(python.is_file(), "there is no {}: run scripts/setup check", python.display());
    Command::new(python)
}

/// The Node that `scripts/setup check` put into the cache, else the system's.
pub(crate) fn node() -> Command {
    let installed = clients().join("node_modules/jose");
    assert!(installed.is_dir(), "there is no {}: run scripts/setup check", installed.display());
    let ours = std::fs::read_dir(cache()).into_iter().flatten().filter_map(Result::ok);
    let ours = ours.filter(|entry| entry.file_name().to_string_lossy().starts_with("node-"));
    let ours = ours.map(|entry| entry.path().join("bin/node")).filter(|path| path.is_file()).max();
    Command::new(ours.unwrap_or_else(|| PathBuf::from("node")))
}
