//! Tenants: the customers or departments between which an org keeps things apart.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use http::StatusCode;
use oakallow_policy::audit::EventType;
use oakallow_policy::id::Name;
use oakallow_policy::timestamp::rfc3339;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::nouns::{found, list, show, taken};
use crate::answer::{Created, Json, created};
use crate::auth::Management;
use crate::error::ApiError;
use crate::extract::{Body, Segment};
use crate::record::Change;
use crate::state::App;
use crate::store::tenants::{self, Tenant};

/// Its endpoints.
pub(crate) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/tenants", get(list::<Tenant, Shown>).post(create))
        .route("/v1/tenants/{id}", get(show::<Tenant, Shown>).patch(update).delete(delete))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTenant {
    id: Name,
    /// What people call it; its id when left out.
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TenantPatch {
    name: String,
}

#[derive(Serialize)]
pub(crate) struct Shown {
    id: Name,
    name: String,
    created_at: String,
    updated_at: String,
}

impl From<Tenant> for Shown {
    fn from(tenant: Tenant) -> Self {
        Self {
            id: tenant.id,
            name: tenant.name,
            created_at: rfc3339(tenant.created_at),
            updated_at: rfc3339(tenant.updated_at),
        }
    }
}

/// `POST /v1/tenants`; 409 when the id is taken.
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Management(who): Management,
    Body(new): Body<NewTenant>,
) -> Result<Created<Shown>, ApiError> {
    let now = app.now();
    let name = new.name.unwrap_or_else(|| new.id.to_string());
    let tenant = Tenant { id: new.id, name: checked_name(&name)?, created_at: now, updated_at: now };
    let mut write = who.write(&app).await?;
    let detail = json!({"id": tenant.id, "name": tenant.name});
    let change = Change::by(&who, EventType::TenantCreated, detail).tenant(Some(&tenant.id));
    let version = change.announce(&app, &mut write, None).await?;
    let taken = |e| taken(e, || format!("There is a tenant `{}` already.", tenant.id));
    tenants::insert(&mut write, who.org(), &tenant, version).await.map_err(taken)?;
    write.commit().await?;
    Ok(created(tenant.into()))
}

fn checked_name(name: &str) -> Result<String, ApiError> {
    match Name::new(name) {
        Ok(name) => Ok(name.to_string()),
        Err(e) => Err(ApiError::invalid_value("/name", format!("{e}."))),
    }
}

/// `PATCH /v1/tenants/{id}`: its name; the id stays.
pub(crate) async fn update(
    State(app): State<Arc<App>>,
    Management(who): Management,
    id: Segment,
    Body(patch): Body<TenantPatch>,
) -> Result<Json<Shown>, ApiError> {
    let id = id.name("tenant")?;
    let mut write = who.write(&app).await?;
    let mut tenant: Tenant = found(&mut write, who.org(), &id).await?;
    tenant.name = checked_name(&patch.name)?;
    tenant.updated_at = app.now();
    tenants::rename(&mut write, who.org(), &tenant).await?;
    let detail = json!({"id": tenant.id, "name": tenant.name});
    Change::by(&who, EventType::TenantUpdated, detail)
        .tenant(Some(&tenant.id))
        .record(&app, &mut write)
        .await?;
    write.commit().await?;
    Ok(Json(tenant.into()))
}

/// `DELETE /v1/tenants/{id}`: with its rules. Keys of the tenant stay, and reach nothing.
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Management(who): Management,
    id: Segment,
) -> Result<StatusCode, ApiError> {
    let id = id.name("tenant")?;
    let mut write = who.write(&app).await?;
    if !tenants::delete(&mut write, who.org(), &id).await? {
        return Err(ApiError::not_found("tenant", &id));
    }
    let change = Change::by(&who, EventType::TenantDeleted, json!({"id": id})).tenant(Some(&id));
    change.publish(&app, write, None).await?;
    Ok(StatusCode::NO_CONTENT)
}
