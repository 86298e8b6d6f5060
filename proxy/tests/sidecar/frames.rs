//! What a client of HTTP/2 may do over one connection, frame by frame.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::flooded::Flooded;
use crate::support::h2::{END_HEADERS, END_STREAM, HEADERS, RST_STREAM, SETTINGS, field, frame};
use crate::support::policy::AGENT;
use crate::support::sidecar::Sidecar;
use crate::support::slow::Slow;
use crate::support::{PATIENCE, until};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PRIORITY: u8 = 2;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const UNKNOWN: u8 = 0xbb;
/// RFC 9113 section 7.
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
/// RFC 9113 section 6.5.2.
const MAX_CONCURRENT_STREAMS: u16 = 3;
const MAX_FRAME_SIZE: u16 = 5;
const MAX_HEADER_LIST_SIZE: u16 = 6;

/// A connection that has begun.
struct Client(TcpStream);

/// A frame that came.
struct Frame {
    kind: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    fn number(&self) -> u32 {
        u32::from_be_bytes(self.payload[..4].try_into().unwrap())
    }
}

impl Client {
    async fn connect(to: std::net::SocketAddr) -> Self {
        let mut stream = TcpStream::connect(to).await.expect("it listens");
        let hello = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        stream.write_all(&hello).await.unwrap();
        Self(stream)
    }

    async fn send(&mut self, frames: &[u8]) -> std::io::Result<()> {
        self.0.write_all(frames).await
    }

    /// The next frame; `None` at the end of the connection.
    async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
        Some(Frame { kind: head[3], stream, payload })
    }

    /// The first frame of a kind on a stream.
    async fn await_frame(&mut self, kind: u8, stream: u32) -> Frame {
        let found = async {
            loop {
                let frame = self.next().await.expect("the connection lives");
                if (frame.kind, frame.stream) == (kind, stream) {
                    return frame;
                }
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("a frame")
    }
}

fn call(tool: &str, stream: u32) -> Vec<u8> {
    let path = format!("/tools/{tool}");
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", &path),
        ("x-api-key", AGENT),
    ];
    let block: Vec<u8> = fields.iter().flat_map(|(name, value)| field(name, value)).collect();
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
}

#[tokio::test]
async fn a_client_is_told_what_it_may_do() {
    let limits = json!({"streams_per_connection_max": 7, "header_bytes_max": 10_000});
    let sidecar = Sidecar::with(json!({"limits": limits})).await;
    let settings = Client::connect(sidecar.proxy.data).await.await_frame(SETTINGS, 0).await;
    let said = |id: u16| {
        let found = settings.payload.chunks(6).find(|s| s[..2] == id.to_be_bytes());
        found.map(|s| u32::from_be_bytes(s[2..].try_into().unwrap()))
    };
    assert_eq!(said(MAX_CONCURRENT_STREAMS), Some(7));
    assert_eq!(said(MAX_HEADER_LIST_SIZE), Some(10_000 + 256 * 32), "as much as over HTTP/1.1");
    assert_eq!(said(MAX_FRAME_SIZE), Some(16_384));
}

#[tokio::test]
async fn a_stream_more_than_a_connection_may_have_is_refused_and_the_others_stay() {
    let sidecar = Sidecar::with(json!({"limits": {"streams_per_connection_max": 3}})).await;
    let mut client = Client::connect(sidecar.proxy.data).await;
    let held = [1, 3, 5];
    for stream in held {
        client.send(&call("ask", stream)).await.unwrap();
    }
    until("held calls", async || (sidecar.metric("oakallow_held_calls").await == 3.0).then_some(())).await;
    client.send(&call("read", 7)).await.unwrap();
    assert_eq!(client.await_frame(RST_STREAM, 7).await.number(), REFUSED_STREAM);
    // Another connection has room of its own.
    assert_eq!(sidecar.call("read").send().await.unwrap().status(), 200);
    assert_eq!(sidecar.metric("oakallow_held_calls").await, 3.0);
    sidecar.backend.approve_all();
    for _ in held {
        // In any order.
        let answered = async { while client.next().await.expect("the connection lives").kind != HEADERS {} };
        tokio::time::timeout(PATIENCE, answered).await.expect("an answer");
    }
    until("room again", async || (sidecar.metric("oakallow_held_calls").await == 0.0).then_some(())).await;
    client.send(&call("read", 9)).await.unwrap();
    client.await_frame(HEADERS, 9).await;
}

#[tokio::test]
async fn calls_that_are_taken_back_at_once_are_no_way_around_the_limit_and_end_the_connection() {
    let tool = Slow::shut().await;
    let route = |name: &str, path: &str| json!({"name": name, "kind": name, "path": path, "audience": "tools", "upstream": tool.url});
    let routes = json!([route("http", "/tools/{tool}"), route("mcp", "/mcp")]);
    let sidecar = Sidecar::with(json!({"routes": routes, "limits": {"streams_per_connection_max": 4}})).await;
    let mut client = Client::connect(sidecar.proxy.data).await;
    // Each is on its way to the tool before it is taken back: it is never unseen.
    for number in 0..8_u32 {
        let stream = 2 * number + 1;
        client.send(&call("read", stream)).await.unwrap();
        until("the call at the tool", async || (tool.all() > number as usize).then_some(())).await;
        client.send(&reset(stream)).await.unwrap();
    }
    client.send(&call("read", 17)).await.unwrap();
    let end = async { while client.next().await.is_some_and(|frame| frame.kind != GOAWAY) {} };
    tokio::time::timeout(PATIENCE, end).await.expect("the connection ends");
    assert_eq!(sidecar.metric("oakallow_connections_cut_total").await, 1.0);
    tool.open();
    assert_eq!(sidecar.call("read").send().await.unwrap().status(), 200, "another client is served");
    assert_eq!((tool.all(), tool.most()), (9, 8), "eight of the first client, one of the other");
    // What had begun has its outcome in the record, though nobody waited for it.
    let ended = async || {
        let lives = sidecar.backend.lives();
        let done = oakallow_policy::audit::EventType::CallCompleted;
        (lives.iter().filter(|life| life.contains(&done)).count() == 9).then_some(())
    };
    until("nine outcomes", ended).await;
}

#[tokio::test]
async fn pings_keep_no_connection_alive() {
    let limits = json!({"head_read_timeout_s": 1, "idle_timeout_s": 1});
    let sidecar = Sidecar::with(json!({"limits": limits})).await;
    let mut client = Client::connect(sidecar.proxy.data).await;
    let mut answered = 0;
    let alive = async {
        while client.send(&frame(PING, 0, 0, &[0; 8])).await.is_ok() {
            match tokio::time::timeout(Duration::from_millis(20), client.next()).await {
                Ok(None) => return,
                Ok(Some(frame)) => answered += usize::from(frame.kind == PING),
                Err(_) => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, alive).await.expect("its time is over");
    assert!(answered > 0, "it was no connection");
}

#[tokio::test]
async fn frames_that_ask_for_nothing_cost_no_memory_and_nobody_else() {
    let flooded = Flooded::start(json!({})).await;
    let to = flooded.proxy.data.parse().unwrap();
    for (what, frames) in [
        ("pings", frame(PING, 0, 0, &[0; 8])),
        ("priorities", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16])),
        ("frames of no kind", frame(UNKNOWN, 0, 0, &[0; 64])),
        ("windows", frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())),
    ] {
        let frames = frames.repeat(1_000);
        // Nothing that comes back is read.
        let mut client = Client::connect(to).await;
        let pour = async {
            let mut poured = 0;
            while poured < 32 << 20 && client.send(&frames).await.is_ok() {
                poured += frames.len();
            }
        };
        // Whoever does not read the answers is not read any more either.
        let _ = tokio::time::timeout(Duration::from_secs(3), pour).await;
        flooded.is_unmoved(what).await;
    }
}
