//! The quick start guide: its commands, as they are written, set up a backend and a proxy that govern a call.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "test code")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use oakallow_e2e::agent::Agent;
use oakallow_e2e::process::{Process, Scratch, free_port, oakallow, repository};
use oakallow_e2e::readme::blocks;
use oakallow_e2e::wait::until_within;
use serde_json::Value;

/// The directories and addresses that the guide names, and what they are here.
struct Place<'a> {
    dir: &'a Path,
    names: Vec<(String, String)>,
}

impl<'a> Place<'a> {
    fn new(dir: &'a Path) -> Self {
        let port = |port: &str| (format!(":{port}"), format!(":{}", free_port()));
        let mut names = vec![("/var/lib/".to_owned(), format!("{}/", dir.display()))];
        names.extend(["4000", "8080", "9000", "9901", "9902"].map(port));
        Self { dir, names }
    }

    fn here(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (there, here)| text.replace(there, here))
    }

    fn url(&self, port: &str) -> String {
        format!("http://127.0.0.1{}", self.here(&format!(":{port}")))
    }

    fn bash(&self, script: &str) -> Command {
        let path = format!("{}:{}", self.dir.join("bin").display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", script]).env("PATH", path).current_dir(self.dir);
        command
    }

    /// A block of the guide; what it prints.
    async fn run(&self, block: &str) -> String {
        let text = self.here(block);
        // `. ./env` carries what one block exports to the next, as a terminal does.
        let script = format!("touch env; . ./env\n{text}\nexport -p | grep ' MANAGEMENT=' > env || true\n");
        let mut command = self.bash(&script);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().expect("bash");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}\n{said}\n{}", String::from_utf8_lossy(&output.stderr));
        assert!(!said.contains("\"status\":4") && !said.contains("\"status\":5"), "{text}\n{said}");
        said
    }

    /// A block that stays in the foreground; waits until that port answers.
    async fn start(&self, name: &str, block: &str, port: &str, path: &str) -> Process {
        let mut command = self.bash(&format!("exec env {}", self.here(block)));
        command.env("NO_COLOR", "1");
        let mut process = Process::spawn(name, command, self.dir);
        let agent = Agent::new(&self.url(port), "");
        until_within(Duration::from_secs(60), &format!("an answer of {name}"), async || {
            assert!(process.runs(), "{name} ended: {}", process.logged());
            let request = agent.request(reqwest::Method::GET, path, "").timeout(Duration::from_secs(2));
            request.try_send().await.ok().filter(|answer| answer.status == 200)
        })
        .await;
        process
    }
}

/// Every JSON document in what `curl` printed, one after the other.
fn documents(said: &str) -> Vec<Value> {
    serde_json::Deserializer::from_str(said).into_iter().map(|value| value.expect("JSON")).collect()
}

#[tokio::test]
async fn the_quick_start_guide_sets_up_a_backend_and_a_proxy_that_govern_a_call() {
    let guide = fs::read_to_string(repository().join("docs/guide/quick-start.md")).unwrap();
    let blocks: Vec<String> = blocks(&guide).into_iter().map(|block| block.text).collect();
    let [backend, bootstrap, tools, keys, demo_tools, join, proxy, calls] = blocks.as_slice() else {
        panic!("the guide has {} blocks; this test knows eight", blocks.len())
    };
    let scratch = Scratch::new();
    fs::create_dir(scratch.path().join("bin")).unwrap();
    std::os::unix::fs::symlink(oakallow().get_program(), scratch.path().join("bin/oakallow")).unwrap();
    let place = Place::new(scratch.path());

    let _backend = place.start("backend", backend, "4000", "/readyz").await;
    let link = place.run(bootstrap).await;
    assert!(link.contains("http"), "a login link: {link}");
    assert_eq!(documents(&place.run(tools).await).len(), 3);
    let keys = documents(&place.run(keys).await);
    assert!(keys[0]["key"]["key"].as_str().unwrap().starts_with("oak_agent_"), "as the guide says");
    assert!(keys[1]["key"].as_str().unwrap().starts_with("oak_tool_"), "as the guide says");
    let _tools = place.start("demo-tools", demo_tools, "9000", "/executions").await;
    place.run(join).await;
    let _proxy = place.start("proxy", proxy, "9902", "/readyz").await;

    let answers = documents(&place.run(calls).await);
    assert_eq!(answers[0]["token_claims"]["tenant"], "acme", "{answers:#?}");
    assert_eq!(answers[1]["status"], "pending", "{answers:#?}");
    let ran = Agent::new(&place.url("9000"), "").get("/executions").await.body;
    assert_eq!(ran["executions"]["restart_service"], 1, "{ran}");
}
