//! The two eras of MCP: where they differ, each gets what its clients expect.

use serde_json::{Value, json};

use crate::support::sidecar::Sidecar;

#[tokio::test]
async fn an_unknown_method_is_an_error_in_a_session_and_not_found_without_sessions() {
    let sidecar = Sidecar::start().await;
    let resource = json!({"uri": "a://b"});
    for (version, method, params, status) in [
        ("2025-11-25", "tasks/get", json!({}), 200),
        ("2026-07-28", "tasks/get", json!({}), 404),
        ("2026-07-28", "resources/subscribe", resource, 404),
    ] {
        let asked = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let request =
            sidecar.rpc(&asked).header("mcp-protocol-version", version).header("mcp-method", method);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status, "{version} {method}");
        let said: Value = answer.json().await.unwrap();
        assert_eq!((&said["id"], &said["error"]["code"]), (&json!(1), &json!(-32_601)), "{version} {method}");
    }
    assert_eq!(sidecar.upstream.count(), 0);
}
