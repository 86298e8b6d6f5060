//! Tenants' rules: loaded on first use, one request however many calls wait for them; kept in memory and
//! on disk until a change is announced.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use oakallow_policy::RuleSet;
use oakallow_policy::canonical::{hex, sha256};
use oakallow_policy::id::Name;
use oakallow_policy::ruleset::TenantRules;
use oakallow_policy::wire::{Bundle, BundleScope, Purpose, Signed};

use crate::backend::BackendError;
use crate::identity::write_private;
use crate::policy::{BadBundle, Policy, PolicyError, View, disk, refused, unreadable, unsigned};

/// Tenants whose rules are kept in memory.
const TENANTS_MAX: u64 = 10_000;

/// One tenant's rules, and the version of the bundle that brought them.
#[derive(Clone)]
pub(super) struct Tenant {
    rules: TenantRules,
    version: u64,
}

/// The tenants that calls have named.
pub(super) struct Tenants {
    loaded: moka::future::Cache<Name, Tenant>,
    /// The version below which a tenant's rules are known to be outdated: the newest that was taken up,
    /// or announced.
    floors: Mutex<HashMap<Name, u64>>,
}

impl Tenants {
    pub(super) fn new() -> Self {
        Self { loaded: moka::future::Cache::new(TENANTS_MAX), floors: Mutex::default() }
    }

    pub(super) fn forget_all(&self) {
        self.loaded.invalidate_all();
    }

    fn floor(&self, tenant: &Name) -> u64 {
        self.floors.lock().unwrap_or_else(PoisonError::into_inner).get(tenant).copied().unwrap_or(0)
    }

    fn raise_floor(&self, tenant: &Name, version: u64) {
        let mut floors = self.floors.lock().unwrap_or_else(PoisonError::into_inner);
        let floor = floors.entry(tenant.clone()).or_insert(0);
        *floor = (*floor).max(version);
    }
}

impl Policy {
    /// What decides calls of this tenant now; loads the tenant's rules when they are not here.
    pub async fn view(&self, tenant: Option<&Name>) -> Result<View, PolicyError> {
        // Before the rules are looked at: never a version newer than they are.
        let version = self.version();
        let Some(tenant) = tenant else {
            return Ok(self.seen_now(None, version));
        };
        let mut found = self.tenant(tenant).await?;
        if found.version < self.tenants.floor(tenant) {
            // Loaded before a change that was announced since.
            self.tenants.loaded.invalidate(tenant).await;
            found = self.tenant(tenant).await?;
        }
        Ok(self.seen_now(Some(found.rules), version))
    }

    async fn tenant(&self, tenant: &Name) -> Result<Tenant, PolicyError> {
        let load = self.load_tenant(tenant);
        self.tenants.loaded.try_get_with_by_ref(tenant, load).await.map_err(|e| PolicyError::clone(&e))
    }

    async fn load_tenant(&self, tenant: &Name) -> Result<Tenant, PolicyError> {
        let path = self.tenant_path(tenant);
        match self.backend.bundle(Some(tenant)).await {
            Ok(signed) => {
                let loaded = self.open_tenant(tenant, &signed)?;
                let bytes = serde_json::to_vec(&signed).map_err(disk)?;
                std::fs::create_dir_all(&self.directory).map_err(disk)?;
                write_private(&path, &bytes).map_err(disk)?;
                Ok(loaded)
            }
            // Away: the kept rules will do, unless they are known to be outdated.
            Err(away @ BackendError::Unreachable(_)) => {
                let Ok(bytes) = std::fs::read(path) else { return Err(away.into()) };
                let signed: Signed = serde_json::from_slice(&bytes).map_err(unreadable)?;
                self.open_tenant(tenant, &signed)
            }
            Err(no) => Err(no.into()),
        }
    }

    pub(super) fn open_tenant(&self, tenant: &Name, signed: &Signed) -> Result<Tenant, PolicyError> {
        self.counted(self.check_and_open(tenant, signed))
    }

    fn check_and_open(&self, tenant: &Name, signed: &Signed) -> Result<Tenant, PolicyError> {
        let bundle: Bundle = signed.open(Purpose::Bundle, &self.key).map_err(unsigned)?;
        self.check(&bundle)?;
        let BundleScope::Tenant { tenant: owner, rules } = bundle.scope else {
            return Err(refused(BadBundle::Scope, "the org's bundle where a tenant's was expected"));
        };
        if owner != *tenant {
            return Err(refused(BadBundle::Scope, "it belongs to another tenant"));
        }
        let floor = self.tenants.floor(tenant);
        if bundle.version < floor {
            return Err(refused(
                BadBundle::Version,
                format!("version {} is older than {floor}", bundle.version),
            ));
        }
        let rules = RuleSet::compile_tenant(tenant, &rules).map_err(unreadable)?;
        self.tenants.raise_floor(tenant, bundle.version);
        Ok(Tenant { rules, version: bundle.version })
    }

    /// The name is hashed: a tenant's id may hold any character.
    fn tenant_path(&self, tenant: &Name) -> PathBuf {
        self.directory.join(format!("tenant-{}.json", hex(&sha256(tenant.as_bytes()))))
    }

    /// A tenant's rules changed: what is here, in memory and on disk, is outdated from now on.
    pub async fn tenant_changed(&self, tenant: &Name, version: u64) {
        self.tenants.raise_floor(tenant, version);
        self.tenants.loaded.invalidate(tenant).await;
        // Gone already is as good.
        let _ = std::fs::remove_file(self.tenant_path(tenant));
        self.note_version(version);
        self.changes.send_replace(());
    }
}
