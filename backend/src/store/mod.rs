//! The database. Each noun has a file of plain functions that take a connection or transaction.
//!
//! SQLite allows one writer at a time. Ours is a pool of one connection, so writers queue here, in
//! order and without polling, instead of meeting `SQLITE_BUSY`; readers have their own pool and, with
//! the write-ahead log, never wait for the writer. SQL is kept portable.

pub(crate) mod agents;
pub(crate) mod announced;
pub(crate) mod approvals;
pub(crate) mod arguments;
pub(crate) mod audit;
pub(crate) mod categories;
pub(crate) mod definitions;
pub(crate) mod executions;
pub(crate) mod feed;
pub(crate) mod idempotency;
pub(crate) mod keys;
pub(crate) mod kill_switches;
pub(crate) mod orgs;
pub(crate) mod proxies;
pub(crate) mod redemptions;
pub(crate) mod rules;
pub(crate) mod sessions;
pub(crate) mod standing;
pub(crate) mod tenants;
pub(crate) mod tools;
pub(crate) mod users;
pub(crate) mod votes;

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use oakallow_policy::id::Name;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{FromRow, QueryBuilder, Sqlite, SqliteConnection, Transaction};

use crate::feed::{Change, FeedItem};
use crate::state::App;

/// The name of the database file in the data directory.
pub(crate) const FILE: &str = "oakallow.db";

const READERS: u32 = 8;
/// Rows that a reader is ahead of who reads them. They are in memory, whether wanted or not, and an event may
/// take megabytes.
const ROWS_AHEAD: usize = 4;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();

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
            sqlx::Error::PoolClosed | sqlx::Error::Io(_) => Self::Unavailable(error),
            sqlx::Error::Database(ref e) if is_environment(e.code().as_deref()) => Self::Unavailable(error),
            other => Self::Db(other),
        }
    }
}

/// Result codes of SQLite (sqlite.org/rescode.html) that tell of the file, the disk or a lock: BUSY,
/// LOCKED, READONLY, IOERR, FULL, CANTOPEN. An extended code has the primary one in its low byte.
fn is_environment(code: Option<&str>) -> bool {
    let code = code.and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xFF);
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

/// Both pools.
pub(crate) struct Db {
    read: SqlitePool,
    write: SqlitePool,
}

impl Db {
    /// Opens or creates the database and brings its schema up to date.
    pub(crate) async fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let file = data_dir.join(FILE);
        make_private(&file).map_err(sqlx::Error::Io)?;
        let options = SqliteConnectOptions::new()
            .filename(file)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            // FULL: what was acknowledged (an audit event, a consumed approval) survives power loss.
            .synchronous(SqliteSynchronous::Full)
            // Only another process (a backup, a second backend by mistake) can make us wait.
            .busy_timeout(Duration::from_secs(5));
        let write = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(Duration::from_secs(10))
            .connect_with(options.clone())
            .await?;
        MIGRATIONS.run(&write).await?;
        let read = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(Duration::from_secs(10))
            .connect_with(options.pragma("query_only", "ON").row_buffer_size(ROWS_AHEAD))
            .await?;
        Ok(Self { read, write })
    }

    /// A connection that can only read. Whoever holds one asks neither for another nor for the writer:
    /// there are few, and those who hold one each would wait for each other. (A writer may ask for one.)
    pub(crate) async fn read(&self) -> Result<PoolConnection<Sqlite>, StoreError> {
        Ok(self.read.acquire().await?)
    }

    /// Reads of one moment.
    pub(crate) async fn snapshot(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.read.begin().await?)
    }

    /// Makes sure that the database can be written.
    pub(crate) async fn ready(&self) -> Result<(), StoreError> {
        let mut tx = self.write.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("UPDATE orgs SET id = id WHERE id = (SELECT MIN(id) FROM orgs)")
            .execute(&mut *tx)
            .await?;
        tx.rollback().await?;
        Ok(())
    }

    pub(crate) async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }
}

/// Creates the file for its owner only. SQLite gives the files that it puts beside it the same mode.
fn make_private(file: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let opened = options.open(file)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        opened.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    }
    drop(opened);
    Ok(())
}

/// A unit of work: its transaction, and what to announce once it is committed. Dropping it undoes it.
pub(crate) struct Write {
    tx: Transaction<'static, Sqlite>,
    announcements: Vec<FeedItem>,
    app: Arc<App>,
}

impl Write {
    pub(crate) async fn begin(app: Arc<App>) -> Result<Self, StoreError> {
        let tx = app.db.write.begin_with("BEGIN IMMEDIATE").await?;
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
            self.tx.commit().await?;
            for item in self.announcements {
                self.app.feed.publish(item);
            }
            Ok(())
        });
        done.await.unwrap_or(Err(StoreError::Busy))
    }
}

impl Deref for Write {
    type Target = SqliteConnection;
    fn deref(&self) -> &SqliteConnection {
        &self.tx
    }
}

impl DerefMut for Write {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
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
    type Row: for<'r> FromRow<'r, SqliteRow> + Send + Unpin;
}

/// A noun that is listed in the order of its key.
pub(crate) trait Listed: Noun {
    /// `SELECT … WHERE org = ? AND <key> > ? ORDER BY <key> LIMIT ?`
    const PAGE: &'static str;

    fn key(&self) -> &str;
}

/// The org's thing with that key.
pub(crate) async fn one<N: Noun>(
    db: &mut SqliteConnection,
    org: &Name,
    key: &str,
) -> Result<Option<N>, StoreError> {
    let row: Option<N::Row> = sqlx::query_as(N::ONE).bind(org.as_str()).bind(key).fetch_optional(db).await?;
    row.map(N::try_from).transpose()
}

/// The org's things after a key.
pub(crate) async fn page<N: Listed>(
    db: &mut SqliteConnection,
    org: &Name,
    after: &str,
    limit: u32,
) -> Result<Vec<N>, StoreError> {
    let rows: Vec<N::Row> =
        sqlx::query_as(N::PAGE).bind(org.as_str()).bind(after).bind(limit).fetch_all(db).await?;
    rows.into_iter().map(N::try_from).collect()
}

/// Narrows a query to these tenants; `None`: to none in particular.
fn push_within(query: &mut QueryBuilder<Sqlite>, tenants: Option<&[Name]>) {
    let Some(tenants) = tenants else { return };
    query.push(" AND tenant IN (");
    let mut list = query.separated(", ");
    for tenant in tenants {
        list.push_bind(tenant.as_str().to_owned());
    }
    query.push(")");
}

/// SQLite has no unsigned integers; ours (times, versions, counts) stay far below the limit.
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
