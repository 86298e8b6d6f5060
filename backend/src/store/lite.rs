//! SQLite: one file in the data directory.
//!
//! SQLite allows one writer at a time. Ours is a pool of one connection, so writers queue here, in
//! order and without polling, instead of meeting `SQLITE_BUSY`; readers have their own pool and, with
//! the write-ahead log, never wait for the writer.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

use super::db::PATIENCE;
use super::{Conn, StoreError};

/// The name of the database file in the data directory.
const FILE: &str = "oakallow.db";
const READERS: u32 = 8;
/// Rows that a reader is ahead of who reads them. They are in memory, whether wanted or not, and an event may
/// take megabytes.
const ROWS_AHEAD: usize = 4;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("migrations/sqlite");

pub(crate) struct Pools {
    read: SqlitePool,
    write: SqlitePool,
}

impl Pools {
    /// Opens or creates the file and brings its schema up to date.
    pub(super) async fn open(data_dir: &Path) -> Result<Self, StoreError> {
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

    pub(super) async fn read(&self) -> Result<Conn, StoreError> {
        Ok(Conn::Lite(self.read.acquire().await?))
    }

    pub(super) async fn snapshot(&self) -> Result<Conn, StoreError> {
        Ok(Conn::LiteTx(self.read.begin().await?))
    }

    pub(super) async fn begin(&self) -> Result<Conn, StoreError> {
        Ok(Conn::LiteTx(self.write.begin_with("BEGIN IMMEDIATE").await?))
    }

    pub(super) async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }
}

/// A file that a backend may be at work on: as it is at this moment, only to be read.
pub(super) async fn look(data_dir: &Path) -> Result<Conn, StoreError> {
    let options = SqliteConnectOptions::new().filename(data_dir.join(FILE)).read_only(true);
    Ok(Conn::LiteTx(pool(1).connect_with(options).await?.begin().await?))
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
