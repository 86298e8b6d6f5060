//! More requests than a connection of HTTP/2 carries, on either side: what is beyond the limit waits with the client,
//! is refused unseen, or gets another connection; nothing is lost, and nothing runs twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use reqwest::Client;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::support::h2::{ACK, DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, SETTINGS, field, frame};
use crate::support::policy::{AGENT, AUDIENCE};
use crate::support::sidecar::{Sidecar, client};
use crate::support::{PATIENCE, until};

/// What a connection carries at one time.
const STREAMS_MAX: usize = 100;
/// RFC 9113 section 7: it was not looked at, and may be sent again.
const REFUSED_STREAM: u32 = 7;

async fn held(sidecar: &Sidecar, count: usize) {
    until("held calls", async || (sidecar.metric("oakallow_held_calls").await == count as f64).then_some(()))
        .await;
}

#[tokio::test]
async fn a_client_waits_for_a_place_on_its_connection_and_each_call_runs_once() {
    let calls = STREAMS_MAX + 30;
    let sidecar = Sidecar::with(json!({"hold": {"budget_s": 600}})).await;
    let one = Client::builder().timeout(PATIENCE).no_proxy().http2_prior_knowledge().build().unwrap();
    let url = format!("http://{}/tools/ask", sidecar.proxy.data);
    let call = |number: usize| {
        one.post(&url).header("x-api-key", AGENT).json(&json!({"id": number.to_string()})).send()
    };
    let mut waiting: JoinSet<_> = (0..calls).map(call).collect();
    held(&sidecar, STREAMS_MAX).await;
    assert_eq!(sidecar.metric("oakallow_connections").await, 1.0);
    // The rest come as places become free.
    let mut answered = 0;
    while answered < calls {
        sidecar.backend.approve_all();
        let answer = waiting.join_next().await.unwrap().unwrap().unwrap();
        assert_eq!(answer.status(), 200);
        answered += 1;
    }
    assert_eq!((sidecar.upstream.count(), sidecar.backend.approvals().len()), (calls, calls));
}

/// Sends so many calls at once without regard to any limit; the connection.
async fn flood(sidecar: &Sidecar, calls: u32) -> TcpStream {
    let mut stream = TcpStream::connect(sidecar.proxy.data).await.unwrap();
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/tools/ask"),
        ("x-api-key", AGENT),
        ("content-type", "application/json"),
    ];
    let head: Vec<u8> = fields.iter().flat_map(|(name, value)| field(name, value)).collect();
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    sent.extend(frame(SETTINGS, 0, 0, &[]));
    for number in 0..calls {
        let id = 2 * number + 1;
        sent.extend(frame(HEADERS, END_HEADERS, id, &head));
        sent.extend(frame(DATA, END_STREAM, id, json!({"id": number.to_string()}).to_string().as_bytes()));
    }
    stream.write_all(&sent).await.unwrap();
    stream
}

/// How a stream ended: `Ok` with an answer, `Err` with the code of its reset.
type Heard = BTreeMap<u32, Result<(), u32>>;

/// What came back on each stream, beside those of `before`, until so many had something.
async fn heard(stream: &mut TcpStream, streams: usize, before: &Heard) -> Heard {
    let mut heard = Heard::new();
    while heard.len() < streams {
        let mut head = [0; 9];
        let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut head)).await;
        read.unwrap_or_else(|_| panic!("silence after {heard:?}")).expect("it stays open");
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.unwrap();
        let id = u32::from_be_bytes(head[5..9].try_into().unwrap());
        match (head[3], head[4]) {
            // The body of a request that was refused is refused as well.
            (RST_STREAM, _) if before.contains_key(&id) => {}
            (SETTINGS, flags) if flags & ACK == 0 => {
                stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await.unwrap();
            }
            (HEADERS, _) => _ = heard.insert(id, Ok(())),
            (RST_STREAM, _) => {
                let code = u32::from_be_bytes(payload[..4].try_into().unwrap());
                // After an answer a reset only says that no more is read.
                heard.entry(id).or_insert(Err(code));
            }
            _ => {}
        }
    }
    heard
}

#[tokio::test]
async fn what_a_client_sends_beyond_the_limit_is_refused_unseen() {
    let beyond = 20;
    let sidecar = Sidecar::with(json!({"hold": {"budget_s": 600}})).await;
    let mut stream = flood(&sidecar, u32::try_from(STREAMS_MAX + beyond).unwrap()).await;
    let refused = heard(&mut stream, beyond, &Heard::new()).await;
    assert!(refused.values().all(|end| *end == Err(REFUSED_STREAM)), "{refused:?}");
    held(&sidecar, STREAMS_MAX).await;
    sidecar.backend.approve_all();
    let answered = heard(&mut stream, STREAMS_MAX, &refused).await;
    assert!(answered.values().all(Result::is_ok), "{answered:?}");
    assert!(answered.keys().all(|id| !refused.contains_key(id)));
    assert_eq!((sidecar.upstream.count(), sidecar.backend.approvals().len()), (STREAMS_MAX, STREAMS_MAX));
}

/// A tool server over HTTP/2 that allows more streams on a connection than are used, and answers nothing before it is
/// let.
struct Wide {
    url: String,
    connections: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
    open: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Drop for Wide {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Wide {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let [connections, calls] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
        let (open, opened) = watch::channel(false);
        let (accepted, counted) = (connections.clone(), calls.clone());
        let router = Router::new().fallback(move || {
            let (counted, mut opened) = (counted.clone(), opened.clone());
            async move {
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = opened.wait_for(|open| *open).await;
                "{}"
            }
        });
        let task = tokio::spawn(async move {
            let mut all = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                accepted.fetch_add(1, Ordering::SeqCst);
                let router = router.clone();
                all.spawn(async move {
                    let mut builder = auto::Builder::new(TokioExecutor::new());
                    builder.http2().max_concurrent_streams(1_000);
                    let service = TowerToHyperService::new(router);
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { url, connections, calls, open, task }
    }
}

#[tokio::test]
async fn what_does_not_fit_on_a_connection_to_a_tool_server_gets_another() {
    let calls = 2 * STREAMS_MAX + 50;
    let tool = Wide::start().await;
    let route = json!({
        "name": "http", "kind": "http", "path": "/tools/{tool}", "audience": AUDIENCE, "upstream": tool.url,
        "protocol": "http2",
    });
    let sidecar = Sidecar::with(json!({"routes": [route]})).await;
    let (all, url) = (client(), format!("http://{}/tools/read", sidecar.proxy.data));
    let call = || all.post(&url).header("x-api-key", AGENT).json(&json!({"id": "42"})).send();
    let mut waiting: JoinSet<_> = (0..calls).map(|_| call()).collect();
    // Nothing is answered yet: none of them waits for another.
    let arrived = async || (tool.calls.load(Ordering::SeqCst) == calls).then_some(());
    until("all calls at the tool server", arrived).await;
    tool.open.send_replace(true);
    while let Some(answer) = waiting.join_next().await {
        assert_eq!(answer.unwrap().unwrap().status(), 200);
    }
    assert_eq!(tool.connections.load(Ordering::SeqCst), calls.div_ceil(STREAMS_MAX));
    assert_eq!(tool.calls.load(Ordering::SeqCst), calls, "each once");
}
