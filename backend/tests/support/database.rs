//! The database of a test, and a look into it past the backend.

use std::path::Path;

use oakallow_backend::Database;
use oakallow_policy::wire::Secret;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, SqliteConnection};

#[path = "postgres.rs"]
mod postgres;

/// SQLite in that directory, or a PostgreSQL database that nobody else has (`scripts/postgres run`).
pub(crate) async fn fresh(data_dir: &Path) -> Database {
    let postgres = |url: &str| Database::Postgres(Secret::new(url.to_owned()));
    let migrate = async |url: &str| oakallow_backend::migrate(data_dir, &postgres(url)).await.unwrap();
    postgres::database(migrate).await.map_or(Database::DataDir, |url| postgres(&url))
}

/// A connection of the test's own, which sees the rows of every org.
pub(crate) enum Raw {
    Lite(SqliteConnection),
    Pg(PgConnection),
}

impl Raw {
    pub(crate) async fn open(data_dir: &Path, database: &Database) -> Self {
        match database {
            Database::DataDir => {
                let file = data_dir.join("oakallow.db");
                Self::Lite(SqliteConnectOptions::new().filename(file).connect().await.unwrap())
            }
            Database::Postgres(url) => {
                let mut raw = Self::Pg(PgConnection::connect(url.expose()).await.unwrap());
                raw.execute("SELECT set_config('oakallow.across', 'on', false)").await.unwrap();
                raw
            }
        }
    }

    pub(crate) async fn execute(&mut self, sql: &str) -> Result<(), String> {
        let sql = AssertSqlSafe(sql.to_owned());
        let done = match self {
            Self::Lite(db) => sqlx::raw_sql(sql).execute(db).await.map(drop),
            Self::Pg(db) => sqlx::raw_sql(sql).execute(db).await.map(drop),
        };
        done.map_err(|e| e.to_string())
    }

    /// The number that a query answers.
    pub(crate) async fn count(&mut self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Lite(db) => sqlx::query_scalar(sql).fetch_one(db).await.unwrap(),
            Self::Pg(db) => sqlx::query_scalar(sql).fetch_one(db).await.unwrap(),
        }
    }

    /// The text for the database that it is.
    pub(crate) fn either<'a>(&self, lite: &'a str, pg: &'a str) -> &'a str {
        match self {
            Self::Lite(_) => lite,
            Self::Pg(_) => pg,
        }
    }
}
