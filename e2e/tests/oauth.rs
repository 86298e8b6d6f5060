//! Clients that know nothing but the proxy's URL: from its 401 and its metadata (RFC 9728) the official MCP SDKs find the
//! authorization server, get a token there for this resource, and call.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "test code")]

use oakallow_e2e::clients::Script;
use oakallow_e2e::oauth::{AuthorizationServer, MACHINE, PERSON, TENANT};
use oakallow_e2e::proxy::{Proxy, Route};
use oakallow_e2e::stack::Stack;
use serde_json::json;

/// A proxy that takes tokens of this server and nothing else.
async fn taking_tokens(stack: &Stack, server: &AuthorizationServer) -> Proxy {
    let routes = [Route::mcp("mcp", "demo-tools", &format!("{}/mcp", stack.env("OAKALLOW_TOOLS")))];
    let more = json!({
        "listener": {"identities": ["corp"]},
        "issuers": [{
            "name": "corp", "issuer": server.url, "audience": "{proxy}/mcp", "discovery": true,
            "tenant_claim": "tenant",
        }],
    });
    let dir = stack.dir().join("oauth");
    Proxy::configured("oauth", &dir, &stack.control(), (&routes, more)).await
}

/// Calls a tool with this script, which finds its way to a token; whom the token names.
async fn finds_its_way(script: &str, subject: &str, steps: &[&str]) {
    let (stack, server) = (Stack::start().await, AuthorizationServer::start().await);
    let proxy = taking_tokens(&stack, &server).await;
    let (url, (client, secret)) = (format!("{}/mcp", proxy.url), MACHINE);
    let calls = json!([{"step": "read", "name": "read_record", "arguments": {"id": "42"}}]).to_string();
    let variables = [
        ("URL", url.as_str()),
        ("ISSUER", server.url.as_str()),
        ("CLIENT_ID", client),
        ("CLIENT_SECRET", secret),
        ("CALLS", calls.as_str()),
    ];
    let said = Script::start(script, &variables).end().await;
    let read = &said["read"];
    assert_eq!(read["isError"], false, "{read:#}");
    assert_eq!(read["structured"]["token_claims"]["tenant"], TENANT, "{read:#}");
    let expected: Vec<String> = steps.iter().map(|step| step.replace("{resource}", &url)).collect();
    assert_eq!(server.seen(), expected, "each once");
    assert_eq!(stack.executions("read_record").await, 1);
    let txn = read["structured"]["token_claims"]["txn"].as_str().unwrap();
    let life = stack.control().await_event(txn, "call.completed").await;
    let requested = life.iter().find(|event| event["type"] == "call.requested").unwrap();
    assert_eq!(requested["data"]["principal"], format!("oidc:corp:{subject}"));
}

#[tokio::test]
async fn the_python_sdk_registers_and_gets_a_token_for_a_person() {
    let steps = ["register", "authorize", "token by authorization_code for {resource}"];
    finds_its_way("oauth_client.py", PERSON, &steps).await;
}

#[tokio::test]
async fn the_first_typescript_sdk_gets_a_token_for_itself() {
    finds_its_way("oauth_v1.mjs", MACHINE.0, &["token by client_credentials for {resource}"]).await;
}

#[tokio::test]
async fn the_second_typescript_sdk_gets_a_token_for_itself() {
    finds_its_way("oauth_v2.mjs", MACHINE.0, &["token by client_credentials for {resource}"]).await;
}
