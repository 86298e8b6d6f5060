//! Statements for either database, in the words of `sqlx`: a text with `?` or `?1`, values bound in order, rows as
//! `FromRow` types. The text is the same for both; PostgreSQL gets its `$1` here, when it is sent.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::marker::PhantomData;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, FromRow, Postgres, Sqlite};

use super::conn::{Conn, Side};

/// A value of one of the four types that columns have. Integers are 64 bits wide in both databases.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Int(Option<i64>),
    Bool(bool),
    Text(Option<String>),
    Bytes(Vec<u8>),
}

/// A text that PostgreSQL cannot hold. SQLite could; what one refuses, both do.
#[derive(Debug, thiserror::Error)]
#[error("a text contains U+0000")]
pub(crate) struct Nul;

fn refuse_nul(values: &[Value]) -> Result<(), sqlx::Error> {
    let has = |value: &Value| matches!(value, Value::Text(Some(text)) if text.contains('\0'));
    if values.iter().any(has) { Err(sqlx::Error::Encode(Nul.into())) } else { Ok(()) }
}

macro_rules! from {
    ($($from:ty => |$value:ident| $to:expr;)*) => {$(
        impl From<$from> for Value {
            fn from($value: $from) -> Self {
                $to
            }
        }
    )*};
}

from! {
    i64 => |n| Self::Int(Some(n));
    Option<i64> => |n| Self::Int(n);
    u32 => |n| Self::Int(Some(n.into()));
    u8 => |n| Self::Int(Some(n.into()));
    bool => |b| Self::Bool(b);
    &str => |text| Self::Text(Some(text.to_owned()));
    &String => |text| Self::Text(Some(text.clone()));
    String => |text| Self::Text(Some(text));
    Option<&str> => |text| Self::Text(text.map(str::to_owned));
    Option<String> => |text| Self::Text(text);
    &Option<String> => |text| Self::Text(text.clone());
    &[u8] => |bytes| Self::Bytes(bytes.to_vec());
    Vec<u8> => |bytes| Self::Bytes(bytes);
}

/// What both drivers can make of their rows: `#[derive(FromRow)]` and tuples.
pub(crate) trait Row:
    for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin + 'static
{
}

impl<T> Row for T where T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin + 'static
{}

/// A statement with its values.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    text: Cow<'static, str>,
    values: Vec<Value>,
}

/// A statement whose rows are read as `T`.
#[derive(Debug, Clone)]
pub(crate) struct QueryAs<T> {
    query: Query,
    row: PhantomData<fn() -> T>,
}

/// A statement of whose rows the first column is read.
#[derive(Debug, Clone)]
pub(crate) struct QueryScalar<T>(QueryAs<(T,)>);

/// What a statement without rows did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done {
    rows: u64,
}

impl Done {
    pub(crate) const fn rows_affected(self) -> u64 {
        self.rows
    }
}

/// A statement without rows.
pub(crate) fn query(text: &'static str) -> Query {
    Query { text: Cow::Borrowed(text), values: Vec::new() }
}

/// A statement that was put together, of our own words only.
pub(crate) fn made(text: String) -> Query {
    Query { text: Cow::Owned(text), values: Vec::new() }
}

/// A statement with rows.
pub(crate) fn query_as<T: Row>(text: &'static str) -> QueryAs<T> {
    query(text).rows()
}

/// A statement with one column.
pub(crate) fn query_scalar<T>(text: &'static str) -> QueryScalar<T>
where
    (T,): Row,
{
    QueryScalar(query_as(text))
}

/// Binds the values in the driver's own types.
macro_rules! bound {
    ($query:expr, $values:expr) => {
        $values.into_iter().fold($query, |query, value| match value {
            Value::Int(n) => query.bind(n),
            Value::Bool(b) => query.bind(b),
            Value::Text(text) => query.bind(text),
            Value::Bytes(bytes) => query.bind(bytes),
        })
    };
}

/// The driver's own query with rows of a type.
macro_rules! native {
    ($db:ty, $row:ty, $text:expr, $values:expr) => {
        bound!(sqlx::query_as::<$db, $row>(AssertSqlSafe($text)), $values)
    };
}

/// Sends the statement through the driver on whose side the connection is.
macro_rules! sent {
    ($query:expr, $row:ty, $conn:expr, $send:ident) => {{
        let Query { text, values } = $query;
        refuse_nul(&values)?;
        match $conn.side() {
            Side::Lite(db) => native!(Sqlite, $row, text, values).$send(db).await,
            Side::Pg(db) => native!(Postgres, $row, dollars(&text), values).$send(db).await,
        }
    }};
}

impl Query {
    #[must_use]
    pub(crate) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Reads its rows as `T`.
    #[must_use]
    pub(crate) fn rows<T: Row>(self) -> QueryAs<T> {
        QueryAs { query: self, row: PhantomData }
    }

    pub(crate) async fn execute(self, conn: &mut Conn) -> Result<Done, sqlx::Error> {
        let Self { text, values } = self;
        refuse_nul(&values)?;
        let rows = match conn.side() {
            Side::Lite(db) => {
                bound!(sqlx::query::<Sqlite>(AssertSqlSafe(text)), values).execute(db).await?.rows_affected()
            }
            Side::Pg(db) => bound!(sqlx::query::<Postgres>(AssertSqlSafe(dollars(&text))), values)
                .execute(db)
                .await?
                .rows_affected(),
        };
        Ok(Done { rows })
    }
}

impl<T: Row> QueryAs<T> {
    #[must_use]
    pub(crate) fn bind(mut self, value: impl Into<Value>) -> Self {
        self.query = self.query.bind(value);
        self
    }

    pub(crate) async fn fetch_one(self, conn: &mut Conn) -> Result<T, sqlx::Error> {
        sent!(self.query, T, conn, fetch_one)
    }

    pub(crate) async fn fetch_optional(self, conn: &mut Conn) -> Result<Option<T>, sqlx::Error> {
        sent!(self.query, T, conn, fetch_optional)
    }

    pub(crate) async fn fetch_all(self, conn: &mut Conn) -> Result<Vec<T>, sqlx::Error> {
        sent!(self.query, T, conn, fetch_all)
    }

    /// Row by row. On SQLite few are in memory at a time; PostgreSQL sends them all, and they are taken as they
    /// come.
    pub(crate) fn fetch(self, conn: &mut Conn) -> BoxStream<'_, Result<T, sqlx::Error>> {
        let Query { text, values } = self.query;
        if let Err(error) = refuse_nul(&values) {
            return stream::once(std::future::ready(Err(error))).boxed();
        }
        match conn.side() {
            Side::Lite(db) => native!(Sqlite, T, text, values).fetch(db).boxed(),
            Side::Pg(db) => native!(Postgres, T, dollars(&text), values).fetch(db).boxed(),
        }
    }
}

impl<T> QueryScalar<T>
where
    (T,): Row,
{
    #[must_use]
    pub(crate) fn bind(self, value: impl Into<Value>) -> Self {
        Self(self.0.bind(value))
    }

    pub(crate) async fn fetch_one(self, conn: &mut Conn) -> Result<T, sqlx::Error> {
        Ok(self.0.fetch_one(conn).await?.0)
    }

    pub(crate) async fn fetch_optional(self, conn: &mut Conn) -> Result<Option<T>, sqlx::Error> {
        Ok(self.0.fetch_optional(conn).await?.map(|row| row.0))
    }

    pub(crate) async fn fetch_all(self, conn: &mut Conn) -> Result<Vec<T>, sqlx::Error> {
        Ok(self.0.fetch_all(conn).await?.into_iter().map(|row| row.0).collect())
    }
}

/// A statement that grows: texts of ours, with values between them.
#[derive(Debug, Clone)]
pub(crate) struct Sql {
    text: String,
    values: Vec<Value>,
}

impl Sql {
    pub(crate) fn new(text: &'static str) -> Self {
        Self { text: text.to_owned(), values: Vec::new() }
    }

    pub(crate) fn push(&mut self, text: &'static str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// A value in this place.
    pub(crate) fn push_bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.text.push('?');
        self.values.push(value.into());
        self
    }

    /// Values with commas between them.
    pub(crate) fn push_list<V: Into<Value>>(&mut self, values: impl IntoIterator<Item = V>) -> &mut Self {
        for (place, value) in values.into_iter().enumerate() {
            if place > 0 {
                self.text.push_str(", ");
            }
            self.push_bind(value);
        }
        self
    }

    pub(crate) fn query(self) -> Query {
        Query { text: Cow::Owned(self.text), values: self.values }
    }

    #[cfg(test)]
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// The text with PostgreSQL's placeholders: the n-th `?` becomes `$n`, `?7` becomes `$7`. What stands in quotes
/// stays.
fn dollars(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let (mut quoted, mut next) = (false, 0_u32);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        quoted ^= c == '\'';
        if c != '?' || quoted {
            out.push(c);
            continue;
        }
        out.push('$');
        if chars.peek().is_some_and(char::is_ascii_digit) {
            continue;
        }
        next += 1;
        // A `String` takes everything.
        let _ = write!(out, "{next}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::dollars;

    #[test]
    fn placeholders_are_numbered_for_postgresql() {
        for (ours, theirs) in [
            ("SELECT 1", "SELECT 1"),
            ("a = ? AND b IN (?,?)", "a = $1 AND b IN ($2,$3)"),
            ("a = ?2 OR a = ?1 OR b = ?12", "a = $2 OR a = $1 OR b = $12"),
            ("a = '?' AND b = ? ESCAPE '\\'", "a = '?' AND b = $1 ESCAPE '\\'"),
            ("a = 'it''s ?' AND b = ?", "a = 'it''s ?' AND b = $1"),
        ] {
            assert_eq!(dollars(ours), theirs);
        }
    }
}
