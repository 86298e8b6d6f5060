//! A backend in the test's own process, and the command as a process beside it.

#![allow(dead_code, clippy::unwrap_used, clippy::indexing_slicing, reason = "each test file uses its part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use axum::Router;
use axum::body::Bytes;
use axum::routing::get;
use oakallow_backend::{Bootstrap, Config, Running};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A backend with an org `demo`, and a directory for files.
pub(crate) struct Place {
    pub(crate) url: String,
    key: String,
    client: reqwest::Client,
    _backend: Running,
    dir: TempDir,
}

impl Place {
    /// Starts it.
    pub(crate) async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(([127, 0, 0, 1], 0).into(), dir.path().join("data"));
        let backend = oakallow_backend::start(config).await.unwrap();
        let first = Bootstrap { org: "demo".to_owned(), owner_email: "a@demo.example".to_owned() };
        let key = backend.bootstrap(first).await.unwrap().expose().to_owned();
        let url = format!("http://{}", backend.addr);
        Self { url, key, client: reqwest::Client::new(), _backend: backend, dir }
    }

    /// A path in its directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file; its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Runs the command, with the address and the key in its environment, in the directory.
    pub(crate) async fn oakallow(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oakallow"));
        command.args(arguments);
        self.run(command).await
    }

    /// Runs a script in the same way.
    pub(crate) async fn bash(&self, script: &str) -> Output {
        let mut command = Command::new("bash");
        command.arg(script);
        self.run(command).await
    }

    async fn run(&self, mut command: Command) -> Output {
        command.env("OAKALLOW_BACKEND", &self.url).env("OAKALLOW_MANAGEMENT_KEY", &self.key);
        command.stdin(Stdio::null()).current_dir(self.dir.path());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let said = stdout(&output) + &stderr(&output);
        assert!(!said.contains(&self.key), "the key is in what it said");
        output
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.send(reqwest::Method::GET, path, Value::Null).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        self.send(reqwest::Method::POST, path, body).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Value {
        self.send(reqwest::Method::PATCH, path, body).await
    }

    /// The version of the policy.
    pub(crate) async fn policy_version(&self) -> u64 {
        let answer = self.post("/v1/rules/simulate", json!({"call": {"tool_name": "x"}})).await;
        answer["decision"]["policy_version"].as_u64().unwrap()
    }

    async fn send(&self, method: reqwest::Method, path: &str, body: Value) -> Value {
        let mut request =
            self.client.request(method, format!("{}{path}", self.url)).header("x-api-key", &self.key);
        if !body.is_null() {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status();
        let answer: Value = response.json().await.unwrap();
        assert!(status.is_success(), "{path}: {answer}");
        answer
    }
}

/// Serves a text at every path; the address.
pub(crate) async fn serve(text: Bytes) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = move || std::future::ready(text.clone());
    let router = Router::new().fallback(get(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A file of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}
