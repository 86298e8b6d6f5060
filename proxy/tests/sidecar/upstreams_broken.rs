//! Tool servers that answer badly or not at all: what may have run is recorded as such, and nothing is sent twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use oakallow_policy::audit::EventType;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::broken::{closing, saying};
use crate::support::policy::{AGENT, AUDIENCE};
use crate::support::raw::{exchange, statuses};
use crate::support::sidecar::Sidecar;
use crate::support::until;

async fn sidecar(upstream: &str, protocol: &str) -> Sidecar {
    let route = json!({
        "name": "http", "kind": "http", "path": "/tools/{tool}", "audience": AUDIENCE, "upstream": upstream,
        "protocol": protocol, "timeouts": {"connect_s": 2, "response_s": 1, "idle_s": 1},
    });
    Sidecar::with(json!({"routes": [route]})).await
}

async fn outcome(sidecar: &Sidecar) -> EventType {
    until("an outcome", async || {
        use EventType::{CallCompleted, CallFailed, CallNotForwarded, CallUnknown};
        let ends = [CallCompleted, CallFailed, CallNotForwarded, CallUnknown];
        sidecar.backend.audit().into_iter().map(|e| e.event.kind).find(|kind| ends.contains(kind))
    })
    .await
}

#[tokio::test]
async fn without_a_whole_head_the_outcome_is_unknown_and_nothing_is_sent_again() {
    for (bytes, closes, status, code) in [
        (&b""[..], false, 504, "upstream_timeout"),
        (b"", true, 502, "upstream_broken"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", false, 504, "upstream_timeout"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", true, 502, "upstream_broken"),
        (b"nonsense\r\n\r\n", false, 502, "upstream_broken"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            false,
            502,
            "upstream_broken",
        ),
    ] {
        let (url, count) = saying(bytes, closes).await;
        let sidecar = sidecar(&url, "http1").await;
        let answer = sidecar.call("read").send().await.unwrap();
        let what = String::from_utf8_lossy(bytes);
        assert_eq!(answer.status(), status, "{what:?} {closes}");
        assert_eq!(answer.headers()["x-oakallow-outcome"], "unknown");
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["code"], code, "{what:?} {closes}");
        assert_eq!(outcome(&sidecar).await, EventType::CallUnknown);
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn an_answer_that_has_no_body_does_not_go_on_with_one() {
    for (said, status, length) in [
        (&b"HTTP/1.1 204 No Content\r\nContent-Length: 12\r\n\r\n"[..], 204, None),
        (b"HTTP/1.1 205 Reset Content\r\nContent-Length: 5\r\n\r\nhello", 205, Some("0")),
        (
            b"HTTP/1.1 205 Reset Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            205,
            Some("0"),
        ),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 12\r\n\r\n", 304, Some("12")),
    ] {
        let (url, _) = saying(said, false).await;
        let sidecar = sidecar(&url, "http1").await;
        let head =
            format!("POST /tools/read HTTP/1.1\r\nHost: a\r\nX-API-Key: {AGENT}\r\nConnection: close\r\n");
        let answer =
            exchange(sidecar.proxy.data, format!("{head}Content-Length: 2\r\n\r\n{{}}").as_bytes()).await;
        assert_eq!(statuses(&answer), [status], "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let head = head.to_ascii_lowercase();
        let said = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        assert_eq!((said, body), (length, ""), "{answer}");
        assert!(!head.contains("transfer-encoding"), "{answer}");
        assert_ne!(outcome(&sidecar).await, EventType::CallUnknown);
    }
}

#[tokio::test]
async fn half_a_body_is_no_answer() {
    for closes in [true, false] {
        let (url, count) = saying(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", closes).await;
        let sidecar = sidecar(&url, "http1").await;
        let answer = sidecar.call("read").send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(answer.bytes().await.is_err(), "it must not look whole");
        assert_eq!(outcome(&sidecar).await, EventType::CallUnknown);
        assert_eq!(count.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn where_nobody_listens_nothing_was_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let sidecar = sidecar(&url, "http1").await;
    let answer = sidecar.call("read").send().await.unwrap();
    assert_eq!(answer.status(), 502);
    assert!(!answer.headers().contains_key("x-oakallow-outcome"));
    assert_eq!(outcome(&sidecar).await, EventType::CallNotForwarded);
    assert_eq!(sidecar.metric("oakallow_upstream_connect_failures_total").await, 1.0);
}

#[tokio::test]
async fn a_tool_server_that_closes_every_connection_is_not_tried_for_ever() {
    let (url, count) = closing().await;
    for protocol in ["http1", "http2"] {
        let sidecar = sidecar(&url, protocol).await;
        let before = count.load(Ordering::SeqCst);
        let answer = sidecar.call("read").send().await.unwrap();
        assert_eq!(answer.status(), 502, "{protocol}");
        let tried = count.load(Ordering::SeqCst) - before;
        assert!((1..=4).contains(&tried), "{protocol}: {tried}");
    }
}

/// SETTINGS, then this frame for the stream 1.
async fn http2_answering(frame: &'static [u8]) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let counted = counted.clone();
            tokio::spawn(async move {
                stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
                let mut preface = [0; 24];
                stream.read_exact(&mut preface).await.unwrap();
                loop {
                    let mut head = [0; 9];
                    if stream.read_exact(&mut head).await.is_err() {
                        return;
                    }
                    let length =
                        usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
                    stream.read_exact(&mut vec![0; length]).await.unwrap();
                    let (headers, end) = (head[3] == 1, head[4] & 1 == 1 && head[3] < 2);
                    counted.fetch_add(usize::from(headers), Ordering::SeqCst);
                    if end {
                        let _ = stream.write_all(frame).await;
                    }
                }
            });
        }
    });
    (url, count)
}

#[tokio::test]
async fn only_a_stream_that_the_server_refused_unseen_was_not_forwarded() {
    let refused: &[u8] = &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 7];
    let cancelled: &[u8] = &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8];
    // GOAWAY: the last stream that was looked at is 0. It may have crossed the request, so that proves little.
    let going: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for (frame, expected) in [
        (refused, EventType::CallNotForwarded),
        (cancelled, EventType::CallUnknown),
        (going, EventType::CallUnknown),
    ] {
        let (url, count) = http2_answering(frame).await;
        let sidecar = sidecar(&url, "http2").await;
        let answer = sidecar.call("read").send().await.unwrap();
        assert_eq!(answer.status(), 502, "{frame:?}");
        assert_eq!(outcome(&sidecar).await, expected, "{frame:?}");
        assert_eq!(count.load(Ordering::SeqCst), 1, "{frame:?}: never sent again");
    }
}
