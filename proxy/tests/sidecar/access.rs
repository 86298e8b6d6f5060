//! The access log: a line for each request, whatever became of it, and nothing in it that is nobody's business.

use std::path::{Path, PathBuf};

use oakallow_policy::wire::ApprovalStatus;
use serde_json::{Value, json};

use crate::support::policy::{ACME, AGENT};
use crate::support::sidecar::{Sidecar, client};
use crate::support::until;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn lines(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

async fn line(file: &Path, number: usize) -> Value {
    until(&format!("line {number}"), async || lines(file).get(number - 1).cloned()).await
}

async fn logging(dir: &Path) -> (Sidecar, PathBuf) {
    let file = dir.join("access.log");
    let more = json!({"access_log": {"to": file}, "hold": {"budget_s": 30}});
    (Sidecar::with(more).await, file)
}

/// Whether a line says this, member by member; `null`: it does not have the member.
fn says(line: &Value, expected: &Value) {
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&line[name], value, "{name} in {line:#}");
    }
    for name in ["time", "txn", "listener", "bytes_in", "bytes_out", "total_ms"] {
        assert!(!line[name].is_null(), "no {name} in {line:#}");
    }
}

#[tokio::test]
async fn a_line_names_the_listener_that_the_request_came_by() {
    let dir = tempfile::tempdir().unwrap();
    let (file, socket) = (dir.path().join("access.log"), dir.path().join("agent.sock"));
    let unix = format!("unix:{}", socket.display());
    let data = json!([{"address": "127.0.0.1:0"}, {"address": "127.0.0.1:0"}, {"address": unix}]);
    let sidecar = Sidecar::with(json!({
        "access_log": {"to": file},
        "listen": {"data": data, "ops": "127.0.0.1:0", "admin": "127.0.0.1:0"},
    }))
    .await;
    let local = reqwest::Client::builder().unix_socket(socket.as_path()).build().unwrap();
    for (number, listener) in sidecar.proxy.listeners.iter().enumerate() {
        let (client, host) = match listener.tcp() {
            Some(address) => (client(), address.to_string()),
            None => (local.clone(), "localhost".to_owned()),
        };
        let call = client.post(format!("http://{host}/tools/read")).header("x-api-key", AGENT);
        assert_eq!(call.json(&json!({"id": "42"})).send().await.unwrap().status(), 200);
        let whole = line(&file, number + 1).await;
        let of_socket = host == "localhost";
        assert_eq!(whole["client"], if of_socket { Value::Null } else { json!("127.0.0.1") });
        let said = whole["listener"].clone();
        assert_eq!(said, if host == "localhost" { unix.clone() } else { host });
    }
    // One that is turned away came by a listener as well.
    let second = sidecar.proxy.listeners[1].at.to_string();
    assert_eq!(client().post(format!("http://{second}/nowhere")).send().await.unwrap().status(), 404);
    assert_eq!(line(&file, 4).await["listener"], second);
}

#[tokio::test]
async fn every_request_leaves_one_line_that_says_what_became_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (sidecar, file) = logging(dir.path()).await;
    let traced = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let read = sidecar.call("read").header("traceparent", traced).header("x-secret", "hunter2");
    assert_eq!(read.send().await.unwrap().status(), 200);
    says(
        &line(&file, 1).await,
        &json!({
            "client": "127.0.0.1", "listener": sidecar.proxy.data.to_string(), "http_version": "1.1", "principal": "ada", "tenant": null, "route": "http", "tool": "read",
            "decision": "allowed", "permit": "rule", "status": 200, "outcome": "success", "error": null,
            "bytes_in": 11, "bytes_out": 11, "trace_id": TRACE, "held_ms": null, "approval_id": null,
        }),
    );
    assert!(line(&file, 1).await["upstream_ms"].is_f64() && line(&file, 1).await["decide_ms"].is_f64());

    assert_eq!(sidecar.call("drop").send().await.unwrap().status(), 403);
    let expected = json!({
        "tool": "drop", "decision": "disabled", "status": 403, "error": "disabled", "outcome": null, "permit": null,
    });
    says(&line(&file, 2).await, &expected);

    let held = tokio::spawn(sidecar.call("ask").send());
    until("the hold", async || (sidecar.metric("oakallow_held_calls").await == 1.0).then_some(())).await;
    sidecar.backend.decide(ApprovalStatus::Approved);
    assert_eq!(held.await.unwrap().unwrap().status(), 200);
    let approval = sidecar.backend.approvals().remove(0).id;
    let expected = json!({
        "tool": "ask", "decision": "requires_approval", "permit": "approval", "approval_id": approval, "status": 200,
    });
    says(&line(&file, 3).await, &expected);
    assert!(line(&file, 3).await["held_ms"].is_f64());

    let url = format!("http://{}/tools/read", sidecar.proxy.data);
    let unknown =
        client().post(&url).header("x-api-key", "oak_agent_nobody_0123456789").json(&json!({"id": "42"}));
    assert_eq!(unknown.send().await.unwrap().status(), 401);
    let expected =
        json!({"status": 401, "error": "unauthenticated", "principal": null, "route": "http", "tool": null});
    says(&line(&file, 4).await, &expected);

    let nowhere = client().post(format!("http://{}/oak_live_0123456789abcdef", sidecar.proxy.data));
    assert_eq!(nowhere.header("x-api-key", AGENT).send().await.unwrap().status(), 404);
    says(&line(&file, 5).await, &json!({"status": 404, "error": "unknown_route", "principal": "ada"}));

    sidecar
        .upstream
        .answers("application/json", r#"{"jsonrpc":"2.0","id":1,"result":{"isError":true,"content":[]}}"#);
    let message =
        |method: &str, params: Value| json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let call = message("tools/call", json!({"name": "read", "arguments": {"id": "s3cret-argument"}}));
    assert_eq!(sidecar.rpc_as(ACME, &call).send().await.unwrap().status(), 200);
    says(
        &line(&file, 6).await,
        &json!({
            "principal": "bob", "tenant": "acme", "route": "mcp", "mcp_method": "tools/call", "tool": "read", "outcome": "failed",
        }),
    );
    assert_eq!(sidecar.rpc(&message("ping", json!({}))).send().await.unwrap().status(), 200);
    says(&line(&file, 7).await, &json!({"mcp_method": "ping", "permit": "passthrough", "tool": null}));
    let unknown = message("oak_live_0123456789abcdef", json!({}));
    assert_eq!(sidecar.rpc(&unknown).send().await.unwrap().status(), 200);
    says(&line(&file, 8).await, &json!({"mcp_method": null, "error": "unknown_method"}));

    sidecar.upstream.goes_away();
    assert_eq!(sidecar.call("read").send().await.unwrap().status(), 502);
    says(&line(&file, 9).await, &json!({"status": 502, "error": "upstream_unreachable", "outcome": "error"}));

    assert_eq!(lines(&file).len(), 9);
    let written = async || (sidecar.metric("oakallow_access_lines_written_total").await == 9.0).then_some(());
    until("the count", written).await;
    assert_eq!(sidecar.metric("oakallow_access_lines_dropped_total").await, 0.0);
    let text = std::fs::read_to_string(&file).unwrap();
    for secret in [AGENT, ACME, "hunter2", "s3cret-argument", "oak_live_", "oak_agent_"] {
        assert!(!text.contains(secret), "{secret} in:\n{text}");
    }
}

#[tokio::test]
async fn a_file_that_was_moved_away_is_begun_anew_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let (sidecar, file) = logging(dir.path()).await;
    assert_eq!(sidecar.call("read").send().await.unwrap().status(), 200);
    line(&file, 1).await;
    let old = dir.path().join("access.log.1");
    std::fs::rename(&file, &old).unwrap();
    let pid = std::process::id().to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    until("the new file", async || file.exists().then_some(())).await;
    assert_eq!(sidecar.call("drop").send().await.unwrap().status(), 403);
    assert_eq!(line(&file, 1).await["tool"], "drop");
    assert_eq!(lines(&old).len(), 1);
}

#[tokio::test]
async fn what_a_proxy_wrote_last_is_there_when_it_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let (sidecar, file) = logging(dir.path()).await;
    assert_eq!(sidecar.call("read").send().await.unwrap().status(), 200);
    let _sidecar = sidecar.restart().await;
    assert_eq!(lines(&file).len(), 1);
}
