//! Clients that send too much, too slowly or what takes long to read: each is turned away, memory stays bounded,
//! and a good client is served meanwhile. The proxy is a process of its own, so that its memory can be looked at.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::flooded::Flooded;
use crate::support::policy::AGENT;
use crate::support::sidecar::{Sidecar, client};
use crate::support::{h2, until};

/// A body of a megabyte that is read into sixty thousand members takes this for a moment, once for each that is read at
/// the same time.
const PARSED_BYTES_MAX: usize = 96 * 1024 * 1024;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const CONTINUATION: u8 = 9;

/// Sends a byte every so often until the connection ends.
async fn trickle(stream: &mut TcpStream) {
    let mut answer = [0; 1];
    for byte in b"POST /tools/read HTTP/1.1\r\nHost: a\r\nX: ".iter().chain(std::iter::repeat(&b'x')) {
        let pause = std::time::Duration::from_millis(50);
        let heard = tokio::time::timeout(pause, stream.read(&mut answer)).await;
        if heard.is_ok() || stream.write_all(&[*byte]).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_head_that_trickles_is_cut_off_however_steadily_it_comes() {
    let flooded = Flooded::start(json!({"head_read_timeout_s": 1, "idle_timeout_s": 1})).await;
    let cut =
        tokio::time::timeout(crate::support::PATIENCE, async { trickle(&mut flooded.connect().await).await });
    cut.await.expect("a first request");
    let mut used = flooded.connect().await;
    let request = format!(
        "POST /tools/read HTTP/1.1\r\nHost: a\r\nX-API-Key: {AGENT}\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    used.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = used.read(&mut answer).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
    while let Ok(Ok(1..)) =
        tokio::time::timeout(std::time::Duration::from_millis(20), used.read(&mut answer)).await
    {}
    let cut = tokio::time::timeout(crate::support::PATIENCE, trickle(&mut used));
    cut.await.expect("a second request");
    flooded.serves().await;
}

#[tokio::test]
async fn a_call_that_takes_longer_than_a_head_may_is_not_cut_off() {
    let flooded = Flooded::start(json!({"head_read_timeout_s": 1, "idle_timeout_s": 1})).await;
    let held = flooded.proxy.call("ask").header("prefer", "wait=4").send().await.unwrap();
    assert_eq!(held.status(), 202);
}

#[tokio::test]
async fn many_connections_on_which_nothing_comes_cost_little_and_end() {
    let flooded = Flooded::start(json!({"head_read_timeout_s": 3})).await;
    let mut idle = Vec::new();
    for number in 0..2_000 {
        let mut stream = flooded.connect().await;
        if number % 2 == 0 {
            stream.write_all(b"POST /tools/read HTTP/1.1\r\nHost: a\r\n").await.unwrap();
        }
        idle.push(stream);
    }
    flooded.is_unmoved("idle connections").await;
    until("their end", async || (flooded.proxy.metric("oakallow_connections").await < 10.0).then_some(()))
        .await;
}

#[tokio::test]
async fn json_that_takes_long_to_read_is_refused() {
    let flooded = Flooded::start(json!({"body_bytes_max": 1024 * 1024})).await;
    let size = 1_000_000;
    let wide: Vec<String> = (0..60_000).map(|n| format!("\"key-{n}\":[]")).collect();
    for (what, body, statuses) in [
        ("brackets", "[".repeat(size), [400, 400]),
        ("braces", "{\"a\":".repeat(size / 5), [400, 400]),
        ("a number", format!("{{\"id\":{}}}", "9".repeat(size)), [400, 422]),
        ("an exponent", format!("{{\"id\":1e{}}}", "9".repeat(size)), [400, 422]),
        ("a key", format!("{{\"{}\":1}}", "k".repeat(size)), [422, 422]),
        ("equal keys", format!("{{{}}}", vec!["\"id\":1"; 100_000].join(",")), [400, 400]),
        ("many keys", format!("{{{}}}", wide.join(",")), [422, 422]),
        ("many values", format!("{{\"id\":[{}]}}", vec!["{\"\":0}"; size / 8].join(",")), [400, 400]),
        ("escapes", format!("{{\"id\":\"{}", "\\u0000".repeat(size / 6)), [400, 400]),
    ] {
        for _ in 0..2 {
            let url = format!("http://{}/tools/read", flooded.proxy.data);
            let sent = client().post(url).header("x-api-key", AGENT).body(body.clone()).send().await.unwrap();
            assert!(statuses.contains(&sent.status().as_u16()), "{what}: {}", sent.status());
        }
        flooded.is_within(what, PARSED_BYTES_MAX).await;
    }
    assert!(flooded.upstream.seen().iter().all(|seen| seen.body.len() < 100));
}

#[tokio::test]
async fn a_body_of_more_values_than_a_call_may_have_is_named_and_refused() {
    let sidecar = Sidecar::with(json!({"limits": {"body_bytes_max": 1024 * 1024}})).await;
    let many = vec![0; 100_000];
    let call = sidecar.call("read").json(&json!({"id": "42", "many": many})).send().await.unwrap();
    assert_eq!(call.status(), 400);
    let problem: Value = call.json().await.unwrap();
    let said = (problem["code"].as_str().unwrap(), problem["detail"].as_str().unwrap());
    assert_eq!(said, ("invalid_request", "it has more than 100000 values"));
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"many": many}});
    let answer = sidecar.rpc(&message).send().await.unwrap();
    assert_eq!(answer.status(), 400);
    let said: Value = answer.json().await.unwrap();
    assert_eq!(said["error"]["code"], -32_700, "{said}");
    assert_eq!(said["error"]["message"], "it has more than 100000 values");
    assert_eq!(sidecar.upstream.count(), 0);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_and_not_kept() {
    let flooded = Flooded::start(json!({})).await;
    let head = format!("POST /tools/read HTTP/1.1\r\nHost: a\r\nX-API-Key: {AGENT}\r\n");
    let many: String = (0..300).map(|n| format!("X-{n}: a\r\n")).collect();
    let large = format!("X-Large: {}\r\n", "x".repeat(200 * 1024));
    for (what, fields) in [("many fields", many), ("a large field", large)] {
        let request = format!("{head}{fields}Content-Length: 2\r\nConnection: close\r\n\r\n{{}}");
        let to = flooded.proxy.data.parse().unwrap();
        let answer = crate::support::raw::exchange(to, request.as_bytes()).await;
        assert_eq!(crate::support::raw::statuses(&answer), [400], "{what}: {answer}");
    }
    // One without an end.
    for _ in 0..8 {
        let ended =
            flooded.pour(head.as_bytes(), format!("X: {}\r\n", "x".repeat(8_000)).as_bytes(), 64 << 20).await;
        assert!(ended, "it reads on and on");
    }
    flooded.is_unmoved("heads").await;
    assert_eq!(flooded.upstream.count(), 2, "the good client's");
}

#[tokio::test]
async fn http_2_frames_that_only_make_work_end_the_connection() {
    let flooded = Flooded::start(json!({})).await;
    let hello = [PREFACE, &h2::frame(h2::SETTINGS, 0, 0, &[])].concat();
    let pseudo = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/tools/read")];
    let block: Vec<u8> = pseudo.iter().flat_map(|(name, value)| h2::field(name, value)).collect();
    let reset: Vec<u8> = (0..5_000_u32)
        .flat_map(|number| {
            let stream = 2 * number + 1;
            let begin = h2::frame(h2::HEADERS, h2::END_HEADERS, stream, &block);
            [begin, h2::frame(h2::RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
        })
        .collect();
    assert!(flooded.pour(&[&hello[..], &reset].concat(), &[], 0).await, "rapid resets");
    flooded.is_unmoved("rapid resets").await;
    let opened = [&hello[..], &h2::frame(h2::HEADERS, 0, 1, &block)].concat();
    let padding = h2::field("x-padding", &"x".repeat(200));
    let more = h2::frame(CONTINUATION, 0, 1, &padding.repeat(70));
    assert!(flooded.pour(&opened, &more, 64 << 20).await, "endless fields");
    flooded.is_unmoved("endless fields").await;
    // Whoever does not read the answers to these is not read any more either.
    let settings = h2::frame(h2::SETTINGS, 0, 0, &[]).repeat(1_000);
    let mut stream = flooded.connect().await;
    stream.write_all(&hello).await.unwrap();
    let pour = async {
        let mut poured = 0;
        while poured < 64 << 20 && stream.write_all(&settings).await.is_ok() {
            poured += settings.len();
        }
    };
    let _ = tokio::time::timeout(std::time::Duration::from_secs(5), pour).await;
    flooded.is_unmoved("settings").await;
}

#[tokio::test]
async fn requests_that_are_sent_ahead_are_answered_in_order_or_not_at_all() {
    let flooded = Flooded::start(json!({})).await;
    let one = format!(
        "POST /tools/read HTTP/1.1\r\nHost: a\r\nX-API-Key: {AGENT}\r\nContent-Length: 2\r\n\r\n{{}}"
    );
    let before = flooded.upstream.count();
    let ahead = one.repeat(1_000);
    flooded.pour(ahead.as_bytes(), &[], 0).await;
    flooded.is_unmoved("requests ahead").await;
    assert!(flooded.upstream.count() <= before + 1_001);
}
