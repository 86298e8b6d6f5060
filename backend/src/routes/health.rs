//! Health, readiness and metrics: for machines, without a credential and without tenant data.

use std::sync::Arc;

use axum::extract::State;
use axum::response::IntoResponse;
use http::header::CONTENT_TYPE;

use crate::error::ApiError;
use crate::state::App;
use crate::store;

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

/// `GET /metrics`: the Prometheus text format.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Result<impl IntoResponse, ApiError> {
    let mut db = app.db.read().await?;
    app.metrics.look(&store::standing::standing(&mut db, app.now()).await?);
    let text = app.metrics.text().map_err(|e| ApiError::internal(&e))?;
    Ok(([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text))
}
