//! One file per noun: its endpoints, and each handler with its request, its answer and its errors.

pub(crate) mod agents;
pub(crate) mod approvals;
pub(crate) mod audit;
pub(crate) mod categories;
pub(crate) mod definitions;
pub(crate) mod executions;
pub(crate) mod health;
pub(crate) mod keys;
pub(crate) mod kill_switches;
pub(crate) mod nouns;
pub(crate) mod permissions;
pub(crate) mod proxies;
pub(crate) mod rules;
pub(crate) mod settings;
pub(crate) mod tenants;
pub(crate) mod tokens;
pub(crate) mod tools;

use std::sync::Arc;

use axum::Router;
use oakallow_policy::id::Name;

use crate::error::ApiError;
use crate::state::App;
use crate::store::{self, Conn, tenants::Tenant};

/// Every endpoint of the API.
pub(crate) fn api() -> Router<Arc<App>> {
    // Whether it lives; what a management key sets up; decisions; the fleet; what becomes of calls.
    [
        health::router(),
        tenants::router(),
        categories::router(),
        tools::router(),
        definitions::router(),
        rules::router(),
        kill_switches::router(),
        settings::router(),
        keys::router(),
        agents::router(),
        permissions::router(),
        proxies::router(),
        approvals::router(),
        tokens::router(),
        executions::router(),
        audit::router(),
    ]
    .into_iter()
    .fold(Router::new(), Router::merge)
}

/// 422 unless the org has that tenant; `pointer` is where the request names it.
async fn tenant_must_exist(db: &mut Conn, org: &Name, tenant: &Name, pointer: &str) -> Result<(), ApiError> {
    match store::one::<Tenant>(db, org, tenant).await? {
        Some(_) => Ok(()),
        None => Err(ApiError::invalid_value(pointer, format!("There is no tenant `{tenant}` in this org."))),
    }
}

/// Merges a patch into a value (JSON Merge Patch, RFC 7396): `null` removes a member.
fn merge_patch(target: &mut serde_json::Value, patch: serde_json::Value) {
    let serde_json::Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = serde_json::Value::Object(serde_json::Map::new());
    }
    let Some(members) = target.as_object_mut() else { return };
    for (name, value) in patch {
        if value.is_null() {
            members.remove(&name);
        } else {
            merge_patch(members.entry(name).or_insert(serde_json::Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn a_patch_changes_what_it_names_and_null_removes() {
        let mut target = json!({"a": 1, "b": {"c": 2, "d": 3}});
        super::merge_patch(&mut target, json!({"a": null, "b": {"c": 4}, "e": {"f": null}}));
        assert_eq!(target, json!({"b": {"c": 4, "d": 3}, "e": {}}));
    }
}
