//! `oakallow dev` as a script meets it: the line `ready`, `dev.env`, the cases of the demo, a restart, and
//! the end.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const FREE_PORTS: [&str; 8] = [
    "--proxy",
    "localhost:0",
    "--backend",
    "127.0.0.1:0",
    "--admin",
    "127.0.0.1:0",
    "--tools",
    "127.0.0.1:0",
];

/// A running `oakallow dev`; killed when dropped.
struct Dev {
    child: Child,
    stdout: BufReader<ChildStdout>,
    said: String,
    env: HashMap<String, String>,
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Dev {
    fn start(data_dir: Option<&Path>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oakallow"));
        command.arg("dev").args(FREE_PORTS).stdout(Stdio::piped());
        if let Some(dir) = data_dir {
            command.arg("--data-dir").arg(dir);
        }
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut dev = Self { child, stdout, said: String::new(), env: HashMap::new() };
        dev.wait_until_ready();
        dev.env = read_env(&dev.data_dir().join("dev.env"));
        dev
    }

    fn wait_until_ready(&mut self) {
        loop {
            let mut line = String::new();
            assert!(
                self.stdout.read_line(&mut line).unwrap() > 0,
                "it ended before it was ready: {}",
                self.said
            );
            self.said.push_str(&line);
            if line.starts_with("ready") {
                return;
            }
        }
    }

    fn data_dir(&self) -> PathBuf {
        let line = self.said.lines().find_map(|line| line.strip_prefix("data ")).unwrap().trim();
        PathBuf::from(line.split(" (").next().unwrap())
    }

    fn env(&self, name: &str) -> &str {
        self.env.get(name).unwrap_or_else(|| panic!("dev.env has no {name}"))
    }

    /// Sends the signal, and waits for the end.
    fn stop(&mut self, signal: &str) -> ExitStatus {
        let asked = Instant::now();
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        let status = self.child.wait().unwrap();
        assert!(asked.elapsed() < Duration::from_secs(10), "it took {:?} to stop", asked.elapsed());
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        status
    }

    /// Runs the one command that it printed and that has this in it.
    fn run_printed(&self, part: &str, then: &str) -> String {
        let command = self.said.lines().find(|line| line.contains(part)).unwrap().trim();
        let output = Command::new("sh").args(["-euc", &format!("{command}\n{then}")]).output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    async fn call(&self, tool: &str, key: &str, arguments: Value) -> (u16, Value) {
        let url = format!("{}/tools/{tool}", self.env("OAKALLOW_PROXY"));
        let request = reqwest::Client::new().post(url).header("x-api-key", self.env(key)).json(&arguments);
        let response = request.header("prefer", "respond-async").send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    async fn backend(&self, path: &str, key: &str, body: Value) -> (u16, Value) {
        let url = format!("{}{path}", self.env("OAKALLOW_BACKEND"));
        let request = reqwest::Client::new().post(url).header("x-api-key", self.env(key));
        let response = request.body(body.to_string()).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    async fn executions(&self, tool: &str) -> u64 {
        let url = format!("{}/executions", self.env("OAKALLOW_TOOLS"));
        let counts: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
        counts.pointer(&format!("/executions/{tool}")).and_then(Value::as_u64).unwrap()
    }
}

fn read_env(file: &Path) -> HashMap<String, String> {
    let text = fs::read_to_string(file).unwrap();
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Runs a command that must fail; what it said.
fn refused(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_oakallow")).args(arguments).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

/// The test's own client, for which the test process needs a TLS provider.
fn tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

#[tokio::test]
async fn the_demo_keeps_its_contract() {
    tls();
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data");
    let dev = Dev::start(Some(&dir));
    let mode = fs::metadata(dir.join("dev.env")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(
        dev.env("OAKALLOW_DASHBOARD").starts_with("http://localhost:"),
        "{}",
        dev.env("OAKALLOW_DASHBOARD")
    );
    for (name, prefix) in [
        ("OAKALLOW_KEY", "oak_live_"),
        ("OAKALLOW_MANAGEMENT_KEY", "oak_live_"),
        ("OAKALLOW_APPROVER_KEY", "oak_appr_"),
        ("OAKALLOW_TOOL_KEY", "oak_tool_"),
    ] {
        assert!(dev.env(name).starts_with(prefix), "{name}");
    }
    for tenant in ["OAKALLOW_ACME_KEY", "OAKALLOW_GLOBEX_KEY"] {
        let (status, answer) = dev.call("read_record", tenant, json!({"id": "42"})).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["token_claims"]["tool"], "read_record");
        let (status, answer) = dev
            .call("transfer_funds", tenant, json!({"from": "operations", "to": "savings", "amount": 1}))
            .await;
        assert_eq!((status, &answer["status"]), (202, &json!("pending")), "{answer}");
        let (status, answer) = dev.call("drop_database", tenant, json!({"name": "orders"})).await;
        assert_eq!((status, &answer["code"]), (403, &json!("disabled")), "{answer}");
        let (status, answer) = dev.call("format_disk", tenant, json!({"disk": "sda"})).await;
        assert_eq!(status, 202, "{answer}");
    }
    let service = json!({"service": "server-prod-01"});
    let (status, answer) = dev.call("restart_service", "OAKALLOW_ACME_KEY", service.clone()).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["token_claims"]["resource"], "server-prod-01");
    let (status, answer) = dev.call("restart_service", "OAKALLOW_GLOBEX_KEY", service).await;
    assert_eq!(status, 202, "{answer}");
    assert_eq!(dev.executions("read_record").await, 2);
    assert_eq!(dev.executions("restart_service").await, 1);
    assert_eq!(dev.executions("transfer_funds").await, 0);
    assert_eq!(dev.executions("drop_database").await, 0);
}

#[tokio::test]
async fn an_approved_call_runs_once() {
    tls();
    let dev = Dev::start(None);
    let transfer = json!({"from": "operations", "to": "savings", "amount": 500});
    let (_, pending) = dev.call("transfer_funds", "OAKALLOW_ACME_KEY", transfer.clone()).await;
    let path = format!("/v1/approvals/{}/decide", pending["approval_id"].as_str().unwrap());
    let (status, decided) =
        dev.backend(&path, "OAKALLOW_APPROVER_KEY", json!({"decision": "approved"})).await;
    assert_eq!(status, 200, "{decided}");
    let (status, answer) = dev.call("transfer_funds", "OAKALLOW_ACME_KEY", transfer.clone()).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["token_claims"]["apr"], pending["approval_id"]);
    let (status, answer) = dev.call("transfer_funds", "OAKALLOW_ACME_KEY", transfer).await;
    assert_eq!((status, &answer["code"]), (409, &json!("already_executed")), "{answer}");
    assert_eq!(dev.executions("transfer_funds").await, 1);
}

#[tokio::test]
async fn the_public_quick_start_works() {
    tls();
    let dev = Dev::start(None);
    for key in ["OAKALLOW_ACME_KEY", "OAKALLOW_KEY"] {
        let check = json!({"tool_name": "restart_service", "resource_id": "server-prod-01"});
        let (status, checked) = dev.backend("/v1/permissions/check", key, check).await;
        assert_eq!((status, &checked["permission"]), (200, &json!("allowed")), "{checked}");
        let (status, minted) =
            dev.backend("/v1/tokens/mint", key, json!({"tool_name": "restart_service"})).await;
        assert!(status < 300 && minted["token"].is_string(), "{status}");
        let log = json!({"tool_name": "restart_service", "execution_result": "success"});
        let (status, logged) = dev.backend("/v1/executions/log", key, log).await;
        assert!(status < 300, "{status} {logged}");
    }
}

#[tokio::test]
async fn a_restart_keeps_keys_and_what_was_changed() {
    tls();
    let parent = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(Some(parent.path()));
    let rule = json!({"tenant_id": "acme", "tool_name": "restart_service", "resource_id": "server-prod-01",
        "permission": "disabled"});
    let (status, answer) = dev.backend("/v1/rules", "OAKALLOW_MANAGEMENT_KEY", rule).await;
    assert_eq!(status, 201, "{answer}");
    let first = dev.env.clone();
    assert_eq!(dev.stop("-INT").code(), Some(0));

    let dev = Dev::start(Some(parent.path()));
    for name in ["OAKALLOW_ACME_KEY", "OAKALLOW_MANAGEMENT_KEY", "OAKALLOW_APPROVER_KEY", "OAKALLOW_TOOL_KEY"]
    {
        assert_eq!(dev.env(name), first[name], "{name}");
    }
    assert_ne!(dev.env("OAKALLOW_DASHBOARD"), first["OAKALLOW_DASHBOARD"], "the link works once");
    let (status, answer) =
        dev.call("restart_service", "OAKALLOW_ACME_KEY", json!({"service": "server-prod-01"})).await;
    assert_eq!(status, 403, "{answer}");
    let (status, answer) =
        dev.call("restart_service", "OAKALLOW_ACME_KEY", json!({"service": "server-prod-02"})).await;
    assert_eq!(status, 200, "{answer}");
}

#[test]
fn it_ends_at_once_and_leaves_nothing_behind() {
    for signal in ["-TERM", "-INT"] {
        let mut dev = Dev::start(None);
        let dir = dev.data_dir();
        assert!(dir.join("dev.env").exists());
        assert_eq!(dev.stop(signal).code(), Some(0), "{signal}");
        assert!(!dir.exists(), "{signal}");
    }
}

#[test]
fn a_taken_port_is_named_with_its_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let mut arguments = FREE_PORTS;
    arguments[7] = &addr;
    let output = Command::new(env!("CARGO_BIN_EXE_oakallow")).arg("dev").args(arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&addr) && said.contains("--tools"), "{said}");
}

#[test]
fn an_unusable_data_directory_is_a_clear_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let said = refused(&[&["dev", "--data-dir", path][..], &FREE_PORTS].concat());
    assert!(said.contains(&format!("the data directory {path}: ")), "{said}");
}

#[test]
fn a_backends_own_directory_is_not_taken() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().to_str().unwrap();
    let first = ["backend", "bootstrap", "--org", "acme", "--email", "a@example.com", "--data-dir", path];
    assert!(Command::new(env!("CARGO_BIN_EXE_oakallow")).args(first).output().unwrap().status.success());
    let said = refused(&[&["dev", "--data-dir", path][..], &FREE_PORTS].concat());
    assert!(
        said.contains(&format!("{path} is the data directory of a backend; `oakallow dev` needs")),
        "{said}"
    );
    for made in ["dev.env", "dev.lock", "proxy", "backend"] {
        assert!(!data.path().join(made).exists(), "{made}");
    }
}

#[test]
fn an_address_that_is_none_is_answered_with_one() {
    for arguments in [
        ["dev", "--proxy"],
        ["dev", "--backend"],
        ["dev", "--admin"],
        ["dev", "--tools"],
        ["backend", "--listen"],
        ["demo-tools", "--listen"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oakallow"));
        let output = command.args(arguments).arg("18080").output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(arguments[1]) && said.contains("like 127.0.0.1:18080"), "{said}");
        assert_eq!(output.status.code(), Some(2), "{said}");
    }
}

#[test]
fn the_printed_commands_export_the_variables_and_make_another_link() {
    let parent = tempfile::tempdir().unwrap();
    let dev = Dev::start(Some(&parent.path().join("it's here")));
    let exported = dev.run_printed("dev.env", "sh -c 'printf %s \"$OAKALLOW_ACME_KEY\"'");
    assert!(exported == dev.env("OAKALLOW_ACME_KEY"), "the key is not exported");
    let link = dev.run_printed("backend login-link", "");
    let printed = dev.env("OAKALLOW_DASHBOARD");
    let page = |link: &str| link.split('?').next().unwrap().to_owned();
    assert_eq!(page(&link), page(printed));
    assert_ne!(link.trim(), printed, "the link works once");
}

#[test]
fn its_directory_is_as_good_as_the_backends_within() {
    let parent = tempfile::tempdir().unwrap();
    let _dev = Dev::start(Some(parent.path()));
    let path = parent.path().to_str().unwrap();
    let verify = ["audit", "verify", "--org", "demo", "--data-dir", path];
    let output = Command::new(env!("CARGO_BIN_EXE_oakallow")).args(verify).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("sound: "), "{said}");
    // A second backend on it would miss what the first one changes.
    let said = refused(&["backend", "--listen", "127.0.0.1:0", "--data-dir", path]);
    let expected = format!("error: the backend cannot start: the data directory {path}/backend is in use");
    assert!(said.contains(&expected), "{said}");
}

#[test]
fn a_proxy_that_cannot_start_says_why_once() {
    let parent = tempfile::tempdir().unwrap();
    let dev = Dev::start(Some(parent.path()));
    let config = |state: &Path| {
        let file = parent.path().join("second.yaml");
        let token = parent.path().join("used-token");
        fs::write(&token, "oak_join_0123456789abcdefghijklmnopqrstuv").unwrap();
        let contents = json!({
            "listen": {"data": "127.0.0.1:0", "admin": "127.0.0.1:0", "ops": "127.0.0.1:0"},
            "name": "second", "state_dir": state,
            "backend": {"url": dev.env("OAKALLOW_BACKEND"), "join_token_file": token},
            "routes": [{"name": "r", "kind": "http", "path": "/tools/{tool}", "audience": "demo-tools",
                "upstream": dev.env("OAKALLOW_TOOLS")}],
        });
        fs::write(&file, contents.to_string()).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let said = refused(&["proxy", "--config", &config(&parent.path().join("new"))]);
    let error = said.lines().find(|line| line.starts_with("error: ")).unwrap();
    assert!(
        error.starts_with("error: the proxy cannot start: cannot enrol: the backend refuses: "),
        "{said}"
    );
    assert_eq!(said.matches("the backend refuses").count(), 1, "{said}");

    let said = refused(&["proxy", "--config", &config(&parent.path().join("proxy"))]);
    assert!(
        said.contains("error: the proxy cannot start: the audit spool ")
            && said.contains("is in use by another proxy"),
        "{said}"
    );
}
