//! Approvals at rest. A state changes only by [`transition`].

use oakallow_policy::fingerprint::Fingerprint;
use oakallow_policy::id::Name;
use oakallow_policy::timestamp::UnixMs;
use oakallow_policy::tool::RiskLevel;
use oakallow_policy::wire::{ApprovalState, ApprovalStatus};
use sqlx::FromRow;

use super::sql::{self, Sql};
use super::{Conn, StoreError, signed, unsigned};

mod step;

pub(crate) use step::{Step, transition};

/// An approval: what is asked for, by whom, and where it stands (the columns of `0102_approvals.sql` and later).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Approval {
    pub(crate) id: String,
    pub(crate) org: Name,
    pub(crate) reference: String,
    pub(crate) status: ApprovalStatus,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) principal: Name,
    pub(crate) owner: Option<String>,
    pub(crate) token_email: Option<String>,
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

#[derive(FromRow)]
struct Row {
    id: String,
    org: String,
    reference: String,
    status: String,
    fingerprint: String,
    principal: String,
    owner: Option<String>,
    token_email: Option<String>,
    tenant: Option<String>,
    audience: String,
    tool: String,
    resource: Option<String>,
    method: Option<String>,
    route: String,
    definition_hash: Option<String>,
    risk_level: String,
    reason: Option<String>,
    resolved_from: String,
    rule: Option<String>,
    policy_version: i64,
    txn: String,
    levels: i64,
    created_ms: i64,
    expires_ms: i64,
    decided_ms: Option<i64>,
    decided_by: Option<String>,
    note: Option<String>,
    consume_by_ms: Option<i64>,
    consumed_txn: Option<String>,
    consumed_proxy: Option<String>,
    closed_ms: Option<i64>,
}

impl TryFrom<Row> for Approval {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let id = row.id;
        let name = |column, text: String| Name::new(&text).map_err(|e| corrupt(column, &id, &e));
        let optional = |column, text: Option<String>| text.map(|text| name(column, text)).transpose();
        Ok(Self {
            org: name("org", row.org)?,
            reference: row.reference,
            status: ApprovalStatus::parse(&row.status).ok_or_else(|| corrupt("status", &id, &row.status))?,
            fingerprint: Fingerprint::parse(&row.fingerprint)
                .ok_or_else(|| corrupt("fingerprint", &id, &row.fingerprint))?,
            principal: name("principal", row.principal)?,
            owner: row.owner,
            token_email: row.token_email,
            tenant: optional("tenant", row.tenant)?,
            audience: name("audience", row.audience)?,
            tool: name("tool", row.tool)?,
            resource: optional("resource", row.resource)?,
            method: optional("method", row.method)?,
            route: name("route", row.route)?,
            definition_hash: row.definition_hash,
            risk_level: [RiskLevel::Low, RiskLevel::Medium, RiskLevel::High, RiskLevel::Critical]
                .into_iter()
                .find(|r| r.as_str() == row.risk_level)
                .ok_or_else(|| corrupt("risk_level", &id, &row.risk_level))?,
            reason: row.reason,
            resolved_from: row.resolved_from,
            rule: row.rule,
            policy_version: unsigned(row.policy_version),
            txn: row.txn,
            levels: u8::try_from(row.levels).map_err(|e| corrupt("levels", &id, &e))?,
            created_ms: unsigned(row.created_ms),
            expires_ms: unsigned(row.expires_ms),
            decided_ms: row.decided_ms.map(unsigned),
            decided_by: row.decided_by,
            note: row.note,
            consume_by_ms: row.consume_by_ms.map(unsigned),
            consumed_txn: row.consumed_txn,
            consumed_proxy: row.consumed_proxy,
            closed_ms: row.closed_ms.map(unsigned),
            id,
        })
    }
}

/// Stores a new one. `false`: another creator of the same call was first.
pub(crate) async fn insert(conn: &mut Conn, new: &Approval) -> Result<bool, StoreError> {
    let done = sql::query(
        "INSERT INTO approvals (id, org, reference, status, fingerprint, principal, owner, token_email, \
         tenant, audience, tool, resource, method, route, definition_hash, risk_level, reason, resolved_from, \
         rule, policy_version, txn, levels, created_ms, expires_ms) \
         VALUES (?, ?, ?, 'pending', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (org, fingerprint) WHERE status IN ('pending', 'approved') DO NOTHING",
    )
    .bind(&new.id)
    .bind(new.org.as_str())
    .bind(&new.reference)
    .bind(new.fingerprint.to_string())
    .bind(new.principal.as_str())
    .bind(&new.owner)
    .bind(&new.token_email)
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
pub(crate) async fn find(conn: &mut Conn, org: &str, id: &str) -> Result<Option<Approval>, StoreError> {
    let row: Option<Row> = sql::query_as("SELECT * FROM approvals WHERE org = ? AND id = ?")
        .bind(org)
        .bind(id)
        .fetch_optional(conn)
        .await?;
    row.map(Approval::try_from).transpose()
}

/// The newest of this call. If one is open, it is that one: nothing is created while one is open.
pub(crate) async fn newest(
    conn: &mut Conn,
    org: &str,
    fingerprint: Fingerprint,
) -> Result<Option<Approval>, StoreError> {
    let row: Option<Row> = sql::query_as(
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
    conn: &mut Conn,
    org: &str,
    principal: &str,
    now: UnixMs,
) -> Result<u32, StoreError> {
    let count: i64 = sql::query_scalar(
        "SELECT COUNT(*) FROM approvals WHERE org = ? AND principal = ? AND status = 'pending' AND expires_ms > ?",
    )
    .bind(org)
    .bind(principal)
    .bind(signed(now))
    .fetch_one(conn)
    .await?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
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
    conn: &mut Conn,
    org: &str,
    filter: &Filter,
    limit: u32,
) -> Result<Vec<Approval>, StoreError> {
    let mut query = Sql::new("SELECT * FROM approvals WHERE org = ");
    query.push_bind(org);
    if let Some(status) = filter.status {
        query.push(" AND status = ").push_bind(status.as_str());
    }
    if let Some(tenant) = &filter.tenant {
        query.push(" AND tenant = ").push_bind(tenant.as_str());
    }
    super::push_within(&mut query, filter.within.as_deref());
    if let Some(principal) = &filter.principal {
        query.push(" AND principal = ").push_bind(principal.as_str());
    }
    if let Some(before) = &filter.before {
        query.push(" AND id < ").push_bind(before);
    }
    query.push(" ORDER BY id DESC LIMIT ").push_bind(limit);
    let rows: Vec<Row> = query.query().rows().fetch_all(conn).await?;
    rows.into_iter().map(Approval::try_from).collect()
}

/// Open ones whose deadline has passed.
pub(crate) async fn due(
    conn: &mut Conn,
    now: UnixMs,
    limit: u32,
) -> Result<Vec<(String, String)>, StoreError> {
    let due = sql::query_as(
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
pub(crate) async fn next_deadline(conn: &mut Conn) -> Result<Option<UnixMs>, StoreError> {
    let next: Option<i64> = sql::query_scalar(
        "SELECT MIN(at) FROM (SELECT MIN(expires_ms) AS at FROM approvals WHERE status = 'pending' \
         UNION ALL SELECT MIN(consume_by_ms) FROM approvals WHERE status = 'approved') AS deadlines",
    )
    .fetch_one(conn)
    .await?;
    Ok(next.map(unsigned))
}

/// How often this very call ran with an approval.
pub(crate) async fn count_consumed(
    conn: &mut Conn,
    org: &str,
    fingerprint: Fingerprint,
) -> Result<u32, StoreError> {
    let count: i64 = sql::query_scalar(
        "SELECT COUNT(*) FROM approvals WHERE org = ? AND fingerprint = ? AND status = 'consumed'",
    )
    .bind(org)
    .bind(fingerprint.to_string())
    .fetch_one(conn)
    .await?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}
