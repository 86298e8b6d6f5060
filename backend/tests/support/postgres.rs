//! A PostgreSQL database of its own for each test, if `OAKALLOW_TEST_POSTGRES` names a server (`scripts/postgres run`);
//! else tests run on SQLite.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

/// What the server's script created: a role that is bound by row level security, and an empty database of its.
const ROLE: &str = "oakallow";
const TEMPLATE: &str = "oakallow_template";
/// Held while the template is migrated: tests are processes of their own.
const LOCK: i64 = 4;

/// The URL of a fresh database with the current schema; `None`: the tests run on SQLite.
pub(crate) async fn database(migrate: impl AsyncFn(&str)) -> Option<String> {
    let server = std::env::var("OAKALLOW_TEST_POSTGRES").ok()?;
    let url = |database: &str| {
        let (_, socket) = server.split_once('?').unwrap();
        format!("postgres://{ROLE}@localhost/{database}?{socket}")
    };
    let mut admin = PgConnection::connect(&server).await.unwrap();
    sqlx::query("SELECT pg_advisory_lock($1)").bind(LOCK).execute(&mut admin).await.unwrap();
    let made: bool = sqlx::query_scalar("SELECT datistemplate FROM pg_database WHERE datname = $1")
        .bind(TEMPLATE)
        .fetch_one(&mut admin)
        .await
        .unwrap();
    if !made {
        migrate(&url(TEMPLATE)).await;
        run(&mut admin, format!("ALTER DATABASE {TEMPLATE} IS_TEMPLATE true")).await;
    }
    let name: String = sqlx::query_scalar("SELECT 't_' || replace(gen_random_uuid()::text, '-', '')")
        .fetch_one(&mut admin)
        .await
        .unwrap();
    run(&mut admin, format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER {ROLE}")).await;
    admin.close().await.unwrap();
    Some(url(&name))
}

async fn run(admin: &mut PgConnection, sql: String) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(admin).await.unwrap();
}
