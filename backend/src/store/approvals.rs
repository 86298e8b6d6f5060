//! Approvals at rest. A state changes only by [`transition`].

use oakallow_policy::fingerprint::Fingerprint;
use oakallow_policy::id::Name;
use oakallow_policy::timestamp::UnixMs;
use oakallow_policy::tool::RiskLevel;
use oakallow_policy::wire::{ApprovalState, ApprovalStatus};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection};

use super::{StoreError, signed, unsigned};

mod step;

pub(crate) use step::{Step, transition};

/// An approval: what is asked for, by whom, and where it stands (the columns of `0102_approvals.sql`).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Approval {
    pub(crate) id: String,
    pub(crate) org: Name,
    pub(crate) reference: String,
    pub(crate) status: ApprovalStatus,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) principal: Name,
    pub(crate) owner: Option<String>,
    pub(crate) tenant: Option<Name>,
    pub(crate) audience: Name,
    pub(crate) tool: Name,
    pub(crate) resource: Option<Name>,
    pub(crate) method: Option<Name>,
    pub(crate) route: Name,
    pub(crate) definition_hash: Option<String>,
    pub(crate) risk_level: RiskLevel,
    pub(crate) reason: Option<String>,
    pub(crate) resolved_from: String,
    pub(crate) rule: Option<String>,
    pub(crate) policy_version: u64,
    pub(crate) txn: String,
    pub(crate) levels: u8,
    pub(crate) created_ms: UnixMs,
    pub(crate) expires_ms: UnixMs,
    pub(crate) decided_ms: Option<UnixMs>,
    pub(crate) decided_by: Option<String>,
    pub(crate) note: Option<String>,
    pub(crate) consume_by_ms: Option<UnixMs>,
    pub(crate) consumed_txn: Option<String>,
    pub(crate) consumed_proxy: Option<String>,
    pub(crate) closed_ms: Option<UnixMs>,
}

impl Approval {
    /// What proxies are told.
    pub(crate) fn state(&self) -> ApprovalState {
        ApprovalState {
            id: self.id.clone(),
            reference: self.reference.clone(),
            status: self.status,
            expires_at: self.deadline(),
            note: self.note.clone(),
        }
    }

    /// When it expires if nobody decides, or by when an approved one must be consumed.
    pub(crate) fn deadline(&self) -> UnixMs {
        self.consume_by_ms.unwrap_or(self.expires_ms)
    }

    /// Its deadline has passed, whether or not anybody has noticed.
    pub(crate) fn is_due(&self, now: UnixMs) -> bool {
        matches!(self.status, ApprovalStatus::Pending | ApprovalStatus::Approved) && self.deadline() <= now
    }
}

fn corrupt(column: &'static str, row: &str, problem: &dyn std::fmt::Display) -> StoreError {
    StoreError::corrupt("approvals", column, row, problem)
}

fn name(row: &SqliteRow, id: &str, column: &'static str) -> Result<Name, StoreError> {
    optional_name(row, id, column)?.ok_or_else(|| corrupt(column, id, &"it is empty"))
}

fn optional_name(row: &SqliteRow, id: &str, column: &'static str) -> Result<Option<Name>, StoreError> {
    let text: Option<String> = row.try_get(column)?;
    text.map(|t| Name::new(&t).map_err(|e| corrupt(column, id, &e))).transpose()
}

fn time(row: &SqliteRow, column: &'static str) -> Result<Option<UnixMs>, StoreError> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(unsigned))
}

impl TryFrom<SqliteRow> for Approval {
    type Error = StoreError;

    fn try_from(row: SqliteRow) -> Result<Self, StoreError> {
        let id: String = row.try_get("id")?;
        let status: String = row.try_get("status")?;
        let fingerprint: String = row.try_get("fingerprint")?;
        let risk: String = row.try_get("risk_level")?;
        Ok(Self {
            org: name(&row, &id, "org")?,
            reference: row.try_get("reference")?,
            status: ApprovalStatus::parse(&status).ok_or_else(|| corrupt("status", &id, &status))?,
            fingerprint: Fingerprint::parse(&fingerprint)
                .ok_or_else(|| corrupt("fingerprint", &id, &fingerprint))?,
            principal: name(&row, &id, "principal")?,
            owner: row.try_get("owner")?,
            tenant: optional_name(&row, &id, "tenant")?,
            audience: name(&row, &id, "audience")?,
            tool: name(&row, &id, "tool")?,
            resource: optional_name(&row, &id, "resource")?,
            method: optional_name(&row, &id, "method")?,
            route: name(&row, &id, "route")?,
            definition_hash: row.try_get("definition_hash")?,
            risk_level: [RiskLevel::Low, RiskLevel::Medium, RiskLevel::High, RiskLevel::Critical]
                .into_iter()
                .find(|r| r.as_str() == risk)
                .ok_or_else(|| corrupt("risk_level", &id, &risk))?,
            reason: row.try_get("reason")?,
            resolved_from: row.try_get("resolved_from")?,
            rule: row.try_get("rule")?,
            policy_version: unsigned(row.try_get("policy_version")?),
            txn: row.try_get("txn")?,
            levels: row.try_get("levels")?,
            created_ms: unsigned(row.try_get("created_ms")?),
            expires_ms: unsigned(row.try_get("expires_ms")?),
            decided_ms: time(&row, "decided_ms")?,
            decided_by: row.try_get("decided_by")?,
            note: row.try_get("note")?,
            consume_by_ms: time(&row, "consume_by_ms")?,
            consumed_txn: row.try_get("consumed_txn")?,
            consumed_proxy: row.try_get("consumed_proxy")?,
            closed_ms: time(&row, "closed_ms")?,
            id,
        })
    }
}

/// Stores a new one. `false`: another creator of the same call was first.
pub(crate) async fn insert(conn: &mut SqliteConnection, new: &Approval) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "INSERT INTO approvals (id, org, reference, status, fingerprint, principal, owner, tenant, \
         audience, tool, resource, method, route, definition_hash, risk_level, reason, resolved_from, \
         rule, policy_version, txn, levels, created_ms, expires_ms) \
         VALUES (?, ?, ?, 'pending', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (org, fingerprint) WHERE status IN ('pending', 'approved') DO NOTHING",
    )
    .bind(&new.id)
    .bind(new.org.as_str())
    .bind(&new.reference)
    .bind(new.fingerprint.to_string())
    .bind(new.principal.as_str())
    .bind(&new.owner)
    .bind(new.tenant.as_deref())
    .bind(new.audience.as_str())
    .bind(new.tool.as_str())
    .bind(new.resource.as_deref())
    .bind(new.method.as_deref())
    .bind(new.route.as_str())
    .bind(&new.definition_hash)
    .bind(new.risk_level.as_str())
    .bind(&new.reason)
    .bind(&new.resolved_from)
    .bind(&new.rule)
    .bind(signed(new.policy_version))
    .bind(&new.txn)
    .bind(new.levels)
    .bind(signed(new.created_ms))
    .bind(signed(new.expires_ms))
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// One of the org's.
pub(crate) async fn find(
    conn: &mut SqliteConnection,
    org: &str,
    id: &str,
) -> Result<Option<Approval>, StoreError> {
    let row = sqlx::query("SELECT * FROM approvals WHERE org = ? AND id = ?")
        .bind(org)
        .bind(id)
        .fetch_optional(conn)
        .await?;
    row.map(Approval::try_from).transpose()
}

/// The newest of this call. If one is open, it is that one: nothing is created while one is open.
pub(crate) async fn newest(
    conn: &mut SqliteConnection,
    org: &str,
    fingerprint: Fingerprint,
) -> Result<Option<Approval>, StoreError> {
    let row = sqlx::query(
        "SELECT * FROM approvals WHERE org = ? AND fingerprint = ? ORDER BY created_ms DESC, id DESC LIMIT 1",
    )
    .bind(org)
    .bind(fingerprint.to_string())
    .fetch_optional(conn)
    .await?;
    row.map(Approval::try_from).transpose()
}

/// How many of this principal wait.
pub(crate) async fn count_pending(
    conn: &mut SqliteConnection,
    org: &str,
    principal: &str,
    now: UnixMs,
) -> Result<u32, StoreError> {
    let count = sqlx::query_scalar(
        "SELECT COUNT(*) FROM approvals WHERE org = ? AND principal = ? AND status = 'pending' AND expires_ms > ?",
    )
    .bind(org)
    .bind(principal)
    .bind(signed(now))
    .fetch_one(conn)
    .await?;
    Ok(count)
}

/// Whose approvals to list.
#[derive(Debug, Default, Clone)]
pub(crate) struct Filter {
    /// In this state.
    pub(crate) status: Option<ApprovalStatus>,
    /// Of this tenant.
    pub(crate) tenant: Option<Name>,
    /// Of these tenants: what the reader's credential reaches. `None`: everything.
    pub(crate) within: Option<Vec<Name>>,
    /// Asked for by this principal.
    pub(crate) principal: Option<Name>,
    /// Older than this one.
    pub(crate) before: Option<String>,
}

/// Newest first.
pub(crate) async fn list(
    conn: &mut SqliteConnection,
    org: &str,
    filter: &Filter,
    limit: u32,
) -> Result<Vec<Approval>, StoreError> {
    let mut query = QueryBuilder::<Sqlite>::new("SELECT * FROM approvals WHERE org = ");
    query.push_bind(org.to_owned());
    if let Some(status) = filter.status {
        query.push(" AND status = ").push_bind(status.as_str());
    }
    if let Some(tenant) = &filter.tenant {
        query.push(" AND tenant = ").push_bind(tenant.as_str().to_owned());
    }
    super::push_within(&mut query, filter.within.as_deref());
    if let Some(principal) = &filter.principal {
        query.push(" AND principal = ").push_bind(principal.as_str().to_owned());
    }
    if let Some(before) = &filter.before {
        query.push(" AND id < ").push_bind(before.clone());
    }
    query.push(" ORDER BY id DESC LIMIT ").push_bind(limit);
    query.build().fetch_all(conn).await?.into_iter().map(Approval::try_from).collect()
}

/// Open ones whose deadline has passed.
pub(crate) async fn due(
    conn: &mut SqliteConnection,
    now: UnixMs,
    limit: u32,
) -> Result<Vec<(String, String)>, StoreError> {
    let due = sqlx::query_as(
        "SELECT org, id FROM approvals WHERE status = 'pending' AND expires_ms <= ?1 \
         UNION ALL SELECT org, id FROM approvals WHERE status = 'approved' AND consume_by_ms <= ?1 LIMIT ?2",
    )
    .bind(signed(now))
    .bind(limit)
    .fetch_all(conn)
    .await?;
    Ok(due)
}

/// The next deadline of any open one.
pub(crate) async fn next_deadline(conn: &mut SqliteConnection) -> Result<Option<UnixMs>, StoreError> {
    let next: Option<i64> = sqlx::query_scalar(
        "SELECT MIN(at) FROM (SELECT MIN(expires_ms) AS at FROM approvals WHERE status = 'pending' \
         UNION ALL SELECT MIN(consume_by_ms) FROM approvals WHERE status = 'approved')",
    )
    .fetch_one(conn)
    .await?;
    Ok(next.map(unsigned))
}

/// How often this very call ran with an approval.
pub(crate) async fn count_consumed(
    conn: &mut SqliteConnection,
    org: &str,
    fingerprint: Fingerprint,
) -> Result<u32, StoreError> {
    let count = sqlx::query_scalar(
        "SELECT COUNT(*) FROM approvals WHERE org = ? AND fingerprint = ? AND status = 'consumed'",
    )
    .bind(org)
    .bind(fingerprint.to_string())
    .fetch_one(conn)
    .await?;
    Ok(count)
}
