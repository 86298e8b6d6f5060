//! Keys: hashes, never the keys.

use oakallow_policy::id::Name;
use oakallow_policy::timestamp::UnixMs;
use oakallow_policy::wire::Tenancy;
use sqlx::FromRow;

use super::{Conn, Listed, Noun, StoreError, signed, sql, unsigned};
use crate::keys::KeyKind;

/// A key as stored.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) org: Name,
    pub(crate) kind: KeyKind,
    pub(crate) hash: String,
    pub(crate) prefix: String,
    pub(crate) name: String,
    pub(crate) tenancy: Tenancy,
    /// The agent that calls under it.
    pub(crate) agent: Option<Name>,
    /// The person whose approver key it is.
    pub(crate) user_id: Option<String>,
    /// E-mail of the person who answers for it: its own, else its agent's.
    pub(crate) owner: Option<String>,
    /// Of a tool server's key.
    pub(crate) audience: Option<Name>,
    pub(crate) proxy_id: Option<String>,
    pub(crate) created_by: String,
    pub(crate) created_at: UnixMs,
    pub(crate) expires_at: Option<UnixMs>,
    pub(crate) revoked_at: Option<UnixMs>,
    pub(crate) last_used_at: Option<UnixMs>,
}

impl Key {
    /// The principal that calls under this key: its agent, else the key itself.
    pub(crate) fn principal(&self) -> &str {
        self.agent.as_deref().unwrap_or(&self.id)
    }

    /// Neither revoked nor expired.
    pub(crate) fn is_in_force(&self, now: UnixMs) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|at| at > now)
    }
}

#[derive(FromRow)]
pub(crate) struct Row {
    id: String,
    org: String,
    kind: String,
    hash: String,
    prefix: String,
    name: String,
    tenancy: String,
    agent: Option<String>,
    user_id: Option<String>,
    owner: Option<String>,
    audience: Option<String>,
    proxy_id: Option<String>,
    created_by: String,
    created_at: i64,
    expires_at: Option<i64>,
    revoked_at: Option<i64>,
    last_used_at: Option<i64>,
}

impl TryFrom<Row> for Key {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let kind = KeyKind::parse(&row.kind)
            .ok_or_else(|| StoreError::corrupt("keys", "kind", &row.id, &"unknown kind"))?;
        Ok(Self {
            org: super::name("keys", "org", &row.org)?,
            kind,
            hash: row.hash,
            prefix: row.prefix,
            name: row.name,
            tenancy: super::json("keys", "tenancy", &row.tenancy)?,
            agent: super::opt_name("keys", "agent", row.agent.as_deref())?,
            user_id: row.user_id,
            owner: row.owner,
            audience: super::opt_name("keys", "audience", row.audience.as_deref())?,
            proxy_id: row.proxy_id,
            created_by: row.created_by,
            created_at: unsigned(row.created_at),
            expires_at: row.expires_at.map(unsigned),
            revoked_at: row.revoked_at.map(unsigned),
            last_used_at: row.last_used_at.map(unsigned),
            id: row.id,
        })
    }
}

/// Every read joins the agent, whose owner answers for the key.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT k.id, k.org, k.kind, k.hash, k.prefix, k.name, k.tenancy, k.agent, k.user_id,
                    COALESCE(k.owner, a.owner) AS owner, k.audience, k.proxy_id, k.created_by, k.created_at,
                    k.expires_at, k.revoked_at, k.last_used_at
             FROM keys k LEFT JOIN agents a ON a.org = k.org AND a.id = k.agent ",
            $rest
        )
    };
}

impl Noun for Key {
    const WHAT: &'static str = "key";
    const ONE: &'static str = select!("WHERE k.org = ? AND k.id = ?");
    type Row = Row;
}

impl Listed for Key {
    const PAGE: &'static str = select!("WHERE k.org = ? AND k.id > ? ORDER BY k.id LIMIT ?");

    fn key(&self) -> &str {
        &self.id
    }
}

pub(crate) async fn insert(db: &mut Conn, key: &Key) -> Result<(), StoreError> {
    sql::query(
        "INSERT INTO keys (id, org, kind, hash, prefix, name, tenancy, agent, user_id, owner, audience,
                           proxy_id, created_by, created_at, expires_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&key.id)
    .bind(key.org.as_str())
    .bind(key.kind.as_str())
    .bind(&key.hash)
    .bind(&key.prefix)
    .bind(&key.name)
    .bind(serde_json::to_string(&key.tenancy)?)
    .bind(key.agent.as_deref())
    .bind(&key.user_id)
    .bind(&key.owner)
    .bind(key.audience.as_deref())
    .bind(&key.proxy_id)
    .bind(&key.created_by)
    .bind(signed(key.created_at))
    .bind(key.expires_at.map(signed))
    .execute(db)
    .await?;
    Ok(())
}

/// The key with that hash, whatever its state. One of the queries without an org, since it is what finds
/// the org.
pub(crate) async fn by_hash(db: &mut Conn, hash: &str) -> Result<Option<Key>, StoreError> {
    let row: Option<Row> = sql::query_as(select!("WHERE k.hash = ?")).bind(hash).fetch_optional(db).await?;
    row.map(Key::try_from).transpose()
}

/// The keys under which calls may arrive at a proxy: standard and agent keys that are in force.
pub(crate) async fn callers(db: &mut Conn, org: &Name, now: UnixMs) -> Result<Vec<Key>, StoreError> {
    let rows: Vec<Row> = sql::query_as(select!(
        "WHERE k.org = ? AND k.kind IN ('standard', 'agent') AND k.revoked_at IS NULL
           AND (k.expires_at IS NULL OR k.expires_at > ?) ORDER BY k.id"
    ))
    .bind(org.as_str())
    .bind(signed(now))
    .fetch_all(db)
    .await?;
    rows.into_iter().map(Key::try_from).collect()
}

/// Whether a principal has a key in force under which it may call.
pub(crate) async fn may_call(
    db: &mut Conn,
    org: &Name,
    principal: &str,
    now: UnixMs,
) -> Result<bool, StoreError> {
    let may = sql::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM keys WHERE org = ?1 AND (agent = ?2 OR (agent IS NULL AND id = ?2))
           AND kind IN ('standard', 'agent') AND revoked_at IS NULL
           AND (expires_at IS NULL OR expires_at > ?3))",
    )
    .bind(org.as_str())
    .bind(principal)
    .bind(signed(now))
    .fetch_one(db)
    .await?;
    Ok(may)
}

/// Revokes a key; says whether it was in force.
pub(crate) async fn revoke(db: &mut Conn, org: &Name, id: &str, now: UnixMs) -> Result<bool, StoreError> {
    let done = sql::query("UPDATE keys SET revoked_at = ? WHERE org = ? AND id = ? AND revoked_at IS NULL")
        .bind(signed(now))
        .bind(org.as_str())
        .bind(id)
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Lets a key end at `at`, unless it ends sooner.
pub(crate) async fn expire_at(db: &mut Conn, org: &Name, id: &str, at: UnixMs) -> Result<(), StoreError> {
    sql::query(
        "UPDATE keys SET expires_at = ? WHERE org = ? AND id = ? AND (expires_at IS NULL OR expires_at > ?)",
    )
    .bind(signed(at))
    .bind(org.as_str())
    .bind(id)
    .bind(signed(at))
    .execute(db)
    .await?;
    Ok(())
}

/// Notes when a key was used last.
pub(crate) async fn used(db: &mut Conn, org: &Name, id: &str, at: UnixMs) -> Result<(), StoreError> {
    sql::query("UPDATE keys SET last_used_at = ? WHERE org = ? AND id = ? AND COALESCE(last_used_at, 0) < ?")
        .bind(signed(at))
        .bind(org.as_str())
        .bind(id)
        .bind(signed(at))
        .execute(db)
        .await?;
    Ok(())
}
