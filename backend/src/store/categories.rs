//! Categories of tools.

use oakallow_policy::Category;
use oakallow_policy::id::Name;
use oakallow_policy::rule::Permission;
use oakallow_policy::timestamp::UnixMs;
use sqlx::FromRow;

use super::{Conn, Listed, Noun, StoreError, signed, sql};

#[derive(FromRow)]
pub(crate) struct Row {
    name: String,
    default_permission: Option<String>,
}

impl TryFrom<Row> for Category {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let unknown =
            || StoreError::corrupt("categories", "default_permission", &row.name, &"unknown permission");
        let permission = |text: &str| Permission::parse(text).ok_or_else(unknown);
        Ok(Self {
            name: super::name("categories", "name", &row.name)?,
            default_permission: row.default_permission.as_deref().map(permission).transpose()?,
        })
    }
}

impl Noun for Category {
    const WHAT: &'static str = "category";
    const ONE: &'static str = "SELECT name, default_permission FROM categories WHERE org = ? AND name = ?";
    type Row = Row;
}

impl Listed for Category {
    const PAGE: &'static str =
        "SELECT name, default_permission FROM categories WHERE org = ? AND name > ? ORDER BY name LIMIT ?";

    fn key(&self) -> &str {
        &self.name
    }
}

pub(crate) async fn insert(
    db: &mut Conn,
    org: &Name,
    category: &Category,
    now: UnixMs,
) -> Result<(), StoreError> {
    sql::query(
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
    db: &mut Conn,
    org: &Name,
    category: &Category,
    now: UnixMs,
) -> Result<(), StoreError> {
    sql::query("UPDATE categories SET default_permission = ?, updated_at = ? WHERE org = ? AND name = ?")
        .bind(category.default_permission.map(Permission::as_str))
        .bind(signed(now))
        .bind(org.as_str())
        .bind(category.name.as_str())
        .execute(db)
        .await?;
    Ok(())
}

/// Deletes a category; says whether it was there. The caller has checked that no tool is in it.
pub(crate) async fn delete(db: &mut Conn, org: &Name, name: &Name) -> Result<bool, StoreError> {
    let done = sql::query("DELETE FROM categories WHERE org = ? AND name = ?")
        .bind(org.as_str())
        .bind(name.as_str())
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// All of an org's categories.
pub(crate) async fn all(db: &mut Conn, org: &Name) -> Result<Vec<Category>, StoreError> {
    let rows: Vec<Row> =
        sql::query_as("SELECT name, default_permission FROM categories WHERE org = ? ORDER BY name")
            .bind(org.as_str())
            .fetch_all(db)
            .await?;
    rows.into_iter().map(Category::try_from).collect()
}
