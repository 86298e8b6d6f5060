//! Redeemed token ids: who came first.

use oakallow_policy::timestamp::UnixMs;

use super::{Conn, StoreError, signed, sql};

/// Redeems a token id. Of any number of attempts exactly one gets `true`.
pub(crate) async fn redeem(
    conn: &mut Conn,
    org: &str,
    jti: &str,
    now: UnixMs,
    keep_until: UnixMs,
) -> Result<bool, StoreError> {
    let done = sql::query(
        "INSERT INTO redemptions (org, jti, redeemed_ms, keep_until_ms) VALUES (?, ?, ?, ?) \
         ON CONFLICT DO NOTHING",
    )
    .bind(org)
    .bind(jti)
    .bind(signed(now))
    .bind(signed(keep_until))
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Forgets those whose token cannot pass verification any more.
pub(crate) async fn delete_past(conn: &mut Conn, now: UnixMs) -> Result<u64, StoreError> {
    let done =
        sql::query("DELETE FROM redemptions WHERE keep_until_ms < ?").bind(signed(now)).execute(conn).await?;
    Ok(done.rows_affected())
}
