//! The policy in force: the last bundle that the backend signed, and how fresh it is.
//!
//! A bundle is accepted only when the pinned key signed it, it is of this org, and it is not older than
//! the last one. It is kept on disk and verified again when read back. Tenants' rules are loaded on
//! first use, one request however many calls wait for them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use oakallow_policy::canonical::{hex, sha256, unbase64url};
use oakallow_policy::id::Name;
use oakallow_policy::ruleset::TenantRules;
use oakallow_policy::token::TokenKey;
use oakallow_policy::wire::{Bundle, BundleScope, KeyRecord, PublicKey, Purpose, Signed, StillCurrent};
use oakallow_policy::{Call, Decision, ResolveError, RiskLevel, RuleSet, resolve::Explanation};

use crate::backend::{Backend, BackendError};
use crate::clock;
use crate::config::Staleness;
use crate::identity::write_private;

/// Tenants whose rules are kept in memory.
const TENANTS_MAX: u64 = 10_000;

/// What decides calls at one moment. Immutable; a change makes a new one.
pub struct Snapshot {
    /// The org's rules and tools.
    pub rules: RuleSet,
    /// Callers' credentials by SHA-256, hex.
    pub keys: HashMap<String, KeyRecord>,
    /// The key that signs tokens, by audience.
    pub token_keys: HashMap<Name, TokenKey>,
}

/// One tenant's rules, and the version of the bundle that brought them.
#[derive(Clone)]
struct Tenant {
    rules: TenantRules,
    version: u64,
}

/// A snapshot together with the rules of one call's tenant.
pub struct View {
    snapshot: Arc<Snapshot>,
    tenant: Option<TenantRules>,
}

impl View {
    /// The snapshot.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Decides a call.
    pub fn resolve(&self, call: &Call<'_>) -> Result<Decision<'_>, ResolveError> {
        match &self.tenant {
            Some(rules) => self.snapshot.rules.resolve_with(call, rules),
            None => self.snapshot.rules.resolve(call),
        }
    }

    /// Decides a call and says why.
    pub fn explain(&self, call: &Call<'_>) -> Result<Explanation<'_>, ResolveError> {
        match &self.tenant {
            Some(rules) => self.snapshot.rules.explain_with(call, rules),
            None => self.snapshot.rules.explain(call),
        }
    }
}

/// Why a bundle is not accepted, or none can be had.
#[derive(Debug, Clone, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum PolicyError {
    #[error(transparent)]
    Backend(#[from] BackendError),
    #[error("the bundle is refused: {0}")]
    Refused(String),
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
    tenants: moka::future::Cache<Name, Tenant>,
    /// The version below which a tenant's rules are known to be outdated.
    floors: Mutex<HashMap<Name, u64>>,
    /// The newest version that everything here is up to date with.
    known: AtomicU64,
    /// When the backend last said that this is current, milliseconds since 1970.
    confirmed_at: AtomicU64,
    staleness: Staleness,
}

impl Policy {
    /// A policy that decides nothing yet.
    #[must_use]
    pub fn new(
        org: Name,
        key: PublicKey,
        backend: Backend,
        directory: PathBuf,
        staleness: Staleness,
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
            tenants: moka::future::Cache::new(TENANTS_MAX),
            floors: Mutex::default(),
            known: AtomicU64::new(0),
            confirmed_at: AtomicU64::new(0),
            staleness,
        }
    }

    /// Takes up the bundle that a former process kept, if there is one and it verifies. Its age counts
    /// from when it was signed.
    pub fn load_from_disk(&self) -> Result<bool, PolicyError> {
        let path = self.directory.join("org.json");
        let Ok(bytes) = std::fs::read(path) else { return Ok(false) };
        let signed: Signed = serde_json::from_slice(&bytes).map_err(refused)?;
        let issued_at = self.install_org(&signed)?;
        self.confirmed_at.fetch_max(issued_at, Ordering::Relaxed);
        Ok(true)
    }

    /// Fetches the org's bundle and takes it up.
    pub async fn refresh(&self) -> Result<(), PolicyError> {
        let signed = self.backend.bundle(None).await?;
        let issued_at = self.install_org(&signed)?;
        let bytes = serde_json::to_vec(&signed).map_err(refused)?;
        std::fs::create_dir_all(&self.directory).map_err(disk)?;
        write_private(&self.directory.join("org.json"), &bytes).map_err(disk)?;
        self.confirmed_at.fetch_max(issued_at.min(clock::now_ms()), Ordering::Relaxed);
        Ok(())
    }

    fn install_org(&self, signed: &Signed) -> Result<u64, PolicyError> {
        let bundle: Bundle = signed.open(Purpose::Bundle, &self.key).map_err(refused)?;
        self.check(&bundle)?;
        let BundleScope::Org { policy, keys, audience_keys } = bundle.scope else {
            return Err(refused("a tenant's bundle where the org's was expected"));
        };
        let current = self.current.load().rules.version();
        if bundle.version < current {
            return Err(refused(format!("version {} is older than {current}", bundle.version)));
        }
        let rules = RuleSet::compile(&policy, bundle.version).map_err(refused)?;
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
        self.known.fetch_max(bundle.version, Ordering::Relaxed);
        Ok(bundle.issued_at)
    }

    fn check(&self, bundle: &Bundle) -> Result<(), PolicyError> {
        if bundle.org == self.org { Ok(()) } else { Err(refused("it belongs to another org")) }
    }

    /// The snapshot now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// What decides calls of this tenant now; loads the tenant's rules when they are not here.
    pub async fn view(&self, tenant: Option<&Name>) -> Result<View, PolicyError> {
        let Some(tenant) = tenant else { return Ok(View { snapshot: self.snapshot(), tenant: None }) };
        let mut found = self.tenant(tenant).await?;
        if found.version < self.floor(tenant) {
            // Loaded before a change that was announced since.
            self.tenants.invalidate(tenant).await;
            found = self.tenant(tenant).await?;
        }
        Ok(View { snapshot: self.snapshot(), tenant: Some(found.rules) })
    }

    async fn tenant(&self, tenant: &Name) -> Result<Tenant, PolicyError> {
        let load = self.load_tenant(tenant);
        self.tenants.try_get_with_by_ref(tenant, load).await.map_err(|e| PolicyError::clone(&e))
    }

    async fn load_tenant(&self, tenant: &Name) -> Result<Tenant, PolicyError> {
        let path = self.tenant_path(tenant);
        match self.backend.bundle(Some(tenant)).await {
            Ok(signed) => {
                let loaded = self.open_tenant(tenant, &signed)?;
                let bytes = serde_json::to_vec(&signed).map_err(refused)?;
                std::fs::create_dir_all(&self.directory).map_err(disk)?;
                write_private(&path, &bytes).map_err(disk)?;
                Ok(loaded)
            }
            // Away: the kept rules will do, unless they are known to be outdated.
            Err(away @ BackendError::Unreachable(_)) => {
                let Ok(bytes) = std::fs::read(path) else { return Err(away.into()) };
                let signed: Signed = serde_json::from_slice(&bytes).map_err(refused)?;
                self.open_tenant(tenant, &signed)
            }
            Err(no) => Err(no.into()),
        }
    }

    fn open_tenant(&self, tenant: &Name, signed: &Signed) -> Result<Tenant, PolicyError> {
        let bundle: Bundle = signed.open(Purpose::Bundle, &self.key).map_err(refused)?;
        self.check(&bundle)?;
        let BundleScope::Tenant { tenant: owner, rules } = bundle.scope else {
            return Err(refused("the org's bundle where a tenant's was expected"));
        };
        if owner != *tenant {
            return Err(refused("it belongs to another tenant"));
        }
        let floor = self.floor(tenant);
        if bundle.version < floor {
            return Err(refused(format!("version {} is older than {floor}", bundle.version)));
        }
        let rules = RuleSet::compile_tenant(tenant, &rules).map_err(refused)?;
        Ok(Tenant { rules, version: bundle.version })
    }

    /// The name is hashed: a tenant's id may hold any character.
    fn tenant_path(&self, tenant: &Name) -> PathBuf {
        self.directory.join(format!("tenant-{}.json", hex(&sha256(tenant.as_bytes()))))
    }

    fn floor(&self, tenant: &Name) -> u64 {
        self.floors.lock().unwrap_or_else(PoisonError::into_inner).get(tenant).copied().unwrap_or(0)
    }

    /// A tenant's rules changed: what is here, in memory and on disk, is outdated from now on.
    pub async fn tenant_changed(&self, tenant: &Name, version: u64) {
        {
            let mut floors = self.floors.lock().unwrap_or_else(PoisonError::into_inner);
            let floor = floors.entry(tenant.clone()).or_insert(0);
            *floor = (*floor).max(version);
        }
        self.tenants.invalidate(tenant).await;
        // Gone already is as good.
        let _ = std::fs::remove_file(self.tenant_path(tenant));
        self.known.fetch_max(version, Ordering::Relaxed);
    }

    /// "This version is still current." Returns whether that is what is here.
    pub fn confirm(&self, signed: &Signed) -> Result<bool, PolicyError> {
        let current: StillCurrent = signed.open(Purpose::StillCurrent, &self.key).map_err(refused)?;
        if current.org != self.org {
            return Err(refused("it belongs to another org"));
        }
        if current.version > self.known.load(Ordering::Relaxed) || self.snapshot().rules.is_closed() {
            return Ok(false);
        }
        // Not from when it arrived: a recorded confirmation must not make a policy fresh again.
        self.confirmed_at.fetch_max(current.at.min(clock::now_ms()), Ordering::Relaxed);
        Ok(true)
    }

    /// Something was missed: every tenant's rules are outdated.
    pub async fn refresh_all(&self) -> Result<(), PolicyError> {
        self.tenants.invalidate_all();
        self.refresh().await
    }

    /// Seconds since the backend last said that this policy is current.
    #[must_use]
    pub fn age_s(&self) -> u64 {
        clock::now_ms().saturating_sub(self.confirmed_at.load(Ordering::Relaxed)) / 1_000
    }

    /// The newest version that is known and in force.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.known.load(Ordering::Relaxed)
    }

    /// Whether the policy is fresh enough for a call of this risk.
    #[must_use]
    pub fn is_fresh_for(&self, risk: RiskLevel) -> bool {
        let s = &self.staleness;
        let limit = match risk {
            RiskLevel::Low => s.low_s,
            RiskLevel::Medium => s.medium_s,
            RiskLevel::High => s.high_s.min(s.revocations_s),
            RiskLevel::Critical => s.critical_s.min(s.revocations_s),
        };
        self.age_s() <= limit
    }
}

fn refused(e: impl std::fmt::Display) -> PolicyError {
    PolicyError::Refused(e.to_string())
}

fn disk(e: impl std::fmt::Display) -> PolicyError {
    PolicyError::Disk(e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;
    use oakallow_policy::wire::Secret;

    const KID: &str = "bundle-1";

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    fn policy(directory: &std::path::Path) -> Policy {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let backend =
            Backend::new("http://127.0.0.1:1".into(), "prx_1".into(), Secret::new("k".into())).unwrap();
        let public = PublicKey::of(KID, &key());
        Policy::new(Name::new("demo").unwrap(), public, backend, directory.to_owned(), Staleness::default())
    }

    fn bundle(org: &str, version: u64, issued_at: u64) -> Signed {
        let text = serde_json::json!({
            "org": org, "version": version, "issued_at": issued_at,
            "scope": {"kind": "org", "policy": {"org": org}, "keys": [], "audience_keys": []},
        });
        let bundle: Bundle = serde_json::from_value(text).unwrap();
        Signed::seal(Purpose::Bundle, &bundle, KID, &key()).unwrap()
    }

    #[test]
    fn older_altered_and_foreign_bundles_are_refused_and_the_last_good_one_stays() {
        let directory = tempfile::tempdir().unwrap();
        let policy = policy(directory.path());
        assert!(policy.snapshot().rules.is_closed());
        policy.install_org(&bundle("demo", 5, 1)).unwrap();
        let mut altered = bundle("demo", 6, 1);
        altered.payload = altered.payload.replace("\"version\":6", "\"version\":7");
        for bad in [bundle("demo", 4, 1), altered, bundle("other", 9, 1)] {
            assert!(policy.install_org(&bad).is_err());
        }
        assert_eq!(policy.snapshot().rules.version(), 5);
    }

    #[test]
    fn what_is_read_back_from_disk_is_verified_again() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("org.json");
        std::fs::write(&file, serde_json::to_vec(&bundle("demo", 5, 1)).unwrap()).unwrap();
        assert!(policy(directory.path()).load_from_disk().unwrap());
        let altered = std::fs::read_to_string(&file).unwrap().replace("issued_at", "issued_xt");
        std::fs::write(&file, altered).unwrap();
        let policy = policy(directory.path());
        assert!(policy.load_from_disk().is_err());
        assert!(policy.snapshot().rules.is_closed());
    }

    #[test]
    fn an_old_policy_decides_only_what_its_age_allows() {
        let directory = tempfile::tempdir().unwrap();
        let policy = policy(directory.path());
        policy.install_org(&bundle("demo", 5, 1)).unwrap();
        for (age_s, fresh) in [(10, 4), (100, 3), (1_000, 2), (20_000, 1), (100_000, 0)] {
            policy.confirmed_at.store(clock::now_ms() - age_s * 1_000, Ordering::Relaxed);
            let levels = [RiskLevel::Low, RiskLevel::Medium, RiskLevel::High, RiskLevel::Critical];
            assert_eq!(levels.into_iter().filter(|r| policy.is_fresh_for(*r)).count(), fresh, "{age_s} s");
        }
    }

    #[test]
    fn a_confirmation_of_a_newer_version_does_not_confirm_this_one() {
        let directory = tempfile::tempdir().unwrap();
        let policy = policy(directory.path());
        policy.install_org(&bundle("demo", 5, 1)).unwrap();
        let say = |version| {
            let current = StillCurrent { org: Name::new("demo").unwrap(), version, at: clock::now_ms() };
            Signed::seal(Purpose::StillCurrent, &current, KID, &key()).unwrap()
        };
        assert!(!policy.confirm(&say(6)).unwrap());
        assert!(policy.age_s() > 1_000);
        assert!(policy.confirm(&say(5)).unwrap());
        assert!(policy.age_s() < 5);
    }
}
