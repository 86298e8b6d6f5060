//! People who are signed in: one-time login links, the session cookie, and what a request with a cookie
//! must show before it is believed.
//!
//! A browser sends a cookie with whatever asks for it, so a cookie alone proves nothing about who made
//! the request. Hence: SameSite=Strict; the `Host` must be one of ours (DNS rebinding); on anything that
//! changes something the `Origin` must be ours too, and the request must carry a token that only our own
//! pages can read.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use http::header::{COOKIE, HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use oakallow_policy::audit::{Event, EventData, EventType};
use oakallow_policy::canonical::{base64url, hex, sha256};
use oakallow_policy::id::{Kind, Name};
use oakallow_policy::wire::Secret;
use subtle::ConstantTimeEq as _;

use crate::approvals::{decide::Decider, ms};
use crate::error::ApiError;
use crate::keys;
use crate::record;
use crate::state::App;
use crate::store::sessions::{self, LoginLink, NewSession};
use crate::store::{Conn, StoreError, Write, audit, users};

/// A login link works once, within this time.
const LINK_LIFETIME: Duration = Duration::from_secs(15 * 60);
/// A session ends after this time, used or not.
const SESSION_LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// Where a script puts the token that [`Session::csrf`] shows to our pages.
pub(crate) const CSRF_HEADER: &str = "x-csrf-token";

/// A signed-in person.
#[derive(Clone)]
pub(crate) struct Session {
    /// `ses_…`
    pub(crate) id: String,
    pub(crate) org: Name,
    pub(crate) email: String,
    pub(crate) role: String,
    csrf: String,
    secret_sha256: String,
}

impl Session {
    /// The token that every form and script of ours sends back. Derived from the cookie, which no page
    /// can read, so knowing one session's token is worth nothing for another.
    pub(crate) fn csrf(&self) -> &str {
        &self.csrf
    }

    /// 403 unless `presented` is this session's token.
    pub(crate) fn check_csrf(&self, presented: &str) -> Result<(), ApiError> {
        if bool::from(self.csrf.as_bytes().ct_eq(presented.as_bytes())) {
            return Ok(());
        }
        Err(ApiError::forbidden("csrf", "The form's token does not fit this session: reload the page."))
    }

    pub(crate) fn decider(&self) -> Decider {
        Decider { email: self.email.clone(), may_decide: may_decide(&self.role), by_key: false }
    }

    /// Begins a change. 401 when the session has ended meanwhile.
    pub(crate) async fn write(&self, app: &Arc<App>) -> Result<Write, ApiError> {
        let mut write = app.write(&self.org).await?;
        if self.is_in_force(app, &mut write).await? {
            return Ok(write);
        }
        Err(Self::ended())
    }

    /// It has neither ended nor expired meanwhile.
    pub(crate) async fn is_in_force(&self, app: &App, db: &mut Conn) -> Result<bool, StoreError> {
        Ok(sessions::find(db, &self.secret_sha256, app.now()).await?.is_some())
    }

    /// See [`Session::write`].
    pub(crate) fn ended() -> ApiError {
        ApiError::unauthenticated("unauthenticated", "Your session has ended: open a login link.")
    }
}

/// Whether a role decides approvals.
pub(crate) fn may_decide(role: &str) -> bool {
    matches!(role, "owner" | "admin" | "approver")
}

impl FromRequestParts<Arc<App>> for Session {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        check_host(&parts.headers, app)?;
        if !parts.method.is_safe() {
            check_origin(&parts.headers, app)?;
        }
        let unauthenticated =
            || ApiError::unauthenticated("unauthenticated", "You are not signed in: open a login link.");
        let secret = cookie(&parts.headers, cookie_name(app)).ok_or_else(unauthenticated)?;
        let secret_sha256 = keys::hash(secret);
        let mut db = app.db.read_across().await?;
        let row = sessions::find(&mut db, &secret_sha256, app.now()).await?.ok_or_else(unauthenticated)?;
        let org = Name::new(&row.org).map_err(|e| StoreError::corrupt("sessions", "org", &row.id, &e))?;
        let csrf = hex(&sha256(format!("oakallow/csrf/v1|{secret}").as_bytes()));
        Ok(Self { id: row.id, org, email: row.email, role: row.role, csrf, secret_sha256 })
    }
}

/// 403 unless the request came to a name of ours.
pub(crate) fn check_host(headers: &HeaderMap, app: &App) -> Result<(), ApiError> {
    let host = headers.get(HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    if own_hosts(app).iter().any(|own| own.eq_ignore_ascii_case(host)) {
        return Ok(());
    }
    Err(ApiError::forbidden("wrong_host", "This is not a name of this server: open it by its public URL."))
}

/// 403 if the request says that it comes from elsewhere. Browsers say so on every request that changes
/// something; a client that is no browser has no cookie that it did not fetch itself.
pub(crate) fn check_origin(headers: &HeaderMap, app: &App) -> Result<(), ApiError> {
    let site = headers.get("sec-fetch-site").and_then(|v| v.to_str().ok());
    let ours = match headers.get(ORIGIN).map(HeaderValue::to_str) {
        None => site.is_none_or(|site| site == "same-origin"),
        Some(Err(_)) => false,
        Some(Ok(origin)) => {
            let scheme = if is_https(app) { "https" } else { "http" };
            own_hosts(app).iter().any(|host| origin.eq_ignore_ascii_case(&format!("{scheme}://{host}")))
        }
    };
    if ours {
        return Ok(());
    }
    Err(ApiError::forbidden("wrong_origin", "This request comes from another site."))
}

fn is_https(app: &App) -> bool {
    app.public_url.starts_with("https://")
}

/// The public name; and on a loopback listener, the loopback's names.
fn own_hosts(app: &App) -> Vec<String> {
    let host = app.public_url.split_once("://").map_or("", |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or_default();
    let mut hosts = vec![host.to_owned()];
    if let Some(port) = host.strip_prefix("localhost:") {
        hosts.push(format!("127.0.0.1:{port}"));
        hosts.push(format!("[::1]:{port}"));
    }
    hosts
}

/// With the `__Host-` prefix, where https lets us, no other host can set it.
fn cookie_name(app: &App) -> &'static str {
    if is_https(app) { "__Host-oakallow_session" } else { "oakallow_session" }
}

fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let pairs = headers.get_all(COOKIE).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(';'));
    pairs.filter_map(|pair| pair.trim().split_once('=')).find(|(n, _)| *n == name).map(|(_, value)| value)
}

/// `Set-Cookie` for a new session, or without `secret` for one that has ended.
fn set_cookie(app: &App, secret: Option<&str>) -> String {
    let name = cookie_name(app);
    let secure = if is_https(app) { "; Secure" } else { "" };
    let (value, age) = secret.map_or(("", 0), |secret| (secret, SESSION_LIFETIME.as_secs()));
    format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={age}{secure}")
}

/// Makes a link with which this person signs in once. `None`: the org has no such person.
pub(crate) async fn issue_login_link(
    app: &Arc<App>,
    org: &Name,
    email: &str,
) -> Result<Option<Secret>, StoreError> {
    let mut write = app.write(org).await?;
    let Some(user) = users::by_email(&mut write, org, email).await? else { return Ok(None) };
    let token = base64url(&app.random.bytes32());
    let link = LoginLink {
        token_sha256: keys::hash(&token),
        org: org.clone(),
        user_id: user.id,
        expires_ms: app.now() + ms(LINK_LIFETIME),
    };
    sessions::insert_link(&mut write, &link).await?;
    write.commit().await?;
    Ok(Some(Secret::new(format!("{}/login?token={token}", app.public_url))))
}

/// Signs in with a link's token. Returns the cookie; `None` when the link is unknown, used or expired.
pub(crate) async fn sign_in(app: &Arc<App>, token: &str) -> Result<Option<Secret>, StoreError> {
    let now = app.now();
    let token = keys::hash(token);
    let Some(org) = sessions::org_of_link(&mut app.db.read_across().await?, &token).await? else {
        return Ok(None);
    };
    let mut write = app.write(&org).await?;
    let Some(user_id) = sessions::use_link(&mut write, &org, &token, now).await? else {
        return Ok(None);
    };
    let secret = base64url(&app.random.bytes32());
    let id = app.random.id(Kind::Session, now);
    let new = NewSession {
        id: &id,
        secret_sha256: &keys::hash(&secret),
        org: &org,
        user_id: &user_id,
        expires_ms: now + ms(SESSION_LIFETIME),
    };
    sessions::insert(&mut write, &new, now).await?;
    let who = users::by_id(&mut write, &org, &user_id).await?.map_or(user_id, |user| user.email);
    let event = told(app, EventType::SessionCreated, &id, &who);
    audit::record(&mut write, &org, now, event).await?;
    write.commit().await?;
    Ok(Some(Secret::new(set_cookie(app, Some(&secret)))))
}

/// Ends a session. Returns the cookie that removes it.
pub(crate) async fn sign_out(app: &Arc<App>, session: &Session) -> Result<String, StoreError> {
    let mut write = app.write(&session.org).await?;
    if sessions::end(&mut write, &session.org, &session.id, app.now()).await? {
        let event = told(app, EventType::SessionEnded, &session.id, &session.email);
        audit::record(&mut write, &session.org, app.now(), event).await?;
        write.commit().await?;
    }
    Ok(set_cookie(app, None))
}

fn told(app: &App, kind: EventType, session: &str, who: &str) -> Event {
    let mut detail = serde_json::Map::new();
    detail.insert("session".to_owned(), session.into());
    record::event(
        app,
        kind,
        None,
        EventData { principal: Some(who.to_owned()), detail, ..EventData::default() },
    )
}
