//! The two listeners for people: `ops` (health and metrics, no tenant's data) and `admin` (this machine
//! only: holds and explanations, never arguments).

use std::sync::Arc;

use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::http::header::HOST;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use oakallow_policy::call::CallNames;
use oakallow_policy::id::Name;
use oakallow_policy::resolve::Explanation;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::app::App;

/// `ops`
pub fn ops(app: Arc<App>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(app)
}

/// `admin`
pub fn admin(app: Arc<App>) -> Router {
    Router::new()
        .route("/holds", get(holds))
        .route("/explain", get(explain).post(explain_posted))
        .layer(middleware::from_fn(only_by_its_own_name))
        .with_state(app)
}

/// A page in a browser on this machine could reach the listener under a name of its own making (DNS rebinding).
async fn only_by_its_own_name(request: Request, next: Next) -> Response {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
    let name = name.map_or(host, |(name, _)| name);
    if matches!(name, "localhost" | "127.0.0.1" | "[::1]") {
        next.run(request).await
    } else {
        (StatusCode::MISDIRECTED_REQUEST, "this listener is named localhost").into_response()
    }
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    match app.unready() {
        None => "ready".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why).into_response(),
    }
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    match app.metrics.render(&app) {
        Ok(text) => ([("content-type", "text/plain; version=0.0.4")], text).into_response(),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}

async fn holds(State(app): State<Arc<App>>) -> Response {
    Json(json!({"data": app.holds.list()})).into_response()
}

/// A call to explain.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    tool: Name,
    tenant: Option<Name>,
    resource: Option<Name>,
    method: Option<Name>,
    /// The first route's when left out.
    audience: Option<Name>,
    principal: Option<Name>,
}

/// The answer.
#[derive(Serialize)]
struct Explained<'r> {
    #[serde(flatten)]
    explanation: Explanation<'r>,
    policy: Value,
}

async fn explain(State(app): State<Arc<App>>, Query(question): Query<Question>) -> Response {
    explained(&app, question).await
}

async fn explain_posted(State(app): State<Arc<App>>, Json(question): Json<Question>) -> Response {
    explained(&app, question).await
}

async fn explained(app: &App, q: Question) -> Response {
    let problem =
        |status: StatusCode, detail: String| (status, Json(json!({"detail": detail}))).into_response();
    let audience = q.audience.or_else(|| app.live().config.routes.first().map(|r| r.audience.clone()));
    let (Some(audience), Some(principal)) = (audience, q.principal.or_else(|| Name::new("explain").ok()))
    else {
        return problem(StatusCode::BAD_REQUEST, "name an audience".to_owned());
    };
    let view = match app.policy.view(q.tenant.as_ref()).await {
        Ok(view) => view,
        Err(e) => return problem(StatusCode::SERVICE_UNAVAILABLE, e.to_string()),
    };
    let names = CallNames {
        org: view.snapshot().rules.org().clone(),
        tenant: q.tenant,
        principal,
        audience,
        tool: q.tool,
        resource: q.resource,
        method: q.method,
    };
    match view.explain(&names.as_call()) {
        Ok(explanation) => {
            let policy = json!({
                "age_s": app.policy.age_s(),
                // An older one refuses what it would let through.
                "fresh": app.policy.is_fresh_for(explanation.decision.risk_level()),
            });
            Json(Explained { explanation, policy }).into_response()
        }
        Err(e) => problem(StatusCode::UNPROCESSABLE_ENTITY, e.to_string()),
    }
}
