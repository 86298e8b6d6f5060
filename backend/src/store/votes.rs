//! Who said yes to an approval that takes several people.

use oakallow_policy::timestamp::UnixMs;
use sqlx::SqliteConnection;

use super::{StoreError, signed};

/// Counts a person's yes to a pending approval. `false`: they said yes before.
pub(crate) async fn vote(
    conn: &mut SqliteConnection,
    id: &str,
    person: &str,
    note: Option<&str>,
    now: UnixMs,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "INSERT INTO approval_votes (approval_id, person, note, voted_ms) VALUES (?, ?, ?, ?) \
         ON CONFLICT DO NOTHING",
    )
    .bind(id)
    .bind(person)
    .bind(note)
    .bind(signed(now))
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Who said yes so far.
pub(crate) async fn voters(conn: &mut SqliteConnection, id: &str) -> Result<Vec<String>, StoreError> {
    let voters =
        sqlx::query_scalar("SELECT person FROM approval_votes WHERE approval_id = ? ORDER BY voted_ms")
            .bind(id)
            .fetch_all(conn)
            .await?;
    Ok(voters)
}
