//! Kill switches: what they cover is disabled at once, whatever the rules say.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use http::StatusCode;
use oakallow_policy::audit::EventType;
use oakallow_policy::id::Name;
use oakallow_policy::ruleset::KillSwitch;
use oakallow_policy::timestamp::rfc3339;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::answer::Json;
use crate::auth::Management;
use crate::error::ApiError;
use crate::extract::{Body, Page, Params};
use crate::record::Change;
use crate::state::App;
use crate::store::kill_switches::{self, Stored};

/// Its endpoints.
pub(crate) fn router() -> Router<Arc<App>> {
    Router::new().route("/v1/kill-switches", get(list).put(on).delete(off))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Scope {
    Org,
    Tenant,
    Agent,
    Tool,
}

/// `DELETE /v1/kill-switches?scope=tenant&id=acme`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Target {
    scope: Scope,
    #[serde(default)]
    id: Option<Name>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SwitchOn {
    scope: Scope,
    #[serde(default)]
    id: Option<Name>,
    #[serde(default)]
    reason: String,
}

fn switch(scope: Scope, id: Option<Name>) -> Result<KillSwitch, ApiError> {
    match (scope, id) {
        (Scope::Org, None) => Ok(KillSwitch::Org),
        (Scope::Org, Some(_)) => Err(ApiError::invalid_value("/id", "The org's switch takes no id.")),
        (Scope::Tenant, Some(id)) => Ok(KillSwitch::Tenant(id)),
        (Scope::Agent, Some(id)) => Ok(KillSwitch::Agent(id)),
        (Scope::Tool, Some(id)) => Ok(KillSwitch::Tool(id)),
        (_, None) => Err(ApiError::invalid_value("/id", "Name what to stop.")),
    }
}

#[derive(Serialize)]
pub(crate) struct Shown {
    #[serde(flatten)]
    switch: KillSwitch,
    reason: String,
    created_by: String,
    created_at: String,
}

impl From<Stored> for Shown {
    fn from(stored: Stored) -> Self {
        Self {
            switch: stored.switch,
            reason: stored.reason,
            created_by: stored.created_by,
            created_at: rfc3339(stored.created_at),
        }
    }
}

const REASON_BYTES_MAX: usize = 4096;

/// `GET /v1/kill-switches`: all that are on.
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Management(who): Management,
) -> Result<Json<Page<Shown>>, ApiError> {
    let mut db = app.db.read(who.org()).await?;
    let rows = kill_switches::list(&mut db, who.org()).await?;
    Ok(Json(Page { data: rows.into_iter().map(Shown::from).collect(), next_cursor: None }))
}

/// `PUT /v1/kill-switches`: switches on; once more changes nothing. What it names need not be known
/// here: an emergency does not wait for a registration.
pub(crate) async fn on(
    State(app): State<Arc<App>>,
    Management(who): Management,
    Body(asked): Body<SwitchOn>,
) -> Result<Json<Page<Shown>>, ApiError> {
    if asked.reason.len() > REASON_BYTES_MAX {
        return Err(ApiError::invalid_value("/reason", "A reason takes at most 4096 bytes."));
    }
    let stored = Stored {
        switch: switch(asked.scope, asked.id)?,
        reason: asked.reason,
        created_by: who.principal().to_owned(),
        created_at: app.now(),
    };
    let mut write = who.write(&app).await?;
    if kill_switches::on(&mut write, who.org(), &stored).await? {
        let (scope, id) = kill_switches::key(&stored.switch);
        let detail = json!({"scope": scope, "id": id, "reason": stored.reason});
        Change::by(&who, EventType::KillSwitchOn, detail).announce(&app, &mut write, None).await?;
    }
    let rows = kill_switches::list(&mut write, who.org()).await?;
    write.commit().await?;
    Ok(Json(Page { data: rows.into_iter().map(Shown::from).collect(), next_cursor: None }))
}

/// `DELETE /v1/kill-switches`: switches off; 404 when it was not on.
pub(crate) async fn off(
    State(app): State<Arc<App>>,
    Management(who): Management,
    Params(target): Params<Target>,
) -> Result<StatusCode, ApiError> {
    let switch = switch(target.scope, target.id)?;
    let (scope, id) = kill_switches::key(&switch);
    let mut write = who.write(&app).await?;
    if !kill_switches::off(&mut write, who.org(), &switch).await? {
        return Err(ApiError::not_found("kill switch that is on for", &format!("{scope} {id}")));
    }
    let detail = json!({"scope": scope, "id": id});
    Change::by(&who, EventType::KillSwitchOff, detail).publish(&app, write, None).await?;
    Ok(StatusCode::NO_CONTENT)
}
