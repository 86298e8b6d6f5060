//! Who may not configure: keys of other orgs, and keys of other tiers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use reqwest::Method;
use serde_json::{Value, json};
use support::Backend;

/// Every endpoint that configures, with a body that an admin could send.
fn configuration() -> Vec<(Method, &'static str, Option<Value>)> {
    let none = None;
    vec![
        (Method::GET, "/v1/tenants", none.clone()),
        (Method::POST, "/v1/tenants", Some(json!({"id": "new"}))),
        (Method::GET, "/v1/tenants/acme", none.clone()),
        (Method::PATCH, "/v1/tenants/acme", Some(json!({"name": "taken over"}))),
        (Method::DELETE, "/v1/tenants/acme", none.clone()),
        (Method::GET, "/v1/categories", none.clone()),
        (Method::POST, "/v1/categories", Some(json!({"name": "new"}))),
        (Method::GET, "/v1/categories/infra", none.clone()),
        (Method::PATCH, "/v1/categories/infra", Some(json!({"default_permission": "allowed"}))),
        (Method::DELETE, "/v1/categories/infra", none.clone()),
        (Method::GET, "/v1/tools", none.clone()),
        (Method::POST, "/v1/tools", Some(json!({"name": "new"}))),
        (Method::GET, "/v1/tools/restart_service", none.clone()),
        (Method::PATCH, "/v1/tools/restart_service", Some(json!({"approved": true}))),
        (Method::DELETE, "/v1/tools/restart_service", none.clone()),
        (Method::GET, "/v1/rules", none.clone()),
        (Method::POST, "/v1/rules", Some(json!({"permission": "disabled"}))),
        (Method::PUT, "/v1/rules", Some(json!({"rules": []}))),
        (Method::POST, "/v1/rules/simulate", Some(json!({"call": {"tool_name": "restart_service"}}))),
        (Method::GET, "/v1/rules/{rule}", none.clone()),
        (Method::PATCH, "/v1/rules/{rule}", Some(json!({"permission": "allowed"}))),
        (Method::DELETE, "/v1/rules/{rule}", none.clone()),
        (Method::GET, "/v1/kill-switches", none.clone()),
        (Method::PUT, "/v1/kill-switches", Some(json!({"scope": "org"}))),
        (Method::DELETE, "/v1/kill-switches?scope=tenant&id=acme", none.clone()),
        (Method::GET, "/v1/settings", none.clone()),
        (Method::PATCH, "/v1/settings", Some(json!({"unregistered": "by_rule"}))),
        (Method::GET, "/v1/keys", none.clone()),
        (Method::POST, "/v1/keys", Some(json!({"name": "n", "tier": "standard", "tenancy": "org"}))),
        (Method::GET, "/v1/keys/{key}", none.clone()),
        (Method::DELETE, "/v1/keys/{key}", none.clone()),
        (Method::POST, "/v1/keys/{key}/rotate", Some(json!({"overlap_s": 0}))),
        (Method::GET, "/v1/agents", none.clone()),
        (Method::POST, "/v1/agents", Some(json!({"id": "new", "owner": "x@example.com", "tenancy": "org"}))),
        (Method::GET, "/v1/agents/bot", none.clone()),
        (Method::DELETE, "/v1/agents/bot", none.clone()),
        (Method::GET, "/v1/proxies", none.clone()),
        (Method::POST, "/v1/proxies/join-tokens", Some(json!({"audiences": ["ops"]}))),
        (Method::GET, "/v1/proxies/{proxy}", none.clone()),
        (Method::DELETE, "/v1/proxies/{proxy}", none),
    ]
}

/// An org with one of everything; answers with the ids that paths name.
async fn furnished(backend: &Backend, org: &str) -> (support::Client, Vec<(&'static str, String)>) {
    let admin = backend.org(org).await;
    admin.seed().await;
    admin.post("/v1/categories", json!({"name": "infra"})).await.created();
    admin.put("/v1/kill-switches", json!({"scope": "tenant", "id": "acme"})).await.ok();
    let agent = json!({"id": "bot", "owner": "robin@example.com", "tenants": ["acme"]});
    admin.post("/v1/agents", agent).await.created();
    let rules = admin.get("/v1/rules").await.ok();
    let keys = admin.get("/v1/keys").await.ok();
    let joined = admin.post("/v1/proxies/join-tokens", json!({"audiences": ["ops"]})).await.created();
    let enroll = json!({"join_token": joined["join_token"], "name": "p", "version": "0",
        "public_key": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    let proxy = backend.anonymous().post("/v1/proxies/enroll", enroll).await.created();
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let ids = vec![
        ("{rule}", text(&rules["data"][0]["id"])),
        ("{key}", text(&keys["data"][0]["id"])),
        ("{proxy}", text(&proxy["proxy_id"])),
    ];
    (admin, ids)
}

fn with_ids(path: &str, ids: &[(&str, String)]) -> String {
    ids.iter().fold(path.to_owned(), |path, (name, id)| path.replace(name, id))
}

#[tokio::test]
async fn no_endpoint_reaches_another_org() {
    let backend = Backend::start().await;
    let (victim, ids) = furnished(&backend, "victim").await;
    let intruder = backend.org("intruder").await;
    let before = victim.everything().await;
    for (method, path, body) in configuration() {
        let path = with_ids(path, &ids);
        let answer = intruder.send(method.clone(), &path, body).await;
        let names_a_thing =
            path.split('/').count() > 3 && !path.ends_with("simulate") && !path.ends_with("join-tokens");
        if names_a_thing {
            assert_eq!(answer.status, 404, "{method} {path}: {}", answer.text);
        }
        for (_, id) in &ids {
            let said = answer.json_or_null();
            assert!(
                answer.status == 404 || !said.to_string().contains(id.as_str()),
                "{method} {path}: {said}"
            );
        }
        assert!(!answer.text.contains("robin@example.com"), "{method} {path}: {}", answer.text);
    }
    assert_eq!(victim.everything().await, before);
}

#[tokio::test]
async fn only_a_management_key_configures() {
    let backend = Backend::start().await;
    let (admin, ids) = furnished(&backend, "demo").await;
    let agent = json!({"name": "a", "tier": "agent", "agent_id": "bot", "tenants": ["acme"]});
    let others = [
        admin.standard(&[]).await,
        admin.issued(agent).await,
        admin.issued(json!({"name": "t", "tier": "tool", "audience": "ops"})).await,
        backend.approver("demo").await,
    ];
    let before = admin.everything().await;
    for other in &others {
        for (method, path, body) in configuration() {
            other.send(method, &with_ids(path, &ids), body).await.problem(403, "wrong_credential");
        }
    }
    assert_eq!(admin.everything().await, before);
}
