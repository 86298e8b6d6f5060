//! Proxies and the tokens with which they join.

use oakallow_policy::id::Name;
use oakallow_policy::timestamp::UnixMs;
use oakallow_policy::wire::Heartbeat;
use sqlx::FromRow;

use super::{Conn, Listed, Noun, StoreError, signed, sql, unsigned};

/// An enrolled proxy.
#[derive(Debug, Clone)]
pub(crate) struct Proxy {
    pub(crate) id: String,
    pub(crate) org: Name,
    pub(crate) name: Name,
    /// Ed25519, base64url: signs the heads of its chain.
    pub(crate) public_key: String,
    /// The audiences that it may serve.
    pub(crate) audiences: Vec<Name>,
    /// The tenants that it may serve; all when `None`.
    pub(crate) tenants: Option<Vec<Name>>,
    pub(crate) version: String,
    pub(crate) enrolled_at: UnixMs,
    pub(crate) revoked_at: Option<UnixMs>,
    pub(crate) beat: Option<Beat>,
}

impl Proxy {
    /// Whether it may serve that tenant (or calls without one).
    pub(crate) fn serves_tenant(&self, tenant: Option<&str>) -> bool {
        match (&self.tenants, tenant) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(tenant)) => own.iter().any(|t| t.as_str() == tenant),
        }
    }

    pub(crate) fn serves_audience(&self, audience: &str) -> bool {
        self.audiences.iter().any(|a| a.as_str() == audience)
    }
}

/// What the last heartbeat said.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Beat {
    #[serde(skip)]
    pub(crate) seen_at: UnixMs,
    pub(crate) policy_version: u64,
    pub(crate) spool_depth: u64,
    pub(crate) head_seq: u64,
    pub(crate) head_hash: String,
    pub(crate) held_calls: u64,
}

#[derive(FromRow)]
pub(crate) struct Row {
    id: String,
    org: String,
    name: String,
    public_key: String,
    audiences: String,
    tenants: Option<String>,
    version: String,
    enrolled_at: i64,
    revoked_at: Option<i64>,
    seen_at: Option<i64>,
    policy_version: Option<i64>,
    spool_depth: Option<i64>,
    head_seq: Option<i64>,
    head_hash: Option<String>,
    held_calls: Option<i64>,
}

impl TryFrom<Row> for Proxy {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let count = |n: Option<i64>| unsigned(n.unwrap_or(0));
        let beat = row.seen_at.map(|seen_at| Beat {
            seen_at: unsigned(seen_at),
            policy_version: count(row.policy_version),
            spool_depth: count(row.spool_depth),
            head_seq: count(row.head_seq),
            head_hash: row.head_hash.unwrap_or_default(),
            held_calls: count(row.held_calls),
        });
        Ok(Self {
            id: row.id,
            org: super::name("proxies", "org", &row.org)?,
            name: super::name("proxies", "name", &row.name)?,
            public_key: row.public_key,
            audiences: super::json("proxies", "audiences", &row.audiences)?,
            tenants: row.tenants.map(|t| super::json("proxies", "tenants", &t)).transpose()?,
            version: row.version,
            enrolled_at: unsigned(row.enrolled_at),
            revoked_at: row.revoked_at.map(unsigned),
            beat,
        })
    }
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, org, name, public_key, audiences, tenants, version, enrolled_at, revoked_at, seen_at,
                    policy_version, spool_depth, head_seq, head_hash, held_calls FROM proxies ",
            $rest
        )
    };
}

impl Noun for Proxy {
    const WHAT: &'static str = "proxy";
    const ONE: &'static str = select!("WHERE org = ? AND id = ?");
    type Row = Row;
}

impl Listed for Proxy {
    const PAGE: &'static str = select!("WHERE org = ? AND id > ? ORDER BY id LIMIT ?");

    fn key(&self) -> &str {
        &self.id
    }
}

pub(crate) async fn insert(db: &mut Conn, proxy: &Proxy) -> Result<(), StoreError> {
    let tenants = proxy.tenants.as_ref().map(serde_json::to_string).transpose()?;
    sql::query(
        "INSERT INTO proxies (id, org, name, public_key, audiences, tenants, version, enrolled_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&proxy.id)
    .bind(proxy.org.as_str())
    .bind(proxy.name.as_str())
    .bind(&proxy.public_key)
    .bind(serde_json::to_string(&proxy.audiences)?)
    .bind(tenants)
    .bind(&proxy.version)
    .bind(signed(proxy.enrolled_at))
    .execute(db)
    .await?;
    Ok(())
}

/// Removes a proxy and revokes its key; says whether it was there.
pub(crate) async fn revoke(db: &mut Conn, org: &Name, id: &str, now: UnixMs) -> Result<bool, StoreError> {
    sql::query("UPDATE keys SET revoked_at = ? WHERE org = ? AND proxy_id = ? AND revoked_at IS NULL")
        .bind(signed(now))
        .bind(org.as_str())
        .bind(id)
        .execute(&mut *db)
        .await?;
    let done =
        sql::query("UPDATE proxies SET revoked_at = ? WHERE org = ? AND id = ? AND revoked_at IS NULL")
            .bind(signed(now))
            .bind(org.as_str())
            .bind(id)
            .execute(db)
            .await?;
    Ok(done.rows_affected() == 1)
}

pub(crate) async fn beat(
    db: &mut Conn,
    proxy: &Proxy,
    beat: &Heartbeat,
    now: UnixMs,
) -> Result<(), StoreError> {
    sql::query(
        "UPDATE proxies SET version = ?, seen_at = ?, policy_version = ?, spool_depth = ?, head_seq = ?,
                head_hash = ?, held_calls = ? WHERE org = ? AND id = ?",
    )
    .bind(&beat.version)
    .bind(signed(now))
    .bind(signed(beat.policy_version))
    .bind(signed(beat.spool_depth))
    .bind(signed(beat.head.seq))
    .bind(&beat.head.hash)
    .bind(signed(beat.held_calls))
    .bind(proxy.org.as_str())
    .bind(&proxy.id)
    .execute(db)
    .await?;
    Ok(())
}

/// A token with which one proxy may join.
pub(crate) struct JoinToken {
    pub(crate) hash: String,
    pub(crate) org: Name,
    pub(crate) audiences: Vec<Name>,
    pub(crate) tenants: Option<Vec<Name>>,
    pub(crate) created_by: String,
    pub(crate) created_at: UnixMs,
    pub(crate) expires_at: UnixMs,
}

pub(crate) async fn insert_join(db: &mut Conn, token: &JoinToken) -> Result<(), StoreError> {
    let tenants = token.tenants.as_ref().map(serde_json::to_string).transpose()?;
    sql::query(
        "INSERT INTO join_tokens (hash, org, audiences, tenants, created_by, created_at, expires_at)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&token.hash)
    .bind(token.org.as_str())
    .bind(serde_json::to_string(&token.audiences)?)
    .bind(tenants)
    .bind(&token.created_by)
    .bind(signed(token.created_at))
    .bind(signed(token.expires_at))
    .execute(db)
    .await?;
    Ok(())
}

#[derive(FromRow)]
struct JoinRow {
    org: String,
    audiences: String,
    tenants: Option<String>,
    created_by: String,
    created_at: i64,
    expires_at: i64,
}

/// The org whose join token it is; one of the queries without an org, since it is what finds the org.
pub(crate) async fn org_of_join(db: &mut Conn, hash: &str) -> Result<Option<Name>, StoreError> {
    let org: Option<String> =
        sql::query_scalar("SELECT org FROM join_tokens WHERE hash = ?").bind(hash).fetch_optional(db).await?;
    super::opt_name("join_tokens", "org", org.as_deref())
}

/// Uses a join token: of any number of attempts, one gets it. `None`: unknown, used, or expired.
pub(crate) async fn use_join(
    db: &mut Conn,
    org: &Name,
    hash: &str,
    now: UnixMs,
) -> Result<Option<JoinToken>, StoreError> {
    let row: Option<JoinRow> = sql::query_as(
        "UPDATE join_tokens SET used_at = ? WHERE org = ? AND hash = ? AND used_at IS NULL AND expires_at > ?
         RETURNING org, audiences, tenants, created_by, created_at, expires_at",
    )
    .bind(signed(now))
    .bind(org.as_str())
    .bind(hash)
    .bind(signed(now))
    .fetch_optional(db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(JoinToken {
        hash: hash.to_owned(),
        org: super::name("join_tokens", "org", &row.org)?,
        audiences: super::json("join_tokens", "audiences", &row.audiences)?,
        tenants: row.tenants.map(|t| super::json("join_tokens", "tenants", &t)).transpose()?,
        created_by: row.created_by,
        created_at: unsigned(row.created_at),
        expires_at: unsigned(row.expires_at),
    }))
}
