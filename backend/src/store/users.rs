//! People.

use oakallow_policy::id::Name;
use oakallow_policy::timestamp::UnixMs;
use sqlx::FromRow;

use super::{Conn, StoreError, signed, sql};

/// A person of an org.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct User {
    /// `usr_…`
    pub(crate) id: String,
    pub(crate) email: String,
    /// `owner`, `admin`, `approver` or `viewer`.
    pub(crate) role: String,
}

pub(crate) async fn insert(db: &mut Conn, org: &Name, user: &User, now: UnixMs) -> Result<(), StoreError> {
    sql::query("INSERT INTO users (id, org, email, role, created_at) VALUES (?, ?, ?, ?, ?)")
        .bind(&user.id)
        .bind(org.as_str())
        .bind(&user.email)
        .bind(&user.role)
        .bind(signed(now))
        .execute(db)
        .await?;
    Ok(())
}

pub(crate) async fn by_email(db: &mut Conn, org: &Name, email: &str) -> Result<Option<User>, StoreError> {
    Ok(sql::query_as("SELECT id, email, role FROM users WHERE org = ? AND email = ?")
        .bind(org.as_str())
        .bind(email)
        .fetch_optional(db)
        .await?)
}

pub(crate) async fn by_id(db: &mut Conn, org: &Name, id: &str) -> Result<Option<User>, StoreError> {
    Ok(sql::query_as("SELECT id, email, role FROM users WHERE org = ? AND id = ?")
        .bind(org.as_str())
        .bind(id)
        .fetch_optional(db)
        .await?)
}
