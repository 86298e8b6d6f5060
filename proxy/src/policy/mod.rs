//! The policy in force: the last bundle that the backend signed, and how fresh it is.
//!
//! A bundle is accepted only when the pinned key signed it, it is of this org, and it is not older than
//! the last one. It is kept on disk and verified again when read back.
//!
//! Here: the org's bundle. [`tenants`]: the tenants' rules. [`freshness`]: the age of it all.

mod definitions;
mod freshness;
mod tenants;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use oakallow_policy::canonical::unbase64url;
use oakallow_policy::id::Name;
use oakallow_policy::pin::DefinitionDigest;
use oakallow_policy::ruleset::TenantRules;
use oakallow_policy::token::TokenKey;
use oakallow_policy::wire::{
    Bundle, BundleScope, KeyRecord, PublicKey, Purpose, Signed, SignedError, StillCurrent,
};
use oakallow_policy::{Call, Decision, ResolveError, RiskLevel, RuleSet, resolve::Explanation};
use prometheus::IntCounterVec;
use tokio::sync::watch;

use crate::backend::{Backend, BackendError};
use crate::config::Staleness;
use crate::identity::write_private;
pub use definitions::Definitions;
use freshness::Freshness;
use tenants::Tenants;

/// What decides calls at one moment. Immutable; a change makes a new one.
pub struct Snapshot {
    /// The org's rules and tools.
    pub rules: RuleSet,
    /// Callers' credentials by SHA-256, hex.
    pub keys: HashMap<String, KeyRecord>,
    /// The key that signs tokens, by audience.
    pub token_keys: HashMap<Name, TokenKey>,
}

/// A snapshot together with the rules of one call's tenant.
pub struct View {
    snapshot: Arc<Snapshot>,
    tenant: Option<TenantRules>,
    /// The newest version that both are up to date with: a tenant's change leaves the org's bundle as it is.
    version: u64,
    definitions: Arc<Definitions>,
}

impl View {
    /// The snapshot.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Decides a call.
    pub fn resolve(&self, call: &Call<'_>) -> Result<Decision<'_>, ResolveError> {
        let decision = match &self.tenant {
            Some(rules) => self.snapshot.rules.resolve_with(call, rules),
            None => self.snapshot.rules.resolve(call),
        };
        decision.map(|decision| self.as_seen(call, decision).at_version(self.version))
    }

    /// Decides a call and says why.
    pub fn explain(&self, call: &Call<'_>) -> Result<Explanation<'_>, ResolveError> {
        let explanation = match &self.tenant {
            Some(rules) => self.snapshot.rules.explain_with(call, rules),
            None => self.snapshot.rules.explain(call),
        };
        explanation.map(|e| {
            let decision = self.as_seen(call, e.decision).at_version(self.version);
            Explanation { decision, ..e }
        })
    }

    /// What the call's tool is described as now, where that is not what is pinned.
    #[must_use]
    pub fn served(&self, call: &Call<'_>) -> Option<DefinitionDigest> {
        let rules = &self.snapshot.rules;
        let seen = self.definitions.other(rules, call);
        seen.or_else(|| rules.pin(call.tool, call.audience).and_then(|(_, served)| served.copied()))
    }

    /// What this proxy saw of the tool counts before the backend has heard of it.
    fn as_seen<'r>(&self, call: &Call<'_>, decision: Decision<'r>) -> Decision<'r> {
        let rules = &self.snapshot.rules;
        if self.definitions.other(rules, call).is_some() { rules.distrusted(decision) } else { decision }
    }
}

/// What is wrong with a bundle, or with the confirmation of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadBundle {
    /// It is not signed with the pinned key.
    Signature,
    /// It is for another org or tenant.
    Scope,
    /// It is older than what is here.
    Version,
    /// It cannot be read, or not be compiled.
    Content,
}

impl BadBundle {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Signature, Self::Scope, Self::Version, Self::Content];

    /// In metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Signature => "signature",
            Self::Scope => "scope",
            Self::Version => "version",
            Self::Content => "content",
        }
    }
}

/// Why a bundle is not accepted, or none can be had.
#[derive(Debug, Clone, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum PolicyError {
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error("the bundle is refused: {1}")]
    Refused(BadBundle, String),
    #[error("the bundle cannot be kept: {0}")]
    Disk(String),
}

/// The policy in force.
pub struct Policy {
    org: Name,
    key: PublicKey,
    backend: Backend,
    directory: PathBuf,
    current: ArcSwap<Snapshot>,
    tenants: Tenants,
    /// The newest version that everything here is up to date with.
    known: AtomicU64,
    freshness: Freshness,
    bundles_refused: IntCounterVec,
    /// What tool servers say their tools are.
    pub definitions: Arc<Definitions>,
    changes: watch::Sender<()>,
}

impl Policy {
    /// A policy that decides nothing yet.
    #[must_use]
    pub fn new(
        org: Name,
        key: PublicKey,
        backend: Backend,
        directory: PathBuf,
        (staleness, bundles_refused): (Staleness, IntCounterVec),
    ) -> Self {
        let closed = Snapshot {
            rules: RuleSet::closed(org.clone()),
            keys: HashMap::new(),
            token_keys: HashMap::new(),
        };
        Self {
            org,
            key,
            backend,
            directory,
            current: ArcSwap::from_pointee(closed),
            tenants: Tenants::new(),
            known: AtomicU64::new(0),
            freshness: Freshness::new(staleness),
            bundles_refused,
            definitions: Arc::default(),
            changes: watch::Sender::new(()),
        }
    }

    /// To be told when something in it changes: the calls that wait look whether they still may.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Takes up the bundle that a former process kept, if there is one and it verifies. Its age counts
    /// from when it was signed.
    pub fn load_from_disk(&self) -> Result<bool, PolicyError> {
        let path = self.directory.join("org.json");
        let Ok(bytes) = std::fs::read(path) else { return Ok(false) };
        let signed: Signed = serde_json::from_slice(&bytes).map_err(unreadable)?;
        let issued_at = self.install_org(&signed)?;
        self.freshness.confirmed(issued_at);
        Ok(true)
    }

    /// Fetches the org's bundle and takes it up.
    pub async fn refresh(&self) -> Result<(), PolicyError> {
        let signed = self.backend.bundle(None).await?;
        let issued_at = self.install_org(&signed)?;
        let bytes = serde_json::to_vec(&signed).map_err(disk)?;
        std::fs::create_dir_all(&self.directory).map_err(disk)?;
        write_private(&self.directory.join("org.json"), &bytes).map_err(disk)?;
        self.freshness.confirmed_now(issued_at);
        Ok(())
    }

    fn install_org(&self, signed: &Signed) -> Result<u64, PolicyError> {
        self.counted(self.check_and_install(signed))
    }

    /// Counts what is refused.
    fn counted<T>(&self, result: Result<T, PolicyError>) -> Result<T, PolicyError> {
        if let Err(PolicyError::Refused(bad, _)) = &result {
            self.bundles_refused.with_label_values(&[bad.as_str()]).inc();
        }
        result
    }

    fn check_and_install(&self, signed: &Signed) -> Result<u64, PolicyError> {
        let bundle: Bundle = signed.open(Purpose::Bundle, &self.key).map_err(unsigned)?;
        self.check(&bundle)?;
        let BundleScope::Org { policy, keys, audience_keys } = bundle.scope else {
            return Err(refused(BadBundle::Scope, "a tenant's bundle where the org's was expected"));
        };
        let current = self.current.load().rules.version();
        if bundle.version < current {
            return Err(refused(
                BadBundle::Version,
                format!("version {} is older than {current}", bundle.version),
            ));
        }
        let rules = RuleSet::compile(&policy, bundle.version).map_err(unreadable)?;
        let token_keys = audience_keys
            .into_iter()
            .filter(|k| k.current)
            .filter_map(|k| {
                let bytes: [u8; 32] = unbase64url(k.key.expose())?.try_into().ok()?;
                Some((k.audience, TokenKey::from_bytes(k.kid, bytes)))
            })
            .collect();
        let keys = keys.into_iter().map(|k| (k.sha256.clone(), k)).collect();
        self.current.store(Arc::new(Snapshot { rules, keys, token_keys }));
        self.note_version(bundle.version);
        self.changes.send_replace(());
        Ok(bundle.issued_at)
    }

    fn check(&self, bundle: &Bundle) -> Result<(), PolicyError> {
        if bundle.org == self.org {
            Ok(())
        } else {
            Err(refused(BadBundle::Scope, "it belongs to another org"))
        }
    }

    /// The snapshot now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    fn seen_now(&self, tenant: Option<TenantRules>, version: u64) -> View {
        View { snapshot: self.snapshot(), tenant, version, definitions: self.definitions.clone() }
    }

    /// "This version is still current." Returns whether that is what is here.
    pub fn confirm(&self, signed: &Signed) -> Result<bool, PolicyError> {
        let current = self.counted(self.confirmation(signed))?;
        if current.version > self.known.load(Ordering::Relaxed) || self.snapshot().rules.is_closed() {
            return Ok(false);
        }
        self.freshness.confirmed_now(current.at);
        Ok(true)
    }

    fn confirmation(&self, signed: &Signed) -> Result<StillCurrent, PolicyError> {
        let current: StillCurrent = signed.open(Purpose::StillCurrent, &self.key).map_err(unsigned)?;
        if current.org == self.org {
            Ok(current)
        } else {
            Err(refused(BadBundle::Scope, "it belongs to another org"))
        }
    }

    /// Something was missed: every tenant's rules are outdated.
    pub async fn refresh_all(&self) -> Result<(), PolicyError> {
        self.tenants.forget_all();
        self.refresh().await
    }

    /// By how many seconds our clock was ahead of the backend's (fewer than none: behind) when that last confirmed
    /// the policy.
    #[must_use]
    pub fn clock_ahead_s(&self) -> i64 {
        self.freshness.ahead_s()
    }

    /// Seconds since the backend last said that this policy is current.
    #[must_use]
    pub fn age_s(&self) -> u64 {
        self.freshness.age_s()
    }

    /// The newest version that is known and in force.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.known.load(Ordering::Relaxed)
    }

    fn note_version(&self, version: u64) {
        self.known.fetch_max(version, Ordering::Relaxed);
    }

    /// Changes how old a policy may be.
    pub fn set_staleness(&self, staleness: Staleness) {
        self.freshness.set_limits(staleness);
    }

    /// Whether the policy is fresh enough for a call of this risk.
    #[must_use]
    pub fn is_fresh_for(&self, risk: RiskLevel) -> bool {
        self.freshness.suffices(risk)
    }
}

fn refused(bad: BadBundle, e: impl std::fmt::Display) -> PolicyError {
    PolicyError::Refused(bad, e.to_string())
}

fn unreadable(e: impl std::fmt::Display) -> PolicyError {
    refused(BadBundle::Content, e)
}

fn unsigned(e: SignedError) -> PolicyError {
    match e {
        SignedError::Payload(_) => unreadable(e),
        SignedError::UnknownKey(_) | SignedError::Signature => refused(BadBundle::Signature, e),
    }
}

fn disk(e: impl std::fmt::Display) -> PolicyError {
    PolicyError::Disk(e.to_string())
}
