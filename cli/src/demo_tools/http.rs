//! The tools over plain HTTP, and the routes of the server.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Json};
use oakallow_policy::wire::{PROBLEM_JSON, Problem, Secret};
use oakallow_policy::{canonical, strict_json, token};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::verify::{Received, Refused, Verifier};
use super::world::{ToolError, World};
use super::{Config, mcp};

/// Largest body that is read.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What all handlers share.
pub(super) struct Server {
    pub(super) world: World,
    pub(super) verifier: Verifier,
}

impl Server {
    pub(super) fn new(config: &Config) -> anyhow::Result<Arc<Self>> {
        let verifier = Verifier::new(&config.backend, &config.tool_key)?;
        Ok(Arc::new(Self { world: World::new(), verifier }))
    }

    /// Redeems the call's token; a refusal is counted and logged.
    pub(super) async fn redeem(
        &self,
        tool: &str,
        arguments: &Value,
        call: &Received,
    ) -> Result<Value, Refused> {
        let redeemed = self.verifier.redeem(tool, arguments, call).await;
        if let Err(refused) = &redeemed {
            self.world.count_refused();
            tracing::warn!(tool, reason = %refused, "refused, nothing was executed");
        }
        redeemed
    }
}

/// Every route.
pub(super) fn router(server: Arc<Server>, addr: SocketAddr, stopped: watch::Receiver<bool>) -> Router {
    Router::new()
        .route("/tools/{tool}", post(call))
        .route_service("/mcp", mcp::service(Arc::clone(&server), addr, stopped))
        .layer(from_fn(receive))
        .route("/executions", get(executions))
        .route("/healthz", get(|| async { "ok" }))
        .with_state(server)
}

async fn executions(State(server): State<Arc<Server>>) -> Json<Value> {
    Json(server.world.counts())
}

async fn call(
    State(server): State<Arc<Server>>,
    Path(tool): Path<String>,
    Extension(received): Extension<Received>,
    body: Bytes,
) -> Response {
    // Read first: the token is for what was read.
    let arguments = match strict_json::parse(&body) {
        Ok(arguments) => arguments,
        Err(e) => return problem(StatusCode::BAD_REQUEST, "invalid_request", &e.to_string()),
    };
    let claims = match server.redeem(&tool, &arguments, &received).await {
        Ok(claims) => claims,
        Err(refused) => return refusal(&refused),
    };
    match server.world.execute(&tool, arguments) {
        Ok(result) => Json(json!({"result": result, "token_claims": claims})).into_response(),
        Err(e) => failure(&e),
    }
}

/// Reads the body once and notes what a token must fit, for the handler behind.
async fn receive(request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let Ok(bytes) = to_bytes(body, BODY_BYTES_MAX).await else {
        return problem(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            "the body is too large or was cut off",
        );
    };
    let received = Received {
        token: only_token(&parts.headers),
        htm: parts.method.to_string(),
        htu: received_uri(&parts.headers, &parts.uri),
        body_sha256: canonical::base64url(&canonical::sha256(&bytes)),
    };
    parts.extensions.insert(received);
    next.run(Request::from_parts(parts, Body::from(bytes))).await
}

/// The token, unless there are several: which one counts must not depend on the reader.
fn only_token(headers: &HeaderMap) -> Option<Secret> {
    let mut all = headers.get_all(token::HEADER).iter();
    let only = all.next()?.to_str().ok()?;
    all.next().is_none().then(|| Secret::new(only.to_owned()))
}

/// The URI as the caller meant it. This server speaks plain HTTP.
fn received_uri(headers: &HeaderMap, uri: &Uri) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| uri.authority().map(|a| a.as_str())).unwrap_or_default();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    format!("http://{host}{path}")
}

fn refusal(refused: &Refused) -> Response {
    let (status, code) = match refused {
        Refused::Missing => (StatusCode::FORBIDDEN, "token_missing"),
        Refused::Invalid(_) => (StatusCode::FORBIDDEN, "token_invalid"),
        Refused::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "token_unverified"),
    };
    problem(status, code, &refused.to_string())
}

fn failure(error: &ToolError) -> Response {
    let (status, code) = match error {
        ToolError::UnknownTool(_) => (StatusCode::NOT_FOUND, "unknown_tool"),
        ToolError::Arguments(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_arguments"),
        ToolError::State(_) => (StatusCode::CONFLICT, "not_possible"),
    };
    problem(status, code, &error.to_string())
}

fn problem(status: StatusCode, code: &str, detail: &str) -> Response {
    let problem = Problem {
        kind: "about:blank".to_owned(),
        title: status.canonical_reason().unwrap_or("Error").to_owned(),
        status: status.as_u16(),
        code: code.to_owned(),
        detail: detail.to_owned(),
        more: serde_json::Map::new(),
    };
    (status, [(header::CONTENT_TYPE, PROBLEM_JSON)], Json(problem)).into_response()
}
