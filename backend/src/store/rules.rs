//! Rules.

use oakallow_policy::Rule;
use oakallow_policy::id::Name;
use oakallow_policy::rule::Permission;
use oakallow_policy::timestamp::UnixMs;
use sqlx::FromRow;

use super::{Conn, Noun, StoreError, signed, sql, unsigned};

/// A rule with its times.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) id: String,
    pub(crate) rule: Rule,
    pub(crate) created_at: UnixMs,
    pub(crate) updated_at: UnixMs,
}

#[derive(FromRow)]
pub(crate) struct Row {
    id: String,
    tenant: Option<String>,
    resource: Option<String>,
    tool: Option<String>,
    method: Option<String>,
    permission: String,
    guardrail: bool,
    created_at: i64,
    updated_at: i64,
}

impl TryFrom<Row> for Stored {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let permission = Permission::parse(&row.permission)
            .ok_or_else(|| StoreError::corrupt("rules", "permission", &row.id, &"unknown permission"))?;
        let rule = Rule {
            id: Some(super::name("rules", "id", &row.id)?),
            tenant: super::opt_name("rules", "tenant", row.tenant.as_deref())?,
            resource: super::opt_name("rules", "resource", row.resource.as_deref())?,
            tool: super::opt_name("rules", "tool", row.tool.as_deref())?,
            method: super::opt_name("rules", "method", row.method.as_deref())?,
            permission: permission.into(),
            guardrail: row.guardrail,
        };
        Ok(Self {
            id: row.id,
            rule,
            created_at: unsigned(row.created_at),
            updated_at: unsigned(row.updated_at),
        })
    }
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, tenant, resource, tool, method, permission, guardrail, created_at, updated_at
             FROM rules ",
            $rest
        )
    };
}

impl Noun for Stored {
    const WHAT: &'static str = "rule";
    const ONE: &'static str = select!("WHERE org = ? AND id = ?");
    type Row = Row;
}

/// Stores a new rule. A unique violation: [`same_selector`] names the other one.
pub(crate) async fn insert(db: &mut Conn, org: &Name, stored: &Stored) -> Result<(), StoreError> {
    let rule = &stored.rule;
    sql::query(
        "INSERT INTO rules (id, org, tenant, resource, tool, method, permission, guardrail, created_at,
                            updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&stored.id)
    .bind(org.as_str())
    .bind(rule.tenant.as_deref())
    .bind(rule.resource.as_deref())
    .bind(rule.tool.as_deref())
    .bind(rule.method.as_deref())
    .bind(rule.permission.otherwise().as_str())
    .bind(rule.guardrail)
    .bind(signed(stored.created_at))
    .bind(signed(stored.updated_at))
    .execute(db)
    .await?;
    Ok(())
}

/// Changes what a rule selects and says; its scope stays.
pub(crate) async fn update(db: &mut Conn, org: &Name, stored: &Stored) -> Result<(), StoreError> {
    let rule = &stored.rule;
    sql::query(
        "UPDATE rules SET resource = ?, tool = ?, method = ?, permission = ?, guardrail = ?, updated_at = ?
         WHERE org = ? AND id = ?",
    )
    .bind(rule.resource.as_deref())
    .bind(rule.tool.as_deref())
    .bind(rule.method.as_deref())
    .bind(rule.permission.otherwise().as_str())
    .bind(rule.guardrail)
    .bind(signed(stored.updated_at))
    .bind(org.as_str())
    .bind(&stored.id)
    .execute(db)
    .await?;
    Ok(())
}

/// The id of the rule with that scope and selector.
pub(crate) async fn same_selector(
    db: &mut Conn,
    org: &Name,
    rule: &Rule,
) -> Result<Option<String>, StoreError> {
    Ok(sql::query_scalar(
        "SELECT id FROM rules WHERE org = ? AND COALESCE(tenant, '') = ? AND COALESCE(resource, '') = ?
                AND COALESCE(tool, '') = ? AND COALESCE(method, '') = ?",
    )
    .bind(org.as_str())
    .bind(rule.tenant.as_deref().unwrap_or_default())
    .bind(rule.resource.as_deref().unwrap_or_default())
    .bind(rule.tool.as_deref().unwrap_or_default())
    .bind(rule.method.as_deref().unwrap_or_default())
    .fetch_optional(db)
    .await?)
}

pub(crate) async fn delete(db: &mut Conn, org: &Name, id: &str) -> Result<(), StoreError> {
    sql::query("DELETE FROM rules WHERE org = ? AND id = ?").bind(org.as_str()).bind(id).execute(db).await?;
    Ok(())
}

/// Deletes all rules of a scope (`None`: the org's own); returns how many there were.
pub(crate) async fn clear(db: &mut Conn, org: &Name, tenant: Option<&Name>) -> Result<u64, StoreError> {
    let done = sql::query("DELETE FROM rules WHERE org = ? AND COALESCE(tenant, '') = ?")
        .bind(org.as_str())
        .bind(tenant.map(Name::as_str).unwrap_or_default())
        .execute(db)
        .await?;
    Ok(done.rows_affected())
}

/// The rules of one scope (`None`: the org's own), ready to be compiled.
pub(crate) async fn of_scope(
    db: &mut Conn,
    org: &Name,
    tenant: Option<&Name>,
) -> Result<Vec<Rule>, StoreError> {
    let rows: Vec<Row> = sql::query_as(select!("WHERE org = ? AND COALESCE(tenant, '') = ? ORDER BY id"))
        .bind(org.as_str())
        .bind(tenant.map(Name::as_str).unwrap_or_default())
        .fetch_all(db)
        .await?;
    rows.into_iter().map(|row| Stored::try_from(row).map(|stored| stored.rule)).collect()
}

/// Which rules to list.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Scope<'a> {
    All,
    Org,
    Tenant(&'a Name),
}

pub(crate) async fn list(
    db: &mut Conn,
    org: &Name,
    scope: Scope<'_>,
    after: &str,
    limit: u32,
) -> Result<Vec<Stored>, StoreError> {
    let (all, tenant) = match scope {
        Scope::All => (true, ""),
        Scope::Org => (false, ""),
        Scope::Tenant(tenant) => (false, tenant.as_str()),
    };
    let rows: Vec<Row> = sql::query_as(select!(
        "WHERE org = ? AND (? OR COALESCE(tenant, '') = ?) AND id > ? ORDER BY id LIMIT ?"
    ))
    .bind(org.as_str())
    .bind(all)
    .bind(tenant)
    .bind(after)
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.into_iter().map(Stored::try_from).collect()
}
