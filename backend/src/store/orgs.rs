//! Orgs: their settings and the version of their policy.

use oakallow_policy::id::Name;
use oakallow_policy::pin::ChangedDefinition;
use oakallow_policy::ruleset::Unregistered;
use oakallow_policy::timestamp::UnixMs;
use serde::Serialize;

use super::{Conn, StoreError, signed, sql, unsigned};

/// What an org decides for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Settings {
    /// What an `allowed` becomes for a tool that nobody registered.
    pub(crate) unregistered: Unregistered,
    pub(crate) changed_definition: ChangedDefinition,
    /// Seconds until a pending approval expires, where the tool does not say.
    pub(crate) approval_timeout_s: u32,
    /// Whether approver keys may decide calls of high and critical tools.
    pub(crate) approver_keys_decide_high_risk: bool,
    /// Whether a token for a high or critical tool may be minted without the request that it is for.
    pub(crate) unbound_tokens_high_risk: bool,
}

/// The versions on which a decision rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Versions {
    /// Of the whole.
    pub(crate) policy: u64,
    /// The last change of anything but a tenant's rules.
    pub(crate) catalog: u64,
}

/// Creates an org if it does not exist; says whether it did not.
pub(crate) async fn insert(db: &mut Conn, org: &Name, now: UnixMs) -> Result<bool, StoreError> {
    let done = sql::query("INSERT INTO orgs (id, created_at) VALUES (?, ?) ON CONFLICT (id) DO NOTHING")
        .bind(org.as_str())
        .bind(signed(now))
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}

pub(crate) async fn versions(db: &mut Conn, org: &Name) -> Result<Versions, StoreError> {
    let (policy, catalog): (i64, i64) =
        sql::query_as("SELECT policy_version, catalog_version FROM orgs WHERE id = ?")
            .bind(org.as_str())
            .fetch_one(db)
            .await?;
    Ok(Versions { policy: unsigned(policy), catalog: unsigned(catalog) })
}

/// Makes a new policy version. `tenant`: only that tenant's rules changed.
pub(crate) async fn bump(db: &mut Conn, org: &Name, tenant: Option<&Name>) -> Result<u64, StoreError> {
    let version: i64 = sql::query_scalar(
        "UPDATE orgs SET policy_version = policy_version + 1 WHERE id = ? RETURNING policy_version",
    )
    .bind(org.as_str())
    .fetch_one(&mut *db)
    .await?;
    let stamp = match tenant {
        Some(tenant) => sql::query("UPDATE tenants SET rules_version = ? WHERE org = ? AND id = ?")
            .bind(version)
            .bind(org.as_str())
            .bind(tenant.as_str()),
        None => {
            sql::query("UPDATE orgs SET catalog_version = ? WHERE id = ?").bind(version).bind(org.as_str())
        }
    };
    stamp.execute(db).await?;
    Ok(unsigned(version))
}

pub(crate) async fn settings(db: &mut Conn, org: &Name) -> Result<Settings, StoreError> {
    let (unregistered, changed, timeout, high_risk, unbound): (String, String, i64, bool, bool) = sql::query_as(
        "SELECT unregistered, changed_definition, approval_timeout_s, approver_keys_decide_high_risk, unbound_tokens_high_risk
         FROM orgs WHERE id = ?",
    )
    .bind(org.as_str())
    .fetch_one(db)
    .await?;
    let corrupt = |column, e: &dyn std::fmt::Display| StoreError::corrupt("orgs", column, org, e);
    Ok(Settings {
        unregistered: super::from_text(&unregistered).map_err(|e| corrupt("unregistered", &e))?,
        changed_definition: super::from_text(&changed).map_err(|e| corrupt("changed_definition", &e))?,
        approval_timeout_s: u32::try_from(timeout).map_err(|e| corrupt("approval_timeout_s", &e))?,
        approver_keys_decide_high_risk: high_risk,
        unbound_tokens_high_risk: unbound,
    })
}

pub(crate) async fn set_settings(db: &mut Conn, org: &Name, settings: &Settings) -> Result<(), StoreError> {
    sql::query(
        "UPDATE orgs SET unregistered = ?, changed_definition = ?, approval_timeout_s = ?, approver_keys_decide_high_risk = ?,
                unbound_tokens_high_risk = ? WHERE id = ?",
    )
    .bind(super::to_text(&settings.unregistered)?)
    .bind(super::to_text(&settings.changed_definition)?)
    .bind(i64::from(settings.approval_timeout_s))
    .bind(settings.approver_keys_decide_high_risk)
    .bind(settings.unbound_tokens_high_risk)
    .bind(org.as_str())
    .execute(db)
    .await?;
    Ok(())
}
