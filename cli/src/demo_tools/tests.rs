//! The server against a backend that redeems each token once, and only for what it was made for.

use std::collections::HashSet;
use std::sync::Mutex;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use oakallow_policy::canonical;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::*;

/// Tokens are `<tool>|<resource>|<htm>|<htu>|<body_sha256>|<arguments_sha256>` here; the real form is
/// tested where it is made.
#[derive(Default)]
struct Redeemed(Mutex<HashSet<String>>);

async fn verify(State(redeemed): State<std::sync::Arc<Redeemed>>, Json(asked): Json<Value>) -> Json<Value> {
    let field = |name: &str| asked[name].as_str().unwrap_or("-").to_owned();
    let fields = ["tool_name", "resource_id", "htm", "htu", "body_sha256", "arguments_sha256"];
    let expected = fields.map(field).join("|");
    let token = field("token");
    Json(if token != expected {
        json!({"valid": false, "reason": "mismatch"})
    } else if redeemed.0.lock().unwrap().insert(token) {
        json!({"valid": true, "claims": {"tool": asked["tool_name"]}})
    } else {
        json!({"valid": false, "reason": "replayed"})
    })
}

struct Harness {
    server: Running,
    client: reqwest::Client,
    url: String,
}

async fn harness() -> Harness {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().route("/v1/tokens/verify", post(verify)).with_state(Default::default());
    tokio::spawn(async move { axum::serve(listener, router).await });
    against(backend).await
}

async fn against(backend: String) -> Harness {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let tool_key = Secret::new("oak_tool_0123".to_owned());
    let config = Config { listen: "127.0.0.1:0".parse().unwrap(), backend, tool_key };
    let server = start(config).await.unwrap();
    let url = format!("http://{}", server.addr);
    Harness { server, client: reqwest::Client::new(), url }
}

impl Harness {
    /// Of a call whose arguments are `arguments`, in a request whose body is `body`.
    fn token_of(&self, call: (&str, &str), path: &str, body: &str, arguments: &str) -> String {
        let digest = |text: &str| canonical::base64url(&canonical::sha256(text.as_bytes()));
        let (tool, resource) = call;
        format!("{tool}|{resource}|POST|{}{path}|{}|{}", self.url, digest(body), digest(arguments))
    }

    fn token(&self, tool: &str, path: &str, body: &str) -> String {
        self.token_of((tool, "server-prod-01"), path, body, body)
    }

    async fn post(&self, path: &str, token: Option<&str>, body: &str) -> (StatusCode, Value) {
        let request = self.client.post(format!("{}{path}", self.url)).body(body.to_owned());
        let request = request.header("content-type", "application/json");
        let request = request.header("accept", "application/json, text/event-stream");
        let request = match token {
            Some(token) => request.header("x-oakallow-token", token),
            None => request,
        };
        let response = request.send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        let json = text.lines().filter_map(|line| line.strip_prefix("data: ")).next_back().unwrap_or(&text);
        (status, serde_json::from_str(json).unwrap_or(Value::Null))
    }

    async fn counts(&self) -> Value {
        let response = self.client.get(format!("{}/executions", self.url)).send().await.unwrap();
        response.json().await.unwrap()
    }
}

const RESTART: &str = r#"{"service":"server-prod-01"}"#;

#[tokio::test]
async fn a_call_with_a_good_token_runs_and_echoes_its_claims() {
    let h = harness().await;
    let token = h.token("restart_service", "/tools/restart_service", RESTART);
    let (status, answer) = h.post("/tools/restart_service", Some(&token), RESTART).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["result"]["restarts"], 1);
    assert_eq!(answer["token_claims"]["tool"], "restart_service");
    assert_eq!(
        h.counts().await,
        json!({
            "executions": {"read_record": 0, "restart_service": 1, "transfer_funds": 0, "drop_database": 0},
            "refused": 0,
        })
    );
    h.server.shutdown().await;
}

#[tokio::test]
async fn a_call_without_a_token_or_with_a_bad_one_is_refused_and_has_no_effect() {
    let h = harness().await;
    let token = h.token("restart_service", "/tools/restart_service", RESTART);
    let other_body = r#"{"service":"server-prod-02"}"#;
    let (status, problem) = h.post("/tools/restart_service", None, RESTART).await;
    assert_eq!((status.as_u16(), &problem["code"]), (403, &json!("token_missing")));
    let (status, problem) = h.post("/tools/restart_service", Some(&token), other_body).await;
    assert_eq!((status.as_u16(), &problem["code"]), (403, &json!("token_invalid")));
    let (status, _) = h.post("/tools/drop_database", Some(&token), RESTART).await;
    assert_eq!(status, 403, "a token of another tool");
    let counts = h.counts().await;
    assert_eq!(counts["refused"], 3);
    assert!(counts["executions"].as_object().unwrap().values().all(|n| n == 0), "{counts}");
}

#[tokio::test]
async fn a_token_works_once() {
    let h = harness().await;
    let token = h.token("restart_service", "/tools/restart_service", RESTART);
    assert_eq!(h.post("/tools/restart_service", Some(&token), RESTART).await.0, 200);
    let (status, problem) = h.post("/tools/restart_service", Some(&token), RESTART).await;
    assert_eq!(status, 403);
    assert!(problem["detail"].as_str().unwrap().contains("replayed"), "{problem}");
    assert_eq!(h.counts().await["executions"]["restart_service"], 1);
}

#[tokio::test]
async fn a_token_for_other_arguments_or_another_resource_runs_nothing() {
    let h = harness().await;
    let path = "/tools/restart_service";
    let spaced = r#"{ "service": "server-prod-01" }"#;
    for wrong in [
        h.token_of(("restart_service", "server-prod-01"), path, spaced, r#"{"service":"server-prod-02"}"#),
        h.token_of(("restart_service", "server-prod-02"), path, spaced, RESTART),
        h.token_of(("restart_service", "-"), path, spaced, RESTART),
    ] {
        let (status, problem) = h.post(path, Some(&wrong), spaced).await;
        assert_eq!((status.as_u16(), &problem["code"]), (403, &json!("token_invalid")), "{wrong}");
    }
    assert_eq!(h.counts().await["executions"]["restart_service"], 0);
    // The form of the body does not matter, what it says does.
    let right = h.token_of(("restart_service", "server-prod-01"), path, spaced, RESTART);
    assert_eq!(h.post(path, Some(&right), spaced).await.0, 200);
}

#[tokio::test]
async fn two_tokens_in_one_request_are_none() {
    let h = harness().await;
    let token = h.token("restart_service", "/tools/restart_service", RESTART);
    let request = h.client.post(format!("{}/tools/restart_service", h.url)).body(RESTART);
    let request = request.header("x-oakallow-token", &token).header("x-oakallow-token", "other");
    assert_eq!(request.send().await.unwrap().status(), 403);
    assert_eq!(h.counts().await["executions"]["restart_service"], 0);
}

#[tokio::test]
async fn when_the_backend_is_away_nothing_runs() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let h = against(format!("http://{closed}")).await;
    let token = h.token("restart_service", "/tools/restart_service", RESTART);
    let (status, problem) = h.post("/tools/restart_service", Some(&token), RESTART).await;
    assert_eq!((status.as_u16(), &problem["code"]), (503, &json!("token_unverified")));
    assert_eq!(h.counts().await["executions"]["restart_service"], 0);
}

fn mcp_call(meta: &Value) -> String {
    json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "restart_service", "arguments": {"service": "a"}, "_meta": meta},
    })
    .to_string()
}

#[tokio::test]
async fn mcp_calls_are_checked_in_the_same_way() {
    let h = harness().await;
    let body = mcp_call(&json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }));
    let send = |token: Option<String>| {
        let request = h.client.post(format!("{}/mcp", h.url)).body(body.clone());
        let request = request
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", "tools/call")
            .header("mcp-name", "restart_service");
        let request = match token {
            Some(token) => request.header("x-oakallow-token", token),
            None => request,
        };
        async { request.send().await.unwrap().text().await.unwrap() }
    };
    let refused = send(None).await;
    assert!(refused.contains(r#""code":403"#), "{refused}");
    let arguments = r#"{"service":"a"}"#;
    let foreign = h.token_of(("restart_service", "b"), "/mcp", &body, arguments);
    assert!(send(Some(foreign)).await.contains(r#""code":403"#));
    let done = send(Some(h.token_of(("restart_service", "a"), "/mcp", &body, arguments))).await;
    assert!(done.contains(r#""restarts":1"#) && done.contains(r#""resultType":"complete""#), "{done}");
    let counts = h.counts().await;
    assert_eq!((&counts["executions"]["restart_service"], &counts["refused"]), (&json!(1), &json!(2)));
}

#[tokio::test]
async fn the_session_era_is_served_too() {
    let h = harness().await;
    let hello = json!({
        "jsonrpc": "2.0", "id": 0, "method": "initialize",
        "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
    });
    let request = h.client.post(format!("{}/mcp", h.url)).body(hello.to_string());
    let request = request.header("content-type", "application/json");
    let response = request.header("accept", "application/json, text/event-stream").send().await.unwrap();
    assert!(response.headers().contains_key("mcp-session-id"), "{response:?}");
    let body = response.text().await.unwrap();
    assert!(body.contains(r#""protocolVersion":"2025-11-25""#), "{body}");
    h.server.shutdown().await;
}
