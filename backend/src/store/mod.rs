//! The database. Each noun has a file of plain functions that take a connection or transaction.
//!
//! SQL is the same for SQLite and PostgreSQL: [`sql`] sends it, [`conn`] is where, [`Db`] opens it.

pub(crate) mod agents;
pub(crate) mod announced;
pub(crate) mod approvals;
pub(crate) mod arguments;
pub(crate) mod audit;
pub(crate) mod categories;
mod conn;
mod db;
pub(crate) mod definitions;
pub(crate) mod executions;
pub(crate) mod feed;
pub(crate) mod idempotency;
pub(crate) mod keys;
pub(crate) mod kill_switches;
mod lite;
pub(crate) mod orgs;
mod pg;
pub(crate) mod proxies;
pub(crate) mod redemptions;
pub(crate) mod rules;
pub(crate) mod sessions;
pub(crate) mod sql;
pub(crate) mod standing;
pub(crate) mod tenants;
pub(crate) mod tools;
mod turns;
pub(crate) mod users;
pub(crate) mod vault_keys;
pub(crate) mod votes;

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use oakallow_policy::id::Name;
use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;

use crate::feed::{Change, FeedItem};
use crate::state::App;

pub(crate) use conn::Conn;
pub(crate) use db::Db;
use sql::Sql;

/// Why the database did not do it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("database: {0}")]
    Db(sqlx::Error),
    #[error("the database was busy for too long")]
    Busy,
    /// Locked by another process, full, read-only, gone: not this request's doing, and it may pass.
    #[error("the database cannot be used: {0}")]
    Unavailable(sqlx::Error),
    #[error("{}", sql::Nul)]
    Nul,
    /// The connection was lost while it committed: it did, or did not.
    #[error("the database went away during a commit: {0}")]
    Unsure(sqlx::Error),
    /// What the URL says is not repeated: there may be a password in it.
    #[error("its URL is not postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE[?sslmode=verify-full]")]
    Url,
    #[error(
        "the role may pass row level security (SUPERUSER or BYPASSRLS), and with that the wall between orgs: use a \
         role that may not"
    )]
    Unwalled,
    #[error("migration: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    #[error("corrupt row `{row}` in `{table}.{column}`: {problem}")]
    Corrupt { table: &'static str, column: &'static str, row: String, problem: String },
    #[error("{0}")]
    Encode(#[from] serde_json::Error),
    #[error("{0}")]
    Canonical(#[from] oakallow_policy::canonical::CanonicalError),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::PoolTimedOut => Self::Busy,
            sqlx::Error::Encode(ref e) if e.is::<sql::Nul>() => Self::Nul,
            sqlx::Error::PoolClosed | sqlx::Error::Io(_) | sqlx::Error::Tls(_) => Self::Unavailable(error),
            sqlx::Error::Database(ref e) => match blame(e.as_ref()) {
                Blame::Environment => Self::Unavailable(error),
                Blame::Others => Self::Busy,
                Blame::Statement => Self::Db(error),
            },
            other => Self::Db(other),
        }
    }
}

/// Whose doing a database error is.
enum Blame {
    /// The file, the disk, the server, the connection to it.
    Environment,
    /// Those who are at work beside us.
    Others,
    /// The statement's, or its values'.
    Statement,
}

fn blame(error: &dyn DatabaseError) -> Blame {
    let code = error.code().unwrap_or_default();
    if error.try_downcast_ref::<PgDatabaseError>().is_some() {
        return blame_of_postgres(&code);
    }
    if is_environment(&code) { Blame::Environment } else { Blame::Statement }
}

/// Error codes of PostgreSQL (appendix A of its documentation): connection (08), resources (53), intervention of an
/// operator (57P, 57014), system (58), a standby (25006); and serialization, deadlock, a lock that was not to be had.
fn blame_of_postgres(code: &str) -> Blame {
    let environment = ["08", "53", "57P", "57014", "58", "25006"];
    match code {
        "40001" | "40P01" | "55P03" => Blame::Others,
        code if environment.iter().any(|begins| code.starts_with(begins)) => Blame::Environment,
        _ => Blame::Statement,
    }
}

/// Result codes of SQLite (sqlite.org/rescode.html) that tell of the file, the disk or a lock: BUSY,
/// LOCKED, READONLY, IOERR, FULL, CANTOPEN. An extended code has the primary one in its low byte.
fn is_environment(code: &str) -> bool {
    let code = code.parse::<u32>().ok().map(|code| code & 0xFF);
    matches!(code, Some(5 | 6 | 8 | 10 | 13 | 14))
}

impl StoreError {
    /// A row that is not what we wrote.
    pub(crate) fn corrupt(
        table: &'static str,
        column: &'static str,
        row: &str,
        problem: &dyn std::fmt::Display,
    ) -> Self {
        Self::Corrupt { table, column, row: row.to_owned(), problem: problem.to_string() }
    }

    /// A unique key refused the row: the caller turns it into a 409.
    pub(crate) fn is_unique_violation(&self) -> bool {
        matches!(self, Self::Db(sqlx::Error::Database(e)) if e.is_unique_violation())
    }
}

/// A unit of work in one org: its transaction, and what to announce once it is committed. Dropping it undoes it.
pub(crate) struct Write {
    tx: Conn,
    announcements: Vec<FeedItem>,
    app: Arc<App>,
}

impl Write {
    /// Of any number of units of one org, one is at work: what it reads is still so when it is committed.
    pub(crate) async fn begin(app: Arc<App>, org: &str) -> Result<Self, StoreError> {
        let tx = app.db.begin(org).await?;
        Ok(Self { tx, announcements: Vec::new(), app })
    }

    /// A unit that is of no org, and may meet others: for what rests on nothing that it read.
    pub(crate) async fn across(app: Arc<App>) -> Result<Self, StoreError> {
        let tx = app.db.begin_across().await?;
        Ok(Self { tx, announcements: Vec::new(), app })
    }

    /// Makes a new policy version. `tenant`: only that tenant's rules changed.
    pub(crate) async fn bump(&mut self, org: &Name, tenant: Option<&Name>) -> Result<u64, StoreError> {
        let version = orgs::bump(&mut self.tx, org, tenant).await?;
        self.announce(org, Change::Version { version, tenant: tenant.cloned() }).await?;
        Ok(version)
    }

    /// Writes a line of the feed, and publishes it after the commit.
    pub(crate) async fn announce(&mut self, org: &Name, change: Change) -> Result<(), StoreError> {
        let at = self.app.now();
        let item = feed::insert(&mut self.tx, org, change, at).await?;
        self.announcements.push(item);
        Ok(())
    }

    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        // On a task of its own: a client that leaves at this moment cannot keep a change that is
        // committed from being heard of.
        let done = tokio::spawn(async move {
            let Self { mut tx, announcements, app } = self;
            let shared = tx.is_shared();
            if let Some(last) = announcements.last() {
                feed::notify(&mut tx, &last.org).await?;
            }
            tx.commit().await.map_err(|e| match StoreError::from(e) {
                StoreError::Unavailable(cause) if shared => StoreError::Unsure(cause),
                other => other,
            })?;
            // A shared database tells every backend, this one too (`tail`).
            for item in announcements.into_iter().filter(|_| !shared) {
                app.feed.publish(item);
            }
            Ok(())
        });
        done.await.unwrap_or(Err(StoreError::Busy))
    }
}

impl Deref for Write {
    type Target = Conn;
    fn deref(&self) -> &Conn {
        &self.tx
    }
}

impl DerefMut for Write {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.tx
    }
}

/// A noun of which an org has many, each with a key of its own.
pub(crate) trait Noun: TryFrom<Self::Row, Error = StoreError> + Send + 'static {
    /// What it is called.
    const WHAT: &'static str;
    /// `SELECT … WHERE org = ? AND <key> = ?`
    const ONE: &'static str;
    /// Its columns.
    type Row: sql::Row;
}

/// A noun that is listed in the order of its key.
pub(crate) trait Listed: Noun {
    /// `SELECT … WHERE org = ? AND <key> > ? ORDER BY <key> LIMIT ?`
    const PAGE: &'static str;

    fn key(&self) -> &str;
}

/// The org's thing with that key.
pub(crate) async fn one<N: Noun>(db: &mut Conn, org: &Name, key: &str) -> Result<Option<N>, StoreError> {
    let row: Option<N::Row> = sql::query_as(N::ONE).bind(org.as_str()).bind(key).fetch_optional(db).await?;
    row.map(N::try_from).transpose()
}

/// The org's things after a key.
pub(crate) async fn page<N: Listed>(
    db: &mut Conn,
    org: &Name,
    after: &str,
    limit: u32,
) -> Result<Vec<N>, StoreError> {
    let rows: Vec<N::Row> =
        sql::query_as(N::PAGE).bind(org.as_str()).bind(after).bind(limit).fetch_all(db).await?;
    rows.into_iter().map(N::try_from).collect()
}

/// Narrows a query to these tenants; `None`: to none in particular.
fn push_within(query: &mut Sql, tenants: Option<&[Name]>) {
    let Some(tenants) = tenants else { return };
    query.push(" AND tenant IN (").push_list(tenants.iter().map(Name::as_str)).push(")");
}

/// The databases have no unsigned integers; ours (times, versions, counts) stay far below the limit.
pub(crate) fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The way back of [`signed`].
pub(crate) fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

/// The stored name of a plain enum: the same as on the wire.
pub(crate) fn to_text<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    match serde_json::to_value(value)? {
        serde_json::Value::String(text) => Ok(text),
        other => Ok(other.to_string()),
    }
}

/// The way back of [`to_text`].
pub(crate) fn from_text<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    serde_json::from_value(serde_json::Value::String(text.to_owned()))
}

/// A stored name.
pub(crate) fn name(table: &'static str, column: &'static str, text: &str) -> Result<Name, StoreError> {
    Name::new(text).map_err(|e| StoreError::corrupt(table, column, text, &e))
}

/// A stored name that may be absent.
pub(crate) fn opt_name(
    table: &'static str,
    column: &'static str,
    text: Option<&str>,
) -> Result<Option<Name>, StoreError> {
    text.map(|text| name(table, column, text)).transpose()
}

/// A stored JSON text.
pub(crate) fn json<T: serde::de::DeserializeOwned>(
    table: &'static str,
    column: &'static str,
    text: &str,
) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|e| StoreError::corrupt(table, column, text, &e))
}
