//! Agents: who calls, and which person answers for it.

use oakallow_policy::id::Name;
use oakallow_policy::timestamp::UnixMs;
use sqlx::FromRow;

use super::{Conn, Listed, Noun, StoreError, signed, sql, unsigned};

/// An agent.
#[derive(Debug, Clone)]
pub(crate) struct Agent {
    pub(crate) id: Name,
    pub(crate) name: String,
    /// E-mail of the person who answers for it, and who may not approve its calls.
    pub(crate) owner: String,
    pub(crate) created_at: UnixMs,
}

#[derive(FromRow)]
pub(crate) struct Row {
    id: String,
    name: String,
    owner: String,
    created_at: i64,
}

impl TryFrom<Row> for Agent {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: super::name("agents", "id", &row.id)?,
            name: row.name,
            owner: row.owner,
            created_at: unsigned(row.created_at),
        })
    }
}

impl Noun for Agent {
    const WHAT: &'static str = "agent";
    const ONE: &'static str =
        "SELECT id, name, owner, created_at FROM agents WHERE org = ? AND id = ? AND deleted_at IS NULL";
    type Row = Row;
}

impl Listed for Agent {
    const PAGE: &'static str = "SELECT id, name, owner, created_at FROM agents
         WHERE org = ? AND id > ? AND deleted_at IS NULL ORDER BY id LIMIT ?";

    fn key(&self) -> &str {
        &self.id
    }
}

pub(crate) async fn insert(db: &mut Conn, org: &Name, agent: &Agent) -> Result<(), StoreError> {
    sql::query("INSERT INTO agents (org, id, name, owner, created_at) VALUES (?, ?, ?, ?, ?)")
        .bind(org.as_str())
        .bind(agent.id.as_str())
        .bind(&agent.name)
        .bind(&agent.owner)
        .bind(signed(agent.created_at))
        .execute(db)
        .await?;
    Ok(())
}

/// Deletes an agent; says whether it was there.
pub(crate) async fn delete(db: &mut Conn, org: &Name, id: &Name, now: UnixMs) -> Result<bool, StoreError> {
    let done = sql::query("UPDATE agents SET deleted_at = ? WHERE org = ? AND id = ? AND deleted_at IS NULL")
        .bind(signed(now))
        .bind(org.as_str())
        .bind(id.as_str())
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Who answers for an agent, or did until it was deleted: a call may be on its way still.
pub(crate) async fn owner(db: &mut Conn, org: &Name, id: &Name) -> Result<Option<String>, StoreError> {
    Ok(sql::query_scalar("SELECT owner FROM agents WHERE org = ? AND id = ?")
        .bind(org.as_str())
        .bind(id.as_str())
        .fetch_optional(db)
        .await?)
}

/// The ids of an agent's keys that are not revoked.
pub(crate) async fn live_keys(db: &mut Conn, org: &Name, id: &Name) -> Result<Vec<String>, StoreError> {
    Ok(sql::query_scalar(
        "SELECT id FROM keys WHERE org = ? AND agent = ? AND revoked_at IS NULL ORDER BY id",
    )
    .bind(org.as_str())
    .bind(id.as_str())
    .fetch_all(db)
    .await?)
}
