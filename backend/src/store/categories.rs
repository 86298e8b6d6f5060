//! Categories of tools.

use oakallow_policy::Category;
use oakallow_policy::id::Name;
use oakallow_policy::rule::Permission;
use oakallow_policy::timestamp::UnixMs;
use sqlx::SqliteConnection;

use super::{StoreError, signed};

type Row = (String, Option<String>);

fn category((name, default_permission): Row) -> Result<Category, StoreError> {
    let default_permission = match default_permission {
        None => None,
        Some(text) => Some(Permission::parse(&text).ok_or_else(|| {
            StoreError::corrupt("categories", "default_permission", &name, &"unknown permission")
        })?),
    };
    Ok(Category { name: super::name("categories", "name", &name)?, default_permission })
}

pub(crate) async fn insert(
    db: &mut SqliteConnection,
    org: &Name,
    category: &Category,
    now: UnixMs,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO categories (org, name, default_permission, created_at, updated_at) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(org.as_str())
    .bind(category.name.as_str())
    .bind(category.default_permission.map(Permission::as_str))
    .bind(signed(now))
    .bind(signed(now))
    .execute(db)
    .await?;
    Ok(())
}

pub(crate) async fn update(
    db: &mut SqliteConnection,
    org: &Name,
    category: &Category,
    now: UnixMs,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE categories SET default_permission = ?, updated_at = ? WHERE org = ? AND name = ?")
        .bind(category.default_permission.map(Permission::as_str))
        .bind(signed(now))
        .bind(org.as_str())
        .bind(category.name.as_str())
        .execute(db)
        .await?;
    Ok(())
}

/// Deletes a category; says whether it was there. The caller has checked that no tool is in it.
pub(crate) async fn delete(db: &mut SqliteConnection, org: &Name, name: &Name) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM categories WHERE org = ? AND name = ?")
        .bind(org.as_str())
        .bind(name.as_str())
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}

pub(crate) async fn by_name(
    db: &mut SqliteConnection,
    org: &Name,
    name: &Name,
) -> Result<Option<Category>, StoreError> {
    let row: Option<Row> =
        sqlx::query_as("SELECT name, default_permission FROM categories WHERE org = ? AND name = ?")
            .bind(org.as_str())
            .bind(name.as_str())
            .fetch_optional(db)
            .await?;
    row.map(category).transpose()
}

pub(crate) async fn list(
    db: &mut SqliteConnection,
    org: &Name,
    after: &str,
    limit: u32,
) -> Result<Vec<Category>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT name, default_permission FROM categories WHERE org = ? AND name > ? ORDER BY name LIMIT ?",
    )
    .bind(org.as_str())
    .bind(after)
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.into_iter().map(category).collect()
}

/// All of an org's categories.
pub(crate) async fn all(db: &mut SqliteConnection, org: &Name) -> Result<Vec<Category>, StoreError> {
    let rows: Vec<Row> =
        sqlx::query_as("SELECT name, default_permission FROM categories WHERE org = ? ORDER BY name")
            .bind(org.as_str())
            .fetch_all(db)
            .await?;
    rows.into_iter().map(category).collect()
}
