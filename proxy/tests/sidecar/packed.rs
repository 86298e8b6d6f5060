//! Packed bodies, of calls and of answers: what is read is never unpacked, whatever it grows to.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::StatusCode;
use reqwest::Client;
use serde_json::{Value, json};

use crate::support::flooded::Flooded;
use crate::support::policy::AGENT;
use crate::support::sidecar::client;

/// What the bombs unpack to: five times as much as a flood may make the proxy grow by.
const UNPACKED_BYTES: usize = 256 * 1024 * 1024;
const CODINGS: [&str; 8] = ["gzip", "x-gzip", "GZIP", "deflate", "br", "zstd", "gzip, gzip", "identity"];

/// `before`, a great many spaces, and `after`.
fn bomb(before: &str, after: &str) -> Bytes {
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    packer.write_all(before.as_bytes()).unwrap();
    let spaces = vec![b' '; 1024 * 1024];
    for _ in 0..UNPACKED_BYTES / spaces.len() {
        packer.write_all(&spaces).unwrap();
    }
    packer.write_all(after.as_bytes()).unwrap();
    Bytes::from(packer.finish().unwrap())
}

fn packed(text: &str) -> Bytes {
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    packer.write_all(text.as_bytes()).unwrap();
    Bytes::from(packer.finish().unwrap())
}

#[tokio::test]
async fn a_packed_call_is_refused_and_not_unpacked() {
    let flooded = Flooded::start(json!({"body_bytes_max": 1024 * 1024})).await;
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "read"}});
    let bombs = [("tools/read", bomb("{\"id\":\"42\"", "}")), ("mcp", bomb("", &call.to_string()))];
    let two = Client::builder().http2_prior_knowledge().no_proxy().build().unwrap();
    for (path, bomb) in bombs {
        assert!(bomb.len() < 1024 * 1024, "it is not too large to be read: {}", bomb.len());
        let url = format!("http://{}/{path}", flooded.proxy.data);
        for coding in CODINGS {
            for client in [client(), two.clone()] {
                let call = client.post(&url).header("x-api-key", AGENT).header("content-encoding", coding);
                let call = call.header("content-type", "application/json").body(bomb.clone());
                let answer = call.send().await.unwrap_or_else(|e| panic!("{path} {coding}: {e:?}"));
                assert_eq!(answer.status(), 415, "{path} {coding}");
                let answer: Value = answer.json().await.unwrap();
                assert_eq!(answer["code"], "unsupported_encoding");
            }
        }
        flooded.is_unmoved(path).await;
    }
    let good = flooded.upstream.seen();
    assert!(good.iter().all(|seen| !seen.headers.contains_key("content-encoding") && seen.body.len() < 100));
}

/// A list that shows a tool which its caller must not see.
const LIST: &str =
    r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"drop","inputSchema":{"type":"object"}}]"#;

#[tokio::test]
async fn a_packed_list_of_tools_is_neither_unpacked_nor_handed_on() {
    let flooded = Flooded::start(json!({})).await;
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let whole = format!("{LIST}}}}}");
    let event = |data: &str| format!("event: message\ndata: {data}\n\n");
    let bombs = [
        ("application/json", bomb(LIST, "}}")),
        ("text/event-stream", bomb(&event(&whole), &event(&whole))),
        ("application/json", packed(&whole)),
        ("text/event-stream", packed(&event(&whole))),
        // As if it were packed: a reader that looks for itself would find the list.
        ("application/json", Bytes::from(whole)),
    ];
    for (content_type, body) in bombs {
        flooded.upstream.answers_bytes(content_type, body);
        for (coding, status) in
            [("gzip", 200), ("br", 200), ("gzip, gzip", 200), ("gzip", 404), ("deflate", 500)]
        {
            flooded.upstream.answers_with("content-encoding", coding);
            flooded.upstream.answers_status(StatusCode::from_u16(status).unwrap());
            let answer = flooded.proxy.rpc(&list).send().await.unwrap();
            assert!(!answer.headers().contains_key("content-encoding"));
            let answer: Value =
                answer.json().await.unwrap_or_else(|e| panic!("{content_type} {coding}: {e}"));
            assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(1), &json!(-31_502)), "{answer:#}");
        }
    }
    let asked = flooded.upstream.seen().into_iter().filter(|seen| seen.line == "POST /mcp");
    assert!(asked.into_iter().all(|seen| !seen.headers.contains_key("accept-encoding")));
    flooded.upstream.answers_status(StatusCode::OK);
    flooded.is_unmoved("packed lists").await;
}

#[tokio::test]
async fn a_stream_that_is_taken_up_again_is_not_handed_on_packed() {
    let flooded = Flooded::start(json!({})).await;
    flooded.upstream.answers_with("content-encoding", "gzip");
    flooded.upstream.answers_bytes("text/event-stream", packed(&format!("data: {LIST}}}}}\n\n")));
    let stream = client().get(format!("http://{}/mcp", flooded.proxy.data)).header("x-api-key", AGENT);
    let stream = stream.header("accept", "text/event-stream").header("last-event-id", "7");
    let answer = stream.send().await.unwrap();
    assert_eq!(answer.status(), 502);
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["code"], "upstream_broken");
}

#[tokio::test]
async fn the_packed_answer_of_a_call_goes_on_as_it_is() {
    let flooded = Flooded::start(json!({})).await;
    let bomb = bomb("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}", "}");
    flooded.upstream.answers_with("content-encoding", "gzip");
    flooded.upstream.answers_bytes("application/json", bomb.clone());
    let params = json!({"name": "read", "arguments": {"id": "42"}});
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    for call in [flooded.proxy.call("read"), flooded.proxy.rpc(&call)] {
        let answer = call.send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["content-encoding"]),
            (200, &"gzip".parse().unwrap())
        );
        assert!(answer.bytes().await.unwrap() == bomb, "to the byte");
    }
    flooded.is_unmoved("packed answers").await;
}
