//! A step of an approval: one conditional statement that names the states it starts from and the deadline it
//! must meet, so of any number of racing writers one wins.

use oakallow_policy::approval;
use oakallow_policy::fingerprint::Fingerprint;
use oakallow_policy::timestamp::UnixMs;

use crate::store::{Conn, StoreError, signed, sql};

/// A step of [`approval::Step`], with what it writes. A final state (denied, expired, cancelled, consumed) has
/// none.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step<'a> {
    /// pending → approved, before it expires.
    Approve {
        /// E-mail of the person.
        by: &'a str,
        /// What they wrote.
        note: Option<&'a str>,
        /// Until when it can be consumed.
        consume_by: UnixMs,
    },
    /// pending → denied, before it expires.
    Deny {
        /// E-mail of the person.
        by: &'a str,
        /// What they wrote.
        note: &'a str,
    },
    /// pending or approved → cancelled, before its deadline.
    Cancel,
    /// approved → consumed, before its deadline, for this call.
    Consume {
        /// The call; must be the approval's.
        fingerprint: Fingerprint,
        /// The life of the call that will run.
        txn: &'a str,
        /// The proxy that will run it; none when a token is minted for it.
        proxy: Option<&'a str>,
    },
    /// pending or approved → expired, once its deadline has passed.
    Expire,
}

impl Step<'_> {
    /// Its place in the table of transitions.
    pub(crate) const fn kind(self) -> approval::Step {
        match self {
            Self::Approve { .. } => approval::Step::Approve,
            Self::Deny { .. } => approval::Step::Deny,
            Self::Cancel => approval::Step::Cancel,
            Self::Consume { .. } => approval::Step::Consume,
            Self::Expire => approval::Step::Expire,
        }
    }

    /// What it writes besides the state, and what must hold besides state and deadline.
    const fn columns(self) -> (&'static str, &'static str) {
        match self {
            Self::Approve { .. } => ("decided_ms = ?3, decided_by = ?4, note = ?5, consume_by_ms = ?6", ""),
            Self::Deny { .. } => ("decided_ms = ?3, decided_by = ?4, note = ?5, closed_ms = ?3", ""),
            Self::Cancel | Self::Expire => ("closed_ms = ?3", ""),
            Self::Consume { .. } => {
                ("closed_ms = ?3, consumed_txn = ?4, consumed_proxy = ?6", " AND fingerprint = ?5")
            }
        }
    }
}

/// The one conditional statement of a step, from the table in `policy`. ?1 org, ?2 id, ?3 now.
fn statement(step: Step<'_>) -> String {
    let kind = step.kind();
    let from: Vec<String> = kind.from().iter().map(|s| format!("'{}'", s.as_str())).collect();
    let (from, to) = (from.join(", "), kind.to().as_str());
    // As `Approval::deadline`.
    let due = if kind.when_due() { "<=" } else { ">" };
    let (written, also) = step.columns();
    format!(
        "UPDATE approvals SET status = '{to}', {written} WHERE org = ?1 AND id = ?2 AND status IN ({from}) \
         AND COALESCE(consume_by_ms, expires_ms) {due} ?3{also}"
    )
}

/// Takes one step, if the state and the time allow it. `false`: nothing was changed.
pub(crate) async fn transition(
    conn: &mut Conn,
    org: &str,
    id: &str,
    step: Step<'_>,
    now: UnixMs,
) -> Result<bool, StoreError> {
    // Made of our own words only.
    let query = sql::made(statement(step)).bind(org).bind(id).bind(signed(now));
    let query = match step {
        Step::Approve { by, note, consume_by } => query.bind(by).bind(note).bind(signed(consume_by)),
        Step::Deny { by, note } => query.bind(by).bind(note),
        Step::Consume { fingerprint, txn, proxy } => {
            query.bind(txn).bind(fingerprint.to_string()).bind(proxy)
        }
        Step::Cancel | Step::Expire => query,
    };
    Ok(query.execute(conn).await?.rows_affected() == 1)
}

#[cfg(test)]
mod tests {
    use oakallow_policy::id::Name;
    use oakallow_policy::wire::ApprovalStatus;

    use super::*;
    use crate::store::{Db, orgs};

    const NOW: UnixMs = 1_000;
    const STATUSES: [ApprovalStatus; 6] = [
        ApprovalStatus::Pending,
        ApprovalStatus::Approved,
        ApprovalStatus::Denied,
        ApprovalStatus::Expired,
        ApprovalStatus::Cancelled,
        ApprovalStatus::Consumed,
    ];

    fn fingerprint() -> Fingerprint {
        Fingerprint::parse(&"0".repeat(64)).unwrap()
    }

    fn of(kind: approval::Step) -> Step<'static> {
        match kind {
            approval::Step::Approve => Step::Approve { by: "a@example.com", note: None, consume_by: NOW + 9 },
            approval::Step::Deny => Step::Deny { by: "a@example.com", note: "no" },
            approval::Step::Cancel => Step::Cancel,
            approval::Step::Consume => Step::Consume { fingerprint: fingerprint(), txn: "txn", proxy: None },
            approval::Step::Expire => Step::Expire,
        }
    }

    async fn store(conn: &mut Conn, status: ApprovalStatus, deadline: UnixMs) {
        let decided = status != ApprovalStatus::Pending;
        sql::query(
            "INSERT INTO approvals (id, org, reference, status, fingerprint, principal, audience, tool, route, \
             risk_level, resolved_from, policy_version, txn, levels, created_ms, expires_ms, consume_by_ms) \
             VALUES ('apr', 'demo', 'REF', ?1, ?2, 'p', 'a', 't', 'r', 'low', 'l', 1, 'txn', 1, 0, ?3, ?4)",
        )
        .bind(status.as_str())
        .bind(fingerprint().to_string())
        // Of an approved one the deadline of the decision no longer counts.
        .bind(if decided { 0 } else { signed(deadline) })
        .bind(decided.then_some(signed(deadline)))
        .execute(conn)
        .await
        .unwrap();
    }

    /// What the statements do is what the table says: in each state, before, at and after the deadline.
    #[tokio::test]
    async fn the_database_takes_the_steps_of_the_table_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::for_test(dir.path()).await;
        let mut write = db.begin("demo").await.unwrap();
        orgs::insert(&mut write, &Name::new("demo").unwrap(), NOW).await.unwrap();
        for status in STATUSES {
            for kind in approval::Step::ALL {
                for deadline in [NOW - 1, NOW, NOW + 1] {
                    store(&mut write, status, deadline).await;
                    let moved = transition(&mut write, "demo", "apr", of(kind), NOW).await.unwrap();
                    let now: String = sql::query_scalar("SELECT status FROM approvals")
                        .fetch_one(&mut write)
                        .await
                        .unwrap();
                    let expected = approval::after(status, kind, deadline <= NOW);
                    assert_eq!(moved, expected.is_some(), "{status:?} {kind:?} {deadline}");
                    assert_eq!(now, expected.unwrap_or(status).as_str(), "{status:?} {kind:?} {deadline}");
                    sql::query("DELETE FROM approvals").execute(&mut write).await.unwrap();
                }
            }
        }
    }
}
