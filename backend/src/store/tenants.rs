//! Tenants.

use oakallow_policy::id::Name;
use oakallow_policy::timestamp::UnixMs;
use sqlx::FromRow;

use super::{Conn, Listed, Noun, StoreError, signed, sql, unsigned};

/// A tenant as stored.
#[derive(Debug, Clone)]
pub(crate) struct Tenant {
    pub(crate) id: Name,
    /// What people call it.
    pub(crate) name: String,
    pub(crate) created_at: UnixMs,
    pub(crate) updated_at: UnixMs,
}

#[derive(FromRow)]
pub(crate) struct Row {
    id: String,
    name: String,
    created_at: i64,
    updated_at: i64,
}

impl TryFrom<Row> for Tenant {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: super::name("tenants", "id", &row.id)?,
            name: row.name,
            created_at: unsigned(row.created_at),
            updated_at: unsigned(row.updated_at),
        })
    }
}

impl Noun for Tenant {
    const WHAT: &'static str = "tenant";
    const ONE: &'static str = "SELECT id, name, created_at, updated_at FROM tenants WHERE org = ? AND id = ?";
    type Row = Row;
}

impl Listed for Tenant {
    const PAGE: &'static str =
        "SELECT id, name, created_at, updated_at FROM tenants WHERE org = ? AND id > ? ORDER BY id LIMIT ?";

    fn key(&self) -> &str {
        &self.id
    }
}

/// Creates a tenant; its rules are as of `version`.
pub(crate) async fn insert(
    db: &mut Conn,
    org: &Name,
    tenant: &Tenant,
    version: u64,
) -> Result<(), StoreError> {
    sql::query(
        "INSERT INTO tenants (org, id, name, rules_version, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(org.as_str())
    .bind(tenant.id.as_str())
    .bind(&tenant.name)
    .bind(signed(version))
    .bind(signed(tenant.created_at))
    .bind(signed(tenant.updated_at))
    .execute(db)
    .await?;
    Ok(())
}

pub(crate) async fn rename(db: &mut Conn, org: &Name, tenant: &Tenant) -> Result<(), StoreError> {
    sql::query("UPDATE tenants SET name = ?, updated_at = ? WHERE org = ? AND id = ?")
        .bind(&tenant.name)
        .bind(signed(tenant.updated_at))
        .bind(org.as_str())
        .bind(tenant.id.as_str())
        .execute(db)
        .await?;
    Ok(())
}

/// Deletes a tenant with its rules; says whether it was there.
pub(crate) async fn delete(db: &mut Conn, org: &Name, id: &Name) -> Result<bool, StoreError> {
    let done = sql::query("DELETE FROM tenants WHERE org = ? AND id = ?")
        .bind(org.as_str())
        .bind(id.as_str())
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// All ids of an org's tenants.
pub(crate) async fn ids(db: &mut Conn, org: &Name) -> Result<Vec<Name>, StoreError> {
    let ids: Vec<String> = sql::query_scalar("SELECT id FROM tenants WHERE org = ? ORDER BY id")
        .bind(org.as_str())
        .fetch_all(db)
        .await?;
    ids.iter().map(|id| super::name("tenants", "id", id)).collect()
}

/// The version of the last change of a tenant's rules; `None` when there is no such tenant.
pub(crate) async fn rules_version(db: &mut Conn, org: &Name, id: &Name) -> Result<Option<u64>, StoreError> {
    let version: Option<i64> =
        sql::query_scalar("SELECT rules_version FROM tenants WHERE org = ? AND id = ?")
            .bind(org.as_str())
            .bind(id.as_str())
            .fetch_optional(db)
            .await?;
    Ok(version.map(unsigned))
}
