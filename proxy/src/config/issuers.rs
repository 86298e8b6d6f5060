//! Issuers of tokens (OpenID Connect, OAuth 2.0) as they are written.

use std::fmt;
use std::path::PathBuf;

use http::Uri;
use oakallow_policy::id::Name;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Config;
use super::url::{has_fair_port, shown};

/// Whose tokens say who calls, and how they are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// What it is called here, and in principals.
    pub name: Name,
    /// `iss` of its tokens, byte for byte.
    pub issuer: String,
    /// A token for this proxy has one of these among its `aud`.
    pub audiences: Vec<String>,
    /// Where its keys are.
    pub keys: KeySource,
    /// The authorities (PEM) whose certificates its servers may have, instead of the system's.
    pub ca: Option<PathBuf>,
    /// The claim that says who calls.
    pub principal_claim: String,
    /// The tenant of its callers.
    pub tenant: TokenTenant,
    /// Who answers for its callers.
    pub owner: TokenOwner,
    /// What a token may be signed with.
    pub algorithms: Vec<Algorithm>,
    /// How often the keys are read again.
    pub keys_refresh_s: u64,
    /// How old they may be when they cannot be read.
    pub keys_age_max_s: u64,
}

/// Where keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A JWK set (RFC 7517) at this address.
    Url(String),
    /// In this file.
    File(PathBuf),
    /// Where the issuer's own description (OpenID Connect Discovery) says.
    Discovery(String),
}

impl KeySource {
    /// Whether they come over TLS.
    fn is_secured(&self) -> bool {
        match self {
            Self::Url(url) | Self::Discovery(url) => url.starts_with("https:"),
            Self::File(_) => false,
        }
    }
}

/// The tenant of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenTenant {
    /// None: its callers call for the org alone.
    Nothing,
    /// Always this one.
    Fixed(Name),
    /// What this claim says: one, or a list of which a request names one.
    Claim(String),
}

/// Who answers for the callers of an issuer, and does not approve their calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenOwner {
    /// The person with this e-mail.
    Fixed(Name),
    /// The person whose e-mail is in this claim.
    Claim(String),
}

/// The claim of OpenID Connect in which an e-mail stands.
pub(crate) const EMAIL: &str = "email";

/// RFC 5321 leaves no room for a longer one.
const EMAIL_BYTES_MAX: usize = 254;

/// An e-mail, of a form that the backend takes.
pub(crate) fn email(text: &str) -> Result<Name, String> {
    let name = Name::exact(text).map_err(|e| e.to_string())?;
    let whole = text.split_once('@').is_some_and(|(who, domain)| !who.is_empty() && !domain.is_empty());
    match whole && text.len() <= EMAIL_BYTES_MAX && !text.contains(char::is_whitespace) {
        true => Ok(name),
        false => Err(format!("`{text}` is not an e-mail address")),
    }
}

/// Signatures (RFC 7518 section 3.1, RFC 8037). What signs with a secret that the verifier has is not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the standard")]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl Algorithm {
    /// By its name in a token.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::RS256,
            "RS384" => Self::RS384,
            "RS512" => Self::RS512,
            "PS256" => Self::PS256,
            "PS384" => Self::PS384,
            "PS512" => Self::PS512,
            "ES256" => Self::ES256,
            "ES384" => Self::ES384,
            "EdDSA" => Self::EdDSA,
            _ => return None,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenIssuer {
    name: Name,
    issuer: String,
    audience: Texts,
    #[serde(default)]
    jwks_url: Option<String>,
    #[serde(default)]
    jwks_file: Option<PathBuf>,
    #[serde(default)]
    discovery: bool,
    #[serde(default)]
    ca: Option<PathBuf>,
    #[serde(default)]
    principal_claim: Option<String>,
    #[serde(default)]
    tenant: Option<Name>,
    #[serde(default)]
    tenant_claim: Option<String>,
    #[serde(default)]
    owner: Option<String>,
    #[serde(default)]
    owner_claim: Option<String>,
    #[serde(default)]
    algorithms: Option<Vec<Algorithm>>,
    #[serde(default)]
    keys_refresh_s: Option<u64>,
    #[serde(default)]
    keys_age_max_s: Option<u64>,
}

/// One text, or a list of them.
pub(super) struct Texts(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(TextsVisitor)
    }
}

/// Reads either form where it stands, so that errors know the place.
struct TextsVisitor;

impl<'de> Visitor<'de> for TextsVisitor {
    type Value = Texts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, or a list of texts")
    }

    fn visit_str<E>(self, text: &str) -> Result<Texts, E> {
        Ok(Texts(vec![text.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Texts, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list)).map(Texts)
    }
}

/// Issuers as used.
pub(super) fn issuers(written: Vec<WrittenIssuer>) -> Result<Vec<Issuer>, String> {
    let mut issuers: Vec<Issuer> = Vec::new();
    for w in written {
        let next = issuer(w)?;
        if issuers.iter().any(|known| known.name == next.name || known.issuer == next.issuer) {
            return Err(format!("`{}`: an issuer stands once, under one name", next.name));
        }
        issuers.push(next);
    }
    Ok(issuers)
}

fn issuer(w: WrittenIssuer) -> Result<Issuer, String> {
    let name = w.name.as_str();
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if name.len() > 63 || !name.bytes().all(plain) || matches!(name, "keys" | "certificates") {
        return Err(format!(
            "`{name}`: an issuer's name has lower-case letters, digits and dashes, and is not `keys` or `certificates`"
        ));
    }
    let Texts(audiences) = w.audience;
    let named = [("issuer", &w.issuer)].into_iter().chain(audiences.iter().map(|one| ("audience", one)));
    let empty = named.into_iter().find(|(_, value)| value.trim().is_empty()).map(|(key, _)| key);
    if let Some(key) = empty.or(audiences.is_empty().then_some("audience")) {
        return Err(format!("the issuer `{name}` has an empty `{key}`"));
    }
    let claims = [
        ("principal_claim", &w.principal_claim),
        ("tenant_claim", &w.tenant_claim),
        ("owner_claim", &w.owner_claim),
    ];
    if let Some((key, _)) =
        claims.into_iter().find(|(_, claim)| claim.as_ref().is_some_and(|c| c.trim().is_empty()))
    {
        return Err(format!("`{key}` is empty: no token has a claim of no name"));
    }
    let tenant = match (w.tenant, w.tenant_claim) {
        (None, None) => TokenTenant::Nothing,
        (Some(tenant), None) => TokenTenant::Fixed(tenant),
        (None, Some(claim)) => TokenTenant::Claim(claim),
        (Some(_), Some(claim)) => {
            return Err(format!("`tenant_claim: {claim}`: `tenant` and `tenant_claim` exclude each other"));
        }
    };
    let owner = match (w.owner, w.owner_claim) {
        (None, claim) => TokenOwner::Claim(claim.unwrap_or_else(|| EMAIL.to_owned())),
        (Some(person), None) => TokenOwner::Fixed(email(&person)?),
        (Some(_), Some(claim)) => {
            return Err(format!("`{claim}`: `owner` and `owner_claim` exclude each other"));
        }
    };
    let algorithms =
        w.algorithms.unwrap_or_else(|| vec![Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA]);
    if algorithms.is_empty() {
        return Err(format!("the issuer `{name}` has empty `algorithms`: no token could be good"));
    }
    let refresh = w.keys_refresh_s.unwrap_or(300);
    if refresh == 0 {
        return Err("`keys_refresh_s` is at least 1".to_owned());
    }
    let age = w.keys_age_max_s.unwrap_or(3600);
    if age < refresh {
        return Err(format!("`{name}`: `keys_age_max_s` is shorter than `keys_refresh_s`"));
    }
    let source = source(name, &w.issuer, (w.jwks_url, w.jwks_file, w.discovery))?;
    if let Some(ca) = w.ca.as_ref().filter(|_| !source.is_secured()) {
        return Err(format!("`{}`: a `ca` is for keys that come by https", ca.display()));
    }
    Ok(Issuer {
        keys: source,
        ca: w.ca,
        name: w.name,
        issuer: w.issuer,
        audiences,
        principal_claim: w.principal_claim.unwrap_or_else(|| "sub".to_owned()),
        tenant,
        owner,
        algorithms,
        keys_refresh_s: refresh,
        keys_age_max_s: age,
    })
}

fn source(
    name: &str,
    issuer: &str,
    written: (Option<String>, Option<PathBuf>, bool),
) -> Result<KeySource, String> {
    match written {
        (Some(url), None, false) => is_safe(&url).map(|()| KeySource::Url(url)),
        (None, Some(file), false) => Ok(KeySource::File(file)),
        (None, None, true) => {
            is_safe(issuer)?;
            let base = issuer.trim_end_matches('/');
            Ok(KeySource::Discovery(format!("{base}/.well-known/openid-configuration")))
        }
        _ => Err(format!("the issuer `{name}` has one of `jwks_url`, `jwks_file` and `discovery: true`")),
    }
}

/// Keys that came in the clear could be anybody's. On this machine nobody is in between.
pub(crate) fn is_safe(url: &str) -> Result<(), String> {
    let shown = shown("jwks_url", url);
    let uri: Uri = url.parse().map_err(|_| format!("`{shown}` is not a URL"))?;
    if !has_fair_port(&uri) {
        return Err(format!("`{shown}`: a port is 1 to 65535"));
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(format!("`{shown}`: keys are public: their URL has no user or password in it"));
    }
    let host = uri.host().unwrap_or_default();
    let local = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    match uri.scheme_str() {
        Some("https") if !host.is_empty() => Ok(()),
        Some("http") if local => Ok(()),
        _ => Err(format!("`{shown}`: keys come by https:// (http:// from this machine only)")),
    }
}

impl Config {
    /// An issuer by its name.
    #[must_use]
    pub fn issuer(&self, name: &Name) -> Option<&Issuer> {
        self.issuers.iter().find(|issuer| issuer.name == *name)
    }
}
