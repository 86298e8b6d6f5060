//! Secrets where names stand: they would be recorded as they are.

use oakallow_policy::audit::EventType;
use serde_json::{Value, json};

use crate::support::policy::AGENT;
use crate::support::sidecar::{Sidecar, client};
use crate::support::until;

const KEY: &str = "oak_live_0123456789abcdef";
const URI: &str = "https://files.example/report?api_key=TOPSECRET123";

fn routes(upstream: &str) -> Value {
    let route = |name: &str, kind: &str, path: &str| {
        json!({
            "name": name, "kind": kind, "path": path, "audience": "tools", "upstream": upstream,
            "resources": {"read": "/id"},
        })
    };
    json!([route("http", "http", "/tools/{tool}"), route("mcp", "mcp", "/mcp")])
}

fn message(method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
}

/// The refusals that the backend has heard of.
fn refusals(sidecar: &Sidecar) -> Vec<String> {
    let events = sidecar.backend.audit().into_iter().map(|e| e.event.data);
    events.filter_map(|data| data.reason).filter(|reason| reason == "secret_in_name").collect()
}

#[tokio::test]
async fn a_call_that_is_named_like_a_secret_is_refused_without_repeating_it() {
    let sidecar = Sidecar::with(json!({"routes": routes("http://127.0.0.1:9")})).await;
    for (tool, body) in [(KEY, json!({})), ("read", json!({"id": KEY})), ("read", json!({"id": URI}))] {
        let url = format!("http://{}/tools/{tool}", sidecar.proxy.data);
        let answer = client().post(url).header("x-api-key", AGENT).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 422, "{body}");
        let said = answer.text().await.unwrap();
        assert!(said.contains("secret_in_name") && !said.contains("0123") && !said.contains("TOP"), "{said}");
    }
    for (method, params) in [
        ("resources/read", json!({"uri": URI})),
        ("resources/subscribe", json!({"uri": URI})),
        ("prompts/get", json!({"name": KEY})),
        ("tools/call", json!({"name": KEY})),
        ("tools/call", json!({"name": "read", "arguments": {"id": KEY}})),
    ] {
        let answer = sidecar.rpc(&message(method, &params)).send().await.unwrap();
        let said = answer.text().await.unwrap();
        assert!(said.contains("secret_in_name") && !said.contains("0123") && !said.contains("TOP"), "{said}");
    }
    let notification = json!({"jsonrpc": "2.0", "method": format!("notifications/{KEY}")});
    assert_eq!(sidecar.rpc(&notification).send().await.unwrap().status(), 400);
    until("all refusals", async || (refusals(&sidecar).len() == 8).then_some(())).await;
    let recorded = serde_json::to_string(&sidecar.backend.audit()).unwrap();
    assert!(!recorded.contains(KEY) && !recorded.contains("TOPSECRET"), "{recorded}");
    assert_eq!(sidecar.upstream.count(), 0);
}

#[tokio::test]
async fn what_stands_beside_the_arguments_switches_no_redaction_off() {
    let sidecar = Sidecar::with(json!({"redact": {"pointers": ["/id"]}})).await;
    let call = sidecar.call("read").header("x-environment", "production").header("x-token", "hunter2");
    assert_eq!(call.send().await.unwrap().status(), 200);
    let requested = until("the request's event", async || {
        sidecar.backend.audit().into_iter().find(|e| e.event.kind == EventType::CallRequested)
    });
    let recorded = requested.await.event.data.parameters.unwrap();
    assert_eq!(recorded["headers"]["x-environment"], json!(["production"]), "{recorded:#}");
    assert!(recorded["arguments"]["id"]["redacted"].is_string(), "{recorded:#}");
    assert!(!recorded.to_string().contains("hunter2"), "{recorded:#}");
}
