//! Ways out of HTTP: WebSockets, other upgrades and CONNECT. What would follow is governed by nobody, so there are none
//! (docs/decisions/0050-no-websockets.md).

use oakallow_policy::audit::EventType;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::h2::{END_HEADERS, END_STREAM, HEADERS, RST_STREAM, SETTINGS, field, frame, next_frame};
use crate::support::policy::{AGENT, AUDIENCE};
use crate::support::raw::{exchange, statuses};
use crate::support::sidecar::{Sidecar, client};
use crate::support::upstream::Upstream;
use crate::support::{PATIENCE, until};

/// RFC 8441 section 3.
const ENABLE_CONNECT_PROTOCOL: u16 = 8;
/// A masked text frame (RFC 6455 section 5.7).
const FRAME: &[u8] = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";

/// A tool may be called with GET, as a handshake is one.
async fn start() -> (Sidecar, Upstream) {
    let upstream = Upstream::start().await;
    let route = |name: &str, path: &str, methods: &[&str]| json!({"name": name, "kind": name, "path": path, "audience": AUDIENCE, "upstream": upstream.url, "methods": methods});
    let routes = json!([route("http", "/tools/{tool}", &["GET", "POST"]), route("mcp", "/mcp", &[])]);
    (Sidecar::with(json!({"routes": routes})).await, upstream)
}

fn handshake(path: &str, upgrade: &str) -> Vec<u8> {
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: a\r\nX-API-Key: {AGENT}\r\nUpgrade: {upgrade}\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    [head.as_bytes(), FRAME].concat()
}

#[tokio::test]
async fn no_protocol_is_upgraded_to_whatever_the_route_and_it_is_recorded_who_asked() {
    let (sidecar, upstream) = start().await;
    for (number, (path, upgrade)) in [
        ("/tools/read", "websocket"),
        ("/tools/ask", "websocket"),
        ("/tools/drop", "WebSocket"),
        ("/mcp", "websocket"),
        ("/tools/read", "h2c"),
        ("/tools/read", "connect-udp"),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = exchange(sidecar.proxy.data, &handshake(path, upgrade)).await;
        let statuses = statuses(&answer);
        assert_eq!(statuses.first(), Some(&400), "{path} {upgrade}: {answer}");
        assert!(!statuses.contains(&101) && !statuses.contains(&200), "{path} {upgrade}: {answer}");
        assert!(answer.contains("upgrades are not passed on"), "{answer}");
        let refused = async || {
            let audit = sidecar.backend.audit();
            let refused = audit.iter().filter(|e| e.event.kind == EventType::CallRefused);
            let of_ada = refused.filter(|e| e.event.data.principal.as_deref() == Some("ada")).count();
            (of_ada == number + 1).then_some(())
        };
        until("the record of it", refused).await;
    }
    assert_eq!((upstream.count(), sidecar.backend.approvals().len()), (0, 0));
    // The same without a way out is a call.
    let url = format!("http://{}/tools/read", sidecar.proxy.data);
    assert_eq!(client().get(url).header("x-api-key", AGENT).send().await.unwrap().status(), 200);
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn a_nomination_alone_is_left_out_and_the_call_is_a_call() {
    let (sidecar, upstream) = start().await;
    let request = format!(
        "POST /tools/read HTTP/1.1\r\nHost: a\r\nX-API-Key: {AGENT}\r\nConnection: Upgrade, close\r\n\
         Content-Length: 2\r\n\r\n{{}}"
    );
    assert_eq!(statuses(&exchange(sidecar.proxy.data, request.as_bytes()).await), [200]);
    let seen = upstream.seen().remove(0);
    assert!(!seen.headers.contains_key("upgrade"));
    assert!(seen.headers.get_all("connection").iter().all(|v| !v.to_str().unwrap().contains("pgrade")));
}

#[tokio::test]
async fn nobody_is_connected_to_anything() {
    let (sidecar, upstream) = start().await;
    let tool = upstream.url.trim_start_matches("http://").to_owned();
    for target in [tool.as_str(), "a:443", "/tools/read"] {
        let request = format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nX-API-Key: {AGENT}\r\n\r\nGET / HTTP/1.1\r\n\r\n"
        );
        let answer = exchange(sidecar.proxy.data, request.as_bytes()).await;
        let statuses = statuses(&answer);
        assert!(statuses.iter().all(|s| matches!(s, 400 | 405)), "{target}: {answer}");
    }
    let plain = [(":method", "CONNECT"), (":authority", tool.as_str())];
    let extended = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/tools/read"),
    ];
    for fields in [&plain[..], &extended[..]] {
        let (status, offered) = connect(&sidecar, fields).await;
        assert!(status != Some(200), "{fields:?}");
        assert!(!offered, "the proxy offers what it does not do");
    }
    assert_eq!(upstream.count(), 0);
    assert_eq!(sidecar.call("read").send().await.unwrap().status(), 200);
}

/// The status over HTTP/2, `None` when the stream was reset or the connection ended; and whether the proxy offers
/// CONNECT for other protocols.
async fn connect(sidecar: &Sidecar, fields: &[(&str, &str)]) -> (Option<u16>, bool) {
    let mut stream = TcpStream::connect(sidecar.proxy.data).await.unwrap();
    let key = ("x-api-key", AGENT);
    let block: Vec<u8> = fields.iter().chain([&key]).flat_map(|(name, value)| field(name, value)).collect();
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    sent.extend(frame(SETTINGS, 0, 0, &[]));
    sent.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block));
    stream.write_all(&sent).await.unwrap();
    let mut offered = false;
    let answer = async {
        while let Some((kind, payload)) = next_frame(&mut stream).await {
            match kind {
                SETTINGS => {
                    offered |= payload.chunks(6).any(|s| s[..2] == ENABLE_CONNECT_PROTOCOL.to_be_bytes());
                }
                // An indexed field of the static table (RFC 7541 appendix A): 8 is `:status: 200`.
                HEADERS => return Some(if payload.first() == Some(&0x88) { 200 } else { 400 }),
                RST_STREAM => return None,
                _ => {}
            }
        }
        None
    };
    let status = tokio::time::timeout(PATIENCE, answer).await.expect("it answers");
    (status, offered)
}
