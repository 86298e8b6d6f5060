//! Limits that are reached are answered as the caller's protocol says it, and bind nobody else.

use oakallow_policy::wire::ApprovalStatus;
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::support::policy::{ACME, AGENT};
use crate::support::raw::{exchange, statuses};
use crate::support::sidecar::{Sidecar, client};
use crate::support::slow::Slow;
use crate::support::until;

type Held = JoinHandle<reqwest::Result<Response>>;

async fn limited(limits: Value) -> Sidecar {
    Sidecar::with(json!({"limits": limits})).await
}

/// A plain call of `ask`.
fn plain(sidecar: &Sidecar, key: &str, arguments: &Value) -> RequestBuilder {
    let url = format!("http://{}/tools/ask", sidecar.proxy.data);
    client().post(url).header("x-api-key", key).json(arguments)
}

/// The same over MCP, in the era with sessions.
fn session(sidecar: &Sidecar, key: &str, arguments: &Value) -> RequestBuilder {
    let params = json!({"name": "ask", "arguments": arguments});
    sidecar.rpc_as(key, &json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}))
}

/// The same in the stateless era.
fn stateless(sidecar: &Sidecar, key: &str, arguments: &Value) -> RequestBuilder {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let params = json!({"name": "ask", "arguments": arguments, "_meta": meta});
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    let call = sidecar.rpc_as(key, &call).header("mcp-protocol-version", "2026-07-28");
    call.header("mcp-method", "tools/call").header("mcp-name", "ask")
}

async fn held(sidecar: &Sidecar, calls: f64) {
    let all = async || (sidecar.metric("oakallow_held_calls").await == calls).then_some(());
    until("held calls", all).await;
}

/// Holds a call of this principal.
async fn hold(sidecar: &Sidecar, key: &str, arguments: &Value) -> Held {
    let before = sidecar.metric("oakallow_held_calls").await;
    let call = tokio::spawn(plain(sidecar, key, arguments).send());
    held(sidecar, before + 1.0).await;
    call
}

/// What an MCP client hears: JSON, or the last event of a stream.
async fn said(call: RequestBuilder) -> Value {
    let answer = call.send().await.unwrap();
    assert_eq!(answer.status(), 200, "MCP clients take other statuses for something else");
    let text = answer.text().await.unwrap();
    let json = text.lines().filter_map(|line| line.strip_prefix("data: ")).next_back().unwrap_or(&text);
    serde_json::from_str(json).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// The call is answered with this status and code over HTTP, and with a result for the model over MCP.
async fn is_answered(sidecar: &Sidecar, key: &str, arguments: &Value, (status, code): (u16, &str)) {
    let answer = plain(sidecar, key, arguments).send().await.unwrap();
    let (found, retry) = (answer.status().as_u16(), answer.headers().contains_key("retry-after"));
    let body: Value = answer.json().await.unwrap();
    assert_eq!((found, &body["code"]), (status, &json!(code)), "{body:#}");
    assert!(retry, "it says when to try again");
    for (era, call) in
        [("sessions", session(sidecar, key, arguments)), ("stateless", stateless(sidecar, key, arguments))]
    {
        let said = said(call).await;
        let result = &said["result"];
        assert_eq!(result["isError"], true, "{era}: {said:#}");
        assert_eq!(result["_meta"]["oakallow/decision"]["reason"], code, "{era}: {said:#}");
        assert!(result["content"][0]["text"].as_str().unwrap().contains(code), "{era}: {said:#}");
        let kind = (era == "stateless").then(|| json!("complete"));
        assert_eq!(result.get("resultType"), kind.as_ref(), "{era}: {said:#}");
    }
}

#[tokio::test]
async fn a_call_more_than_may_wait_is_refused_and_the_others_go_on_waiting() {
    let sidecar = limited(json!({"holds_max": 1})).await;
    let first = hold(&sidecar, AGENT, &json!({"id": "1"})).await;
    is_answered(&sidecar, ACME, &json!({"id": "2"}), (429, "too_many_holds")).await;
    assert_eq!(sidecar.metric("oakallow_refusals_total{reason=\"too_many_holds\"}").await, 3.0);
    sidecar.backend.approve_all();
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    assert_eq!(sidecar.upstream.count(), 1);
}

#[tokio::test]
async fn a_flood_of_one_principal_does_not_keep_another_from_waiting() {
    let sidecar = limited(json!({"holds_per_principal_max": 3, "holds_max": 4})).await;
    let mut flood = Vec::new();
    for id in ["1", "2", "3"] {
        flood.push(hold(&sidecar, AGENT, &json!({"id": id})).await);
    }
    is_answered(&sidecar, AGENT, &json!({"id": "4"}), (429, "too_many_holds")).await;
    let other = hold(&sidecar, ACME, &json!({"id": "5"})).await;
    // What needs nobody's approval is nobody's concern, whoever sends it.
    assert_eq!(sidecar.call("read").send().await.unwrap().status(), 200);
    sidecar.backend.approve_all();
    for call in flood.into_iter().chain([other]) {
        assert_eq!(call.await.unwrap().unwrap().status(), 200);
    }
    held(&sidecar, 0.0).await;
    // The places are free again.
    let again = hold(&sidecar, AGENT, &json!({"id": "6"})).await;
    sidecar.backend.approve_all();
    assert_eq!(again.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_body_more_than_may_be_held_is_answered_pending_and_its_approval_counts() {
    let padded = |id: &str, bytes: usize| json!({"id": id, "pad": "x".repeat(bytes)});
    let sidecar = limited(json!({"hold_bytes_max": 16_000, "hold_bytes_per_principal_max": 10_000})).await;
    let first = hold(&sidecar, AGENT, &padded("1", 2_500)).await;
    // As much again is more than one principal may have; another may have it.
    is_answered(&sidecar, AGENT, &padded("2", 2_500), (202, "approval_pending")).await;
    let second = hold(&sidecar, ACME, &padded("3", 2_500)).await;
    is_answered(&sidecar, ACME, &padded("4", 1_400), (202, "approval_pending")).await;
    sidecar.backend.approve_all();
    for call in [first, second] {
        assert_eq!(call.await.unwrap().unwrap().status(), 200);
    }
    // Repeated, the call that was not held is carried out, under the approval that it asked for.
    let before = sidecar.backend.approvals().len();
    assert_eq!(plain(&sidecar, AGENT, &padded("2", 2_500)).send().await.unwrap().status(), 200);
    assert_eq!((sidecar.backend.approvals().len(), sidecar.upstream.count()), (before, 3));
}

#[tokio::test]
async fn a_connection_more_than_may_be_open_hears_so_and_ends_and_the_others_stay() {
    let sidecar = limited(json!({"connections_max": 2})).await;
    let first = hold(&sidecar, AGENT, &json!({"id": "1"})).await;
    let idle = TcpStream::connect(sidecar.proxy.data).await.unwrap();
    let open = async || (sidecar.metric("oakallow_connections").await == 2.0).then_some(());
    until("both connections", open).await;
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    for path in ["/tools/read", "/mcp"] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nX-API-Key: {AGENT}\r\n");
        let more = format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        // Nothing asks for the connection to be closed.
        let answer = exchange(sidecar.proxy.data, format!("{head}{more}").as_bytes()).await;
        assert_eq!(statuses(&answer), [503], "{answer}");
        assert!(answer.contains("too_many_connections") && answer.contains("retry-after"), "{answer}");
    }
    assert_eq!(sidecar.upstream.count(), 0);
    drop(idle);
    until("a free place", async || {
        (sidecar.call("read").send().await.is_ok_and(|answer| answer.status() == 200)).then_some(())
    })
    .await;
    sidecar.backend.decide(ApprovalStatus::Approved);
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn over_http2_a_connection_too_many_ends_as_well() {
    let sidecar = limited(json!({"connections_max": 2})).await;
    let idle = [TcpStream::connect(sidecar.proxy.data).await, TcpStream::connect(sidecar.proxy.data).await];
    let open = |count: f64| {
        let sidecar = &sidecar;
        async move { (sidecar.metric("oakallow_connections").await == count).then_some(()) }
    };
    until("two connections", async || open(2.0).await).await;
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let call = || {
        client.post(format!("http://{}/tools/read", sidecar.proxy.data)).header("x-api-key", AGENT).body("{}")
    };
    assert_eq!(call().send().await.unwrap().status(), 503);
    // It is closed, not left to its requests: the next one finds a connection of its own.
    until("the end of the third", async || open(2.0).await).await;
    drop(idle);
    until("a free place", async || {
        call().send().await.is_ok_and(|answer| answer.status() != 503).then_some(())
    })
    .await;
}

#[tokio::test]
async fn connections_far_beyond_the_limit_are_closed_without_a_word() {
    let sidecar = limited(json!({"connections_max": 1})).await;
    let mut open = Vec::new();
    let mut closed = false;
    for _ in 0..200 {
        let mut stream = TcpStream::connect(sidecar.proxy.data).await.unwrap();
        let mut nothing = [0];
        let end = tokio::time::timeout(std::time::Duration::from_millis(20), stream.read(&mut nothing)).await;
        closed |= matches!(end, Ok(Ok(0) | Err(_)));
        open.push(stream);
    }
    assert!(closed, "there is no end to them");
    assert!(sidecar.metric("oakallow_connections").await <= 70.0);
    drop(open);
    let served = async || sidecar.call("read").send().await.is_ok_and(|a| a.status() == 200).then_some(());
    until("a free place", served).await;
}

#[tokio::test]
async fn released_calls_go_to_the_tool_server_so_many_at_a_time() {
    let slow = Slow::shut().await;
    let route = json!({
        "name": "http", "kind": "http", "path": "/tools/{tool}", "audience": "tools", "upstream": slow.url,
    });
    let sidecar = Sidecar::with(json!({"limits": {"releases_max": 2}, "routes": [route]})).await;
    let mut calls = Vec::new();
    for id in ["1", "2", "3", "4", "5", "6"] {
        calls.push(hold(&sidecar, AGENT, &json!({"id": id})).await);
    }
    sidecar.backend.approve_all();
    let two = async || (slow.now() == 2).then_some(());
    until("two calls at the tool", two).await;
    held(&sidecar, 4.0).await;
    // One that is approved already waits for its turn as well, and not for longer than it wants to.
    let late =
        plain(&sidecar, AGENT, &json!({"id": "3"})).header("prefer", "respond-async").send().await.unwrap();
    assert_eq!(late.status(), 202);
    let late: Value = late.json().await.unwrap();
    assert!(late["detail"].as_str().unwrap().contains("waits for its turn"), "{late:#}");
    // While it waits for its turn it is a held call like any other: counted, and let go when its client leaves.
    let copy = tokio::spawn(plain(&sidecar, AGENT, &json!({"id": "3"})).send());
    held(&sidecar, 5.0).await;
    copy.abort();
    held(&sidecar, 4.0).await;
    slow.open();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!((slow.most(), slow.all()), (2, 6));
}

#[tokio::test]
async fn a_spool_with_as_many_bytes_as_may_wait_refuses_calls_until_the_backend_takes_them() {
    let sidecar = limited(json!({"spool_bytes_max": 20_000})).await;
    sidecar.backend.take_audit(false);
    let call = async || sidecar.call("read").send().await.unwrap();
    until("a full spool", async || (call().await.status() == 503).then_some(())).await;
    let refused: Value = call().await.json().await.unwrap();
    assert_eq!(refused["code"], "audit_unavailable", "{refused:#}");
    assert_eq!(sidecar.ready().await, (503, "audit spool".to_owned()));
    let waiting = sidecar.metric("oakallow_spool_waiting_bytes").await;
    assert!((20_000.0..40_000.0).contains(&waiting), "{waiting}");
    // It is known after a restart, too.
    let sidecar = sidecar.restart().await;
    assert!(sidecar.metric("oakallow_spool_waiting_bytes").await >= waiting);
    assert_eq!(sidecar.call("read").send().await.unwrap().status(), 503);
    sidecar.backend.take_audit(true);
    until("an empty spool", async || {
        (sidecar.metric("oakallow_spool_waiting_bytes").await == 0.0).then_some(())
    })
    .await;
    assert_eq!(sidecar.call("read").send().await.unwrap().status(), 200);
}
