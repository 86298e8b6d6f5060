//! Ends of chains that proxies announced, and whose events have not come yet.

use oakallow_policy::audit::Head;
use oakallow_policy::timestamp::UnixMs;

use super::{Conn, StoreError, signed, sql, unsigned};

/// Whose chain, in which org.
pub(crate) type Chain<'a> = (&'a str, &'a str);

/// Keeps an announcement. What was announced of that place before stays, and is returned.
pub(crate) async fn insert(
    conn: &mut Conn,
    (org, source): Chain<'_>,
    head: &Head,
    now: UnixMs,
) -> Result<String, StoreError> {
    let hash = sql::query_scalar(
        "INSERT INTO announced_heads (org, source, seq, hash, announced_ms) VALUES (?, ?, ?, ?, ?) \
         ON CONFLICT (org, source, seq) DO UPDATE SET hash = announced_heads.hash RETURNING hash",
    )
    .bind(org)
    .bind(source)
    .bind(signed(head.seq))
    .bind(&head.hash)
    .bind(signed(now))
    .fetch_one(conn)
    .await?;
    Ok(hash)
}

/// What was announced of the places up to `to`.
pub(crate) async fn up_to(
    conn: &mut Conn,
    (org, source): Chain<'_>,
    to: u64,
) -> Result<Vec<Head>, StoreError> {
    let rows: Vec<(i64, String)> =
        sql::query_as("SELECT seq, hash FROM announced_heads WHERE org = ? AND source = ? AND seq <= ?")
            .bind(org)
            .bind(source)
            .bind(signed(to))
            .fetch_all(conn)
            .await?;
    Ok(rows.into_iter().map(|(seq, hash)| Head { seq: unsigned(seq), hash }).collect())
}

/// Forgets what has come.
pub(crate) async fn delete_up_to(
    conn: &mut Conn,
    (org, source): Chain<'_>,
    to: u64,
) -> Result<(), StoreError> {
    sql::query("DELETE FROM announced_heads WHERE org = ? AND source = ? AND seq <= ?")
        .bind(org)
        .bind(source)
        .bind(signed(to))
        .execute(conn)
        .await?;
    Ok(())
}

/// The last announcement of each chain of an org.
pub(crate) async fn last(conn: &mut Conn, org: &str) -> Result<Vec<(String, u64, UnixMs)>, StoreError> {
    let rows: Vec<(String, i64, i64)> = sql::query_as(
        "SELECT source, seq, announced_ms FROM announced_heads AS a WHERE org = ? AND seq = (SELECT MAX(seq) \
         FROM announced_heads AS b WHERE b.org = a.org AND b.source = a.source) ORDER BY source",
    )
    .bind(org)
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|(source, seq, at)| (source, unsigned(seq), unsigned(at))).collect())
}
