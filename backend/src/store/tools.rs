//! Tools: registered ones, and drafts of those that were only seen.

use oakallow_policy::Tool;
use oakallow_policy::id::Name;
use oakallow_policy::rule::Permission;
use oakallow_policy::timestamp::UnixMs;
use oakallow_policy::tool::{ApprovalSettings, RiskLevel};
use sqlx::FromRow;

use super::{Conn, Noun, StoreError, signed, sql, unsigned};

/// Whether somebody registered it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// Registered: it is part of the policy.
    Active,
    /// Seen: it waits for somebody to register or ignore it.
    Draft,
}

impl Status {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draft => "draft",
        }
    }
}

/// A tool with what the database knows beside it.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) tool: Tool,
    pub(crate) status: Status,
    pub(crate) created_at: UnixMs,
    pub(crate) updated_at: UnixMs,
}

#[derive(FromRow)]
pub(crate) struct Row {
    name: String,
    audience: String,
    status: String,
    description: String,
    category: Option<String>,
    risk_level: String,
    parameter_schema: Option<String>,
    default_permission: Option<String>,
    approved: bool,
    enabled: bool,
    resource: String,
    approval_timeout_s: Option<i64>,
    approval_levels: Option<i64>,
    created_at: i64,
    updated_at: i64,
}

impl TryFrom<Row> for Stored {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let corrupt = |column, e: &dyn std::fmt::Display| StoreError::corrupt("tools", column, &row.name, e);
        let default_permission = match row.default_permission.as_deref() {
            None => None,
            Some(text) => Some(
                Permission::parse(text)
                    .ok_or_else(|| corrupt("default_permission", &"unknown permission"))?,
            ),
        };
        let timeout_s = row.approval_timeout_s.map(u32::try_from).transpose();
        let levels = row.approval_levels.map(u8::try_from).transpose();
        let tool = Tool {
            name: super::name("tools", "name", &row.name)?,
            audience: super::name("tools", "audience", &row.audience)?,
            description: row.description.clone(),
            category: super::opt_name("tools", "category", row.category.as_deref())?,
            risk_level: super::from_text(&row.risk_level).map_err(|e| corrupt("risk_level", &e))?,
            parameter_schema: row
                .parameter_schema
                .as_deref()
                .map(|text| super::json("tools", "parameter_schema", text))
                .transpose()?,
            default_permission,
            approved: row.approved,
            enabled: row.enabled,
            resource: super::from_text(&row.resource).map_err(|e| corrupt("resource", &e))?,
            approval: ApprovalSettings {
                timeout_s: timeout_s.map_err(|e| corrupt("approval_timeout_s", &e))?,
                levels: levels.map_err(|e| corrupt("approval_levels", &e))?,
            },
        };
        let status = super::from_text(&row.status).map_err(|e| corrupt("status", &e))?;
        Ok(Self { tool, status, created_at: unsigned(row.created_at), updated_at: unsigned(row.updated_at) })
    }
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT name, audience, status, description, category, risk_level, parameter_schema,
                    default_permission, approved, enabled, resource, approval_timeout_s, approval_levels,
                    created_at, updated_at FROM tools ",
            $rest
        )
    };
}

impl Noun for Stored {
    const WHAT: &'static str = "tool";
    // The registered one of that name, else its oldest draft.
    const ONE: &'static str = select!("WHERE org = ? AND name = ? ORDER BY status, created_at LIMIT 1");
    type Row = Row;
}

/// Stores a registered tool, in the place of the one of that name, or of its draft.
pub(crate) async fn put(db: &mut Conn, org: &Name, tool: &Tool, now: UnixMs) -> Result<(), StoreError> {
    // It may have moved to another audience.
    sql::query("DELETE FROM tools WHERE org = ? AND name = ? AND status = 'active' AND audience <> ?")
        .bind(org.as_str())
        .bind(tool.name.as_str())
        .bind(tool.audience.as_str())
        .execute(&mut *db)
        .await?;
    let schema = tool.parameter_schema.as_ref().map(serde_json::to_string).transpose()?;
    sql::query(
        "INSERT INTO tools (org, name, audience, status, description, category, risk_level,
                            parameter_schema, default_permission, approved, enabled, resource,
                            approval_timeout_s, approval_levels, created_at, updated_at)
         VALUES (?, ?, ?, 'active', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (org, name, audience) DO UPDATE SET
             status = excluded.status, description = excluded.description, category = excluded.category,
             risk_level = excluded.risk_level, parameter_schema = excluded.parameter_schema,
             default_permission = excluded.default_permission, approved = excluded.approved,
             enabled = excluded.enabled, resource = excluded.resource,
             approval_timeout_s = excluded.approval_timeout_s,
             approval_levels = excluded.approval_levels, updated_at = excluded.updated_at",
    )
    .bind(org.as_str())
    .bind(tool.name.as_str())
    .bind(tool.audience.as_str())
    .bind(&tool.description)
    .bind(tool.category.as_deref())
    .bind(tool.risk_level.as_str())
    .bind(schema)
    .bind(tool.default_permission.map(Permission::as_str))
    .bind(tool.approved)
    .bind(tool.enabled)
    .bind(super::to_text(&tool.resource)?)
    .bind(tool.approval.timeout_s.map(i64::from))
    .bind(tool.approval.levels.map(i64::from))
    .bind(signed(now))
    .bind(signed(now))
    .execute(db)
    .await?;
    Ok(())
}

/// Notes a tool that nobody registered; says whether it is news. Nothing is noted once the org has
/// `max` drafts since `since`.
pub(crate) async fn draft(db: &mut Conn, org: &Name, seen: &Seen<'_>) -> Result<bool, StoreError> {
    let done = sql::query(
        "INSERT INTO tools (org, name, audience, status, risk_level, created_at, updated_at)
         SELECT ?, ?, ?, 'draft', ?, ?, ?
         WHERE (SELECT COUNT(*) FROM tools WHERE org = ? AND status = 'draft' AND created_at > ?) < ?
         ON CONFLICT (org, name, audience) DO NOTHING",
    )
    .bind(org.as_str())
    .bind(seen.name.as_str())
    .bind(seen.audience.as_str())
    .bind(RiskLevel::Critical.as_str())
    .bind(signed(seen.now))
    .bind(signed(seen.now))
    .bind(org.as_str())
    .bind(signed(seen.since))
    .bind(seen.max)
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A tool that nobody registered, at its first sight.
pub(crate) struct Seen<'a> {
    pub(crate) name: &'a Name,
    pub(crate) audience: &'a Name,
    pub(crate) now: UnixMs,
    /// Drafts are counted from here.
    pub(crate) since: UnixMs,
    pub(crate) max: u32,
}

/// Deletes the registered tool of that name, else its drafts; says whether something was there.
pub(crate) async fn delete(db: &mut Conn, org: &Name, name: &Name) -> Result<Option<Status>, StoreError> {
    for status in [Status::Active, Status::Draft] {
        let done = sql::query("DELETE FROM tools WHERE org = ? AND name = ? AND status = ?")
            .bind(org.as_str())
            .bind(name.as_str())
            .bind(status.as_str())
            .execute(&mut *db)
            .await?;
        if done.rows_affected() > 0 {
            return Ok(Some(status));
        }
    }
    Ok(None)
}

/// The tools after (`after_name`, `after_audience`), drafts included unless a status is asked for.
pub(crate) async fn list(
    db: &mut Conn,
    org: &Name,
    status: Option<Status>,
    after: (&str, &str),
    limit: u32,
) -> Result<Vec<Stored>, StoreError> {
    let rows: Vec<Row> = sql::query_as(select!(
        "WHERE org = ? AND (? = '' OR status = ?) AND (name > ? OR (name = ? AND audience > ?))
         ORDER BY name, audience LIMIT ?"
    ))
    .bind(org.as_str())
    .bind(status.map_or("", Status::as_str))
    .bind(status.map_or("", Status::as_str))
    .bind(after.0)
    .bind(after.0)
    .bind(after.1)
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.into_iter().map(Stored::try_from).collect()
}

/// All registered tools of an org.
pub(crate) async fn all_active(db: &mut Conn, org: &Name) -> Result<Vec<Tool>, StoreError> {
    let rows: Vec<Row> = sql::query_as(select!("WHERE org = ? AND status = 'active' ORDER BY name"))
        .bind(org.as_str())
        .fetch_all(db)
        .await?;
    rows.into_iter().map(|row| Stored::try_from(row).map(|stored| stored.tool)).collect()
}

/// A tool in that category, if there is one.
pub(crate) async fn in_category(
    db: &mut Conn,
    org: &Name,
    category: &Name,
) -> Result<Option<String>, StoreError> {
    Ok(sql::query_scalar("SELECT name FROM tools WHERE org = ? AND category = ? ORDER BY name LIMIT 1")
        .bind(org.as_str())
        .bind(category.as_str())
        .fetch_optional(db)
        .await?)
}
