//! Executions as the audit log tells of them: observed by proxies, or reported.

use oakallow_policy::id::Name;
use sqlx::FromRow;

use super::audit::{self, Part};
use super::sql::{self, Sql};
use super::{Conn, StoreError};

/// Whose executions to list.
#[derive(Debug, Default, Clone)]
pub(crate) struct Filter {
    /// Of this tool.
    pub(crate) tool: Option<Name>,
    /// Of this tenant.
    pub(crate) tenant: Option<Name>,
    /// Of this caller. `None`: everybody's.
    pub(crate) own: Option<Own>,
    /// Older than this position.
    pub(crate) before: Option<i64>,
}

/// A caller's own.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    pub(crate) principal: String,
    /// In these tenants only. `None`: in all, and without one.
    pub(crate) within: Option<Vec<Name>>,
}

/// Newest arrival first. Plumbing of a protocol has a record too, but no tool, and is no execution.
pub(crate) async fn list(
    conn: &mut Conn,
    org: &str,
    filter: &Filter,
    limit: u32,
) -> Result<Part, StoreError> {
    let mut query = Sql::new("SELECT position, time_ms, hash, body FROM events WHERE org = ");
    query.push_bind(org);
    query.push(
        " AND type IN ('call.completed', 'call.failed', 'call.unknown', 'call.not_forwarded', \
         'execution.reported') AND tool IS NOT NULL",
    );
    if let Some(tool) = &filter.tool {
        query.push(" AND tool = ").push_bind(tool.as_str());
    }
    if let Some(tenant) = &filter.tenant {
        query.push(" AND tenant = ").push_bind(tenant.as_str());
    }
    if let Some(own) = &filter.own {
        query.push(" AND principal = ").push_bind(&own.principal);
        super::push_within(&mut query, own.within.as_deref());
    }
    if let Some(before) = filter.before {
        query.push(" AND position < ").push_bind(before);
    }
    query.push(" ORDER BY position DESC");
    audit::part(conn, query, limit).await
}

/// Where a token was issued: the call that it was for.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct Issued {
    pub(crate) txn: Option<String>,
    pub(crate) tenant: Option<String>,
    pub(crate) tool: Option<String>,
    pub(crate) principal: Option<String>,
    pub(crate) approval: Option<String>,
}

/// The call for which a token was minted here, or by a proxy with the call's intent.
pub(crate) async fn issued(conn: &mut Conn, org: &str, token_id: &str) -> Result<Option<Issued>, StoreError> {
    let issued = sql::query_as(
        "SELECT txn, tenant, tool, principal, approval FROM events WHERE org = ? AND token_id = ? \
         AND type IN ('token.minted', 'call.forwarded') ORDER BY position LIMIT 1",
    )
    .bind(org)
    .bind(token_id)
    .fetch_optional(conn)
    .await?;
    Ok(issued)
}
