//! The lines of the change feed.

use oakallow_policy::id::Name;
use oakallow_policy::timestamp::UnixMs;

use super::conn::Side;
use super::pg::CHANNEL;
use super::{Conn, StoreError, signed, sql};
use crate::feed::{Change, FeedItem};

pub(crate) async fn insert(
    db: &mut Conn,
    org: &Name,
    change: Change,
    at: UnixMs,
) -> Result<FeedItem, StoreError> {
    let text = serde_json::to_string(&change)?;
    let seq: i64 = sql::query_scalar("INSERT INTO feed (org, change, at) VALUES (?, ?, ?) RETURNING seq")
        .bind(org.as_str())
        .bind(text)
        .bind(signed(at))
        .fetch_one(&mut *db)
        .await?;
    sql::query(
        "INSERT INTO feed_heads (org, seq) VALUES (?, ?) ON CONFLICT (org) DO UPDATE SET seq = excluded.seq",
    )
    .bind(org.as_str())
    .bind(seq)
    .execute(db)
    .await?;
    Ok(FeedItem { seq, org: org.clone(), change })
}

/// Lets the other backends know, if there can be any, once this is committed, that an org's feed has grown.
pub(crate) async fn notify(db: &mut Conn, org: &Name) -> Result<(), StoreError> {
    let Side::Pg(conn) = db.side() else { return Ok(()) };
    sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(org.as_str()).execute(conn).await?;
    Ok(())
}

/// Where the feed of each org ends.
pub(crate) async fn heads(db: &mut Conn) -> Result<Vec<(Name, i64)>, StoreError> {
    let rows: Vec<(String, i64)> = sql::query_as("SELECT org, seq FROM feed_heads").fetch_all(db).await?;
    rows.into_iter().map(|(org, seq)| Ok((super::name("feed_heads", "org", &org)?, seq))).collect()
}

/// What an org's feed says after `seq`, oldest first, at most `limit` lines.
pub(crate) async fn after(
    db: &mut Conn,
    org: &Name,
    seq: i64,
    limit: u32,
) -> Result<Vec<FeedItem>, StoreError> {
    let rows: Vec<(i64, String)> =
        sql::query_as("SELECT seq, change FROM feed WHERE org = ? AND seq > ? ORDER BY seq LIMIT ?")
            .bind(org.as_str())
            .bind(seq)
            .bind(limit)
            .fetch_all(db)
            .await?;
    rows.into_iter()
        .map(|(seq, change)| {
            let change = serde_json::from_str(&change)
                .map_err(|e| StoreError::corrupt("feed", "change", &seq.to_string(), &e))?;
            Ok(FeedItem { seq, org: org.clone(), change })
        })
        .collect()
}

/// The newest line of an org; 0 when there is none.
pub(crate) async fn last_seq(db: &mut Conn, org: &Name) -> Result<i64, StoreError> {
    Ok(sql::query_scalar("SELECT COALESCE(MAX(seq), 0) FROM feed WHERE org = ?")
        .bind(org.as_str())
        .fetch_one(db)
        .await?)
}

/// Forgets lines older than `before`. Whoever resumes from further back is told the current version
/// and reconciles.
pub(crate) async fn trim(db: &mut Conn, before: UnixMs) -> Result<u64, StoreError> {
    let done = sql::query("DELETE FROM feed WHERE at < ?").bind(signed(before)).execute(db).await?;
    Ok(done.rows_affected())
}
