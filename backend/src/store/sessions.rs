//! Login links and sessions: hashes, never what is presented.

use oakallow_policy::id::Name;
use oakallow_policy::timestamp::UnixMs;
use sqlx::{FromRow, SqliteConnection};

use super::{StoreError, signed};

/// A link with which one person signs in once.
#[derive(Debug, Clone)]
pub(crate) struct LoginLink {
    pub(crate) token_sha256: String,
    pub(crate) org: Name,
    pub(crate) user_id: String,
    pub(crate) expires_ms: UnixMs,
}

pub(crate) async fn insert_link(db: &mut SqliteConnection, link: &LoginLink) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO login_links (token_sha256, org, user_id, expires_ms) VALUES (?, ?, ?, ?)")
        .bind(&link.token_sha256)
        .bind(link.org.as_str())
        .bind(&link.user_id)
        .bind(signed(link.expires_ms))
        .execute(db)
        .await?;
    Ok(())
}

/// Uses a link: of any number of attempts one gets it. `None`: unknown, used, or expired.
pub(crate) async fn use_link(
    db: &mut SqliteConnection,
    token_sha256: &str,
    now: UnixMs,
) -> Result<Option<(Name, String)>, StoreError> {
    let row: Option<(String, String)> = sqlx::query_as(
        "UPDATE login_links SET used_ms = ?2 WHERE token_sha256 = ?1 AND used_ms IS NULL AND expires_ms > ?2 \
         RETURNING org, user_id",
    )
    .bind(token_sha256)
    .bind(signed(now))
    .fetch_optional(db)
    .await?;
    row.map(|(org, user)| Ok((super::name("login_links", "org", &org)?, user))).transpose()
}

/// Whether somebody signed in with this link; `false` also when it is unknown.
pub(crate) async fn link_was_used(db: &mut SqliteConnection, token_sha256: &str) -> Result<bool, StoreError> {
    let used: Option<bool> =
        sqlx::query_scalar("SELECT used_ms IS NOT NULL FROM login_links WHERE token_sha256 = ?")
            .bind(token_sha256)
            .fetch_optional(db)
            .await?;
    Ok(used.unwrap_or(false))
}

/// A session that is in force, with its person.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct Session {
    /// `ses_…`
    pub(crate) id: String,
    pub(crate) org: String,
    pub(crate) email: String,
    pub(crate) role: String,
}

/// A session about to begin.
#[derive(Debug)]
pub(crate) struct NewSession<'a> {
    pub(crate) id: &'a str,
    pub(crate) secret_sha256: &'a str,
    pub(crate) org: &'a Name,
    pub(crate) user_id: &'a str,
    pub(crate) expires_ms: UnixMs,
}

pub(crate) async fn insert(
    db: &mut SqliteConnection,
    new: &NewSession<'_>,
    now: UnixMs,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO sessions (id, secret_sha256, org, user_id, created_ms, expires_ms) VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(new.id)
    .bind(new.secret_sha256)
    .bind(new.org.as_str())
    .bind(new.user_id)
    .bind(signed(now))
    .bind(signed(new.expires_ms))
    .execute(db)
    .await?;
    Ok(())
}

pub(crate) async fn find(
    db: &mut SqliteConnection,
    secret_sha256: &str,
    now: UnixMs,
) -> Result<Option<Session>, StoreError> {
    let session = sqlx::query_as(
        "SELECT s.id, s.org, u.email, u.role FROM sessions s JOIN users u ON u.id = s.user_id AND u.org = s.org \
         WHERE s.secret_sha256 = ? AND s.ended_ms IS NULL AND s.expires_ms > ?",
    )
    .bind(secret_sha256)
    .bind(signed(now))
    .fetch_optional(db)
    .await?;
    Ok(session)
}

/// Ends a session; says whether it was in force.
pub(crate) async fn end(db: &mut SqliteConnection, id: &str, now: UnixMs) -> Result<bool, StoreError> {
    let done = sqlx::query("UPDATE sessions SET ended_ms = ? WHERE id = ? AND ended_ms IS NULL")
        .bind(signed(now))
        .bind(id)
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Forgets links and sessions that are over.
pub(crate) async fn delete_past(db: &mut SqliteConnection, before: UnixMs) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM login_links WHERE expires_ms < ?")
        .bind(signed(before))
        .execute(&mut *db)
        .await?;
    sqlx::query("DELETE FROM sessions WHERE expires_ms < ?").bind(signed(before)).execute(db).await?;
    Ok(())
}
