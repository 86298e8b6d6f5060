//! Who is calling. A handler says who may call it by the type that it takes: [`Management`],
//! [`Runtime`], [`ToolServer`], [`ProxyIdentity`], or [`Credential`] for several. People and
//! approver keys: `viewer`.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;
use oakallow_policy::id::Name;
use oakallow_policy::wire::{Tenancy, TenancyError};

use crate::error::ApiError;
use crate::keys::{self, KeyKind};
use crate::state::App;
use crate::store::{self, Conn, StoreError, Write};

/// The header that selects a tenant.
pub(crate) const TENANT_HEADER: &str = "x-tenant-id";
const KEY_HEADER: &str = "x-api-key";

/// A key that is in force.
#[derive(Debug, Clone)]
pub(crate) struct Credential {
    pub(crate) key: store::keys::Key,
    /// What `X-Tenant-Id` names.
    tenant_header: Option<Name>,
}

impl Credential {
    pub(crate) fn org(&self) -> &Name {
        &self.key.org
    }

    pub(crate) fn kind(&self) -> KeyKind {
        self.key.kind
    }

    /// Who acts, for decisions and the audit log: the agent, else the key.
    pub(crate) fn principal(&self) -> &str {
        self.key.principal()
    }

    /// The same as a name.
    pub(crate) fn principal_name(&self) -> Result<Name, ApiError> {
        Name::new(self.principal()).map_err(|e| ApiError::internal(&e))
    }

    /// The tenants that the key reaches; `None`: all of the org's, and what has no tenant.
    pub(crate) fn tenants(&self) -> Option<&[Name]> {
        match &self.key.tenancy {
            Tenancy::Org => None,
            Tenancy::One(own) => Some(std::slice::from_ref(own)),
            Tenancy::Some(own) => Some(own),
        }
    }

    /// Whether it reaches what is of that tenant, or of none.
    pub(crate) fn reaches(&self, tenant: Option<&str>) -> bool {
        let names = |own: &[Name]| tenant.is_some_and(|tenant| own.iter().any(|o| o.as_str() == tenant));
        self.tenants().is_none_or(names)
    }

    /// The tenant of this request, which names `in_body` or `X-Tenant-Id` or neither. Selects among
    /// what the key has; never adds to it.
    pub(crate) fn tenant(&self, in_body: Option<&Name>) -> Result<Option<Name>, ApiError> {
        select_tenant(&self.key.tenancy, self.tenant_header.as_ref(), in_body)
    }

    /// Begins a change. 401 when the key is no longer in force: a body may take its time to arrive, and
    /// a revocation does not wait for it.
    pub(crate) async fn write(&self, app: &Arc<App>) -> Result<Write, ApiError> {
        let mut write = app.write(self.org()).await?;
        if self.is_in_force(app, &mut write).await? {
            return Ok(write);
        }
        Err(Self::ended())
    }

    /// It has neither been revoked nor expired since it was shown.
    pub(crate) async fn is_in_force(&self, app: &App, db: &mut Conn) -> Result<bool, StoreError> {
        let key = store::keys::by_hash(db, &self.key.hash).await?;
        Ok(key.is_some_and(|key| key.is_in_force(app.now())))
    }

    /// See [`Credential::write`].
    pub(crate) fn ended() -> ApiError {
        ApiError::unauthenticated("key_revoked", "This key was revoked or has expired meanwhile.")
    }

    /// 403 unless the key is of one of these kinds.
    pub(crate) fn require(&self, kinds: &[KeyKind], what: &str) -> Result<(), ApiError> {
        if kinds.contains(&self.key.kind) {
            return Ok(());
        }
        let wanted: Vec<&str> = kinds.iter().map(|k| k.as_str()).collect();
        Err(ApiError::forbidden(
            "wrong_credential",
            format!("{what} takes a {} key; this is a {} key.", wanted.join(" or "), self.key.kind.as_str()),
        ))
    }
}

fn select_tenant(
    tenancy: &Tenancy,
    in_header: Option<&Name>,
    in_body: Option<&Name>,
) -> Result<Option<Name>, ApiError> {
    if let (Some(header), Some(body)) = (in_header, in_body)
        && header != body
    {
        return Err(ApiError::invalid_request(
            "X-Tenant-Id and tenant_id name different tenants: send one of them.",
        ));
    }
    tenancy.select(in_body.or(in_header)).map(Option::<&Name>::cloned).map_err(|e| match e {
        TenancyError::Foreign => ApiError::forbidden("tenant_not_allowed", format!("{e}.")),
        TenancyError::Missing => {
            ApiError::new(http::StatusCode::BAD_REQUEST, "tenant_required", format!("{e}."))
        }
    })
}

impl FromRequestParts<Arc<App>> for Credential {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let presented = presented(&parts.headers)?;
        let mut db = app.db.read_across().await?;
        let key = store::keys::by_hash(&mut db, &keys::hash(presented)).await?.ok_or_else(|| {
            ApiError::unauthenticated("invalid_key", "No such key. Check that it was copied whole.")
        })?;
        let now = app.now();
        if key.revoked_at.is_some() {
            return Err(ApiError::unauthenticated("key_revoked", "This key was revoked. Use another one."));
        }
        if key.expires_at.is_some_and(|at| at <= now) {
            return Err(ApiError::unauthenticated("key_expired", "This key has expired. Use a new one."));
        }
        app.usage.note(&key.org, &key.id, now);
        let tenant_header = tenant_header(&parts.headers)?;
        Ok(Self { key, tenant_header })
    }
}

/// The key as presented. Two different ones are refused: which of them would be meant?
fn presented(headers: &HeaderMap) -> Result<&str, ApiError> {
    let mut found = None;
    for value in headers.get_all(KEY_HEADER) {
        distinct(&mut found, value.to_str().unwrap_or_default().trim())?;
    }
    for value in headers.get_all(AUTHORIZATION) {
        let (scheme, key) = value.to_str().unwrap_or_default().split_once(' ').unwrap_or_default();
        if scheme.eq_ignore_ascii_case("bearer") {
            distinct(&mut found, key.trim())?;
        }
    }
    found.ok_or_else(|| {
        ApiError::unauthenticated("unauthenticated", "Send a key as X-API-Key or as Authorization: Bearer.")
    })
}

fn distinct<'h>(found: &mut Option<&'h str>, key: &'h str) -> Result<(), ApiError> {
    if found.is_some_and(|other| other != key) {
        return Err(ApiError::invalid_request("The request carries two different keys: send one."));
    }
    *found = Some(key);
    Ok(())
}

fn tenant_header(headers: &HeaderMap) -> Result<Option<Name>, ApiError> {
    let mut values = headers.get_all(TENANT_HEADER).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(ApiError::invalid_request("X-Tenant-Id is there twice."));
    }
    let text = value.to_str().map_err(|_| ApiError::invalid_request("X-Tenant-Id is not text."))?;
    Name::new(text).map(Some).map_err(|e| ApiError::invalid_request(format!("X-Tenant-Id: {e}.")))
}

macro_rules! tiers {
    ($($(#[$doc:meta])* $name:ident: $what:literal, $kinds:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub(crate) struct $name(pub(crate) Credential);

        impl FromRequestParts<Arc<App>> for $name {
            type Rejection = ApiError;

            async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
                let credential = Credential::from_request_parts(parts, app).await?;
                credential.require($kinds, $what)?;
                Ok(Self(credential))
            }
        }
    )*};
}

tiers! {
    /// Configures the org.
    Management: "Configuration", &[KeyKind::Management];
    /// Checks, requests approvals, mints, logs.
    Runtime: "This endpoint", &[KeyKind::Standard, KeyKind::Agent];
    /// Verifies tokens of its audience.
    ToolServer: "This endpoint", &[KeyKind::Tool];
}

/// A proxy that is enrolled and not revoked, with what it may serve.
#[derive(Debug, Clone)]
pub(crate) struct ProxyIdentity {
    pub(crate) credential: Credential,
    pub(crate) proxy: store::proxies::Proxy,
}

impl ProxyIdentity {
    /// 403 unless it is the proxy that the path names.
    pub(crate) fn must_be(&self, id: &str) -> Result<(), ApiError> {
        if self.proxy.id == id {
            return Ok(());
        }
        Err(ApiError::forbidden("wrong_credential", "A proxy may only speak for itself."))
    }

    /// The proxy behind a credential, if it is one.
    pub(crate) async fn of(credential: Credential, app: &Arc<App>) -> Result<Self, ApiError> {
        credential.require(&[KeyKind::Proxy], "The proxy protocol")?;
        let id = credential.key.proxy_id.clone().unwrap_or_default();
        let mut db = app.db.read(credential.org()).await?;
        let proxy = store::one::<store::proxies::Proxy>(&mut db, credential.org(), &id)
            .await?
            .filter(|p| p.revoked_at.is_none())
            .ok_or_else(|| {
                ApiError::unauthenticated("key_revoked", "This proxy was removed. Enrol it again.")
            })?;
        Ok(Self { credential, proxy })
    }
}

impl FromRequestParts<Arc<App>> for ProxyIdentity {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        Self::of(Credential::from_request_parts(parts, app).await?, app).await
    }
}
