//! A tool server that says yes to everything and remembers exactly what reached it.

use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::{Json, Router};
use http::HeaderMap;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// One request that reached the tool server.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Method and URI.
    pub line: String,
    /// All headers.
    pub headers: HeaderMap,
    /// The exact body.
    pub body: Bytes,
}

impl Seen {
    /// All values of a header, as text.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<String> {
        let values = self.headers.get_all(name).iter();
        values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
    }

    /// The one execution token.
    #[must_use]
    pub fn token(&self) -> String {
        let mut tokens = self.all(oakallow_policy::token::HEADER);
        assert_eq!(tokens.len(), 1, "exactly one token: {self:#?}");
        tokens.remove(0)
    }
}

type Memory = Arc<Mutex<Vec<Seen>>>;

/// The server; ends with this value.
pub struct Recorder {
    /// Where it is.
    pub url: String,
    memory: Memory,
    task: JoinHandle<()>,
}

impl Recorder {
    /// Starts it.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let memory = Memory::default();
        let router = Router::new().fallback(remember).with_state(Arc::clone(&memory));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { url, memory, task }
    }

    /// What reached it so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.memory.lock().expect("nobody panics with it").clone()
    }

    /// The only request that reached it.
    #[must_use]
    #[track_caller]
    pub fn only(&self) -> Seen {
        let mut seen = self.seen();
        assert_eq!(seen.len(), 1, "exactly one request: {seen:#?}");
        seen.remove(0)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn remember(State(memory): State<Memory>, request: Request<Body>) -> Json<Value> {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 8 * 1024 * 1024).await.unwrap_or_default();
    let bytes = body.len();
    let line = format!("{} {}", parts.method, parts.uri);
    memory.lock().expect("nobody panics with it").push(Seen { line, headers: parts.headers, body });
    Json(json!({"received_bytes": bytes}))
}
