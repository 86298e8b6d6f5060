//! Health, readiness and metrics: for machines, without a credential and without tenant data.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use http::header::CONTENT_TYPE;

use crate::error::ApiError;
use crate::state::App;
use crate::store;

/// Its endpoints.
pub(crate) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}

/// Prometheus waits for 10 seconds, and is to hear the rest.
const LOOK_MAX: Duration = Duration::from_secs(3);

/// `GET /healthz`: the process answers.
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: requests can be served, which takes a database that can be written.
pub(crate) async fn readyz(State(app): State<Arc<App>>) -> Result<&'static str, ApiError> {
    if *app.stopping.borrow() {
        return Err(ApiError::unavailable("This backend is stopping."));
    }
    app.db.ready().await.map_err(|e| {
        tracing::warn!(cause = %e, "not ready: the database cannot be written");
        ApiError::unavailable("The database cannot be written.")
    })?;
    Ok("ready\n")
}

/// `GET /metrics`: the Prometheus text format. Without its database the backend still says what it counts itself.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Result<impl IntoResponse, ApiError> {
    let standing = async {
        let mut db = app.db.read_across().await?;
        store::standing::standing(&mut db, app.now()).await
    };
    let standing = tokio::time::timeout(LOOK_MAX, standing).await;
    if let Ok(Err(e)) = &standing {
        tracing::warn!(cause = %e, "the database cannot be read for the metrics");
    }
    app.metrics.look(standing.ok().and_then(Result::ok).as_ref());
    let text = app.metrics.text().map_err(|e| ApiError::internal(&e))?;
    Ok(([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text))
}
