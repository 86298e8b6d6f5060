//! Login links and sessions: hashes, never what is presented.

use oakallow_policy::id::Name;
use oakallow_policy::timestamp::UnixMs;
use sqlx::FromRow;

use super::{Conn, StoreError, signed, sql};

/// A link with which one person signs in once.
#[derive(Debug, Clone)]
pub(crate) struct LoginLink {
    pub(crate) token_sha256: String,
    pub(crate) org: Name,
    pub(crate) user_id: String,
    pub(crate) expires_ms: UnixMs,
}

pub(crate) async fn insert_link(db: &mut Conn, link: &LoginLink) -> Result<(), StoreError> {
    sql::query("INSERT INTO login_links (token_sha256, org, user_id, expires_ms) VALUES (?, ?, ?, ?)")
        .bind(&link.token_sha256)
        .bind(link.org.as_str())
        .bind(&link.user_id)
        .bind(signed(link.expires_ms))
        .execute(db)
        .await?;
    Ok(())
}

/// The org whose link it is; one of the queries without an org, since it is what finds the org.
pub(crate) async fn org_of_link(db: &mut Conn, token_sha256: &str) -> Result<Option<Name>, StoreError> {
    let org: Option<String> = sql::query_scalar("SELECT org FROM login_links WHERE token_sha256 = ?")
        .bind(token_sha256)
        .fetch_optional(db)
        .await?;
    super::opt_name("login_links", "org", org.as_deref())
}

/// Uses a link: of any number of attempts one gets it, with the person's id. `None`: unknown, used, or expired.
pub(crate) async fn use_link(
    db: &mut Conn,
    org: &Name,
    token_sha256: &str,
    now: UnixMs,
) -> Result<Option<String>, StoreError> {
    let user = sql::query_scalar(
        "UPDATE login_links SET used_ms = ?3 WHERE org = ?1 AND token_sha256 = ?2 AND used_ms IS NULL \
         AND expires_ms > ?3 RETURNING user_id",
    )
    .bind(org.as_str())
    .bind(token_sha256)
    .bind(signed(now))
    .fetch_optional(db)
    .await?;
    Ok(user)
}

/// Whether somebody signed in with this link; `false` also when it is unknown.
pub(crate) async fn link_was_used(db: &mut Conn, token_sha256: &str) -> Result<bool, StoreError> {
    let used: Option<bool> =
        sql::query_scalar("SELECT used_ms IS NOT NULL FROM login_links WHERE token_sha256 = ?")
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

pub(crate) async fn insert(db: &mut Conn, new: &NewSession<'_>, now: UnixMs) -> Result<(), StoreError> {
    sql::query(
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
    db: &mut Conn,
    secret_sha256: &str,
    now: UnixMs,
) -> Result<Option<Session>, StoreError> {
    let session = sql::query_as(
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
pub(crate) async fn end(db: &mut Conn, org: &Name, id: &str, now: UnixMs) -> Result<bool, StoreError> {
    let done = sql::query("UPDATE sessions SET ended_ms = ? WHERE org = ? AND id = ? AND ended_ms IS NULL")
        .bind(signed(now))
        .bind(org.as_str())
        .bind(id)
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Forgets links and sessions that are over.
pub(crate) async fn delete_past(db: &mut Conn, before: UnixMs) -> Result<(), StoreError> {
    sql::query("DELETE FROM login_links WHERE expires_ms < ?").bind(signed(before)).execute(&mut *db).await?;
    sql::query("DELETE FROM sessions WHERE expires_ms < ?").bind(signed(before)).execute(db).await?;
    Ok(())
}
