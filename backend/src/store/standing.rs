//! How much there is of what operators watch, over all orgs.

use sqlx::FromRow;

use super::{Conn, StoreError, signed, sql};
use oakallow_policy::timestamp::UnixMs;

/// Numbers for the metrics.
#[derive(Clone, Copy, FromRow)]
pub(crate) struct Standing {
    pub(crate) approvals_pending: i64,
    pub(crate) audit_events: i64,
    pub(crate) feed_seq: i64,
    pub(crate) proxies: i64,
}

/// Now. Cheap however much is stored: chains are numbered without gaps, so their heads say how long they are.
pub(crate) async fn standing(db: &mut Conn, now: UnixMs) -> Result<Standing, StoreError> {
    let standing = sql::query_as(
        "SELECT (SELECT COUNT(*) FROM approvals WHERE status = 'pending' AND expires_ms > ?) AS approvals_pending, \
         (SELECT CAST(COALESCE(SUM(seq), 0) AS BIGINT) FROM chain_heads) AS audit_events, \
         (SELECT COALESCE(MAX(seq), 0) FROM feed) AS feed_seq, \
         (SELECT COUNT(*) FROM proxies WHERE revoked_at IS NULL) AS proxies",
    )
    .bind(signed(now))
    .fetch_one(db)
    .await?;
    Ok(standing)
}
