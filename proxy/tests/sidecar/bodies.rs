//! Bodies over the limit are answered, not cut off.

use bytes::Bytes;
use futures_util::stream;
use reqwest::{Body, Client};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::policy::{ACME, AGENT};
use crate::support::sidecar::{BODY_BYTES_MAX, Sidecar, client};
use crate::support::{PATIENCE, h2, until};

fn h2c() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().http2_prior_knowledge().timeout(PATIENCE).no_proxy().build().expect("a client")
}

fn padded(bytes: usize) -> String {
    let frame = r#"{"pad":""}"#.len();
    format!(r#"{{"pad":"{}"}}"#, "x".repeat(bytes - frame))
}

/// A request that has sent most of its body, and sends no more.
async fn unfinished(sidecar: &Sidecar) -> TcpStream {
    let mut stream = TcpStream::connect(sidecar.proxy.data).await.unwrap();
    let head = format!(
        "POST /tools/read HTTP/1.1\r\nHost: a\r\nX-API-Key: {AGENT}\r\nContent-Length: 60000\r\n\r\n"
    );
    stream.write_all(&[head.as_bytes(), &padded(60_000).as_bytes()[..40_000]].concat()).await.unwrap();
    stream
}

/// With so many bytes as the limit, an agent that sends without end is refused, and so is this call.
async fn unfinished_bodies_reach(limit: &str, (key, status): (&str, u16)) {
    let sidecar = Sidecar::with(json!({"limits": {limit: 260_000}})).await;
    let call = async |key: &str, bytes: usize| {
        let url = format!("http://{}/tools/read", sidecar.proxy.data);
        client().post(url).header("x-api-key", key).body(padded(bytes)).send().await.unwrap()
    };
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(unfinished(&sidecar).await);
    }
    let refused = || sidecar.metric("oakallow_refusals_total{reason=\"too_many_bodies\"}");
    until("a refused one", async || (refused().await >= 1.0).then_some(())).await;
    let taken = async || sidecar.metric("oakallow_bodies_bytes").await;
    until("one that is read", async || (40_000.0..=260_000.0).contains(&taken().await).then_some(())).await;
    let answer = call(key, 62_000).await;
    assert_eq!((answer.status().as_u16(), answer.headers().contains_key("retry-after")), (status, true));
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["code"], "too_many_bodies");
    // What is small takes nothing from anybody.
    for key in [AGENT, ACME] {
        assert_eq!(call(key, 1_000).await.status(), 200);
    }
    drop(open);
    until("all of it again", async || (taken().await == 0.0).then_some(())).await;
    assert_eq!(call(key, 62_000).await.status(), 200);
    // The bytes are free again with the answer.
    until("nothing taken", async || (taken().await == 0.0).then_some(())).await;
}

#[tokio::test]
async fn unfinished_bodies_of_one_agent_take_no_more_than_its_share() {
    unfinished_bodies_reach("bodies_bytes_per_principal_max", (AGENT, 429)).await;
}

#[tokio::test]
async fn unfinished_bodies_take_no_more_than_all_may() {
    unfinished_bodies_reach("bodies_bytes_max", (ACME, 503)).await;
}

fn streamed(body: &str) -> Body {
    let parts: Vec<Bytes> = body.as_bytes().chunks(16 * 1024).map(Bytes::copy_from_slice).collect();
    Body::wrap_stream(stream::iter(parts.into_iter().map(Ok::<_, std::convert::Infallible>)))
}

async fn too_much_is_answered(client: &Client, sizes: &[usize]) {
    let sidecar = Sidecar::start().await;
    let url = format!("http://{}/tools/read", sidecar.proxy.data);
    for size in sizes {
        let whole = padded(*size);
        for body in [Body::from(whole.clone()), streamed(&whole)] {
            let sent = client.post(&url).header("x-api-key", AGENT).body(body).send().await;
            let answer = sent.unwrap_or_else(|e| panic!("{size} bytes: {e:?}"));
            assert_eq!(answer.status(), 413, "{size} bytes");
            let problem: Value = answer.json().await.unwrap_or_else(|e| panic!("{size} bytes: {e:?}"));
            assert_eq!(problem["code"], "body_too_large");
        }
    }
    assert_eq!(sidecar.upstream.count(), 0);
    let sent = client.post(&url).header("x-api-key", AGENT).body(padded(BODY_BYTES_MAX)).send().await;
    assert_eq!(sent.unwrap().status(), 200, "the limit itself");
    assert_eq!(sidecar.upstream.seen()[0].body.len(), BODY_BYTES_MAX);
}

const SIZES: [usize; 4] =
    [BODY_BYTES_MAX + 1, 2 * BODY_BYTES_MAX + 1, 20 * BODY_BYTES_MAX, 256 * BODY_BYTES_MAX];

#[tokio::test]
async fn over_h2c_a_body_over_the_limit_is_answered_413() {
    too_much_is_answered(&h2c(), &SIZES).await;
}

#[tokio::test]
async fn over_http_1_a_body_over_the_limit_is_answered_413() {
    // One that goes on sending for long may miss the answer: the connection closes.
    too_much_is_answered(&client(), &SIZES[..1]).await;
}

#[tokio::test]
async fn over_h2c_a_client_that_sends_first_and_listens_afterwards_hears_why() {
    let sidecar = Sidecar::with(json!({"limits": {"body_bytes_max": 8 * 1024}})).await;
    let body = padded(60 * 1024);
    let length = body.len().to_string();
    let key = ("x-api-key", AGENT);
    let announced = [key, ("content-length", length.as_str())];
    for (what, fields, sent, end) in [
        ("announced and sent whole", &announced[..], body.as_bytes(), true),
        ("announced and not sent", &announced[..], &[][..], false),
        ("announced and sent in part", &announced[..], &body.as_bytes()[..20 * 1024], false),
        ("sent whole", &[key][..], body.as_bytes(), true),
        ("sent without an end", &[key][..], body.as_bytes(), false),
    ] {
        let answer = h2::post(sidecar.proxy.data, "/tools/read", fields, sent, end).await;
        let said = String::from_utf8_lossy(&answer.body);
        assert!(said.contains("\"status\":413") && answer.ended, "{what}: {said} {:?}", answer.reset);
        // Not an error: the answer is whole, and no more of the body is wanted.
        assert_eq!(answer.reset, (!end).then_some(0), "{what}");
    }
    assert_eq!(sidecar.upstream.count(), 0);
}

#[tokio::test]
async fn a_body_of_many_small_things_counts_as_what_it_takes() {
    let sidecar = Sidecar::with(json!({"limits": {"bodies_bytes_max": 260_000}})).await;
    let small = json!({"a": vec![json!({"": 0}); 2_000]});
    assert!(small.to_string().len() < 16 * 1024);
    let call = sidecar.call("read").body(small.to_string()).send().await.unwrap();
    let status = call.status().as_u16();
    assert_eq!((status, &call.json::<Value>().await.unwrap()["code"]), (503, &json!("too_many_bodies")));
    let params = json!({"name": "read", "arguments": small});
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    let answer = sidecar.rpc_as(AGENT, &call).send().await.unwrap().text().await.unwrap();
    assert!(answer.contains("too_many_bodies"), "{answer}");
    // What is no call has been read all the same.
    let notice = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": small});
    for message in [
        json!({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": small}),
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": small}),
        json!({"jsonrpc": "2.0", "id": 1, "result": small}),
        json!([notice, {"jsonrpc": "2.0", "method": "notifications/initialized"}]),
        notice,
    ] {
        let answer = sidecar.rpc_as(AGENT, &message).send().await.unwrap().text().await.unwrap();
        assert!(answer.contains("too_many_bodies"), "{answer}");
    }
    assert_eq!(sidecar.upstream.count(), 0);
    assert_eq!(sidecar.metric("oakallow_bodies_bytes").await, 0.0);
}
