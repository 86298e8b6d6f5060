//! Tokens of issuers: JSON Web Tokens (RFC 7519), signed (RFC 7515), read as RFC 8725 recommends. What is not
//! clearly good is not good.
//!
//! Out of scope: where the keys come from ([`super::issuer`]).

use oakallow_policy::canonical::unbase64url;
use oakallow_policy::id::Name;
use oakallow_policy::timestamp::UnixMs;
use oakallow_policy::wire::Tenancy;
use oakallow_policy::{principal, strict_json};
use serde_json::{Map, Value};

use crate::config::issuers::{EMAIL, email};
use crate::config::{Algorithm, Issuer, TokenOwner, TokenTenant};
use crate::identity::audience::Audiences;
use crate::identity::keys::Key;

/// No token needs more; reading it costs before it is known to be good.
const BYTES_MAX: usize = 16 * 1024;
/// Clocks differ by so much.
const LEEWAY_MS: UnixMs = 5_000;

/// Why a token is not good. The names are labels of a metric: there are these, whatever a token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Flaw {
    /// It is no token, or one of a kind or with a signature of a kind that is not taken.
    Form,
    /// The listener takes none of its issuer.
    Issuer,
    /// It is for somebody else, or for another route.
    Audience,
    /// The issuer does not sign in this way, as far as is configured.
    Algorithm,
    /// Its time has not come.
    Early,
    /// Its time is over, or it has none.
    Ended,
    /// Its issuer has no such key.
    Key,
    /// The key did not sign it.
    Signature,
    /// It does not say who calls.
    Principal,
    /// It does not say for which tenant.
    Tenant,
}

impl Flaw {
    /// The stable name.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Form => "form",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Algorithm => "algorithm",
            Self::Early => "early",
            Self::Ended => "ended",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Principal => "principal",
            Self::Tenant => "tenant",
        }
    }
}

/// What a good token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Who issued it, by our name for it.
    pub(super) issuer: Name,
    /// The key that signed it.
    pub(super) key: [u8; 32],
    pub(super) expires_at: UnixMs,
    /// Who calls.
    pub(super) principal: Name,
    /// The tenants that it reaches; `None`: the org alone.
    pub(super) tenancy: Option<Tenancy>,
    /// The person who answers for who calls, as far as the token says.
    pub(super) owner: Option<Name>,
    /// The e-mail in it, which its holder may have made up.
    pub(super) email: Option<Name>,
}

impl Verified {
    /// Whether it has not ended.
    pub(super) fn is_current(&self, now: UnixMs) -> bool {
        now < self.end()
    }

    /// From when on it has ended.
    pub(super) fn end(&self) -> UnixMs {
        self.expires_at.saturating_add(LEEWAY_MS)
    }
}

/// A token that was taken apart, and is not known to be good.
pub(super) struct Unverified<'t> {
    signed: &'t str,
    signature: Vec<u8>,
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<String>,
    claims: Map<String, Value>,
}

impl<'t> Unverified<'t> {
    /// Takes a token apart.
    pub(super) fn parse(token: &'t str) -> Option<Self> {
        if token.len() > BYTES_MAX {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header = object(header)?;
        let algorithm = Algorithm::named(header.get("alg")?.as_str()?)?;
        // Extensions that have to be understood; we know none (RFC 7515 section 4.1.11).
        if header.contains_key("crit") || !is_access_token(header.get("typ")) {
            return None;
        }
        let kid = match header.get("kid") {
            Some(kid) => Some(kid.as_str()?.to_owned()),
            None => None,
        };
        Some(Self { signed, signature: unbase64url(signature)?, algorithm, kid, claims: object(claims)? })
    }

    /// Who it says that it is from.
    pub(super) fn issuer(&self) -> Option<&str> {
        self.claims.get("iss")?.as_str()
    }

    /// Whether it would be good now, were it signed; without audiences for any of its issuer's.
    pub(super) fn is_for(
        &self,
        (issuer, audiences): (&Issuer, Option<Audiences<'_>>),
        now: UnixMs,
    ) -> Result<(), Flaw> {
        let moment = |claim: &str| self.claims.get(claim).map(milliseconds);
        let begins = match moment("nbf") {
            None => true,
            Some(begin) => begin.is_some_and(|begin| begin <= now.saturating_add(LEEWAY_MS)),
        };
        let ends = moment("exp").flatten().is_some_and(|end| now < end.saturating_add(LEEWAY_MS));
        let takes = |audience: &str| {
            issuer.audiences.iter().any(|ours| ours == audience)
                && audiences.is_none_or(|here| here.takes(audience))
        };
        let ours = match self.claims.get("aud") {
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).any(takes),
            Some(one) => one.as_str().is_some_and(takes),
            None => false,
        };
        let flaws = [
            (self.issuer() == Some(&issuer.issuer), Flaw::Issuer),
            (ours, Flaw::Audience),
            (issuer.algorithms.contains(&self.algorithm), Flaw::Algorithm),
            (begins, Flaw::Early),
            (ends, Flaw::Ended),
        ];
        flaws.into_iter().find(|(good, _)| !good).map_or(Ok(()), |(_, flaw)| Err(flaw))
    }

    /// What it says, if this key signed it.
    pub(super) fn verified(&self, issuer: &Issuer, key: &Key) -> Result<Verified, Flaw> {
        if !key.verifies(self.algorithm, self.signed.as_bytes(), &self.signature) {
            return Err(Flaw::Signature);
        }
        let subject = self.claims.get(&issuer.principal_claim).and_then(Value::as_str);
        let principal = subject.and_then(|subject| principal::of_token(&issuer.name, subject).ok());
        Ok(Verified {
            issuer: issuer.name.clone(),
            key: key.thumbprint,
            expires_at: self.claims.get("exp").and_then(milliseconds).ok_or(Flaw::Ended)?,
            principal: principal.ok_or(Flaw::Principal)?,
            tenancy: self.tenancy(&issuer.tenant).ok_or(Flaw::Tenant)?,
            owner: self.owner(&issuer.owner),
            email: self.email(EMAIL),
        })
    }

    /// Who answers for the caller: the person whose token it is, where the issuer vouches for that, whoever else is
    /// configured to answer for those of this issuer.
    fn owner(&self, owner: &TokenOwner) -> Option<Name> {
        // An address that its holder may have made up is nobody's (OpenID Connect Core section 5.1).
        let vouched = self.claims.get("email_verified") == Some(&Value::Bool(true));
        let own = if vouched { self.email(EMAIL) } else { None };
        own.or_else(|| match owner {
            TokenOwner::Fixed(email) => Some(email.clone()),
            TokenOwner::Claim(claim) if claim == EMAIL => None,
            TokenOwner::Claim(claim) => self.email(claim),
        })
    }

    fn email(&self, claim: &str) -> Option<Name> {
        self.claims.get(claim)?.as_str().and_then(|text| email(text).ok())
    }

    /// Where a claim has to name the tenant and does not, there is none that could be taken instead.
    fn tenancy(&self, tenant: &TokenTenant) -> Option<Option<Tenancy>> {
        let claim = match tenant {
            TokenTenant::Nothing => return Some(None),
            TokenTenant::Fixed(tenant) => return Some(Some(Tenancy::One(tenant.clone()))),
            TokenTenant::Claim(claim) => self.claims.get(claim)?,
        };
        let name = |value: &Value| Name::exact(value.as_str()?).ok();
        match claim {
            Value::Array(several) => {
                let several: Option<Vec<Name>> = several.iter().map(name).collect();
                several.map(|several| match <[Name; 1]>::try_from(several) {
                    Ok([one]) => Some(Tenancy::One(one)),
                    Err(several) => Some(Tenancy::Some(several)),
                })
            }
            one => name(one).map(|one| Some(Tenancy::One(one))),
        }
    }
}

/// Whom a text that looks like a token names as its issuer. Others may read it less strictly than we do, so
/// nothing else of it has to be right.
pub(super) fn claimed_issuer(text: &str) -> Option<String> {
    let claims = text.split('.').nth(1)?.trim_end_matches('=');
    let claims: Value = serde_json::from_slice(&unbase64url(claims)?).ok()?;
    claims.get("iss")?.as_str().map(str::to_owned)
}

fn object(part: &str) -> Option<Map<String, Value>> {
    match strict_json::parse(&unbase64url(part)?).ok()? {
        Value::Object(members) => Some(members),
        _ => None,
    }
}

/// Tokens of other kinds are for something else (RFC 8725 section 3.11).
fn is_access_token(typ: Option<&Value>) -> bool {
    let Some(typ) = typ else { return true };
    let typ = typ.as_str().map(str::to_ascii_lowercase);
    let typ = typ.as_deref().map(|typ| typ.strip_prefix("application/").unwrap_or(typ));
    matches!(typ, Some("jwt" | "at+jwt"))
}

/// A NumericDate: seconds, possibly with a fraction.
fn milliseconds(seconds: &Value) -> Option<UnixMs> {
    if let Some(whole) = seconds.as_u64() {
        return whole.checked_mul(1000);
    }
    let seconds = seconds.as_f64().filter(|s| s.is_finite() && (0.0..1e12).contains(s))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the range")]
    Some((seconds * 1000.0) as UnixMs)
}
