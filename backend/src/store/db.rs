//! The database as a whole: opened, asked for connections, closed.

use std::path::Path;
use std::time::Duration;

use sqlx::postgres::PgListener;

use super::{Conn, StoreError, lite, pg, sql};
use crate::config::Database;

/// For how long one waits for a connection.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The pools of either database.
pub(crate) enum Db {
    Lite(lite::Pools),
    Pg(pg::Pools),
}

impl Db {
    /// Opens the database, creating it if it is a file, and brings its schema up to date.
    pub(crate) async fn open(data_dir: &Path, database: &Database) -> Result<Self, StoreError> {
        match database {
            Database::DataDir => Ok(Self::Lite(lite::Pools::open(data_dir).await?)),
            Database::Postgres(url) => Ok(Self::Pg(pg::Pools::open(url).await?)),
        }
    }

    /// A database that a backend may be at work on: as it is at this moment, only to be read.
    pub(crate) async fn look(data_dir: &Path, database: &Database, org: &str) -> Result<Conn, StoreError> {
        match database {
            Database::DataDir => lite::look(data_dir).await,
            Database::Postgres(url) => pg::look(url, org).await,
        }
    }

    /// A connection that can only read, and only what is of this org. Whoever holds one asks neither for another
    /// nor for the writer: there are few, and those who hold one each would wait for each other. (A writer may
    /// ask for one.)
    pub(crate) async fn read(&self, org: &str) -> Result<Conn, StoreError> {
        match self {
            Self::Lite(pools) => pools.read().await,
            Self::Pg(pools) => pools.read(pg::Scope::Org(org)).await,
        }
    }

    /// [`Db::read`] for what is of no org, or of one that is not known yet.
    pub(crate) async fn read_across(&self) -> Result<Conn, StoreError> {
        match self {
            Self::Lite(pools) => pools.read().await,
            Self::Pg(pools) => pools.read(pg::Scope::Across).await,
        }
    }

    /// Reads of one moment.
    pub(crate) async fn snapshot(&self, org: &str) -> Result<Conn, StoreError> {
        match self {
            Self::Lite(pools) => pools.snapshot().await,
            Self::Pg(pools) => pools.snapshot(org).await,
        }
    }

    /// Begins to write in an org: nobody else does, in any process, until this is committed or dropped.
    pub(crate) async fn begin(&self, org: &str) -> Result<Conn, StoreError> {
        match self {
            Self::Lite(pools) => pools.begin().await,
            Self::Pg(pools) => pools.begin(org).await,
        }
    }

    /// Begins to write in any org, beside those who write in one.
    pub(crate) async fn begin_across(&self) -> Result<Conn, StoreError> {
        match self {
            Self::Lite(pools) => pools.begin().await,
            Self::Pg(pools) => pools.begin_across().await,
        }
    }

    /// Makes sure that the database can be written.
    pub(crate) async fn ready(&self) -> Result<(), StoreError> {
        let mut tx = self.begin_across().await?;
        sql::query("UPDATE orgs SET id = id WHERE id = (SELECT MIN(id) FROM orgs)").execute(&mut tx).await?;
        Ok(())
    }

    /// Hears of what other processes announce. `None`: nobody else serves this database.
    pub(crate) async fn listener(&self) -> Result<Option<PgListener>, StoreError> {
        match self {
            Self::Lite(_) => Ok(None),
            Self::Pg(pools) => Ok(Some(pools.listener().await?)),
        }
    }

    /// A database of a test's own, of the kind that tests run on.
    #[cfg(test)]
    pub(crate) async fn for_test(data_dir: &Path) -> Self {
        use oakallow_policy::wire::Secret;
        let migrate = async |url: &str| pg::migrate(&Secret::new(url.to_owned())).await.unwrap();
        let url = crate::test_postgres::database(migrate).await;
        let database = url.map_or(Database::DataDir, |url| Database::Postgres(Secret::new(url)));
        Self::open(data_dir, &database).await.unwrap()
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Lite(pools) => pools.close().await,
            Self::Pg(pools) => pools.close().await,
        }
    }
}
