//! What an org decides for itself.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use oakallow_policy::audit::EventType;
use oakallow_policy::id::Name;
use oakallow_policy::pin::ChangedDefinition;
use oakallow_policy::ruleset::{APPROVAL_TIMEOUT_S, Unregistered};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::answer::Json;
use crate::auth::Management;
use crate::error::ApiError;
use crate::extract::Body;
use crate::record::Change;
use crate::state::App;
use crate::store::orgs::{self, Settings};

/// Its endpoints.
pub(crate) fn router() -> Router<Arc<App>> {
    Router::new().route("/v1/settings", get(show).patch(update))
}

/// What is left out stays.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SettingsPatch {
    unregistered: Option<Unregistered>,
    changed_definition: Option<ChangedDefinition>,
    approval_timeout_s: Option<u32>,
    approver_keys_decide_high_risk: Option<bool>,
    unbound_tokens_high_risk: Option<bool>,
}

/// The settings, and whose they are.
#[derive(Serialize)]
pub(crate) struct Shown {
    org: Name,
    #[serde(flatten)]
    settings: Settings,
}

/// `GET /v1/settings`
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    Management(who): Management,
) -> Result<Json<Shown>, ApiError> {
    let mut db = app.db.read(who.org()).await?;
    let settings = orgs::settings(&mut db, who.org()).await?;
    Ok(Json(Shown { org: who.org().clone(), settings }))
}

/// `PATCH /v1/settings`
pub(crate) async fn update(
    State(app): State<Arc<App>>,
    Management(who): Management,
    Body(patch): Body<SettingsPatch>,
) -> Result<Json<Settings>, ApiError> {
    if patch.approval_timeout_s.is_some_and(|t| !APPROVAL_TIMEOUT_S.contains(&t)) {
        let detail = "An approval expires after 60 (a minute) to 604800 seconds (seven days).";
        return Err(ApiError::invalid_value("/approval_timeout_s", detail));
    }
    let mut write = who.write(&app).await?;
    let old = orgs::settings(&mut write, who.org()).await?;
    let new = Settings {
        unregistered: patch.unregistered.unwrap_or(old.unregistered),
        changed_definition: patch.changed_definition.unwrap_or(old.changed_definition),
        approval_timeout_s: patch.approval_timeout_s.unwrap_or(old.approval_timeout_s),
        approver_keys_decide_high_risk: patch
            .approver_keys_decide_high_risk
            .unwrap_or(old.approver_keys_decide_high_risk),
        unbound_tokens_high_risk: patch.unbound_tokens_high_risk.unwrap_or(old.unbound_tokens_high_risk),
    };
    orgs::set_settings(&mut write, who.org(), &new).await?;
    let detail = json!({"before": old, "after": new});
    Change::by(&who, EventType::SettingsUpdated, detail).publish(&app, write, None).await?;
    Ok(Json(new))
}
