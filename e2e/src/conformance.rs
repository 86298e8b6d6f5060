//! The official conformance suite of the MCP project, against any server, with what it found out check by
//! check.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::clients::{clients, node};
use crate::process::{Process, Scratch};

/// The whole suite, beside others.
const RUN: Duration = Duration::from_secs(120);

/// What the suite says of one thing that it looked at.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Of the requirement; several checks may have the same.
    pub id: String,
    /// Of the check.
    pub name: String,
    /// `SUCCESS`, `FAILURE`, `WARNING`, `INFO` or `SKIPPED`.
    pub status: String,
    /// What is wrong.
    pub error_message: Option<String>,
}

/// Checks in their order, by scenario.
pub type Checks = BTreeMap<String, Vec<Check>>;

/// Runs all that the suite has for a version of the protocol; with a key, each request carries it.
pub async fn checks(url: &str, version: &str, key: Option<&str>) -> Checks {
    let scratch = Scratch::new();
    let results = scratch.path().join("results");
    let mut command = node();
    if let Some(key) = key {
        command.arg("--import").arg(clients().join("key.mjs")).env("KEY", key);
    }
    command.arg(clients().join("node_modules/@modelcontextprotocol/conformance/dist/index.js"));
    command.args(["server", "--url", &format!("{url}/mcp")]).arg("--output-dir").arg(&results);
    // Frozen lists of what conforming takes exist since 2025-11-25.
    match version {
        "2025-03-26" | "2025-06-18" => command.args(["--suite", "all", "--spec-version", version]),
        _ => command.args(["--requirements", version]),
    };
    let mut suite = Process::spawn("conformance", command, scratch.path());
    // Its status says whether everything passed, which is for the reader of the checks to say.
    suite.ended(RUN).await;
    let found = read(&results);
    assert!(!found.is_empty(), "the suite found out nothing:\n{}\n{}", suite.said(), suite.logged());
    found
}

/// `<results>/server-<scenario>-<time>/checks.json`, the time as in 2026-11-24T08-57-54-478Z.
fn read(results: &Path) -> Checks {
    let entries = fs::read_dir(results).into_iter().flatten().map(|entry| entry.expect("an entry").path());
    let read = |dir: std::path::PathBuf| {
        let name = dir.file_name().expect("a name").to_string_lossy().into_owned();
        let scenario = name.strip_prefix("server-").unwrap_or(&name);
        let scenario = &scenario[..scenario.len() - "-2026-11-24T08-57-54-478Z".len()];
        let text = fs::read_to_string(dir.join("checks.json")).expect("checks");
        (scenario.to_owned(), serde_json::from_str(&text).expect("a list of checks"))
    };
    entries.map(read).collect()
}

/// Where the second differs from the first: one line a check.
#[must_use]
pub fn difference(first: &Checks, second: &Checks) -> Vec<String> {
    let none = Vec::new();
    let mut scenarios: Vec<&String> = first.keys().chain(second.keys()).collect();
    scenarios.sort();
    scenarios.dedup();
    let mut lines = Vec::new();
    for scenario in scenarios {
        let [a, b] = [first, second].map(|checks| checks.get(scenario).unwrap_or(&none));
        for at in 0..a.len().max(b.len()) {
            if a.get(at) != b.get(at) {
                lines.push(format!("{scenario} {at}: {} | {}", shown(a.get(at)), shown(b.get(at))));
            }
        }
    }
    lines
}

fn shown(check: Option<&Check>) -> String {
    let Some(Check { id, name, status, error_message }) = check else { return "nothing".to_owned() };
    format!("{id} ({name}) {status} {}", error_message.as_deref().unwrap_or_default())
}
