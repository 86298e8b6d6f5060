//! Who this proxy is to the backend.

use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use oakallow_policy::canonical::{base64url, unbase64url};
use oakallow_policy::id::Name;
use oakallow_policy::wire::{Enroll, Enrolled, PublicKey, Secret};
use serde::{Deserialize, Serialize};

use crate::backend;
use crate::clock;
use crate::config::Config;

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
    /// It serves these tenants only, and nothing outside of them; `None`: the whole org.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenants: Option<Vec<Name>>,
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
        let Enrolled { proxy_id, proxy_key, org, tenants, bundle_key, .. } =
            backend::enroll(&config.backend_url, &request).await.map_err(IdentityError::Enroll)?;
        Ok(Self {
            proxy_id,
            proxy_key,
            org,
            tenants,
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
