//! Kill switches that are on.

use oakallow_policy::id::Name;
use oakallow_policy::ruleset::KillSwitch;
use oakallow_policy::timestamp::UnixMs;
use sqlx::FromRow;

use super::{Conn, StoreError, signed, sql, unsigned};

/// A kill switch, and who switched it on.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) switch: KillSwitch,
    pub(crate) reason: String,
    pub(crate) created_by: String,
    pub(crate) created_at: UnixMs,
}

#[derive(FromRow)]
struct Row {
    scope: String,
    target: String,
    reason: String,
    created_by: String,
    created_at: i64,
}

impl TryFrom<Row> for Stored {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let target = || super::name("kill_switches", "target", &row.target);
        let switch = match row.scope.as_str() {
            "org" => KillSwitch::Org,
            "tenant" => KillSwitch::Tenant(target()?),
            "agent" => KillSwitch::Agent(target()?),
            "tool" => KillSwitch::Tool(target()?),
            other => return Err(StoreError::corrupt("kill_switches", "scope", other, &"unknown scope")),
        };
        Ok(Self {
            switch,
            reason: row.reason,
            created_by: row.created_by,
            created_at: unsigned(row.created_at),
        })
    }
}

/// Scope and target as stored.
pub(crate) fn key(switch: &KillSwitch) -> (&'static str, &str) {
    match switch {
        KillSwitch::Org => ("org", ""),
        KillSwitch::Tenant(id) => ("tenant", id.as_str()),
        KillSwitch::Agent(id) => ("agent", id.as_str()),
        KillSwitch::Tool(id) => ("tool", id.as_str()),
    }
}

/// Switches on; says whether it was off.
pub(crate) async fn on(db: &mut Conn, org: &Name, stored: &Stored) -> Result<bool, StoreError> {
    let (scope, target) = key(&stored.switch);
    let done = sql::query(
        "INSERT INTO kill_switches (org, scope, target, reason, created_by, created_at)
         VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (org, scope, target) DO NOTHING",
    )
    .bind(org.as_str())
    .bind(scope)
    .bind(target)
    .bind(&stored.reason)
    .bind(&stored.created_by)
    .bind(signed(stored.created_at))
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Switches off; says whether it was on.
pub(crate) async fn off(db: &mut Conn, org: &Name, switch: &KillSwitch) -> Result<bool, StoreError> {
    let (scope, target) = key(switch);
    let done = sql::query("DELETE FROM kill_switches WHERE org = ? AND scope = ? AND target = ?")
        .bind(org.as_str())
        .bind(scope)
        .bind(target)
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// All that are on, with who switched them.
pub(crate) async fn list(db: &mut Conn, org: &Name) -> Result<Vec<Stored>, StoreError> {
    let rows: Vec<Row> = sql::query_as(
        "SELECT scope, target, reason, created_by, created_at FROM kill_switches
         WHERE org = ? ORDER BY scope, target",
    )
    .bind(org.as_str())
    .fetch_all(db)
    .await?;
    rows.into_iter().map(Stored::try_from).collect()
}

/// All that are on.
pub(crate) async fn all(db: &mut Conn, org: &Name) -> Result<Vec<KillSwitch>, StoreError> {
    Ok(list(db, org).await?.into_iter().map(|stored| stored.switch).collect())
}
