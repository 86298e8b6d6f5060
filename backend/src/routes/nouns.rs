//! What is the same for every noun of the configuration: a page of them, and one of them.

use std::sync::Arc;

use axum::extract::State;
use oakallow_policy::id::Name;
use serde::Serialize;

use crate::answer::Json;
use crate::auth::Management;
use crate::error::ApiError;
use crate::extract::{Page, PageParams, Params, Segment};
use crate::state::App;
use crate::store::{self, Conn, Listed, Noun, StoreError};

/// `GET /v1/<nouns>`: a page of them, each as `S` shows it.
pub(crate) async fn list<N: Listed, S: From<N> + Serialize>(
    State(app): State<Arc<App>>,
    Management(who): Management,
    Params(page): Params<PageParams>,
) -> Result<Json<Page<S>>, ApiError> {
    let mut db = app.db.read(who.org()).await?;
    let rows = store::page::<N>(&mut db, who.org(), &page.after()?, page.fetch()).await?;
    Ok(Json(Page::new(rows, page.limit(), |noun| noun.key().to_owned()).map(S::from)))
}

/// `GET /v1/<nouns>/{key}`
pub(crate) async fn show<N: Noun, S: From<N> + Serialize>(
    State(app): State<Arc<App>>,
    Management(who): Management,
    key: Segment,
) -> Result<Json<S>, ApiError> {
    let key = key.name(N::WHAT)?;
    let mut db = app.db.read(who.org()).await?;
    Ok(Json(found::<N>(&mut db, who.org(), &key).await?.into()))
}

/// The one with that key, or 404.
pub(super) async fn found<N: Noun>(db: &mut Conn, org: &Name, key: &str) -> Result<N, ApiError> {
    store::one(db, org, key).await?.ok_or_else(|| ApiError::not_found(N::WHAT, key))
}

/// 409 when a row was refused because another has its key.
pub(super) fn taken(error: StoreError, detail: impl FnOnce() -> String) -> ApiError {
    if error.is_unique_violation() {
        return ApiError::conflict("already_exists", detail());
    }
    error.into()
}
