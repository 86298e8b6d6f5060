//! The tools over MCP (streamable HTTP). The SDK serves both eras on one path: sessions up to
//! 2025-11-25, stateless from 2026-07-28.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::http::request::Parts;
use rmcp::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorCode, ErrorData,
    Implementation, JsonObject, ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig,
    Tool,
};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::catalog;
use super::http::Server;
use super::until;
use super::verify::Received;
use super::world::ToolError;

/// Refused for want of a good token. Outside the range that JSON-RPC reserves.
const TOKEN_REFUSED: ErrorCode = ErrorCode(403);

/// The MCP end of the server.
pub(super) fn service(
    server: Arc<Server>,
    addr: SocketAddr,
    stopped: watch::Receiver<bool>,
) -> StreamableHttpService<DemoMcp, LocalSessionManager> {
    let mut config = StreamableHttpServerConfig::default();
    if !addr.ip().is_loopback() {
        // Then the host name is the operator's to choose; the token guards the calls.
        config = config.disable_allowed_hosts();
    }
    let sessions = config.cancellation_token.clone();
    tokio::spawn(async move {
        until(stopped).await;
        sessions.cancel();
    });
    StreamableHttpService::new(move || Ok(DemoMcp(Arc::clone(&server))), Arc::default(), config)
}

/// One session, or one stateless request.
pub(super) struct DemoMcp(Arc<Server>);

impl ServerHandler for DemoMcp {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("oakallow-demo-tools", env!("CARGO_PKG_VERSION")))
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(catalog::tools().into_iter().map(definition).collect()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let parts = context.extensions.get::<Parts>();
        let Some(received) = parts.and_then(|parts| parts.extensions.get::<Received>()) else {
            return Err(ErrorData::internal_error("the request is not known", None));
        };
        let arguments = Value::Object(request.arguments.unwrap_or_default());
        let claims = self.0.redeem(&request.name, &arguments, received).await;
        let claims = claims.map_err(|refused| ErrorData::new(TOKEN_REFUSED, refused.to_string(), None))?;
        answer(self.0.world.execute(&request.name, arguments), &claims)
    }
}

fn answer(executed: Result<Value, ToolError>, claims: &Value) -> Result<CallToolResponse, ErrorData> {
    let result = match executed {
        Ok(result) => CallToolResult::structured(json!({"result": result, "token_claims": claims})),
        Err(ToolError::UnknownTool(name)) => {
            return Err(ErrorData::invalid_params(format!("there is no tool `{name}`"), None));
        }
        Err(e) => CallToolResult::error(vec![ContentBlock::text(e.to_string())]),
    };
    Ok(result.into())
}

fn definition(tool: catalog::ToolDefinition) -> Tool {
    let schema: JsonObject = match tool.schema {
        Value::Object(schema) => schema,
        _ => JsonObject::new(),
    };
    Tool::new(tool.name, tool.description, schema)
}
