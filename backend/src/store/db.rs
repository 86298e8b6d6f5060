//! The database as a whole: opened, asked for connections, closed.
//!
//! SQLite allows one writer at a time. Ours is a pool of one connection, so writers queue here, in
//! order and without polling, instead of meeting `SQLITE_BUSY`; readers have their own pool and, with
//! the write-ahead log, never wait for the writer.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use super::{Conn, StoreError, sql};

/// The name of the database file in the data directory.
const FILE: &str = "oakallow.db";

const READERS: u32 = 8;
/// Rows that a reader is ahead of who reads them. They are in memory, whether wanted or not, and an event may
/// take megabytes.
const ROWS_AHEAD: usize = 4;
/// For how long one waits for a connection.
const PATIENCE: Duration = Duration::from_secs(10);

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("migrations/sqlite");

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
        let write = pool(1).connect_with(options.clone()).await?;
        MIGRATIONS.run(&write).await?;
        let read = pool(READERS)
            .connect_with(options.pragma("query_only", "ON").row_buffer_size(ROWS_AHEAD))
            .await?;
        Ok(Self { read, write })
    }

    /// A database that a backend may be at work on: as it is at this moment, only to be read.
    pub(crate) async fn look(data_dir: &Path) -> Result<Conn, StoreError> {
        let options = SqliteConnectOptions::new().filename(data_dir.join(FILE)).read_only(true);
        Ok(Conn::LiteTx(pool(1).connect_with(options).await?.begin().await?))
    }

    /// A connection that can only read, and only what is of this org. Whoever holds one asks neither for another
    /// nor for the writer: there are few, and those who hold one each would wait for each other. (A writer may
    /// ask for one.)
    pub(crate) async fn read(&self, _org: &str) -> Result<Conn, StoreError> {
        Ok(Conn::Lite(self.read.acquire().await?))
    }

    /// [`Db::read`] for what is of no org, or of one that is not known yet.
    pub(crate) async fn read_across(&self) -> Result<Conn, StoreError> {
        Ok(Conn::Lite(self.read.acquire().await?))
    }

    /// Reads of one moment.
    pub(crate) async fn snapshot(&self, _org: &str) -> Result<Conn, StoreError> {
        Ok(Conn::LiteTx(self.read.begin().await?))
    }

    /// Begins to write in an org: nobody else does, until this is committed or dropped.
    pub(crate) async fn begin(&self, _org: &str) -> Result<Conn, StoreError> {
        Ok(Conn::LiteTx(self.write.begin_with("BEGIN IMMEDIATE").await?))
    }

    /// Begins to write in any org, beside those who write in one.
    pub(crate) async fn begin_across(&self) -> Result<Conn, StoreError> {
        Ok(Conn::LiteTx(self.write.begin_with("BEGIN IMMEDIATE").await?))
    }

    /// Makes sure that the database can be written.
    pub(crate) async fn ready(&self) -> Result<(), StoreError> {
        let mut tx = self.begin_across().await?;
        sql::query("UPDATE orgs SET id = id WHERE id = (SELECT MIN(id) FROM orgs)").execute(&mut tx).await?;
        Ok(())
    }

    pub(crate) async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }
}

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new().max_connections(connections).acquire_timeout(PATIENCE)
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
