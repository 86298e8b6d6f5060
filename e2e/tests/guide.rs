//! The quick start guide: its commands, as they are written, set up a backend and a proxy that govern a call.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "test code")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use oakallow_e2e::agent::Agent;
use oakallow_e2e::process::{Process, Scratch, free_port, oakallow, repository};
use oakallow_e2e::readme::blocks;
use oakallow_e2e::upstream::Recorder;
use oakallow_e2e::wait::until_within;
use serde_json::{Value, json};

/// What the guide's commands name that is somewhere else here.
struct Place<'a> {
    dir: &'a Path,
    backend: String,
}

impl Place<'_> {
    /// A block of the guide, for this place; what it prints.
    async fn run(&self, block: &str) -> String {
        let text = self.here(block);
        let path = format!("{}:{}", self.dir.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("bash");
        // `. ./env` carries what one block exports to the next, as a terminal does.
        let script = format!("touch env; . ./env\n{text}\nexport -p | grep ' MANAGEMENT=' > env || true\n");
        command.args(["-euo", "pipefail", "-c", &script]).env("PATH", path).current_dir(self.dir);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().expect("bash");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}\n{said}\n{}", String::from_utf8_lossy(&output.stderr));
        assert!(!said.contains("\"status\":4") && !said.contains("\"status\":5"), "{text}\n{said}");
        said
    }

    fn here(&self, text: &str) -> String {
        let data = self.dir.join("data").display().to_string();
        text.replace("/var/lib/oakallow", &data)
            .replace("127.0.0.1:4000", &self.backend)
            .replace("localhost:4000", &self.backend)
    }
}

/// Every JSON document in what `curl` printed, one after the other.
fn documents(said: &str) -> Vec<Value> {
    serde_json::Deserializer::from_str(said).into_iter().map(|value| value.expect("JSON")).collect()
}

/// The words of a block of one command, after `oakallow`.
fn words(text: &str) -> Vec<&str> {
    let mut words = text.split_whitespace();
    assert_eq!(words.next(), Some("oakallow"), "{text}");
    words.collect()
}

fn start(name: &str, words: &[&str], dir: &Path) -> Process {
    let mut command = oakallow();
    command.args(words).current_dir(dir).env("NO_COLOR", "1");
    Process::spawn(name, command, dir)
}

async fn answers(url: &str, process: &mut Process) {
    let agent = Agent::new(url, "");
    until_within(Duration::from_secs(60), &format!("an answer of {url}"), async || {
        assert!(process.runs(), "it ended: {}", process.logged());
        let request = agent.request(reqwest::Method::GET, "/readyz", "").timeout(Duration::from_secs(2));
        request.try_send().await.ok().filter(|answer| answer.status == 200)
    })
    .await;
}

fn write_config(dir: &Path, backend: &str, join_token: &str, upstream: &str) -> (String, String) {
    let [data, ops, admin] = [(); 3].map(|()| format!("127.0.0.1:{}", free_port()));
    fs::write(dir.join("join-token"), join_token).unwrap();
    let config = json!({
        "listen": {"data": data, "ops": ops, "admin": admin},
        "state_dir": dir.join("proxy"),
        "backend": {"url": format!("http://{backend}"), "join_token_file": dir.join("join-token")},
        "routes": [{
            "name": "ops", "kind": "http", "path": "/tools/{tool}", "audience": "ops-tools",
            "upstream": upstream, "resources": {"restart_service": "/service"},
        }],
    });
    fs::write(dir.join("proxy.yaml"), config.to_string()).unwrap();
    (format!("http://{data}"), format!("http://{ops}"))
}

#[tokio::test]
async fn the_quick_start_guide_sets_up_a_backend_and_a_proxy_that_govern_a_call() {
    let guide = fs::read_to_string(repository().join("docs/guide/quick-start.md")).unwrap();
    let blocks: Vec<String> = blocks(&guide).into_iter().map(|block| block.text).collect();
    let [backend, bootstrap, tools, keys, join, proxy] = blocks.as_slice() else {
        panic!("the guide has {} blocks; this test knows six", blocks.len())
    };
    let scratch = Scratch::new();
    let dir = scratch.path();
    std::os::unix::fs::symlink(oakallow().get_program(), dir.join("oakallow")).unwrap();
    let place = Place { dir, backend: format!("127.0.0.1:{}", free_port()) };

    let mut backend = start("backend", &words(&place.here(backend)), dir);
    answers(&format!("http://{}", place.backend), &mut backend).await;
    let link = place.run(bootstrap).await;
    assert!(link.contains("http"), "a login link: {link}");
    assert_eq!(documents(&place.run(tools).await).len(), 3);
    let keys = documents(&place.run(keys).await);
    let agent_key = keys[0]["key"]["key"].as_str().expect("the agent's key");
    assert!(agent_key.starts_with("oak_agent_"), "as the guide says");
    let join = documents(&place.run(join).await);

    let upstream = Recorder::start().await;
    let token = join[0]["join_token"].as_str().expect("a join token");
    let (url, ops) = write_config(dir, &place.backend, token, &upstream.url);
    let [check, run] = proxy.lines().collect::<Vec<_>>()[..] else { panic!("two commands: {proxy}") };
    place.run(check).await;
    let mut proxy = start("proxy", &words(run), dir);
    answers(&ops, &mut proxy).await;

    let service = json!({"service": "server-prod-01"});
    let _ = Agent::new(&url, agent_key).call("restart_service", &service).send().await.expect(200);
    assert!(!upstream.only().token().is_empty());
    let unknown = Agent::new(&url, agent_key).call_async("format_disk", &json!({})).send().await;
    let _ = unknown.expect(202);
    assert_eq!(upstream.seen().len(), 1, "what nobody registered waits for a person");
}
