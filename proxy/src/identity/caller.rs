//! The caller of a request, by the one credential that it has.

use std::sync::Arc;

use http::HeaderMap;
use oakallow_policy::canonical::{hex, sha256};
use oakallow_policy::id::Name;
use oakallow_policy::principal::is_external;
use oakallow_policy::timestamp::UnixMs;
use oakallow_policy::wire::{KeyRecord, Tenancy, TenancyError};

use super::audience::Audiences;
use super::credential::{self, TENANT_HEADER, Unclear};
use super::{Issuers, Verified};
use crate::app::App;
use crate::clock;
use crate::connection::Connection;
use crate::listen::Listener;
use crate::listen::peer::Peer;
use crate::policy::Snapshot;
use crate::refusal::Refusal;

/// A caller whose credential was found good.
#[derive(Debug, Clone)]
pub struct Caller {
    /// By which.
    pub credential: Credential,
    /// Who calls.
    pub principal: Name,
    /// The tenant of this request.
    pub tenant: Option<Name>,
    /// E-mail of the person who answers for a token or a certificate; of keys the backend knows it.
    pub owner: Option<Name>,
    /// E-mail in the token, vouched for or not: it may bar a person from deciding, and lets nobody do anything.
    pub token_email: Option<Name>,
}

/// What was found good, as far as it is needed to look at it again.
#[derive(Clone)]
pub enum Credential {
    /// A key of ours: its SHA-256, hex.
    Key(String),
    /// A token of an issuer.
    Token(Arc<Verified>),
    /// A certificate, shown to this listener.
    Certificate(Arc<Peer>, Arc<Listener>),
}

impl Credential {
    fn owner(&self) -> Option<&Name> {
        match self {
            Self::Key(_) => None,
            Self::Token(token) => token.owner.as_ref(),
            Self::Certificate(_, listener) => listener.config.tls.as_ref()?.clients.as_ref()?.owner.as_ref(),
        }
    }

    fn token_email(&self) -> Option<&Name> {
        match self {
            Self::Token(token) => token.email.as_ref(),
            Self::Key(_) | Self::Certificate(..) => None,
        }
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Key(_) => "Key",
            Self::Token(_) => "Token",
            Self::Certificate(..) => "Certificate",
        })
    }
}

impl Caller {
    /// Whether the credential is as good as it was, by a policy that came since.
    pub fn check_again(&self, app: &App, snapshot: &Snapshot) -> Result<(), Refusal> {
        let limited = app.identity.tenants.is_some();
        let reach = match &self.credential {
            Credential::Key(sha256) => {
                let record = valid_record(sha256, snapshot).ok_or(Refusal::Unauthenticated)?;
                if record.principal != self.principal {
                    return Err(Refusal::Unauthenticated);
                }
                Some(record.tenancy.clone())
            }
            Credential::Token(token) if app.issuers.still_stand_for(token) => token.tenancy.clone(),
            Credential::Certificate(peer, listener) if believes(listener, peer) => tenancy_of(listener),
            Credential::Token(_) | Credential::Certificate(..) => return Err(Refusal::Unauthenticated),
        };
        match selected(reach.as_ref(), self.tenant.as_ref(), (snapshot, limited))? == self.tenant {
            true => Ok(()),
            false => Err(Refusal::TenantNotAllowed("the credential reaches another tenant by now")),
        }
    }
}

impl Caller {
    /// Until when a credential that is good now stays so, if nothing changes; `None`: it has no end.
    #[must_use]
    pub fn stands_until(&self, app: &App, snapshot: &Snapshot) -> Option<UnixMs> {
        match &self.credential {
            Credential::Key(sha256) => snapshot.keys.get(sha256)?.expires_at,
            Credential::Token(token) => Some(app.issuers.stand_for_until(token)),
            Credential::Certificate(peer, _) => Some(peer.next_end(clock::now_ms())),
        }
    }
}

/// What decides who calls: the listener that a request came by, and what is known now.
pub struct Gate<'a> {
    listener: &'a Arc<Listener>,
    peer: Option<&'a Arc<Peer>>,
    issuers: &'a Issuers,
    snapshot: &'a Snapshot,
    /// Whether this proxy serves some tenants only.
    limited: bool,
}

/// The credential of a request, before it is known to be good.
pub(super) enum Presented<'h> {
    Key(&'h str),
    Token(&'h str),
    Certificate(Arc<Peer>),
}

impl<'a> Gate<'a> {
    /// Of a connection.
    #[must_use]
    pub fn of(app: &'a App, connection: &'a Connection, snapshot: &'a Snapshot) -> Self {
        Self {
            listener: connection.listener(),
            peer: connection.peer(),
            issuers: &app.issuers,
            snapshot,
            limited: app.identity.tenants.is_some(),
        }
    }

    /// Finds the caller of a request by its credential, and the tenant that it selects. A token is good for the
    /// audiences of its route only.
    pub async fn authenticate(
        &self,
        headers: &HeaderMap,
        audiences: Audiences<'_>,
    ) -> Result<Caller, Refusal> {
        let (credential, principal, reach) = self.known(headers, Some(audiences)).await?;
        let wanted = wanted_tenant(headers)?;
        let tenant = selected(reach.as_ref(), wanted.as_ref(), (self.snapshot, self.limited))?;
        let (owner, token_email) = (credential.owner().cloned(), credential.token_email().cloned());
        Ok(Caller { credential, principal, tenant, owner, token_email })
    }

    /// Who sends a request, by its credential alone: for the record, whatever else is wrong with it.
    pub async fn principal(&self, headers: &HeaderMap) -> Option<Name> {
        self.known(headers, None).await.ok().map(|(_, principal, _)| principal)
    }

    /// The secret that a request brings along, which must not go further.
    #[must_use]
    pub fn secret<'h>(&self, headers: &'h HeaderMap) -> Option<&'h str> {
        match self.presented(headers).ok()? {
            Presented::Key(secret) | Presented::Token(secret) => Some(secret),
            Presented::Certificate(_) => None,
        }
    }

    /// Without audiences for the record only: then a token may be for any route, and no issuer is asked.
    async fn known(
        &self,
        headers: &HeaderMap,
        audiences: Option<Audiences<'_>>,
    ) -> Result<(Credential, Name, Option<Tenancy>), Refusal> {
        match self.presented(headers).map_err(|Unclear| Refusal::Unauthenticated)? {
            Presented::Key(key) => {
                let record = record_of(key, self.snapshot).ok_or(Refusal::Unauthenticated)?;
                let credential = Credential::Key(record.sha256.clone());
                Ok((credential, record.principal.clone(), Some(record.tenancy.clone())))
            }
            Presented::Token(token) => {
                let issuers = &self.listener.config.identities.issuers;
                let token = self.issuers.verify(token, issuers, audiences).await?;
                let (principal, tenancy) = (token.principal.clone(), token.tenancy.clone());
                Ok((Credential::Token(Arc::new(token)), principal, tenancy))
            }
            Presented::Certificate(peer) => {
                let principal = peer.principal.clone().filter(|_| believes(self.listener, &peer));
                let principal = principal.ok_or(Refusal::Unauthenticated)?;
                Ok((
                    Credential::Certificate(peer, self.listener.clone()),
                    principal,
                    tenancy_of(self.listener),
                ))
            }
        }
    }

    /// Exactly one credential, of a kind that this listener takes.
    fn presented<'h>(&self, headers: &'h HeaderMap) -> Result<Presented<'h>, Unclear> {
        let taken = &self.listener.config.identities;
        let key = credential::key(headers)?;
        // Where tokens are not taken, those of others may pass for the tool server.
        let token = if taken.tokens() { credential::token(headers)? } else { None };
        // Those of our issuers are for us, in whatever way they come.
        let mut beside = credential::words(headers).filter(|word| Some(*word) != token);
        if beside.any(|word| self.issuers.has_issued(word)) {
            return Err(Unclear);
        }
        let named = |peer: &&Arc<Peer>| taken.certificates && peer.principal.is_some();
        match (key, token, self.peer.filter(named)) {
            (Some(key), None, None) if taken.keys => Ok(Presented::Key(key)),
            (None, Some(token), None) => Ok(Presented::Token(token)),
            (None, None, Some(peer)) => Ok(Presented::Certificate(peer.clone())),
            _ => Err(Unclear),
        }
    }
}

fn believes(listener: &Listener, peer: &Peer) -> bool {
    listener.tls.as_ref().is_some_and(|tls| tls.believes(peer))
}

fn tenancy_of(listener: &Listener) -> Option<Tenancy> {
    let clients = listener.config.tls.as_ref()?.clients.as_ref()?;
    clients.tenant.clone().map(Tenancy::One)
}

/// The caller by a key: where there is no listener, over stdio.
pub fn by_key(headers: &HeaderMap, snapshot: &Snapshot) -> Result<Caller, Refusal> {
    let key = credential::credential(headers).ok_or(Refusal::Unauthenticated)?;
    let record = record_of(key, snapshot).ok_or(Refusal::Unauthenticated)?;
    let wanted = wanted_tenant(headers)?;
    let tenant = selected(Some(&record.tenancy), wanted.as_ref(), (snapshot, false))?;
    let credential = Credential::Key(record.sha256.clone());
    let principal = record.principal.clone();
    Ok(Caller { credential, principal, tenant, owner: None, token_email: None })
}

/// Whose key a request has, whatever else is wrong with it.
#[must_use]
pub fn key_principal<'s>(headers: &HeaderMap, snapshot: &'s Snapshot) -> Option<&'s Name> {
    record_of(credential::credential(headers)?, snapshot).map(|record| &record.principal)
}

/// The tenant of a request that names `wanted`, if the credential reaches it and it exists.
fn selected(
    reach: Option<&Tenancy>,
    wanted: Option<&Name>,
    (snapshot, limited): (&Snapshot, bool),
) -> Result<Option<Name>, Refusal> {
    let foreign = "the credential does not reach the tenant that the request names";
    let tenant = match (reach, wanted) {
        (None, Some(_)) => return Err(Refusal::TenantNotAllowed(foreign)),
        (None, None) if limited => {
            return Err(Refusal::TenantNotAllowed("this proxy serves some tenants only, and the credential names none"));
        }
        (None, None) => None,
        (Some(tenancy), wanted) => tenancy.select(wanted).map_err(|e| {
            Refusal::TenantNotAllowed(match e {
                TenancyError::Foreign => foreign,
                TenancyError::Missing => "the credential reaches several tenants: name one with X-Tenant-Id, over stdio with OAKALLOW_TENANT_ID",
            })
        })?,
    };
    if tenant.is_some_and(|t| !snapshot.rules.has_tenant(t)) {
        return Err(Refusal::TenantNotAllowed("the tenant does not exist"));
    }
    Ok(tenant.cloned())
}

fn record_of<'s>(key: &str, snapshot: &'s Snapshot) -> Option<&'s KeyRecord> {
    valid_record(&hex(&sha256(key.as_bytes())), snapshot)
}

fn valid_record<'s>(key_sha256: &str, snapshot: &'s Snapshot) -> Option<&'s KeyRecord> {
    let record = snapshot.keys.get(key_sha256)?;
    // No key speaks for who has a token or a certificate.
    let ours = !is_external(&record.principal);
    (ours && record.expires_at.is_none_or(|end| end > clock::now_ms())).then_some(record)
}

fn wanted_tenant(headers: &HeaderMap) -> Result<Option<Name>, Refusal> {
    let mut named = headers.get_all(TENANT_HEADER).iter();
    let Some(first) = named.next() else { return Ok(None) };
    let bad = || Refusal::InvalidRequest("X-Tenant-Id stands once and is a tenant's id".to_owned());
    if named.next().is_some() {
        return Err(bad());
    }
    first.to_str().ok().and_then(|t| Name::new(t).ok()).map(Some).ok_or_else(bad)
}
