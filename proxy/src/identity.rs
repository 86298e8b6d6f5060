//! Who this proxy is to the backend, and who its callers are.

use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use http::HeaderMap;
use oakallow_policy::canonical::{base64url, hex, sha256, unbase64url};
use oakallow_policy::id::Name;
use oakallow_policy::wire::{Enroll, Enrolled, KeyRecord, PublicKey, Secret, TenancyError};
use serde::{Deserialize, Serialize};

use crate::backend;
use crate::clock;
use crate::config::Config;
use crate::policy::Snapshot;
use crate::refusal::Refusal;

/// What a proxy keeps of its enrolment.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// `prx_…`
    pub proxy_id: String,
    /// `oak_prox_…`
    pub proxy_key: Secret,
    /// The org.
    pub org: Name,
    /// Bundles are accepted from this key only.
    pub bundle_key: PublicKey,
    /// Seed of the key that signs heads, base64url.
    signing_seed: Secret,
    /// Key under which redacted values stay comparable, base64url.
    redaction_key: Secret,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum IdentityError {
    #[error(
        "this proxy has not enrolled yet: give it a join token (`backend.join_token_file` or `join_token_env`)"
    )]
    NoJoinToken,
    #[error("cannot enrol: {0}")]
    Enroll(backend::BackendError),
    #[error("cannot keep the identity in {path}: {problem}")]
    File { path: String, problem: String },
}

impl Identity {
    /// Whether a former process has enrolled.
    #[must_use]
    pub fn is_kept(config: &Config) -> bool {
        Self::path(config).exists()
    }

    fn path(config: &Config) -> PathBuf {
        config.state_dir.join("identity.json")
    }

    /// The identity kept in the state directory, or a new one by enrolment.
    pub async fn load_or_enroll(config: &Config) -> Result<Self, IdentityError> {
        let path = Self::path(config);
        let fail = |problem: String| IdentityError::File { path: path.display().to_string(), problem };
        match std::fs::read(&path) {
            Ok(bytes) => return serde_json::from_slice(&bytes).map_err(|e| fail(e.to_string())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(fail(e.to_string())),
        }
        let identity = Self::enroll(config).await?;
        let bytes = serde_json::to_vec(&identity).map_err(|e| fail(e.to_string()))?;
        write_private(&path, &bytes).map_err(|e| fail(e.to_string()))?;
        Ok(identity)
    }

    async fn enroll(config: &Config) -> Result<Self, IdentityError> {
        let join_token = config.join_token.clone().ok_or(IdentityError::NoJoinToken)?;
        let seed: [u8; 32] = clock::random();
        let signing = SigningKey::from_bytes(&seed);
        let request = Enroll {
            join_token,
            name: config.name.clone(),
            public_key: base64url(signing.verifying_key().as_bytes()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let Enrolled { proxy_id, proxy_key, org, bundle_key, .. } =
            backend::enroll(&config.backend_url, &request).await.map_err(IdentityError::Enroll)?;
        Ok(Self {
            proxy_id,
            proxy_key,
            org,
            bundle_key,
            signing_seed: Secret::new(base64url(&seed)),
            redaction_key: Secret::new(base64url(&clock::random::<32>())),
        })
    }

    /// The key that signs heads; `None` when the file was damaged.
    #[must_use]
    pub fn signing_key(&self) -> Option<SigningKey> {
        let seed: [u8; 32] = unbase64url(self.signing_seed.expose())?.try_into().ok()?;
        Some(SigningKey::from_bytes(&seed))
    }

    /// The key of [`crate::redact`].
    #[must_use]
    pub fn redaction_key(&self) -> Vec<u8> {
        unbase64url(self.redaction_key.expose()).unwrap_or_default()
    }

    /// The name of this proxy's chain of audit events.
    #[must_use]
    pub fn source(&self) -> String {
        format!("proxy/{}", self.proxy_id)
    }
}

/// Writes a file that only this user can read, whole or not at all.
pub fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let temporary = path.with_extension("new");
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

/// A caller whose credential was found good.
#[derive(Debug, Clone)]
pub struct Caller {
    /// SHA-256 of the key, hex.
    pub key_sha256: String,
    /// `key_…`
    pub key_id: String,
    /// Who calls.
    pub principal: Name,
    /// The tenant of this request.
    pub tenant: Option<Name>,
}

impl Caller {
    /// Whether the credential is as good as it was, by a policy that came since.
    pub fn check_again(&self, snapshot: &Snapshot) -> Result<(), Refusal> {
        let record = valid_record(&self.key_sha256, snapshot).ok_or(Refusal::Unauthenticated)?;
        if record.principal != self.principal {
            return Err(Refusal::Unauthenticated);
        }
        match selected(record, self.tenant.as_ref(), snapshot)? == self.tenant.as_ref() {
            true => Ok(()),
            false => Err(Refusal::TenantNotAllowed("the credential reaches another tenant by now")),
        }
    }
}

/// The tenant that a request selects.
pub const TENANT_HEADER: &str = "x-tenant-id";

/// Finds the caller of a request by its credential, and the tenant that it selects.
pub fn authenticate(headers: &HeaderMap, snapshot: &Snapshot) -> Result<Caller, Refusal> {
    let record = key_record(headers, snapshot).ok_or(Refusal::Unauthenticated)?;
    let wanted = wanted_tenant(headers)?;
    let tenant = selected(record, wanted.as_ref(), snapshot)?.cloned();
    let (key_id, principal) = (record.key_id.clone(), record.principal.clone());
    Ok(Caller { key_sha256: record.sha256.clone(), key_id, principal, tenant })
}

/// The tenant of a request that names `wanted`, if the credential reaches it and it exists.
fn selected<'a>(
    record: &'a KeyRecord,
    wanted: Option<&'a Name>,
    snapshot: &Snapshot,
) -> Result<Option<&'a Name>, Refusal> {
    let tenant = record.tenancy.select(wanted).map_err(|e| {
        Refusal::TenantNotAllowed(match e {
            TenancyError::Foreign => "the credential does not reach the tenant that the request names",
            TenancyError::Missing => "the credential reaches several tenants: name one with X-Tenant-Id, over stdio with OAKALLOW_TENANT_ID",
        })
    })?;
    if tenant.is_some_and(|t| !snapshot.rules.has_tenant(t)) {
        return Err(Refusal::TenantNotAllowed("the tenant does not exist"));
    }
    Ok(tenant)
}

/// Who sends a request, by its credential alone: for the record, whatever else is wrong with it.
#[must_use]
pub fn principal<'s>(headers: &HeaderMap, snapshot: &'s Snapshot) -> Option<&'s Name> {
    key_record(headers, snapshot).map(|record| &record.principal)
}

fn key_record<'s>(headers: &HeaderMap, snapshot: &'s Snapshot) -> Option<&'s KeyRecord> {
    valid_record(&hex(&sha256(credential(headers)?.as_bytes())), snapshot)
}

fn valid_record<'s>(key_sha256: &str, snapshot: &'s Snapshot) -> Option<&'s KeyRecord> {
    let record = snapshot.keys.get(key_sha256)?;
    record.expires_at.is_none_or(|end| end > clock::now_ms()).then_some(record)
}

/// Where a credential belongs.
pub const KEY_HEADER: &str = "x-api-key";

/// Exactly one credential: two that differ would leave open whose call it is.
#[must_use]
pub fn credential(headers: &HeaderMap) -> Option<&str> {
    let mut found = headers.get_all(KEY_HEADER).iter().map(|v| v.to_str().ok());
    let key = found.next();
    let bearer = headers
        .get_all("authorization")
        .iter()
        .filter_map(|v| v.to_str().ok())
        .filter_map(|v| v.get(..7).filter(|s| s.eq_ignore_ascii_case("bearer ")).and(v.get(7..)))
        .find(|token| token.starts_with("oak_"));
    match (key, found.next(), bearer) {
        (Some(key), None, None) => key,
        (Some(key), None, Some(bearer)) => key.filter(|k| *k == bearer),
        (None, _, bearer) => bearer,
        _ => None,
    }
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
