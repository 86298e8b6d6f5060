//! The exact arguments of approvals: sealed, apart from everything else, and gone some time after the
//! final state.

use oakallow_policy::id::Name;
use oakallow_policy::timestamp::UnixMs;

use super::{Conn, StoreError, signed, sql};

pub(crate) async fn insert(
    conn: &mut Conn,
    (org, approval): (&Name, &str),
    sealed: &[u8],
) -> Result<(), StoreError> {
    sql::query("INSERT INTO approval_arguments (org, approval_id, sealed) VALUES (?, ?, ?)")
        .bind(org.as_str())
        .bind(approval)
        .bind(sealed)
        .execute(conn)
        .await?;
    Ok(())
}

/// `None`: deleted.
pub(crate) async fn find(
    conn: &mut Conn,
    (org, approval): (&Name, &str),
) -> Result<Option<Vec<u8>>, StoreError> {
    let sealed = sql::query_scalar("SELECT sealed FROM approval_arguments WHERE org = ? AND approval_id = ?")
        .bind(org.as_str())
        .bind(approval)
        .fetch_optional(conn)
        .await?;
    Ok(sealed)
}

/// How many bytes they take up, sealed. `None`: deleted.
pub(crate) async fn bytes(
    conn: &mut Conn,
    (org, approval): (&Name, &str),
) -> Result<Option<i64>, StoreError> {
    let bytes = sql::query_scalar(
        "SELECT CAST(length(sealed) AS BIGINT) FROM approval_arguments WHERE org = ? AND approval_id = ?",
    )
    .bind(org.as_str())
    .bind(approval)
    .fetch_optional(conn)
    .await?;
    Ok(bytes)
}

/// Deletes those whose approval reached its final state before `before`.
pub(crate) async fn delete_closed(conn: &mut Conn, before: UnixMs) -> Result<u64, StoreError> {
    let done = sql::query(
        "DELETE FROM approval_arguments WHERE approval_id IN (SELECT a.id FROM approval_arguments g \
         JOIN approvals a ON a.id = g.approval_id WHERE a.closed_ms IS NOT NULL AND a.closed_ms < ?)",
    )
    .bind(signed(before))
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
