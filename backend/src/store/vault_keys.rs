//! Which key-encryption key the database belongs to.

use oakallow_policy::timestamp::UnixMs;

use super::{Conn, StoreError, signed, sql};

/// The key of this fingerprint becomes the database's, if it has none; says whether it is the database's. The caller
/// holds the lock of no org (`""`), so that of two first starts one wins.
pub(crate) async fn claim(db: &mut Conn, fingerprint: &str, now: UnixMs) -> Result<bool, StoreError> {
    sql::query(
        "INSERT INTO vault_keys (fingerprint, since_ms) SELECT ?, ? WHERE NOT EXISTS (SELECT 1 FROM vault_keys)",
    )
    .bind(fingerprint)
    .bind(signed(now))
    .execute(&mut *db)
    .await?;
    Ok(sql::query_scalar("SELECT EXISTS (SELECT 1 FROM vault_keys WHERE fingerprint = ?)")
        .bind(fingerprint)
        .fetch_one(db)
        .await?)
}
