//! What became of a call, as the log tells it.

use oakallow_policy::approval::Ran;

use crate::store::{Conn, StoreError, sql};

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing is recorded yet.
    Open,
    /// It ended before anything was sent.
    NotSent,
    /// It ended, or was reported to have, like this.
    Ran(&'static str),
}

impl Outcome {
    /// As far as it matters for asking again.
    pub(crate) const fn ran(self) -> Ran {
        match self {
            Self::Open => Ran::Open,
            Self::NotSent => Ran::NotSent,
            Self::Ran(_) => Ran::Sent,
        }
    }

    /// As callers are told.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "running",
            Self::NotSent => "not_forwarded",
            Self::Ran(how) => how,
        }
    }
}

/// What became of a call: the newest that is recorded of its life. An observation (`call.*`, by the proxy
/// that let it through, when `source` names its chain) counts before a report (`execution.reported`).
pub(crate) async fn outcome(
    conn: &mut Conn,
    org: &str,
    txn: &str,
    source: Option<&str>,
) -> Result<Outcome, StoreError> {
    let row: Option<(String, Option<String>)> = sql::query_as(
        "SELECT type, result FROM events \
         WHERE org = ?1 AND txn = ?2 AND (type = 'execution.reported' OR (type IN ('call.forwarded', \
         'call.completed', 'call.failed', 'call.unknown', 'call.not_forwarded', 'call.refused') \
         AND source = COALESCE(?3, source))) \
         ORDER BY type = 'execution.reported', position DESC LIMIT 1",
    )
    .bind(org)
    .bind(txn)
    .bind(source)
    .fetch_optional(conn)
    .await?;
    let Some((kind, reported)) = row else { return Ok(Outcome::Open) };
    Ok(match (kind.as_str(), reported.as_deref()) {
        // Only an intent so far.
        ("call.forwarded", _) => Outcome::Open,
        ("call.not_forwarded" | "call.refused", _) => Outcome::NotSent,
        ("call.completed", _) | ("execution.reported", Some("success")) => Outcome::Ran("success"),
        ("call.failed", _) | ("execution.reported", Some("failed")) => Outcome::Ran("failed"),
        ("execution.reported", Some("error")) => Outcome::Ran("error"),
        _ => Outcome::Ran("unknown"),
    })
}
