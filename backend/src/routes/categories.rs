//! Categories: groups of tools with a default permission (level 10).

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use http::StatusCode;
use oakallow_policy::Category;
use oakallow_policy::audit::EventType;
use serde_json::{Value, json};

use super::merge_patch;
use super::nouns::{found, list, show, taken};
use crate::answer::{Created, Json, created};
use crate::auth::Management;
use crate::error::ApiError;
use crate::extract::{Body, Segment, checked};
use crate::record::Change;
use crate::state::App;
use crate::store::{self, categories};

/// Its endpoints.
pub(crate) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/categories", get(list::<Category, Category>).post(create))
        .route("/v1/categories/{name}", get(show::<Category, Category>).patch(update).delete(delete))
}

/// `POST /v1/categories`; 409 when the name is taken.
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Management(who): Management,
    Body(category): Body<Category>,
) -> Result<Created<Category>, ApiError> {
    let mut write = who.write(&app).await?;
    let taken = |e| taken(e, || format!("There is a category `{}` already.", category.name));
    categories::insert(&mut write, who.org(), &category, app.now()).await.map_err(taken)?;
    Change::by(&who, EventType::CategoryCreated, json!(category)).publish(&app, write, None).await?;
    Ok(created(category))
}

/// `PATCH /v1/categories/{name}`: its default permission; the name stays.
pub(crate) async fn update(
    State(app): State<Arc<App>>,
    Management(who): Management,
    name: Segment,
    Body(patch): Body<Value>,
) -> Result<Json<Category>, ApiError> {
    let name = name.name("category")?;
    let mut write = who.write(&app).await?;
    let category: Category = found(&mut write, who.org(), &name).await?;
    let mut merged = json!(category);
    merge_patch(&mut merged, patch);
    let category: Category = checked(merged)?;
    if category.name != name {
        return Err(ApiError::invalid_value("/name", "A category keeps its name: make another one."));
    }
    categories::update(&mut write, who.org(), &category, app.now()).await?;
    Change::by(&who, EventType::CategoryUpdated, json!(category)).publish(&app, write, None).await?;
    Ok(Json(category))
}

/// `DELETE /v1/categories/{name}`; 409 while a tool is in it.
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Management(who): Management,
    name: Segment,
) -> Result<StatusCode, ApiError> {
    let name = name.name("category")?;
    let mut write = who.write(&app).await?;
    if let Some(tool) = store::tools::in_category(&mut write, who.org(), &name).await? {
        let detail = format!("Tool `{tool}` is in this category: move it first.");
        return Err(ApiError::conflict("in_use", detail));
    }
    if !categories::delete(&mut write, who.org(), &name).await? {
        return Err(ApiError::not_found("category", &name));
    }
    Change::by(&who, EventType::CategoryDeleted, json!({"name": name})).publish(&app, write, None).await?;
    Ok(StatusCode::NO_CONTENT)
}
