//! Who said yes to an approval that takes several people.

use oakallow_policy::id::Name;
use oakallow_policy::timestamp::UnixMs;

use super::{Conn, StoreError, signed, sql};

/// Counts a person's yes to a pending approval. `false`: they said yes before.
pub(crate) async fn vote(
    conn: &mut Conn,
    (org, id): (&Name, &str),
    person: &str,
    note: Option<&str>,
    now: UnixMs,
) -> Result<bool, StoreError> {
    let done = sql::query(
        "INSERT INTO approval_votes (org, approval_id, person, note, voted_ms) VALUES (?, ?, ?, ?, ?) \
         ON CONFLICT DO NOTHING",
    )
    .bind(org.as_str())
    .bind(id)
    .bind(person)
    .bind(note)
    .bind(signed(now))
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Who said yes so far.
pub(crate) async fn voters(conn: &mut Conn, (org, id): (&Name, &str)) -> Result<Vec<String>, StoreError> {
    let voters = sql::query_scalar(
        "SELECT person FROM approval_votes WHERE org = ? AND approval_id = ? ORDER BY voted_ms",
    )
    .bind(org.as_str())
    .bind(id)
    .fetch_all(conn)
    .await?;
    Ok(voters)
}
