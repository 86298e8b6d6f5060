//! Decisions with the same engine as the proxy's: compiled rule sets, cached, never stale.
//!
//! The org's part and each tenant's rules are compiled apart and kept under the version of their last
//! change, which every decision reads from the database first. A change of one tenant's rules compiles
//! those alone; of many requests that need the same part one compiles it.

use std::sync::Arc;

use moka::future::Cache;
use oakallow_policy::call::CallNames;
use oakallow_policy::id::Name;
use oakallow_policy::resolve::{Decision, ResolveError, Step};
use oakallow_policy::ruleset::{CompileError, OrgPolicy, TenantRules};
use oakallow_policy::{RuleSet, Tool};

use crate::error::ApiError;
use crate::state::App;
use crate::store::orgs::Versions;
use crate::store::{self, Conn, StoreError};

/// Why there is no rule set.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecideError {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is stored does not compile: nothing is decided by it.
    #[error("the stored policy of org `{0}` does not compile: {1}")]
    Compile(Name, CompileError),
    #[error("the policy changed while it was read, again and again")]
    Moving,
    #[error("{0}")]
    Shared(Arc<DecideError>),
}

impl From<DecideError> for ApiError {
    fn from(error: DecideError) -> Self {
        match error {
            DecideError::Store(e) => e.into(),
            DecideError::Moving => Self::unavailable("The policy is being changed."),
            other => Self::internal(&other),
        }
    }
}

/// The caches of compiled parts. Sized by count: an org's part is its catalogue, a tenant's its rules.
pub(crate) struct Rulesets {
    orgs: Cache<(Name, u64), Arc<RuleSet>>,
    tenants: Cache<(Name, Name, u64), TenantRules>,
}

/// The policy under which one call is decided, all of one moment.
pub(crate) struct Policy {
    version: u64,
    set: Arc<RuleSet>,
    tenant: Option<TenantRules>,
}

impl Rulesets {
    pub(crate) fn new() -> Self {
        Self { orgs: Cache::new(1_000), tenants: Cache::new(10_000) }
    }

    /// The policy as of now, for a call of that tenant.
    pub(crate) async fn policy(
        &self,
        app: &App,
        org: &Name,
        tenant: Option<&Name>,
    ) -> Result<Policy, DecideError> {
        // A change between the look at the versions and the load makes the load start over.
        for _ in 0..8 {
            match self.attempt(app, org, tenant).await {
                Err(DecideError::Moving) => {}
                Err(DecideError::Shared(e)) if matches!(*e, DecideError::Moving) => {}
                other => return other,
            }
        }
        Err(DecideError::Moving)
    }

    async fn attempt(&self, app: &App, org: &Name, tenant: Option<&Name>) -> Result<Policy, DecideError> {
        let mut db = app.db.snapshot(org).await?;
        let versions = store::orgs::versions(&mut db, org).await?;
        let rules_version = match tenant {
            Some(tenant) => store::tenants::rules_version(&mut db, org, tenant).await?,
            None => None,
        };
        // Given back before compiling: whoever compiles takes a snapshot of their own.
        drop(db);
        let set = self
            .orgs
            .try_get_with((org.clone(), versions.catalog), load_org(app, org, versions))
            .await
            .map_err(DecideError::Shared)?;
        let tenant = match (tenant, rules_version) {
            (Some(tenant), Some(version)) => {
                let key = (org.clone(), tenant.clone(), version);
                let load = load_tenant(app, org, tenant, version);
                Some(self.tenants.try_get_with(key, load).await.map_err(DecideError::Shared)?)
            }
            _ => None,
        };
        Ok(Policy { version: versions.policy, set, tenant })
    }
}

async fn load_org(app: &App, org: &Name, wanted: Versions) -> Result<Arc<RuleSet>, DecideError> {
    let mut db = app.db.snapshot(org).await?;
    let versions = store::orgs::versions(&mut db, org).await?;
    if versions.catalog != wanted.catalog {
        return Err(DecideError::Moving);
    }
    let policy = org_policy(&mut db, org).await?;
    let set = RuleSet::compile(&policy, versions.policy).map_err(|e| DecideError::Compile(org.clone(), e))?;
    Ok(Arc::new(set))
}

async fn load_tenant(app: &App, org: &Name, tenant: &Name, wanted: u64) -> Result<TenantRules, DecideError> {
    let mut db = app.db.snapshot(org).await?;
    if store::tenants::rules_version(&mut db, org, tenant).await? != Some(wanted) {
        return Err(DecideError::Moving);
    }
    let rules = store::rules::of_scope(&mut db, org, Some(tenant)).await?;
    RuleSet::compile_tenant(tenant, &rules).map_err(|e| DecideError::Compile(org.clone(), e))
}

/// An org's policy as stored, without the tenants' rules.
pub(crate) async fn org_policy(db: &mut Conn, org: &Name) -> Result<OrgPolicy, StoreError> {
    Ok(OrgPolicy {
        org: org.clone(),
        unregistered: store::orgs::settings(db, org).await?.unregistered,
        changed_definition: store::orgs::settings(db, org).await?.changed_definition,
        categories: store::categories::all(db, org).await?,
        tools: store::tools::all_active(db, org).await?,
        pins: store::definitions::pins(db, org).await?,
        kill_switches: store::kill_switches::all(db, org).await?,
        rules: store::rules::of_scope(db, org, None).await?,
        tenants: store::tenants::ids(db, org).await?,
    })
}

impl Policy {
    /// The version that decisions carry.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The registered tool of that name, wherever it lives.
    pub(crate) fn tool(&self, name: &str) -> Option<&Tool> {
        self.set.tool_anywhere(name)
    }

    /// Decides a call.
    pub(crate) fn decide(&self, call: &CallNames) -> Result<Decision<'_>, ResolveError> {
        let call = call.as_call();
        let decision = match &self.tenant {
            Some(rules) => self.set.resolve_with(&call, rules)?,
            None => self.set.resolve(&call)?,
        };
        Ok(decision.at_version(self.version))
    }

    /// Decides a call, with every step that led there.
    pub(crate) fn explain(&self, call: &CallNames) -> Result<(Decision<'_>, Vec<Step<'_>>), ResolveError> {
        let call = call.as_call();
        let explanation = match &self.tenant {
            Some(rules) => self.set.explain_with(&call, rules)?,
            None => self.set.explain(&call)?,
        };
        Ok((explanation.decision.at_version(self.version), explanation.trace))
    }
}

/// A call that cannot be decided is refused; this says whose fault it is.
pub(crate) fn undecided(error: &ResolveError) -> ApiError {
    match error {
        ResolveError::UnknownTenant => {
            ApiError::forbidden("tenant_not_allowed", "The tenant does not exist in this org.")
        }
        ResolveError::ResourceRequired => {
            ApiError::invalid_value("/resource_id", "This tool requires a resource: name it in resource_id.")
        }
        ResolveError::Closed | ResolveError::WrongOrg | ResolveError::TenantNotLoaded => {
            ApiError::internal(error)
        }
    }
}
