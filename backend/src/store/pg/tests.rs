//! The second wall, and that both databases have the same tables. Nothing of it without PostgreSQL
//! (`scripts/postgres run`).

use std::collections::BTreeSet;
use std::path::Path;

use sqlx::AssertSqlSafe;

use super::*;
use crate::config::Database;
use crate::store::{Db, sql};

/// What is of no org.
const OF_NOBODY: [&str; 2] = ["_sqlx_migrations", "vault_keys"];

/// The URL of a migrated database.
async fn url() -> Option<Secret> {
    let made = crate::test_postgres::database(async |url| {
        migrate(&Secret::new(url.to_owned())).await.unwrap();
    });
    made.await.map(Secret::new)
}

/// Tables by the column that says whose a row is.
async fn tables(admin: &mut PgConnection) -> Vec<(String, Option<String>)> {
    sqlx::query_as(
        "SELECT t.table_name::text, (SELECT c.column_name::text FROM information_schema.columns c
             WHERE c.table_schema = 'public' AND c.table_name = t.table_name
               AND c.column_name = CASE t.table_name WHEN 'orgs' THEN 'id' ELSE 'org' END)
         FROM information_schema.tables t WHERE t.table_schema = 'public' ORDER BY 1",
    )
    .fetch_all(admin)
    .await
    .unwrap()
}

/// The administrator's connection to that database.
async fn administrator(url: &Secret) -> PgConnection {
    let own = url.expose().replace("//oakallow@", "//postgres@");
    PgConnection::connect(&own).await.unwrap()
}

/// A row of an org, with something in every column that wants it, past every key and trigger.
async fn insert_anything(admin: &mut PgConnection, table: &str, owner: &str, org: &str) {
    let columns: Vec<(String, String)> = sqlx::query_as(
        "SELECT column_name::text, data_type::text FROM information_schema.columns
         WHERE table_name = $1 AND column_name <> $2 AND is_nullable = 'NO' AND column_default IS NULL
           AND is_identity = 'NO'",
    )
    .bind(table)
    .bind(owner)
    .fetch_all(&mut *admin)
    .await
    .unwrap();
    let value = |(column, kind): &(String, String)| match (column.as_str(), kind.as_str()) {
        ("role", _) => "'owner'".to_owned(),
        ("kind", _) => "'standard'".to_owned(),
        ("scope", _) => "'org'".to_owned(),
        ("risk_level", _) => "'low'".to_owned(),
        ("status", _) if table == "tools" => "'active'".to_owned(),
        ("status", _) => "'pending'".to_owned(),
        (_, "bigint") => "1".to_owned(),
        (_, "bytea") => "'x'".to_owned(),
        (_, "boolean") => "false".to_owned(),
        // Some are unique over all orgs.
        _ => format!("'{org}'"),
    };
    let names: String = columns.iter().map(|(name, _)| format!(", {name}")).collect();
    let values: String = columns.iter().map(|column| format!(", {}", value(column))).collect();
    let insert = format!("INSERT INTO {table} ({owner}{names}) VALUES ('{org}'{values})");
    sqlx::raw_sql(AssertSqlSafe(insert)).execute(admin).await.unwrap();
}

async fn count(conn: &mut Conn, table: &str) -> i64 {
    let counted = sql::made(format!("SELECT COUNT(*) FROM {table}")).rows::<(i64,)>();
    counted.fetch_one(conn).await.unwrap().0
}

#[tokio::test]
async fn a_query_without_an_org_finds_what_is_of_the_connections_org() {
    let Some(url) = url().await else { return };
    let mut admin = administrator(&url).await;
    sqlx::query("SET session_replication_role = replica").execute(&mut admin).await.unwrap();
    let mut owned = Vec::new();
    for (table, owner) in tables(&mut admin).await {
        let Some(owner) = owner else {
            assert!(OF_NOBODY.contains(&table.as_str()), "`{table}` says of no row whose it is");
            continue;
        };
        for org in ["a", "b"] {
            insert_anything(&mut admin, &table, &owner, org).await;
        }
        owned.push(table);
    }
    assert!(owned.len() > 20, "{owned:?}");
    let pools = Pools::open(&url).await.unwrap();
    for table in &owned {
        // The second one is likely to get the connection of the first.
        for org in ["a", "b", "a"] {
            assert_eq!(count(&mut pools.read(Scope::Org(org)).await.unwrap(), table).await, 1, "{table}");
            assert_eq!(count(&mut pools.snapshot(org).await.unwrap(), table).await, 1, "{table}");
            assert_eq!(count(&mut pools.begin(org).await.unwrap(), table).await, 1, "{table}");
        }
        assert_eq!(count(&mut pools.read(Scope::Org("c")).await.unwrap(), table).await, 0, "{table}");
        assert_eq!(count(&mut pools.read(Scope::Across).await.unwrap(), table).await, 2, "{table}");
        // A connection that says nothing.
        let mut bare = PgConnection::connect(url.expose()).await.unwrap();
        let all: i64 = sqlx::query_scalar(AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}")))
            .fetch_one(&mut bare)
            .await
            .unwrap();
        assert_eq!(all, 0, "{table}");
    }
    let mut write = pools.begin("a").await.unwrap();
    let foreign = "INSERT INTO tenants (org, id, name, rules_version, created_at, updated_at) \
                   VALUES ('b', 'x', 'x', 1, 1, 1)";
    let refused = sql::query(foreign).execute(&mut write).await.unwrap_err().to_string();
    assert!(refused.contains("row-level security"), "{refused}");
}

#[tokio::test]
async fn a_role_that_passes_the_wall_is_refused() {
    let Some(url) = url().await else { return };
    let own = Secret::new(url.expose().replace("//oakallow@", "//postgres@"));
    assert!(matches!(migrate(&own).await, Err(StoreError::Unwalled)));
}

#[tokio::test]
async fn an_error_says_nothing_of_the_password() {
    for url in ["postgres://u:hunter2@[bad/db", "postgres://u:hunter2@127.0.0.1:1/db", "hunter2"] {
        let refused = migrate(&Secret::new(url.to_owned())).await.unwrap_err();
        let said = format!("{refused} {refused:?}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[tokio::test]
async fn who_writes_in_an_org_waits_for_who_does_in_another_process() {
    let Some(url) = url().await else { return };
    let (one, other) = (Pools::open(&url).await.unwrap(), Pools::open(&url).await.unwrap());
    let first = one.begin("a").await.unwrap();
    drop(other.begin("b").await.unwrap());
    let waiting = tokio::spawn(async move { other.begin("a").await.map(drop) });
    let mut admin = administrator(&url).await;
    let blocked = "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted \
                   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    while sqlx::query_scalar::<_, i64>(blocked).fetch_one(&mut admin).await.unwrap() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(!waiting.is_finished());
    first.commit().await.unwrap();
    waiting.await.unwrap().unwrap();
}

/// A table's columns, and its unique keys, in the words of both databases.
type Facts = BTreeSet<String>;

async fn facts(conn: &mut Conn, query: &'static str) -> Facts {
    let rows: Vec<(String, String, String)> = sql::query_as(query).fetch_all(conn).await.unwrap();
    rows.into_iter().map(|(table, what, how)| format!("{table} {what} {how}")).collect()
}

async fn of_sqlite(dir: &Path) -> [Facts; 2] {
    let db = Db::open(dir, &Database::DataDir).await.unwrap();
    let mut conn = db.read_across().await.unwrap();
    let columns = "SELECT m.name, c.name, CASE c.type WHEN 'BLOB' THEN 'bytea' WHEN 'INTEGER' THEN 'bigint'
                       ELSE lower(c.type) END || CASE WHEN c.\"notnull\" OR c.pk THEN ' NO' ELSE ' YES' END
                   FROM sqlite_master m JOIN pragma_table_info(m.name) c
                   WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND m.name NOT LIKE '_sqlx%'";
    let keys = "SELECT m.name, CASE i.partial WHEN 1 THEN 'some' ELSE 'all' END,
                    (SELECT group_concat(name) FROM
                        (SELECT COALESCE(c.name, '?') AS name FROM pragma_index_info(i.name) c ORDER BY c.seqno))
                FROM sqlite_master m JOIN pragma_index_list(m.name) i
                WHERE m.type = 'table' AND i.\"unique\" AND m.name NOT LIKE '_sqlx%'
                UNION ALL
                SELECT m.name, 'all', c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c
                WHERE m.type = 'table' AND c.pk AND m.sql LIKE '%AUTOINCREMENT%'";
    [facts(&mut conn, columns).await, facts(&mut conn, keys).await]
}

async fn of_postgres(url: &Secret) -> [Facts; 2] {
    let pools = Pools::open(url).await.unwrap();
    let mut conn = pools.read(Scope::Across).await.unwrap();
    let columns = "SELECT table_name::text, column_name::text, data_type || ' ' || is_nullable
                   FROM information_schema.columns WHERE table_schema = 'public' AND table_name NOT LIKE '_sqlx%'";
    let keys = "SELECT t.relname::text, CASE WHEN i.indpred IS NULL THEN 'all' ELSE 'some' END,
                    (SELECT string_agg(COALESCE(a.attname::text, '?'), ',' ORDER BY k.place)
                     FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, place)
                     LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.number AND k.number <> 0)
                FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid
                WHERE i.indisunique AND t.relnamespace = 'public'::regnamespace AND t.relname NOT LIKE '_sqlx%'";
    [facts(&mut conn, columns).await, facts(&mut conn, keys).await]
}

#[tokio::test]
async fn both_databases_have_the_same_tables() {
    let Some(url) = url().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (of_sqlite(dir.path()).await, of_postgres(&url).await);
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert!(ours.len() > 25, "{ours:?}");
        let only = |one: &Facts, other: &Facts| one.difference(other).cloned().collect::<Vec<_>>();
        assert_eq!((only(ours, theirs), only(theirs, ours)), (Vec::new(), Vec::new()));
    }
}
