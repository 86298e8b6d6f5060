//! A connection to either database. What differs between them is decided here and in the few files that look at
//! [`Conn::side`]; every other file hands a [`Conn`] on.

use sqlx::pool::PoolConnection;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;
use sqlx::{Postgres, Sqlite, Transaction};

use super::turns::Turn;

/// A connection, or the transaction that it is in. Dropping a transaction undoes it.
pub(crate) enum Conn {
    /// SQLite, each statement by itself.
    Lite(PoolConnection<Sqlite>),
    /// SQLite, in a transaction.
    LiteTx(Transaction<'static, Sqlite>),
    /// PostgreSQL, each statement by itself.
    Pg(PoolConnection<Postgres>),
    /// PostgreSQL, in a transaction; a writer's turn ends with it.
    PgTx(Transaction<'static, Postgres>, Option<Turn>),
}

/// The driver's own connection.
pub(crate) enum Side<'c> {
    Lite(&'c mut SqliteConnection),
    Pg(&'c mut PgConnection),
}

impl Conn {
    pub(crate) fn side(&mut self) -> Side<'_> {
        match self {
            Self::Lite(conn) => Side::Lite(conn),
            Self::LiteTx(tx) => Side::Lite(tx),
            Self::Pg(conn) => Side::Pg(conn),
            Self::PgTx(tx, _) => Side::Pg(tx),
        }
    }

    /// Whether several backends may be on its database.
    pub(crate) const fn is_shared(&self) -> bool {
        matches!(self, Self::Pg(_) | Self::PgTx(..))
    }

    /// Keeps what the transaction did. Outside of one, it is kept already.
    pub(crate) async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::LiteTx(tx) => tx.commit().await,
            Self::PgTx(tx, _turn) => tx.commit().await,
            Self::Lite(_) | Self::Pg(_) => Ok(()),
        }
    }
}
