//! `oakallow import mcp` against real servers: every page of the list, over HTTP and over standard input and output.

#![expect(clippy::expect_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use rmcp::ServerHandler;
use rmcp::model::{
    ErrorData, ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::{Value, json};
use support::{Place, stderr, stdout};

/// A server whose list has a page for each tool; `circle`: its last page leads to its first.
#[derive(Clone)]
struct Paged {
    tools: Vec<Tool>,
    circle: bool,
}

impl ServerHandler for Paged {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let at = request.and_then(|request| request.cursor).map_or(0, |cursor| cursor.parse().expect("ours"));
        let mut page = ListToolsResult::with_all_items(vec![self.tools.get(at).expect("a page").clone()]);
        let next = if self.circle { (at + 1) % self.tools.len() } else { at + 1 };
        page.next_cursor = (next < self.tools.len()).then(|| next.to_string());
        Ok(page)
    }
}

fn tools() -> Vec<Tool> {
    [
        json!({"name": "look", "description": "Look.", "inputSchema": {"type": "object"},
            "annotations": {"readOnlyHint": true, "openWorldHint": false}}),
        json!({"name": "wipe", "inputSchema": {"type": "object", "$schema": "http://json-schema.org/draft-07/schema#",
            "properties": {"disk": {"type": "string"}}}, "annotations": {"destructiveHint": true}}),
        json!({"name": "plain", "title": "Plain", "inputSchema": {"type": "object"}}),
    ]
    .map(|tool| serde_json::from_value(tool).expect("a tool"))
    .into()
}

const TOKEN: &str = "token-of-the-tool-server";

async fn authorised(request: Request, next: Next) -> Response {
    let given = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    if given == Some(&format!("Bearer {TOKEN}")) {
        next.run(request).await
    } else {
        StatusCode::FORBIDDEN.into_response()
    }
}

/// Serves the list over streamable HTTP; the address.
async fn serve(server: Paged, guarded: bool) -> String {
    let service: StreamableHttpService<Paged, LocalSessionManager> = StreamableHttpService::new(
        move || Ok(server.clone()),
        Arc::default(),
        StreamableHttpServerConfig::default(),
    );
    let mut router = Router::new().nest_service("/mcp", service);
    if guarded {
        router = router.layer(from_fn(authorised));
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/mcp", listener.local_addr().expect("bound"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_read_and_no_word_of_the_server_makes_anything_easier() {
    let place = Place::start().await;
    let url = serve(Paged { tools: tools(), circle: false }, false).await;
    let import = ["import", "mcp", &url, "--audience", "ops", "--category", "disks", "--yes"];
    let done = place.oakallow(&import).await;
    assert!(done.status.success(), "{}{}", stdout(&done), stderr(&done));
    let said = stdout(&done);
    for part in [
        "look says: read-only, closed world: medium risk, requires_approval",
        "wipe says: destructive: high risk, requires_approval",
        "plain: medium risk, requires_approval",
        "note: wipe: its schema is of the dialect",
        "4 to create",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    for (tool, risk, description) in [
        ("look", "medium", json!("Look.")),
        ("wipe", "high", Value::Null),
        ("plain", "medium", json!("Plain")),
    ] {
        let tool = place.get(&format!("/v1/tools/{tool}")).await;
        assert_eq!(
            (&tool["risk_level"], &tool["default_permission"]),
            (&json!(risk), &json!("requires_approval"))
        );
        assert_eq!((&tool["category"], &tool["audience"]), (&json!("disks"), &json!("ops")));
        assert_eq!(tool["description"], description);
    }
    let again = place.oakallow(&import).await;
    assert!(
        stdout(&again).contains("0 to create, 0 to change, 0 to delete, 3 unchanged"),
        "{}",
        stdout(&again)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_without_end_is_refused() {
    let place = Place::start().await;
    let url = serve(Paged { tools: tools(), circle: true }, false).await;
    let refused = place.oakallow(&["import", "mcp", &url, "--yes"]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("lead in a circle"), "{}", stderr(&refused));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_token_comes_from_a_file_and_is_never_shown() {
    let place = Place::start().await;
    let url = serve(Paged { tools: tools(), circle: false }, true).await;
    let token = place.write("token", &format!("{TOKEN}\n"));
    let done = place.oakallow(&["import", "mcp", &url, "--token-file", &token, "--yes"]).await;
    assert!(done.status.success(), "{}", stderr(&done));
    let wrong = place.write("wrong", "another-token");
    let refused = place.oakallow(&["import", "mcp", &url, "--token-file", &wrong, "--yes"]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(!stderr(&refused).contains("another-token"), "{}", stderr(&refused));
}

/// Answers what a client asks, and says on its tool what it was started with.
const STDIO: &str = r#"
while read -r line; do
  id=$(printf '%s' "$line" | sed -n 's/.*"id":\([0-9]*\).*/\1/p')
  case $line in
    *'"method":"initialize"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"1"}}}\n' "$id" ;;
    *'"method":"tools/list"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"tools":[{"name":"echo","description":"key: %s","inputSchema":{"type":"object"}}]}}\n' "$id" "${OAKALLOW_MANAGEMENT_KEY:-none}" ;;
    *'"id"'*) printf '{"jsonrpc":"2.0","id":%s,"error":{"code":-32601,"message":"Method not found"}}\n' "$id" ;;
  esac
done
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_started_for_it_lists_its_tools_and_does_not_get_the_key() {
    let place = Place::start().await;
    let server = place.write("server.sh", STDIO);
    let done = place.oakallow(&["import", "mcp", "--yes", "--", "bash", &server]).await;
    assert!(done.status.success(), "{}{}", stdout(&done), stderr(&done));
    assert_eq!(place.get("/v1/tools/echo").await["description"], "key: none");
    let none = place.oakallow(&["import", "mcp", "--yes", "--", "false"]).await;
    assert_eq!(none.status.code(), Some(1));
    assert!(stderr(&none).contains("false does not list its tools"), "{}", stderr(&none));
}
