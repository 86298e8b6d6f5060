//! A proxy that is told to stop while calls wait: each is answered, and what a person says meanwhile counts.

use oakallow_policy::wire::ApprovalStatus;
use reqwest::Response;
use serde_json::{Value, json};

use crate::support::backend::Backend;
use crate::support::policy::OrgBundle;
use crate::support::process::Process;
use crate::support::sidecar::config_text;
use crate::support::until;
use crate::support::upstream::Upstream;

fn called(meta: Option<Value>, id: &str) -> Value {
    let mut params = json!({"name": "ask", "arguments": {"id": id}});
    if let Some(meta) = meta {
        params["_meta"] = meta;
    }
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
}

fn stateless_meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    })
}

/// The result in an answer of MCP, whole or as the last event of a stream.
async fn result(answer: Response) -> Value {
    assert_eq!(answer.status(), 200);
    let text = answer.text().await.unwrap();
    let json = text.lines().filter_map(|line| line.strip_prefix("data: ")).next_back().unwrap_or(&text);
    serde_json::from_str::<Value>(json).unwrap_or_else(|e| panic!("{e}: {text}"))["result"].take()
}

#[tokio::test]
async fn calls_of_each_kind_that_wait_are_answered_and_the_next_process_picks_their_approvals_up_once() {
    let (backend, upstream) = (Backend::start(OrgBundle::new(5).signed()), Upstream::start().await);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("proxy.yaml");
    std::fs::write(&file, config_text(dir.path(), &backend.url, &upstream.url, &json!({}))).unwrap();
    let mut proxy = Process::start(&file);
    let stateless = |proxy: &Process, id: &str, state: Option<&Value>| {
        let mut call = called(Some(stateless_meta()), id);
        if let Some(state) = state {
            call["params"]["requestState"] = state.clone();
        }
        let call = proxy.rpc(&call).header("mcp-protocol-version", "2026-07-28");
        call.header("mcp-method", "tools/call").header("mcp-name", "ask")
    };
    let plain = tokio::spawn(proxy.call("ask").send());
    let session = tokio::spawn(proxy.rpc(&called(None, "session")).send());
    let leg = tokio::spawn(stateless(&proxy, "stateless", None).send());
    until("three held calls", async || (proxy.metric("oakallow_held_calls").await == 3.0).then_some(()))
        .await;
    proxy.signal("TERM");

    let plain = plain.await.unwrap().unwrap();
    assert_eq!((plain.status().as_u16(), plain.headers().contains_key("retry-after")), (202, true));
    let session = result(session.await.unwrap().unwrap()).await;
    assert_eq!(session["_meta"]["oakallow/decision"]["reason"], "approval_pending", "{session:#}");
    let leg = result(leg.await.unwrap().unwrap()).await;
    assert_eq!(leg["resultType"], "input_required", "{leg:#}");
    // A person decides while it stops.
    backend.approve_all();
    assert!(proxy.ended().await.success());
    assert_eq!(upstream.count(), 0);

    let proxy = Process::start(&file);
    assert_eq!(proxy.call("ask").send().await.unwrap().status(), 200);
    let answer = json!({"jsonrpc": "2.0", "id": 1, "result": {"content": [], "resultType": "complete"}});
    upstream.answers("application/json", &answer.to_string());
    assert_eq!(result(proxy.rpc(&called(None, "session")).send().await.unwrap()).await, answer["result"]);
    let state = &leg["requestState"];
    assert_eq!(
        result(stateless(&proxy, "stateless", Some(state)).send().await.unwrap()).await,
        answer["result"]
    );
    let states: Vec<_> = backend.approvals().into_iter().map(|state| state.status).collect();
    assert_eq!(states, [ApprovalStatus::Consumed; 3]);
    assert_eq!((upstream.count(), backend.consumers().len()), (3, 3), "each ran once");
}
