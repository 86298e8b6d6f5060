//! Sessions of MCP: each is the caller's that began it, whatever others send.

use http::Method;
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};

use crate::support::policy::{ACME, AGENT};
use crate::support::sidecar::{Sidecar, client};

const SESSION: &str = "mcp-session-id";
/// As the tool server names it.
const UPSTREAM_ID: &str = "1c1b6a2e-7d52";

fn message(method: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": {}})
}

fn request(sidecar: &Sidecar, (method, key): (Method, &str), sessions: &[&str]) -> RequestBuilder {
    let mut request = client().request(method.clone(), format!("http://{}/mcp", sidecar.proxy.data));
    for session in sessions {
        request = request.header(SESSION, *session);
    }
    let request = request.header("x-api-key", key).header("accept", "application/json, text/event-stream");
    if method == Method::POST { request.json(&message("tools/list")) } else { request }
}

/// The status that a request within these sessions gets.
async fn status(sidecar: &Sidecar, (method, key): (Method, &str), sessions: &[&str]) -> u16 {
    request(sidecar, (method, key), sessions).send().await.unwrap().status().as_u16()
}

async fn initialized(sidecar: &Sidecar, key: &str) -> Response {
    sidecar.upstream.answers("application/json", r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}"#);
    sidecar.upstream.answers_with(SESSION, UPSTREAM_ID);
    let hello = request(sidecar, (Method::POST, key), &[]).json(&message("initialize"));
    let answer = hello.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer
}

fn session(answer: &Response) -> String {
    answer.headers()[SESSION].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_session_that_is_named_beside_another_one_is_not_entered() {
    let sidecar = Sidecar::start().await;
    let acme = session(&initialized(&sidecar, ACME).await);
    let before = sidecar.upstream.count();
    for method in [Method::POST, Method::GET, Method::DELETE] {
        assert_eq!(status(&sidecar, (method.clone(), AGENT), &[&acme]).await, 404, "{method}");
        for both in [[acme.as_str(), "x"], ["x", acme.as_str()], [acme.as_str(), acme.as_str()]] {
            assert_eq!(status(&sidecar, (method.clone(), AGENT), &both).await, 400, "{method} {both:?}");
            assert_eq!(status(&sidecar, (method.clone(), ACME), &both).await, 400, "{method} {both:?}");
        }
    }
    assert_eq!(sidecar.upstream.count(), before);
    assert_eq!(status(&sidecar, (Method::POST, ACME), &[&acme]).await, 200);
}

/// The session under which the last request reached the tool server.
fn reached_in(sidecar: &Sidecar) -> Option<String> {
    let seen = sidecar.upstream.seen();
    Some(seen.last()?.headers.get(SESSION)?.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn the_tool_server_hears_its_own_id_and_the_client_another() {
    let sidecar = Sidecar::start().await;
    let acme = session(&initialized(&sidecar, ACME).await);
    assert_eq!(reached_in(&sidecar), None);
    assert!(acme.ends_with(&format!(".{UPSTREAM_ID}")), "{acme}");
    for method in [Method::POST, Method::GET, Method::DELETE] {
        let answer = request(&sidecar, (method, ACME), &[&acme]).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), session(&answer)), (200, acme.clone()));
        assert_eq!(reached_in(&sidecar).as_deref(), Some(UPSTREAM_ID));
    }
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "read"}});
    let answer = request(&sidecar, (Method::POST, ACME), &[&acme]).json(&call).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), session(&answer)), (200, acme));
    assert_eq!(reached_in(&sidecar).as_deref(), Some(UPSTREAM_ID));
}

#[tokio::test]
async fn after_a_restart_a_session_is_still_its_owners_alone() {
    let sidecar = Sidecar::start().await;
    let acme = session(&initialized(&sidecar, ACME).await);
    let sidecar = sidecar.restart().await;
    let before = sidecar.upstream.count();
    assert_eq!(status(&sidecar, (Method::POST, AGENT), &[&acme]).await, 404);
    // Nor does the tool server's own id open it, nor one without a valid tag.
    for id in
        [UPSTREAM_ID.to_owned(), format!(".{UPSTREAM_ID}"), acme.replacen(&acme[..22], &"A".repeat(22), 1)]
    {
        for key in [AGENT, ACME] {
            assert_eq!(status(&sidecar, (Method::POST, key), &[&id]).await, 404, "{id}");
        }
    }
    assert_eq!(sidecar.upstream.count(), before);
    assert_eq!(status(&sidecar, (Method::POST, ACME), &[&acme]).await, 200);
}

#[tokio::test]
async fn a_session_is_of_one_tenant() {
    let sidecar = Sidecar::start().await;
    initialized(&sidecar, AGENT).await;
    let within = |tenant: &'static str, sessions: &[&str]| {
        request(&sidecar, (Method::POST, AGENT), sessions).header("x-tenant-id", tenant).send()
    };
    let acme = session(&within("acme", &[]).await.unwrap());
    assert_eq!(within("globex", &[&acme]).await.unwrap().status(), 404);
    assert_eq!(status(&sidecar, (Method::POST, AGENT), &[&acme]).await, 404);
    assert_eq!(within("acme", &[&acme]).await.unwrap().status(), 200);
}

#[tokio::test]
async fn what_a_request_can_say_once_is_not_said_twice() {
    let sidecar = Sidecar::start().await;
    for (method, name, value) in [
        (Method::POST, "mcp-protocol-version", "2025-11-25"),
        (Method::POST, "mcp-method", "tools/list"),
        (Method::GET, "mcp-protocol-version", "2025-11-25"),
        (Method::GET, "mcp-name", "read"),
        (Method::GET, "last-event-id", "7"),
    ] {
        let once = request(&sidecar, (method, AGENT), &[]).header(name, value);
        let twice = once.try_clone().unwrap().header(name, value);
        assert_eq!(twice.send().await.unwrap().status(), 400, "{name}");
        assert_eq!(sidecar.upstream.count(), 0, "{name}");
    }
    let once = request(&sidecar, (Method::GET, AGENT), &[]).header("last-event-id", "7");
    assert_eq!(once.send().await.unwrap().status(), 200);
}
