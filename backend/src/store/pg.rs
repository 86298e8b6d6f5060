//! PostgreSQL, which several backends may share.
//!
//! Whoever writes in an org holds that org's lock until the transaction ends, in whichever process: what it reads is
//! still so when it commits, and numbers that are given out in the org become visible in their order
//! (docs/decisions/0060-two-databases.md). Every connection says for which org it is; row level security shows it
//! nothing else.

use std::str::FromStr as _;

use oakallow_policy::wire::Secret;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPool, PgPoolOptions};
use sqlx::{Connection as _, PgTransaction, Postgres, Transaction};

use super::db::PATIENCE;
use super::turns::Turns;
use super::{Conn, StoreError};

/// One of them listens.
const READERS: u32 = 9;
/// Orgs that are written in at once: each has one connection at a time.
const WRITERS: u32 = 8;
/// What the connections of a dead host, or of one that stands still, hold up for at most.
const SETTINGS: [(&str, &str); 2] = [("lock_timeout", "10s"), ("idle_in_transaction_session_timeout", "60s")];
/// The channel on which an org's name is said once its feed has grown.
pub(crate) const CHANNEL: &str = "oakallow_feed";

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("migrations/postgres");

/// Whose rows a connection sees.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scope<'a> {
    Org(&'a str),
    Across,
}

impl Scope<'_> {
    const fn settings(&self) -> (&str, &'static str) {
        match self {
            Scope::Org(org) => (org, "off"),
            Scope::Across => ("", "on"),
        }
    }
}

pub(crate) struct Pools {
    read: PgPool,
    write: PgPool,
    turns: Turns,
}

impl Pools {
    /// Connects, and brings the schema up to date.
    pub(super) async fn open(url: &Secret) -> Result<Self, StoreError> {
        migrate(url).await?;
        let options = options(url)?;
        let write = pool(WRITERS).connect_with(options.clone().options(SETTINGS)).await?;
        let read_only = options.options(SETTINGS).options([("default_transaction_read_only", "on")]);
        let read = pool(READERS).connect_with(read_only).await?;
        Ok(Self { read, write, turns: Turns::default() })
    }

    pub(super) async fn read(&self, scope: Scope<'_>) -> Result<Conn, StoreError> {
        let mut conn = self.read.acquire().await?;
        // Said anew each time: the one who had it before was of another org.
        say(&mut conn, scope, false).await?;
        Ok(Conn::Pg(conn))
    }

    pub(super) async fn snapshot(&self, org: &str) -> Result<Conn, StoreError> {
        Ok(Conn::PgTx(snapshot(&self.read, org).await?, None))
    }

    pub(super) async fn begin(&self, org: &str) -> Result<Conn, StoreError> {
        let turn =
            tokio::time::timeout(PATIENCE, self.turns.take(org)).await.map_err(|_| StoreError::Busy)?;
        let mut tx = self.write.begin().await?;
        say(&mut tx, Scope::Org(org), true).await?;
        // The first statement that reads comes after this one, and sees what the one before us committed.
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('oakallow/' || $1, 0))")
            .bind(org)
            .execute(&mut *tx)
            .await?;
        Ok(Conn::PgTx(tx, Some(turn)))
    }

    pub(super) async fn begin_across(&self) -> Result<Conn, StoreError> {
        let mut tx = self.write.begin().await?;
        say(&mut tx, Scope::Across, true).await?;
        Ok(Conn::PgTx(tx, None))
    }

    pub(super) async fn listener(&self) -> Result<PgListener, StoreError> {
        let mut listener = PgListener::connect_with(&self.read).await?;
        listener.listen(CHANNEL).await?;
        Ok(listener)
    }

    pub(super) async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }
}

/// Brings the schema up to date; of several that try at once, one does it.
pub(super) async fn migrate(url: &Secret) -> Result<(), StoreError> {
    let mut conn = PgConnection::connect_with(&options(url)?).await?;
    refuse_unwalled(&mut conn).await?;
    // A migration that fills a column does so in every org.
    say(&mut conn, Scope::Across, false).await?;
    MIGRATIONS.run(&mut conn).await?;
    conn.close().await?;
    Ok(())
}

/// The database as it is at this moment, only to be read.
pub(super) async fn look(url: &Secret, org: &str) -> Result<Conn, StoreError> {
    let pool = pool(1).connect_with(options(url)?).await?;
    Ok(Conn::PgTx(snapshot(&pool, org).await?, None))
}

async fn snapshot(pool: &PgPool, org: &str) -> Result<Transaction<'static, Postgres>, StoreError> {
    let mut tx: PgTransaction<'static> =
        pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    say(&mut tx, Scope::Org(org), true).await?;
    Ok(tx)
}

/// Says for which org the connection is; `locally`: until the transaction ends.
async fn say(conn: &mut PgConnection, scope: Scope<'_>, locally: bool) -> Result<(), StoreError> {
    let (org, across) = scope.settings();
    sqlx::query("SELECT set_config('oakallow.org', $1, $3), set_config('oakallow.across', $2, $3)")
        .bind(org)
        .bind(across)
        .bind(locally)
        .execute(conn)
        .await?;
    Ok(())
}

/// Row level security does not bind these roles: with one of them the second wall would not stand.
async fn refuse_unwalled(conn: &mut PgConnection) -> Result<(), StoreError> {
    let unwalled: bool =
        sqlx::query_scalar("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user")
            .fetch_one(conn)
            .await?;
    if unwalled { Err(StoreError::Unwalled) } else { Ok(()) }
}

/// The error says nothing of the URL: a password may stand in it.
fn options(url: &Secret) -> Result<PgConnectOptions, StoreError> {
    let options = PgConnectOptions::from_str(url.expose()).map_err(|_| StoreError::Url)?;
    Ok(options.application_name("oakallow"))
}

fn pool(connections: u32) -> PgPoolOptions {
    PgPoolOptions::new().max_connections(connections).acquire_timeout(PATIENCE)
}

#[cfg(test)]
mod tests;
