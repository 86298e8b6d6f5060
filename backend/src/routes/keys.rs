//! Keys: made here, shown once, revoked here. Approver keys are made by their person only.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use http::StatusCode;
use oakallow_policy::audit::EventType;
use oakallow_policy::id::{Kind, Name};
use oakallow_policy::timestamp::{UnixMs, parse_rfc3339, rfc3339};
use oakallow_policy::wire::{Secret, Tenancy};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::nouns::{list, show};
use super::tenant_must_exist;
use crate::answer::{Created, created};
use crate::approvals::ended::cancel_without_key;
use crate::auth::{Credential, Management};
use crate::bootstrap::normal_email;
use crate::error::ApiError;
use crate::extract::{Body, Segment};
use crate::keys::{KeyKind, NewSecret};
use crate::record::Change;
use crate::state::App;
use crate::store::agents::Agent;
use crate::store::keys::{self, Key};
use crate::store::{self, Conn, Write};

/// Its endpoints.
pub(crate) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/keys", get(list::<Key, Shown>).post(create))
        .route("/v1/keys/{id}", get(show::<Key, Shown>).delete(revoke))
        .route("/v1/keys/{id}/rotate", post(rotate))
}

/// The tiers that a management key may hand out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Tier {
    Management,
    Standard,
    Agent,
    Tool,
}

impl Tier {
    const fn kind(self) -> KeyKind {
        match self {
            Self::Management => KeyKind::Management,
            Self::Standard => KeyKind::Standard,
            Self::Agent => KeyKind::Agent,
            Self::Tool => KeyKind::Tool,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TenancyKind {
    One,
    Some,
    Org,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewKey {
    name: Name,
    tier: Tier,
    /// `one`, `some` or `org`; said by the number of `tenants` when left out.
    #[serde(default)]
    tenancy: Option<TenancyKind>,
    #[serde(default)]
    tenants: Vec<Name>,
    /// The agent that calls under it; an `agent` key has one.
    #[serde(default)]
    agent_id: Option<Name>,
    /// E-mail of the person who answers for a key without an agent; the creator's when left out.
    #[serde(default)]
    owner: Option<String>,
    /// The tool server of a `tool` key.
    #[serde(default)]
    audience: Option<Name>,
    /// RFC 3339; never when left out.
    #[serde(default)]
    expires_at: Option<String>,
}

/// A key as shown: everything but the key.
#[derive(Serialize)]
pub(crate) struct Shown {
    id: String,
    name: String,
    tier: KeyKind,
    prefix: String,
    tenancy: TenancyKind,
    tenants: Vec<Name>,
    agent_id: Option<Name>,
    owner: Option<String>,
    audience: Option<Name>,
    proxy_id: Option<String>,
    created_by: String,
    created_at: String,
    expires_at: Option<String>,
    revoked_at: Option<String>,
    last_used_at: Option<String>,
}

impl From<Key> for Shown {
    fn from(key: Key) -> Self {
        let (tenancy, tenants) = match key.tenancy {
            Tenancy::One(tenant) => (TenancyKind::One, vec![tenant]),
            Tenancy::Some(tenants) => (TenancyKind::Some, tenants),
            Tenancy::Org => (TenancyKind::Org, Vec::new()),
        };
        Self {
            id: key.id,
            name: key.name,
            tier: key.kind,
            prefix: key.prefix,
            tenancy,
            tenants,
            agent_id: key.agent,
            owner: key.owner,
            audience: key.audience,
            proxy_id: key.proxy_id,
            created_by: key.created_by,
            created_at: rfc3339(key.created_at),
            expires_at: key.expires_at.map(rfc3339),
            revoked_at: key.revoked_at.map(rfc3339),
            last_used_at: key.last_used_at.map(rfc3339),
        }
    }
}

/// A key at its birth: the only time that it is shown.
#[derive(Serialize)]
pub(crate) struct ShownOnce {
    key: Secret,
    #[serde(flatten)]
    shown: Shown,
}

/// What a new key is, apart from the secret.
pub(crate) struct Grant {
    pub(crate) kind: KeyKind,
    pub(crate) name: String,
    pub(crate) tenancy: Tenancy,
    pub(crate) agent: Option<Name>,
    pub(crate) owner: Option<String>,
    pub(crate) audience: Option<Name>,
    pub(crate) expires_at: Option<UnixMs>,
}

/// `POST /v1/keys`
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Management(who): Management,
    Body(new): Body<NewKey>,
) -> Result<Created<ShownOnce>, ApiError> {
    let grant = grant(&app, &who, new)?;
    let mut write = who.write(&app).await?;
    if let Some(agent) = &grant.agent
        && store::one::<Agent>(&mut write, who.org(), agent).await?.is_none()
    {
        let detail = format!("There is no agent `{agent}`: create it with POST /v1/agents.");
        return Err(ApiError::invalid_value("/agent_id", detail));
    }
    let made = issue(&app, &mut write, &who, grant).await?;
    write.bump(who.org(), None).await?;
    write.commit().await?;
    Ok(created(made))
}

fn grant(app: &App, who: &Credential, new: NewKey) -> Result<Grant, ApiError> {
    let kind = new.tier.kind();
    let calls = matches!(kind, KeyKind::Standard | KeyKind::Agent);
    if !calls && (new.agent_id.is_some() || !new.tenants.is_empty() || new.tenancy == Some(TenancyKind::One))
    {
        let detail = format!("A {} key has neither tenants nor an agent.", kind.as_str());
        return Err(ApiError::invalid_value("/tier", detail));
    }
    match (kind, &new.agent_id, &new.audience) {
        (KeyKind::Agent, None, _) => return Err(ApiError::invalid_value("/agent_id", "Name the agent.")),
        (KeyKind::Tool, _, None) => {
            return Err(ApiError::invalid_value("/audience", "Name the tool server."));
        }
        (KeyKind::Tool, ..) | (_, _, None) => {}
        _ => return Err(ApiError::invalid_value("/audience", "Only a tool key has an audience.")),
    }
    let owner = match (&new.agent_id, new.owner) {
        (Some(_), Some(_)) => {
            return Err(ApiError::invalid_value("/owner", "The agent's owner answers for the key."));
        }
        (Some(_), None) => None,
        (None, Some(email)) => Some(owner_email("/owner", &email)?),
        (None, None) => who.key.owner.clone(),
    };
    Ok(Grant {
        kind,
        name: new.name.to_string(),
        tenancy: if calls { tenancy(new.tenancy, new.tenants)? } else { Tenancy::Org },
        agent: new.agent_id,
        owner,
        audience: new.audience,
        expires_at: expiry(app, new.expires_at.as_deref())?,
    })
}

/// An owner's address, in the form in which people are compared.
pub(crate) fn owner_email(pointer: &str, email: &str) -> Result<String, ApiError> {
    normal_email(email).map_err(|e| ApiError::invalid_value(pointer, format!("{e}.")))
}

/// What a caller's key may name. Reaching the whole org has to be said.
pub(crate) fn tenancy(kind: Option<TenancyKind>, mut tenants: Vec<Name>) -> Result<Tenancy, ApiError> {
    tenants.sort();
    tenants.dedup();
    let only = match tenants.as_slice() {
        [one] => Some(one.clone()),
        _ => None,
    };
    match (kind, only, tenants.is_empty()) {
        (None | Some(TenancyKind::One), Some(one), _) => Ok(Tenancy::One(one)),
        (None | Some(TenancyKind::Some), _, false) => Ok(Tenancy::Some(tenants)),
        (Some(TenancyKind::Org), _, true) => Ok(Tenancy::Org),
        (None, _, true) => {
            let detail = "Name the key's tenants, or say \"tenancy\": \"org\" for all of the org's.";
            Err(ApiError::invalid_value("/tenants", detail))
        }
        (Some(_), ..) => Err(ApiError::invalid_value("/tenancy", "The tenancy does not fit the tenants.")),
    }
}

/// A time in the future.
pub(crate) fn expiry(app: &App, text: Option<&str>) -> Result<Option<UnixMs>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    match parse_rfc3339(text) {
        Some(at) if at > app.now() => Ok(Some(at)),
        Some(_) => Err(ApiError::invalid_value("/expires_at", "This time has passed.")),
        None => Err(ApiError::invalid_value("/expires_at", "Not an RFC 3339 time.")),
    }
}

/// Makes a key inside the caller's transaction.
pub(crate) async fn issue(
    app: &App,
    write: &mut Write,
    who: &Credential,
    grant: Grant,
) -> Result<ShownOnce, ApiError> {
    let now = app.now();
    tenants_must_exist(write, who.org(), &grant.tenancy).await?;
    let secret = NewSecret::make(grant.kind.prefix(), app.random);
    let key = Key {
        id: app.random.id(Kind::Key, now),
        org: who.org().clone(),
        kind: grant.kind,
        hash: secret.hash,
        prefix: secret.prefix,
        name: grant.name,
        tenancy: grant.tenancy,
        agent: grant.agent,
        user_id: None,
        owner: grant.owner,
        audience: grant.audience,
        proxy_id: None,
        created_by: who.principal().to_owned(),
        created_at: now,
        expires_at: grant.expires_at,
        revoked_at: None,
        last_used_at: None,
    };
    keys::insert(write, &key).await?;
    // With the agent's owner, and without the hash.
    let key = store::one::<Key>(write, who.org(), &key.id)
        .await?
        .ok_or_else(|| ApiError::internal(&"the key that was just written is not there"))?;
    let shown = Shown::from(key);
    Change::by(who, EventType::KeyCreated, json!(shown)).record(app, write).await?;
    Ok(ShownOnce { key: secret.secret, shown })
}

async fn tenants_must_exist(db: &mut Conn, org: &Name, tenancy: &Tenancy) -> Result<(), ApiError> {
    let tenants = match tenancy {
        Tenancy::One(tenant) => std::slice::from_ref(tenant),
        Tenancy::Some(tenants) => tenants,
        Tenancy::Org => &[],
    };
    for tenant in tenants {
        tenant_must_exist(db, org, tenant, "/tenants").await?;
    }
    Ok(())
}

/// `DELETE /v1/keys/{id}`: it stops working at once. What its caller has open is cancelled, unless another
/// key of that caller is in force.
pub(crate) async fn revoke(
    State(app): State<Arc<App>>,
    Management(who): Management,
    Segment(id): Segment,
) -> Result<StatusCode, ApiError> {
    let mut write = who.write(&app).await?;
    if !keys::revoke(&mut write, who.org(), &id, app.now()).await? {
        return Err(ApiError::not_found("key in force", &id));
    }
    if let Some(key) = store::one::<Key>(&mut write, who.org(), &id).await? {
        let principal = store::name("keys", "id", key.principal())?;
        cancel_without_key(&app, &mut write, (who.org(), &principal), Some(who.principal())).await?;
    }
    Change::by(&who, EventType::KeyRevoked, json!({"id": id})).publish(&app, write, None).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rotate {
    /// Seconds for which the old key goes on working.
    overlap_s: u32,
}

const OVERLAP_S_MAX: u32 = 30 * 24 * 3600;

/// `POST /v1/keys/{id}/rotate`: a new key with the same reach; the old one ends after the overlap.
pub(crate) async fn rotate(
    State(app): State<Arc<App>>,
    Management(who): Management,
    Segment(id): Segment,
    Body(asked): Body<Rotate>,
) -> Result<Created<ShownOnce>, ApiError> {
    if asked.overlap_s > OVERLAP_S_MAX {
        return Err(ApiError::invalid_value("/overlap_s", "At most 30 days."));
    }
    let now = app.now();
    let mut write = who.write(&app).await?;
    let old = store::one::<Key>(&mut write, who.org(), &id)
        .await?
        .filter(|key| key.is_in_force(now))
        .ok_or_else(|| ApiError::not_found("key in force", &id))?;
    if matches!(old.kind, KeyKind::Approver | KeyKind::Proxy) {
        let detail = format!("A {} key is not made with a management key.", old.kind.as_str());
        return Err(ApiError::forbidden("wrong_credential", detail));
    }
    let grant = Grant {
        kind: old.kind,
        name: old.name,
        tenancy: old.tenancy,
        owner: if old.agent.is_some() { None } else { old.owner },
        agent: old.agent,
        audience: old.audience,
        expires_at: old.expires_at,
    };
    let made = issue(&app, &mut write, &who, grant).await?;
    let ends = now + u64::from(asked.overlap_s) * 1000;
    keys::expire_at(&mut write, who.org(), &old.id, ends).await?;
    let detail = json!({"id": old.id, "expires_at": rfc3339(ends), "replaced_by": made.shown.id});
    Change::by(&who, EventType::KeyRevoked, detail).publish(&app, write, None).await?;
    Ok(created(made))
}
