//! Audit events at rest: append, and read. The table itself refuses change and removal.

use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use oakallow_policy::audit::{Chained, Event, EventType, Head};
use oakallow_policy::canonical;
use oakallow_policy::timestamp::{self, UnixMs};
use sqlx::FromRow;

use super::sql::{self, Sql};
use super::{Conn, StoreError, signed, unsigned};

mod outcome;

pub(crate) use outcome::{Outcome, outcome};

/// The chain of the backend's own events.
pub(crate) const BACKEND: &str = "backend";

/// Records an event of the backend at the end of the org's chain, inside the caller's transaction: what
/// it tells of and the telling are stored together or not at all. The transaction must have been begun
/// for writing (`BEGIN IMMEDIATE`).
pub(crate) async fn record(conn: &mut Conn, org: &str, now: UnixMs, event: Event) -> Result<(), StoreError> {
    let head = head(conn, org, BACKEND).await?;
    let (chained, bytes, head) = Chained::append(BACKEND, &head, event)?;
    insert(conn, org, now, &Sealed { chained: &chained, bytes: &bytes, hash: &head.hash }).await
}

/// An event with its canonical bytes and their hash.
#[derive(Debug)]
pub(crate) struct Sealed<'a> {
    /// The event in its place.
    pub(crate) chained: &'a Chained,
    /// Its canonical bytes.
    pub(crate) bytes: &'a [u8],
    /// Their SHA-256, hex.
    pub(crate) hash: &'a str,
}

/// Stores an event that continues its chain (the caller has checked it), and moves the head.
pub(crate) async fn insert(
    conn: &mut Conn,
    org: &str,
    now: UnixMs,
    sealed: &Sealed<'_>,
) -> Result<(), StoreError> {
    let Chained { source, seq, event, .. } = sealed.chained;
    let data = &event.data;
    let time = timestamp::parse_rfc3339(&event.time)
        .ok_or_else(|| StoreError::corrupt("events", "time", &event.id, &"not an RFC 3339 time"))?;
    sql::query(
        "INSERT INTO events (org, source, seq, hash, event_id, type, time_ms, received_ms, txn, tenant, \
         tool, principal, decision, approval, token_id, result, body) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
    )
    .bind(org)
    .bind(source)
    .bind(signed(*seq))
    .bind(sealed.hash)
    .bind(&event.id)
    .bind(event.kind.as_str())
    .bind(signed(time))
    .bind(signed(now))
    .bind(&event.txn)
    .bind(&data.tenant)
    .bind(&data.tool)
    .bind(&data.principal)
    .bind(data.decision.as_ref().map(|d| d.permission.as_str()))
    .bind(data.approval.as_ref().map(|a| a.id.as_str()))
    .bind(&data.token_id)
    .bind(data.execution.as_ref().and_then(|e| e.result.as_deref()))
    .bind(String::from_utf8_lossy(sealed.bytes).as_ref())
    .execute(&mut *conn)
    .await?;
    sql::query(
        "INSERT INTO chain_heads (org, source, seq, hash) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (org, source) DO UPDATE SET seq = ?3, hash = ?4",
    )
    .bind(org)
    .bind(source)
    .bind(signed(*seq))
    .bind(sealed.hash)
    .execute(conn)
    .await?;
    Ok(())
}

/// Where a chain ends.
pub(crate) async fn head(conn: &mut Conn, org: &str, source: &str) -> Result<Head, StoreError> {
    let row: Option<(i64, String)> =
        sql::query_as("SELECT seq, hash FROM chain_heads WHERE org = ? AND source = ?")
            .bind(org)
            .bind(source)
            .fetch_optional(conn)
            .await?;
    Ok(row.map_or_else(Head::default, |(seq, hash)| Head { seq: unsigned(seq), hash }))
}

/// The hash of one event of a chain.
pub(crate) async fn hash_at(
    conn: &mut Conn,
    org: &str,
    source: &str,
    seq: u64,
) -> Result<Option<String>, StoreError> {
    let hash = sql::query_scalar("SELECT hash FROM events WHERE org = ? AND source = ? AND seq = ?")
        .bind(org)
        .bind(source)
        .bind(signed(seq))
        .fetch_optional(conn)
        .await?;
    Ok(hash)
}

/// Whether the org has an event of that id.
pub(crate) async fn exists(conn: &mut Conn, org: &str, event_id: &str) -> Result<bool, StoreError> {
    let exists = sql::query_scalar("SELECT EXISTS (SELECT 1 FROM events WHERE org = ? AND event_id = ?)")
        .bind(org)
        .bind(event_id)
        .fetch_one(conn)
        .await?;
    Ok(exists)
}

/// Whether the token of that id was minted here, not by a proxy.
pub(crate) async fn was_minted(conn: &mut Conn, org: &str, token_id: &str) -> Result<bool, StoreError> {
    was_recorded(conn, org, (token_id, EventType::TokenMinted)).await
}

/// Whether the token of that id was redeemed, however long ago.
pub(crate) async fn was_redeemed(conn: &mut Conn, org: &str, token_id: &str) -> Result<bool, StoreError> {
    was_recorded(conn, org, (token_id, EventType::TokenRedeemed)).await
}

async fn was_recorded(
    conn: &mut Conn,
    org: &str,
    (token_id, kind): (&str, EventType),
) -> Result<bool, StoreError> {
    let recorded = sql::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM events WHERE org = ? AND token_id = ? AND type = ? AND source = ?)",
    )
    .bind(org)
    .bind(token_id)
    .bind(kind.as_str())
    .bind(BACKEND)
    .fetch_one(conn)
    .await?;
    Ok(recorded)
}

/// What to look for; everything given must match.
#[derive(Debug, Default, Clone)]
pub(crate) struct Filter {
    /// Not before.
    pub(crate) from: Option<UnixMs>,
    /// Before.
    pub(crate) to: Option<UnixMs>,
    /// Type of event.
    pub(crate) kind: Option<EventType>,
    /// Tenant.
    pub(crate) tenant: Option<String>,
    /// Tool.
    pub(crate) tool: Option<String>,
    /// Who called or acted.
    pub(crate) principal: Option<String>,
    /// Permission that was decided.
    pub(crate) decision: Option<String>,
    /// Approval.
    pub(crate) approval: Option<String>,
    /// Life of a call.
    pub(crate) txn: Option<String>,
    /// Occurs anywhere in the event.
    pub(crate) text: Option<String>,
    /// Older than this one (time, position).
    pub(crate) before: Option<(UnixMs, i64)>,
}

/// An event as stored.
#[derive(Debug, Clone)]
pub(crate) struct StoredEvent {
    /// Order of arrival.
    pub(crate) position: i64,
    /// Its time, for the cursor.
    pub(crate) time_ms: UnixMs,
    /// Hash of the body, hex.
    pub(crate) hash: String,
    /// Canonical JSON.
    pub(crate) body: String,
}

#[derive(FromRow)]
struct Row {
    position: i64,
    time_ms: i64,
    hash: String,
    body: String,
}

impl From<Row> for StoredEvent {
    fn from(row: Row) -> Self {
        Self { position: row.position, time_ms: unsigned(row.time_ms), hash: row.hash, body: row.body }
    }
}

/// Bytes of events that are read for one page. An event may be as large as a batch (4 MiB), most are below
/// 2 KiB: a page of 500 ordinary ones fits.
pub(crate) const PART_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Events that follow each other, as many as were asked for or as [`PART_BYTES_MAX`] allows; at least one, if
/// there is one.
#[derive(Debug)]
pub(crate) struct Part {
    /// The events.
    pub(crate) events: Vec<StoredEvent>,
    /// Others follow.
    pub(crate) more: bool,
}

/// Reads the first events of a query (one without `LIMIT`) row by row: what goes beyond the part stays where
/// it is.
pub(super) async fn part(conn: &mut Conn, mut query: Sql, limit: u32) -> Result<Part, StoreError> {
    query.push(" LIMIT ").push_bind(limit.saturating_add(1));
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut rows = stream(conn, query);
    let (mut events, mut bytes) = (Vec::new(), 0);
    while let Some(event) = rows.try_next().await? {
        bytes += event.body.len();
        if events.len() == limit || bytes > PART_BYTES_MAX && !events.is_empty() {
            return Ok(Part { events, more: true });
        }
        events.push(event);
    }
    Ok(Part { events, more: false })
}

/// Newest first.
pub(crate) async fn list(
    conn: &mut Conn,
    org: &str,
    filter: &Filter,
    limit: u32,
) -> Result<Part, StoreError> {
    let mut query = select(org, filter);
    query.push(" ORDER BY time_ms DESC, position DESC");
    part(conn, query, limit).await
}

/// All that match, oldest first, without holding them in memory.
pub(crate) fn stream(conn: &mut Conn, query: Sql) -> BoxStream<'_, Result<StoredEvent, StoreError>> {
    let rows = query.query().rows::<Row>().fetch(conn);
    rows.map_ok(StoredEvent::from).map_err(StoreError::from).boxed()
}

/// The next ones that match after a position, in order of arrival.
pub(crate) async fn after(
    conn: &mut Conn,
    org: &str,
    filter: &Filter,
    (position, limit): (i64, u32),
) -> Result<Part, StoreError> {
    part(conn, by_arrival(org, filter, position), limit).await
}

fn by_arrival(org: &str, filter: &Filter, position: i64) -> Sql {
    let mut query = select(org, filter);
    query.push(" AND position > ").push_bind(position);
    query.push(" ORDER BY position");
    query
}

/// The query of a check: chain by chain, in order.
#[must_use]
pub(crate) fn chains(org: &str) -> Sql {
    let mut query = select(org, &Filter::default());
    query.push(" ORDER BY source, seq");
    query
}

fn select(org: &str, filter: &Filter) -> Sql {
    let mut query = Sql::new("SELECT position, time_ms, hash, body FROM events WHERE org = ");
    query.push_bind(org);
    if let Some(from) = filter.from {
        query.push(" AND time_ms >= ").push_bind(signed(from));
    }
    if let Some(to) = filter.to {
        query.push(" AND time_ms < ").push_bind(signed(to));
    }
    let kind = filter.kind.map(|k| k.as_str().to_owned());
    for (column, value) in [
        (" AND type = ", &kind),
        (" AND tenant = ", &filter.tenant),
        (" AND tool = ", &filter.tool),
        (" AND principal = ", &filter.principal),
        (" AND decision = ", &filter.decision),
        (" AND approval = ", &filter.approval),
        (" AND txn = ", &filter.txn),
    ] {
        if let Some(value) = value {
            query.push(column).push_bind(value);
        }
    }
    if let Some(text) = &filter.text {
        let literal = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        query.push(" AND lower(body) LIKE lower(").push_bind(format!("%{literal}%")).push(") ESCAPE '\\'");
    }
    if let Some((time, position)) = filter.before {
        query.push(" AND (time_ms, position) < (").push_bind(signed(time));
        query.push(", ").push_bind(position).push(")");
    }
    query
}

/// SHA-256 of an event's canonical bytes, in the form in which chains carry it.
#[must_use]
pub(crate) fn hash_of(bytes: &[u8]) -> String {
    canonical::hex(&canonical::sha256(bytes))
}

#[cfg(test)]
mod tests {
    use super::{Filter, by_arrival};
    use crate::config::Database;
    use crate::store::{Db, sql};

    #[tokio::test]
    async fn a_page_of_an_export_is_read_where_it_stands() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(dir.path(), &Database::DataDir).await.unwrap();
        let query = by_arrival("demo", &Filter::default(), 7);
        let plan = sql::made(format!("EXPLAIN QUERY PLAN {}", query.text()));
        let mut conn = db.read("demo").await.unwrap();
        let rows: Vec<(i64, i64, i64, String)> = plan.rows().fetch_all(&mut conn).await.unwrap();
        let plan: Vec<&str> = rows.iter().map(|(.., step)| step.as_str()).collect();
        assert_eq!(plan, ["SEARCH events USING INDEX events_by_arrival (org=? AND position>?)"]);
    }
}
