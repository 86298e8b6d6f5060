//! Which approval an `Idempotency-Key` stands for.

use oakallow_policy::fingerprint::Fingerprint;
use oakallow_policy::timestamp::UnixMs;

use super::{Conn, StoreError, signed, sql};

/// A key that was used before.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) fingerprint: Option<Fingerprint>,
    pub(crate) approval_id: String,
}

/// Whose key: keys of two principals never meet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner<'a> {
    pub(crate) org: &'a str,
    pub(crate) principal: &'a str,
}

pub(crate) async fn find(conn: &mut Conn, owner: Owner<'_>, key: &str) -> Result<Option<Known>, StoreError> {
    let row: Option<(String, String)> = sql::query_as(
        "SELECT fingerprint, approval_id FROM approval_keys WHERE org = ? AND principal = ? AND key = ?",
    )
    .bind(owner.org)
    .bind(owner.principal)
    .bind(key)
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|(fingerprint, approval_id)| Known {
        fingerprint: Fingerprint::parse(&fingerprint),
        approval_id,
    }))
}

/// From now on the key stands for this approval.
pub(crate) async fn remember(
    conn: &mut Conn,
    owner: Owner<'_>,
    key: &str,
    known: (Fingerprint, &str),
    now: UnixMs,
) -> Result<(), StoreError> {
    sql::query(
        "INSERT INTO approval_keys (org, principal, key, fingerprint, approval_id, used_ms) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (org, principal, key) \
         DO UPDATE SET approval_id = ?5, used_ms = ?6 WHERE approval_keys.fingerprint = ?4",
    )
    .bind(owner.org)
    .bind(owner.principal)
    .bind(key)
    .bind(known.0.to_string())
    .bind(known.1)
    .bind(signed(now))
    .execute(conn)
    .await?;
    Ok(())
}

pub(crate) async fn delete_unused(conn: &mut Conn, before: UnixMs) -> Result<u64, StoreError> {
    let done =
        sql::query("DELETE FROM approval_keys WHERE used_ms < ?").bind(signed(before)).execute(conn).await?;
    Ok(done.rows_affected())
}
