//! Proxies: how one joins, what it fetches and tells, and the fleet as the org sees it.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use ed25519_dalek::VerifyingKey;
use http::header::{ETAG, IF_NONE_MATCH};
use http::{HeaderMap, StatusCode};
use oakallow_policy::audit::EventType;
use oakallow_policy::canonical::unbase64url;
use oakallow_policy::id::{Kind, Name};
use oakallow_policy::timestamp::rfc3339;
use oakallow_policy::wire::{Enroll, Enrolled, Heartbeat, PublicKey, Secret, Tenancy};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::audit::report_breach;
use super::nouns::{list, show};
use super::tenant_must_exist;
use crate::answer::{Created, Json, created};
use crate::auth::{Management, ProxyIdentity};
use crate::distribute::{self, JOIN_TOKEN_MS};
use crate::error::ApiError;
use crate::extract::{Body, FirstBody, Params, Segment, tame};
use crate::keys::{self, JOIN_PREFIX, KeyKind, NewSecret};
use crate::ledger::{self, IngestError, ProxyChain};
use crate::record::Change;
use crate::state::App;
use crate::store;
use crate::store::keys::Key;
use crate::store::proxies::{self, Beat, JoinToken, Proxy};

/// Its endpoints.
pub(crate) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/proxies", get(list::<Proxy, Shown>))
        .route("/v1/proxies/join-tokens", post(create_join_token))
        .route("/v1/proxies/enroll", post(enroll))
        .route("/v1/proxies/{id}", get(show::<Proxy, Shown>).delete(remove))
        .route("/v1/proxies/{id}/bundle", get(bundle))
        .route("/v1/proxies/{id}/events", get(events))
        .route("/v1/proxies/{id}/heartbeat", post(heartbeat))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewJoinToken {
    audiences: Vec<Name>,
    /// The tenants that the proxy may serve; all when left out.
    #[serde(default)]
    tenants: Option<Vec<Name>>,
}

#[derive(Serialize)]
pub(crate) struct JoinTokenShown {
    join_token: Secret,
    expires_at: String,
}

/// `POST /v1/proxies/join-tokens`: a token with which one proxy joins, within an hour.
pub(crate) async fn create_join_token(
    State(app): State<Arc<App>>,
    Management(who): Management,
    Body(new): Body<NewJoinToken>,
) -> Result<Created<JoinTokenShown>, ApiError> {
    if new.audiences.is_empty() {
        return Err(ApiError::invalid_value(
            "/audiences",
            "Name the tool servers that the proxy stands before.",
        ));
    }
    if new.tenants.as_ref().is_some_and(Vec::is_empty) {
        return Err(ApiError::invalid_value("/tenants", "Name tenants, or leave it out for all."));
    }
    let now = app.now();
    let secret = NewSecret::make(JOIN_PREFIX, app.random);
    let token = JoinToken {
        hash: secret.hash,
        org: who.org().clone(),
        audiences: new.audiences,
        tenants: new.tenants,
        created_by: who.principal().to_owned(),
        created_at: now,
        expires_at: now + JOIN_TOKEN_MS,
    };
    let mut write = who.write(&app).await?;
    for (i, tenant) in token.tenants.iter().flatten().enumerate() {
        tenant_must_exist(&mut write, who.org(), tenant, &format!("/tenants/{i}")).await?;
    }
    proxies::insert_join(&mut write, &token).await?;
    let detail = json!({"kind": "join", "prefix": secret.prefix, "audiences": token.audiences,
        "tenants": token.tenants});
    Change::by(&who, EventType::KeyCreated, detail).record(&app, &mut write).await?;
    write.commit().await?;
    Ok(created(JoinTokenShown { join_token: secret.secret, expires_at: rfc3339(token.expires_at) }))
}

/// `POST /v1/proxies/enroll`: a proxy's first request; the join token is its credential, once.
pub(crate) async fn enroll(
    State(app): State<Arc<App>>,
    FirstBody(asked): FirstBody<Enroll>,
) -> Result<Created<Enrolled>, ApiError> {
    check_public_key(&asked.public_key)?;
    let version = tame("/version", &asked.version)?;
    let now = app.now();
    let unusable = || {
        let detail =
            "The join token is unknown, used or expired. Ask for a new one (oakallow's management API).";
        ApiError::unauthenticated("invalid_join_token", detail)
    };
    let token = keys::hash(asked.join_token.expose());
    let org = proxies::org_of_join(&mut app.db.read_across().await?, &token).await?.ok_or_else(unusable)?;
    let mut write = app.write(&org).await?;
    let join = proxies::use_join(&mut write, &org, &token, now).await?.ok_or_else(unusable)?;
    let proxy = Proxy {
        id: app.random.id(Kind::Proxy, now),
        org: join.org,
        name: asked.name,
        public_key: asked.public_key,
        audiences: join.audiences,
        tenants: join.tenants,
        version,
        enrolled_at: now,
        revoked_at: None,
        beat: None,
    };
    proxies::insert(&mut write, &proxy).await?;
    let secret = NewSecret::make(KeyKind::Proxy.prefix(), app.random);
    let key = proxy_key(&app, &proxy, &secret, join.created_by);
    store::keys::insert(&mut write, &key).await?;
    let detail = json!({"id": proxy.id, "name": proxy.name, "audiences": proxy.audiences,
        "tenants": proxy.tenants, "public_key": proxy.public_key, "version": proxy.version});
    Change::new(EventType::ProxyEnrolled, &proxy.org, &proxy.id, detail).record(&app, &mut write).await?;
    let signer = app.vault.bundle_key(&mut write, &proxy.org).await?;
    write.commit().await?;
    Ok(created(Enrolled {
        proxy_id: proxy.id,
        proxy_key: secret.secret,
        org: proxy.org,
        audiences: proxy.audiences,
        tenants: proxy.tenants,
        bundle_key: PublicKey::of(&signer.kid, &signer.key),
    }))
}

fn proxy_key(app: &App, proxy: &Proxy, secret: &NewSecret, created_by: String) -> Key {
    Key {
        id: app.random.id(Kind::Key, proxy.enrolled_at),
        org: proxy.org.clone(),
        kind: KeyKind::Proxy,
        hash: secret.hash.clone(),
        prefix: secret.prefix.clone(),
        name: proxy.name.to_string(),
        tenancy: proxy.tenants.clone().map_or(Tenancy::Org, Tenancy::Some),
        agent: None,
        user_id: None,
        owner: None,
        audience: None,
        proxy_id: Some(proxy.id.clone()),
        created_by,
        created_at: proxy.enrolled_at,
        expires_at: None,
        revoked_at: None,
        last_used_at: None,
    }
}

fn check_public_key(text: &str) -> Result<(), ApiError> {
    let key = unbase64url(text)
        .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
        .and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok());
    match key {
        Some(key) if !key.is_weak() => Ok(()),
        _ => Err(ApiError::invalid_value("/public_key", "An Ed25519 public key: 32 bytes in base64url.")),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BundleParams {
    tenant: Option<Name>,
}

/// `GET /v1/proxies/{id}/bundle[?tenant=]`: signed; 304 while the version is the one that the proxy has.
pub(crate) async fn bundle(
    State(app): State<Arc<App>>,
    me: ProxyIdentity,
    Segment(id): Segment,
    Params(params): Params<BundleParams>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    me.must_be(&id)?;
    let known = |version: u64| has_etag(&headers, version);
    let (version, signed) = distribute::bundle(&app, &me.proxy, params.tenant.as_ref(), known).await?;
    let etag = [(ETAG, format!("\"{version}\""))];
    Ok(match signed {
        Some(signed) => (etag, Json(signed)).into_response(),
        None => (StatusCode::NOT_MODIFIED, etag).into_response(),
    })
}

fn has_etag(headers: &HeaderMap, version: u64) -> bool {
    let wanted = format!("\"{version}\"");
    let values = headers.get_all(IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).any(|tag| tag.trim().trim_start_matches("W/") == wanted)
}

/// `GET /v1/proxies/{id}/events`: server-sent events, resumable by `Last-Event-ID`.
pub(crate) async fn events(
    State(app): State<Arc<App>>,
    me: ProxyIdentity,
    Segment(id): Segment,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    me.must_be(&id)?;
    // What is not a number of ours starts from now: the proxy reconciles after each connect.
    let resume = headers.get("last-event-id").and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    let stream = distribute::events(app, me.proxy, resume).await?;
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()).into_response())
}

/// Of a SHA-256 in hexadecimal.
const HASH_CHARS: usize = 64;

/// `POST /v1/proxies/{id}/heartbeat`
pub(crate) async fn heartbeat(
    State(app): State<Arc<App>>,
    me: ProxyIdentity,
    Segment(id): Segment,
    Body(mut beat): Body<Heartbeat>,
) -> Result<StatusCode, ApiError> {
    me.must_be(&id)?;
    beat.version = tame("/version", &beat.version)?;
    if beat.head.hash.len() > HASH_CHARS {
        return Err(ApiError::invalid_value("/head/hash", "SHA-256 in hexadecimal: 64 digits."));
    }
    let (org, now) = (me.credential.org(), app.now());
    let chain = ProxyChain { id: &id, public_key: &me.proxy.public_key };
    let mut write = me.credential.write(&app).await?;
    let announced = ledger::announce(&mut write, org, &chain, (&beat.head, now)).await;
    proxies::beat(&mut write, &me.proxy, &beat, now).await?;
    write.commit().await?;
    if let Err(IngestError::Broken { seq, hash, why }) = &announced {
        report_breach(&app, org, &id, (*seq, hash, why)).await?;
    }
    announced?;
    Ok(StatusCode::NO_CONTENT)
}

/// A proxy of the fleet, with what it last said of itself.
#[derive(Serialize)]
pub(crate) struct Shown {
    id: String,
    name: Name,
    audiences: Vec<Name>,
    tenants: Option<Vec<Name>>,
    version: String,
    public_key: String,
    enrolled_at: String,
    removed_at: Option<String>,
    seen_at: Option<String>,
    #[serde(flatten)]
    beat: Option<Beat>,
}

impl From<Proxy> for Shown {
    fn from(proxy: Proxy) -> Self {
        Self {
            id: proxy.id,
            name: proxy.name,
            audiences: proxy.audiences,
            tenants: proxy.tenants,
            version: proxy.version,
            public_key: proxy.public_key,
            enrolled_at: rfc3339(proxy.enrolled_at),
            removed_at: proxy.revoked_at.map(rfc3339),
            seen_at: proxy.beat.as_ref().map(|b| rfc3339(b.seen_at)),
            beat: proxy.beat,
        }
    }
}

/// `DELETE /v1/proxies/{id}`: its key stops working and its stream ends.
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    Management(who): Management,
    Segment(id): Segment,
) -> Result<StatusCode, ApiError> {
    let mut write = who.write(&app).await?;
    if !proxies::revoke(&mut write, who.org(), &id, app.now()).await? {
        return Err(ApiError::not_found("proxy", &id));
    }
    // The new version wakes its stream, which then ends.
    Change::by(&who, EventType::ProxyRemoved, json!({"id": id})).publish(&app, write, None).await?;
    Ok(StatusCode::NO_CONTENT)
}
