//! The definitions that tool servers serve: pinned ones, and what is served now.

use oakallow_policy::id::Name;
use oakallow_policy::pin::Pin;
use oakallow_policy::timestamp::UnixMs;
use serde_json::Value;
use sqlx::FromRow;

use super::{Conn, StoreError, signed, sql, unsigned};

/// One definition.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Definition {
    /// `oakallow_policy::pin::digest`, hex.
    pub(crate) sha256: String,
    /// `None`: too large to be kept.
    pub(crate) content: Option<Value>,
}

/// What is known of a tool's definition.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) tool: Name,
    pub(crate) audience: Name,
    pub(crate) pinned: Definition,
    /// Who accepted it; `None` at first sight.
    pub(crate) pinned_by: Option<String>,
    pub(crate) pinned_at: UnixMs,
    pub(crate) served: Definition,
    /// The proxy that saw it.
    pub(crate) served_through: String,
    pub(crate) served_at: UnixMs,
}

impl Stored {
    pub(crate) fn is_changed(&self) -> bool {
        self.pinned.sha256 != self.served.sha256
    }
}

#[derive(FromRow)]
struct Row {
    tool: String,
    audience: String,
    pinned_sha256: String,
    pinned_definition: Option<String>,
    pinned_by: Option<String>,
    pinned_at: i64,
    served_sha256: String,
    served_definition: Option<String>,
    served_through: String,
    served_at: i64,
}

impl TryFrom<Row> for Stored {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        const TABLE: &str = "tool_definitions";
        let content =
            |column, text: Option<String>| text.map(|text| super::json(TABLE, column, &text)).transpose();
        Ok(Self {
            tool: super::name(TABLE, "tool", &row.tool)?,
            audience: super::name(TABLE, "audience", &row.audience)?,
            pinned: Definition {
                sha256: row.pinned_sha256,
                content: content("pinned_definition", row.pinned_definition)?,
            },
            pinned_by: row.pinned_by,
            pinned_at: unsigned(row.pinned_at),
            served: Definition {
                sha256: row.served_sha256,
                content: content("served_definition", row.served_definition)?,
            },
            served_through: row.served_through,
            served_at: unsigned(row.served_at),
        })
    }
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT tool, audience, pinned_sha256, pinned_definition, pinned_by, pinned_at, served_sha256,
                    served_definition, served_through, served_at FROM tool_definitions ",
            $rest
        )
    };
}

/// What is known of the definition of a tool at an audience.
pub(crate) async fn find(
    db: &mut Conn,
    org: &Name,
    tool: &Name,
    audience: &Name,
) -> Result<Option<Stored>, StoreError> {
    let row: Option<Row> = sql::query_as(select!("WHERE org = ? AND audience = ? AND tool = ?"))
        .bind(org.as_str())
        .bind(audience.as_str())
        .bind(tool.as_str())
        .fetch_optional(db)
        .await?;
    row.map(Stored::try_from).transpose()
}

/// Those of registered tools, or only those that are not as they were pinned, after `(audience, tool)`.
pub(crate) async fn list(
    db: &mut Conn,
    org: &Name,
    changed: bool,
    (audience, tool): (&str, &str),
    limit: u32,
) -> Result<Vec<Stored>, StoreError> {
    let rows: Vec<Row> = sql::query_as(select!(
        "AS d WHERE org = ? AND (pinned_sha256 <> served_sha256 OR NOT ?) AND (audience, tool) > (?, ?)
         AND EXISTS (SELECT 1 FROM tools t WHERE t.org = d.org AND t.name = d.tool
                     AND t.audience = d.audience AND t.status = 'active')
         ORDER BY audience, tool LIMIT ?"
    ))
    .bind(org.as_str())
    .bind(changed)
    .bind(audience)
    .bind(tool)
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.into_iter().map(Stored::try_from).collect()
}

/// The pins of the registered tools.
pub(crate) async fn pins(db: &mut Conn, org: &Name) -> Result<Vec<Pin>, StoreError> {
    let rows: Vec<(String, String, String, Option<String>)> = sql::query_as(
        "SELECT d.tool, d.audience, d.pinned_sha256, NULLIF(d.served_sha256, d.pinned_sha256)
         FROM tool_definitions d JOIN tools t
           ON t.org = d.org AND t.name = d.tool AND t.audience = d.audience AND t.status = 'active'
         WHERE d.org = ? ORDER BY d.tool",
    )
    .bind(org.as_str())
    .fetch_all(db)
    .await?;
    let pin = |(tool, audience, sha256, served_sha256): (String, String, String, Option<String>)| {
        let name = |column, text| super::name("tool_definitions", column, text);
        Ok(Pin { tool: name("tool", &tool)?, audience: name("audience", &audience)?, sha256, served_sha256 })
    };
    rows.into_iter().map(pin).collect()
}

/// How many tools of an audience are known that nobody registered.
pub(crate) async fn count(db: &mut Conn, org: &Name, audience: &Name) -> Result<i64, StoreError> {
    let count = sql::query_scalar(
        "SELECT COUNT(*) FROM tool_definitions d WHERE org = ? AND audience = ?
         AND NOT EXISTS (SELECT 1 FROM tools t WHERE t.org = d.org AND t.name = d.tool
                         AND t.audience = d.audience AND t.status = 'active')",
    )
    .bind(org.as_str())
    .bind(audience.as_str())
    .fetch_one(db)
    .await?;
    Ok(count)
}

/// Stores all that is known of a tool's definition.
pub(crate) async fn put(db: &mut Conn, org: &Name, stored: &Stored) -> Result<(), StoreError> {
    let text = |definition: &Definition| definition.content.as_ref().map(serde_json::to_string).transpose();
    sql::query(
        "INSERT INTO tool_definitions (org, audience, tool, pinned_sha256, pinned_definition, pinned_by,
                                       pinned_at, served_sha256, served_definition, served_through, served_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (org, audience, tool) DO UPDATE SET
             pinned_sha256 = excluded.pinned_sha256, pinned_definition = excluded.pinned_definition,
             pinned_by = excluded.pinned_by, pinned_at = excluded.pinned_at,
             served_sha256 = excluded.served_sha256, served_definition = excluded.served_definition,
             served_through = excluded.served_through, served_at = excluded.served_at",
    )
    .bind(org.as_str())
    .bind(stored.audience.as_str())
    .bind(stored.tool.as_str())
    .bind(&stored.pinned.sha256)
    .bind(text(&stored.pinned)?)
    .bind(&stored.pinned_by)
    .bind(signed(stored.pinned_at))
    .bind(&stored.served.sha256)
    .bind(text(&stored.served)?)
    .bind(&stored.served_through)
    .bind(signed(stored.served_at))
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets a tool's definition at every audience: the next sight is the first.
pub(crate) async fn forget(db: &mut Conn, org: &Name, tool: &Name) -> Result<(), StoreError> {
    sql::query("DELETE FROM tool_definitions WHERE org = ? AND tool = ?")
        .bind(org.as_str())
        .bind(tool.as_str())
        .execute(db)
        .await?;
    Ok(())
}
