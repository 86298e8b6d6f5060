//! A tool server that answers as it is told, and remembers exactly what reached it.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// One request that reached the tool server.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Method and URI.
    pub(crate) line: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

struct Memory {
    seen: Mutex<Vec<Seen>>,
    answer: Mutex<(&'static str, Bytes)>,
    status: Mutex<StatusCode>,
    more: Mutex<HeaderMap>,
}

/// The server; ends with this value.
pub(crate) struct Upstream {
    pub(crate) url: String,
    memory: Arc<Memory>,
    task: JoinHandle<()>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let answer = Mutex::new(("application/json", Bytes::from("{\"ok\":true}")));
        let memory = Arc::new(Memory {
            seen: Mutex::default(),
            answer,
            status: Mutex::default(),
            more: Mutex::default(),
        });
        let router = Router::new().fallback(remember).with_state(memory.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { url, memory, task }
    }

    /// What it answers from now on.
    pub(crate) fn answers(&self, content_type: &'static str, body: &str) {
        self.answers_bytes(content_type, Bytes::copy_from_slice(body.as_bytes()));
    }

    /// The same, of any bytes.
    pub(crate) fn answers_bytes(&self, content_type: &'static str, body: Bytes) {
        *self.memory.answer.lock().unwrap() = (content_type, body);
    }

    /// With this status from now on.
    pub(crate) fn answers_status(&self, status: StatusCode) {
        *self.memory.status.lock().unwrap() = status;
    }

    /// A field that all its answers have from now on.
    pub(crate) fn answers_with(&self, name: &'static str, value: &'static str) {
        self.memory.more.lock().unwrap().insert(name, HeaderValue::from_static(value));
    }

    /// Nobody listens any more.
    pub(crate) fn goes_away(&self) {
        self.task.abort();
    }

    /// What reached it so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.memory.seen.lock().unwrap().clone()
    }

    /// How many requests reached it so far.
    pub(crate) fn count(&self) -> usize {
        self.memory.seen.lock().unwrap().len()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn remember(State(memory): State<Arc<Memory>>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 64 * 1024 * 1024).await.unwrap_or_default();
    let line = format!("{} {}", parts.method, parts.uri);
    memory.seen.lock().unwrap().push(Seen { line, headers: parts.headers, body });
    let (content_type, body) = memory.answer.lock().unwrap().clone();
    let more = memory.more.lock().unwrap().clone();
    let status = *memory.status.lock().unwrap();
    (status, more, [("content-type", content_type)], body).into_response()
}
