//! What is in a request: sizes, framings, and JSON that readers disagree on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "test code")]

use bytes::Bytes;
use futures_util::stream;
use oakallow_e2e::agent::{Agent, Answer};
use oakallow_e2e::raw;
use oakallow_e2e::stack::Stack;
use reqwest::{Body, Method};

const KIB: usize = 1024;
/// The proxy's default limit.
const BODY_BYTES_MAX: usize = 1024 * KIB;
/// Around the buffer that the proxy's framework replays, one large one, and the largest.
const SIZES: [usize; 5] = [64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 900 * KIB, BODY_BYTES_MAX];

/// A call of `read_record` that is exactly this long: the bytes count, not what they mean.
fn padded(bytes: usize) -> String {
    let start = r#"{"id":"42""#;
    format!("{start}{}}}", " ".repeat(bytes - start.len() - 1))
}

fn whole(body: String) -> Body {
    Body::from(body)
}

/// In pieces that do not fit the buffers of anybody, without a length.
fn chunked(body: String) -> Body {
    let body = Bytes::from(body);
    let pieces: Vec<Bytes> =
        (0..body.len()).step_by(7_001).map(|at| body.slice(at..body.len().min(at + 7_001))).collect();
    Body::wrap_stream(stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>)))
}

async fn every_size_passes(agent: &Agent, frame: fn(String) -> Body) {
    for size in SIZES {
        let answer = agent.request(Method::POST, "/tools/read_record", frame(padded(size))).send().await;
        assert_eq!(answer.status, 200, "{size} bytes: {answer:#?}");
        assert_eq!(answer.body["result"]["record"]["customer"], "Ada", "{size} bytes");
    }
}

async fn one_too_many_is_refused(agent: &Agent, frame: fn(String) -> Body) -> reqwest::Result<Answer> {
    agent.request(Method::POST, "/tools/read_record", frame(padded(BODY_BYTES_MAX + 1))).try_send().await
}

#[tokio::test]
async fn bodies_pass_to_the_byte_with_a_content_length() {
    let stack = Stack::start().await;
    every_size_passes(&stack.acme(), whole).await;
    one_too_many_is_refused(&stack.acme(), whole).await.unwrap().expect_problem(413, "body_too_large");
    assert_eq!(stack.executions("read_record").await, 5);
}

#[tokio::test]
async fn bodies_pass_to_the_byte_in_chunks() {
    let stack = Stack::start().await;
    every_size_passes(&stack.acme(), chunked).await;
    one_too_many_is_refused(&stack.acme(), chunked).await.unwrap().expect_problem(413, "body_too_large");
    assert_eq!(stack.executions("read_record").await, 5);
}

#[tokio::test]
async fn bodies_pass_to_the_byte_over_h2c() {
    let stack = Stack::start().await;
    let agent = Agent::h2c(stack.env("OAKALLOW_PROXY"), stack.env("OAKALLOW_ACME_KEY"));
    for frame in [whole, chunked] {
        every_size_passes(&agent, frame).await;
        one_too_many_is_refused(&agent, frame).await.unwrap().expect_problem(413, "body_too_large");
    }
    assert_eq!(stack.executions("read_record").await, 10);
}

#[tokio::test]
async fn json_that_readers_disagree_on_is_refused() {
    let stack = Stack::start().await;
    let refused = [
        ("garbage", r#"{"id": nonsense"#),
        ("nothing", ""),
        ("two values", r#"{"id":"42"}{"id":"43"}"#),
        ("duplicate keys", r#"{"id":"42","id":"43"}"#),
        ("duplicate keys after unescaping", r#"{"id":"42","\u0069d":"43"}"#),
        ("a lone surrogate", r#"{"id":"\ud800"}"#),
        ("an integer above 2^53", r#"{"id":9007199254740993}"#),
        ("a byte order mark", "\u{feff}{\"id\":\"42\"}"),
        ("a deep nest", &format!("{}{}", "[".repeat(10_000), "]".repeat(10_000))),
    ];
    for (what, body) in refused {
        let answer = stack.acme().request(Method::POST, "/tools/read_record", body.to_owned()).send().await;
        assert!((400..423).contains(&answer.status), "{what}: {answer:#?}");
        assert!(
            ["invalid_request", "invalid_arguments"].contains(&answer.text_of("code")),
            "{what}: {answer:#?}"
        );
    }
    // A key that differs from a known one by case: some tool servers would take it for the known one.
    let answer =
        stack.acme().request(Method::POST, "/tools/read_record", r#"{"id":"42","ID":"43"}"#).send().await;
    assert!([400, 422].contains(&answer.status), "{answer:#?}");
    assert_eq!(stack.executions("read_record").await, 0);
}

#[tokio::test]
async fn an_encoded_body_is_refused() {
    let stack = Stack::start().await;
    for encoding in ["gzip", "br", "deflate"] {
        let call = stack.acme().request(Method::POST, "/tools/read_record", r#"{"id":"42"}"#);
        let answer = call.header("content-encoding", encoding).send().await;
        answer.expect_problem(415, "unsupported_encoding");
    }
    assert_eq!(stack.executions("read_record").await, 0);
}

#[tokio::test]
async fn paths_and_methods_that_say_two_things_are_refused() {
    let stack = Stack::start().await;
    let key = stack.env("OAKALLOW_ACME_KEY");
    let paths = [
        "/tools/../tools/read_record",
        "/tools/read_record%2f..%2fdrop_database",
        "//tools/read_record",
        "/tools/read_record;x=1",
        "/tools/%72ead_record",
        "/tools\\read_record",
    ];
    for path in paths {
        let body = r#"{"id":"42"}"#;
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: tools\r\nConnection: close\r\nX-API-Key: {key}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = raw::exchange(stack.env("OAKALLOW_PROXY"), request.as_bytes()).await;
        assert!([400, 404].contains(&raw::status(&answer)), "{path}: {answer}");
    }
    for header in ["x-http-method-override", "x-http-method", "x-method-override"] {
        let call = stack.acme().request(Method::POST, "/tools/read_record", r#"{"id":"42"}"#);
        call.header(header, "DELETE").send().await.expect_problem(400, "invalid_request");
    }
    assert_eq!(stack.executions("read_record").await, 0);
}

#[tokio::test]
async fn a_request_with_two_lengths_is_refused() {
    let stack = Stack::start().await;
    let key = stack.env("OAKALLOW_ACME_KEY");
    for lengths in
        ["Content-Length: 11\r\nTransfer-Encoding: chunked", "Content-Length: 11\r\nContent-Length: 12"]
    {
        let request = format!(
            "POST /tools/read_record HTTP/1.1\r\nHost: tools\r\nConnection: close\r\nX-API-Key: {key}\r\n{lengths}\r\n\r\n{{\"id\":\"42\"}}\r\n0\r\n\r\n"
        );
        let answer = raw::exchange(stack.env("OAKALLOW_PROXY"), request.as_bytes()).await;
        assert!(answer.is_empty() || raw::status(&answer) == 400, "{lengths}: {answer}");
    }
    assert_eq!(stack.executions("read_record").await, 0);
}
