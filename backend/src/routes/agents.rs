//! Agents: the identities under which calls arrive, each with a person who answers for it.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use http::StatusCode;
use oakallow_policy::audit::EventType;
use oakallow_policy::id::Name;
use oakallow_policy::principal::is_external;
use oakallow_policy::timestamp::rfc3339;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::keys::{Grant, ShownOnce, TenancyKind, expiry, issue, owner_email, tenancy};
use super::nouns::{list, show, taken};
use crate::answer::{Created, created};
use crate::approvals::ended::cancel_without_key;
use crate::auth::Management;
use crate::error::ApiError;
use crate::extract::{Body, Segment};
use crate::keys::KeyKind;
use crate::record::Change;
use crate::state::App;
use crate::store;
use crate::store::agents::{self, Agent};

/// Its endpoints.
pub(crate) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/agents", get(list::<Agent, Shown>).post(create))
        .route("/v1/agents/{id}", get(show::<Agent, Shown>).delete(delete))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewAgent {
    /// The principal of its calls.
    id: Name,
    #[serde(default)]
    name: Option<Name>,
    /// E-mail of the person who answers for it, and who may not approve its calls.
    owner: String,
    #[serde(default)]
    tenancy: Option<TenancyKind>,
    #[serde(default)]
    tenants: Vec<Name>,
    #[serde(default)]
    expires_at: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct Shown {
    id: Name,
    name: String,
    owner: String,
    created_at: String,
}

impl From<Agent> for Shown {
    fn from(agent: Agent) -> Self {
        Self { id: agent.id, name: agent.name, owner: agent.owner, created_at: rfc3339(agent.created_at) }
    }
}

#[derive(Serialize)]
pub(crate) struct WithKey {
    #[serde(flatten)]
    agent: Shown,
    /// Its first key, shown once; further ones by `POST /v1/keys`.
    key: ShownOnce,
}

/// `POST /v1/agents`: with its first `oak_agent_` key. 409 when the id is or was taken.
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Management(who): Management,
    Body(new): Body<NewAgent>,
) -> Result<Created<WithKey>, ApiError> {
    refuse_reserved(&new.id)?;
    let agent = Agent {
        name: new.name.unwrap_or_else(|| new.id.clone()).to_string(),
        id: new.id,
        owner: owner_email("/owner", &new.owner)?,
        created_at: app.now(),
    };
    let grant = Grant {
        kind: KeyKind::Agent,
        name: agent.name.clone(),
        tenancy: tenancy(new.tenancy, new.tenants)?,
        agent: Some(agent.id.clone()),
        owner: None,
        audience: None,
        expires_at: expiry(&app, new.expires_at.as_deref())?,
    };
    let mut write = who.write(&app).await?;
    let taken =
        |e| taken(e, || format!("The id `{}` is or was an agent's; ids are not given twice.", agent.id));
    agents::insert(&mut write, who.org(), &agent).await.map_err(taken)?;
    let detail = json!({"id": agent.id, "name": agent.name, "owner": agent.owner});
    Change::by(&who, EventType::AgentCreated, detail).announce(&app, &mut write, None).await?;
    let key = issue(&app, &mut write, &who, grant).await?;
    write.commit().await?;
    Ok(created(WithKey { agent: agent.into(), key }))
}

/// An agent must not pass for a key, a person or a proxy where only the principal is shown.
fn refuse_reserved(id: &Name) -> Result<(), ApiError> {
    let ours = ["key_", "usr_", "prx_"].into_iter().find(|prefix| id.starts_with(*prefix));
    let taken = ours.or_else(|| is_external(id).then_some("oidc: or cert:"));
    match taken {
        Some(prefix) => {
            Err(ApiError::invalid_value("/id", format!("An agent's id does not begin with `{prefix}`.")))
        }
        None => Ok(()),
    }
}

/// `DELETE /v1/agents/{id}`: its keys stop working at once, and what it has open is cancelled.
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Management(who): Management,
    id: Segment,
) -> Result<StatusCode, ApiError> {
    let id = id.name("agent")?;
    let now = app.now();
    let mut write = who.write(&app).await?;
    if !agents::delete(&mut write, who.org(), &id, now).await? {
        return Err(ApiError::not_found("agent", &id));
    }
    let revoked = agents::live_keys(&mut write, who.org(), &id).await?;
    for key in &revoked {
        store::keys::revoke(&mut write, who.org(), key, now).await?;
    }
    cancel_without_key(&app, &mut write, (who.org(), &id), Some(who.principal())).await?;
    let detail = json!({"id": id, "keys_revoked": revoked});
    Change::by(&who, EventType::AgentDeleted, detail).publish(&app, write, None).await?;
    Ok(StatusCode::NO_CONTENT)
}
