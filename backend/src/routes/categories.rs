//! Categories: groups of tools with a default permission (level 10).

use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;
use oakallow_policy::Category;
use oakallow_policy::audit::EventType;
use serde_json::{Value, json};

use super::merge_patch;
use crate::answer::{Created, Json, created};
use crate::auth::{Credential, Management};
use crate::error::ApiError;
use crate::extract::{Body, Page, PageParams, Params, Segment, checked};
use crate::record::Change;
use crate::state::App;
use crate::store::{self, StoreError, Write, categories};

/// `POST /v1/categories`; 409 when the name is taken.
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Management(who): Management,
    Body(category): Body<Category>,
) -> Result<Created<Category>, ApiError> {
    let mut write = app.write().await?;
    categories::insert(&mut write, who.org(), &category, app.now()).await.map_err(|e| {
        if e.is_unique_violation() {
            let detail = format!("There is a category `{}` already.", category.name);
            return ApiError::conflict("already_exists", detail);
        }
        e.into()
    })?;
    changed(&app, write, &who, EventType::CategoryCreated, json!(category)).await?;
    Ok(created(category))
}

async fn changed(
    app: &Arc<App>,
    mut write: Write,
    who: &Credential,
    kind: EventType,
    detail: Value,
) -> Result<(), StoreError> {
    write.bump(who.org(), None).await?;
    Change::new(kind, who.org(), who.principal(), detail).record(app, &mut write).await?;
    write.commit().await
}

/// `GET /v1/categories`
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Management(who): Management,
    Params(page): Params<PageParams>,
) -> Result<Json<Page<Category>>, ApiError> {
    let mut db = app.db.read().await?;
    let rows = categories::list(&mut db, who.org(), &page.after()?, page.fetch()).await?;
    Ok(Json(Page::new(rows, page.limit(), |c| c.name.to_string())))
}

/// `GET /v1/categories/{name}`
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    Management(who): Management,
    name: Segment,
) -> Result<Json<Category>, ApiError> {
    let name = name.name("category")?;
    let mut db = app.db.read().await?;
    let category = categories::by_name(&mut db, who.org(), &name).await?;
    category.map(Json).ok_or_else(|| ApiError::not_found("category", &name))
}

/// `PATCH /v1/categories/{name}`: its default permission; the name stays.
pub(crate) async fn update(
    State(app): State<Arc<App>>,
    Management(who): Management,
    name: Segment,
    Body(patch): Body<Value>,
) -> Result<Json<Category>, ApiError> {
    let name = name.name("category")?;
    let mut write = app.write().await?;
    let category = categories::by_name(&mut write, who.org(), &name)
        .await?
        .ok_or_else(|| ApiError::not_found("category", &name))?;
    let mut merged = json!(category);
    merge_patch(&mut merged, patch);
    let category: Category = checked(merged)?;
    if category.name != name {
        return Err(ApiError::invalid_value("/name", "A category keeps its name: make another one."));
    }
    categories::update(&mut write, who.org(), &category, app.now()).await?;
    changed(&app, write, &who, EventType::CategoryUpdated, json!(category)).await?;
    Ok(Json(category))
}

/// `DELETE /v1/categories/{name}`; 409 while a tool is in it.
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Management(who): Management,
    name: Segment,
) -> Result<StatusCode, ApiError> {
    let name = name.name("category")?;
    let mut write = app.write().await?;
    if let Some(tool) = store::tools::in_category(&mut write, who.org(), &name).await? {
        let detail = format!("Tool `{tool}` is in this category: move it first.");
        return Err(ApiError::conflict("in_use", detail));
    }
    if !categories::delete(&mut write, who.org(), &name).await? {
        return Err(ApiError::not_found("category", &name));
    }
    changed(&app, write, &who, EventType::CategoryDeleted, json!({"name": name})).await?;
    Ok(StatusCode::NO_CONTENT)
}
