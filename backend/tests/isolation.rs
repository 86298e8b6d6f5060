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
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

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
        (Method::GET, "/v1/tools/restart_service/definition", none.clone()),
        (Method::POST, "/v1/tools/restart_service/definition/accept", Some(json!({"sha256": "0f"}))),
        (Method::GET, "/v1/tool-definitions", none.clone()),
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

async fn join_token(admin: &support::Client) -> Value {
    let joined = admin.post("/v1/proxies/join-tokens", json!({"audiences": ["ops"]})).await.created();
    joined["join_token"].clone()
}

fn enrolment(join_token: &Value) -> Value {
    json!({"join_token": join_token, "name": "p", "version": "0",
        "public_key": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
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
    let enroll = enrolment(&join_token(&admin).await);
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

/// Every other endpoint that takes a credential.
fn calls() -> Vec<(Method, &'static str)> {
    vec![
        (Method::POST, "/v1/permissions/check"),
        (Method::POST, "/v1/permissions/check/batch"),
        (Method::GET, "/v1/proxies/{proxy}/bundle"),
        (Method::GET, "/v1/proxies/{proxy}/events"),
        (Method::POST, "/v1/proxies/{proxy}/heartbeat"),
        (Method::POST, "/v1/proxies/{proxy}/definitions"),
        (Method::POST, "/v1/proxies/{proxy}/approvals"),
        (Method::POST, "/v1/proxies/{proxy}/audit"),
        (Method::GET, "/v1/approvals"),
        (Method::POST, "/v1/approvals"),
        (Method::GET, "/v1/approvals/events"),
        (Method::GET, "/v1/approvals/apr_x"),
        (Method::POST, "/v1/approvals/apr_x/decide"),
        (Method::POST, "/v1/approvals/apr_x/cancel"),
        (Method::POST, "/v1/approvals/apr_x/consume"),
        (Method::POST, "/v1/tokens/mint"),
        (Method::POST, "/v1/tokens/verify"),
        (Method::GET, "/v1/audiences/ops/keys"),
        (Method::POST, "/v1/token-keys/rotate"),
        (Method::GET, "/v1/executions"),
        (Method::POST, "/v1/executions/log"),
        (Method::GET, "/v1/audit"),
        (Method::GET, "/v1/audit/export"),
        (Method::GET, "/approvals"),
        (Method::GET, "/approvals/list"),
        (Method::GET, "/approvals/apr_x/arguments"),
    ]
}

#[tokio::test]
async fn a_key_that_is_revoked_while_its_request_arrives_changes_nothing() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    let stolen = admin.post("/v1/keys", json!({"name": "stolen", "tier": "management"})).await.created();
    let secret = stolen["key"].as_str().unwrap();
    let body = json!({"name": "heir", "tier": "management"}).to_string();
    let head = format!(
        "POST /v1/keys HTTP/1.1\r\nHost: x\r\nX-API-Key: {secret}\r\nContent-Length: {}\r\n\
         Expect: 100-continue\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let address = backend.url.trim_start_matches("http://").to_owned();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    // The body is asked for once the key has been looked at.
    let mut answer = [0; 25];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
    admin.delete(&format!("/v1/keys/{}", stolen["id"].as_str().unwrap())).await.no_content();
    let before = admin.everything().await;
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("key_revoked"), "{answer}");
    assert_eq!(admin.everything().await, before);
}

/// Where the API's endpoints are written down: every `routes/<noun>.rs`.
fn routes() -> String {
    fn read(folder: &std::path::Path, all: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => read(&entry.path(), all),
                false => all.push_str(&std::fs::read_to_string(entry.path()).unwrap()),
            }
        }
    }
    let mut all = String::new();
    read(std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/routes")), &mut all);
    let endpoints = all.split(".route(").skip(1).filter_map(|rest| rest.split('"').nth(1));
    endpoints.map(|path| format!("\"{path}\"\n")).collect()
}

#[test]
fn the_guide_names_every_endpoint_and_no_other() {
    let routes = routes();
    let guide = include_str!("../../docs/guide/rest-api.md");
    let (there, missing) = guide.split_once("## What there is not yet").unwrap();
    let known: Vec<&str> =
        routes.split('"').filter(|text| text.starts_with("/v1/") && !text.contains(' ')).collect();
    for route in &known {
        let named = |end| there.contains(&format!("{route}{end}"));
        assert!(["`", " "].into_iter().any(named), "the guide does not name {route}");
    }
    let named = there.split(['`', ' ']).filter(|word| word.starts_with("/v1/"));
    for word in named {
        assert!(known.contains(&word), "the guide names {word}, which there is not");
    }
    assert!(missing.contains("OpenAPI") && !routes.contains("openapi"));
}

#[tokio::test]
async fn every_endpoint_takes_a_credential() {
    let backend = Backend::start().await;
    let (_, ids) = furnished(&backend, "demo").await;
    let known: Vec<_> =
        configuration().into_iter().map(|(method, path, _)| (method, path)).chain(calls()).collect();
    let anonymous = backend.anonymous();
    // A key of nobody's, and what only looks like a session.
    let stranger = backend.client(&format!("oak_live_{}", "0".repeat(32)));
    for (method, path) in &known {
        let path = with_ids(path, &ids);
        let body = (*method != Method::GET).then(|| json!({}));
        for who in [&anonymous, &stranger] {
            let answer = who.send(method.clone(), &path, body.clone()).await;
            assert_eq!(answer.status, 401, "{method} {path}: {}", answer.text);
        }
        let host = backend.url.replace("127.0.0.1", "localhost");
        let cookie = anonymous
            .request(method.clone(), &path)
            .header("cookie", "oakallow_session=x")
            .header("host", host.trim_start_matches("http://"))
            .json(&json!({}))
            .send()
            .await
            .unwrap();
        assert_eq!(cookie.status(), 401, "{method} {path}");
    }
    // The list above is whole: no file of the API names another route.
    let source = routes();
    let named = source.matches("\"/v1/").count() - source.matches("\"/v1/proxies/enroll\"").count();
    let mut paths: Vec<&str> = known.iter().map(|(_, path)| path.split('?').next().unwrap()).collect();
    paths.retain(|path| path.starts_with("/v1/"));
    paths.sort_unstable();
    paths.dedup();
    assert_eq!(paths.len(), named, "{paths:?}");
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

#[tokio::test]
async fn what_a_proxy_says_of_itself_is_short() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    let token = join_token(&admin).await;
    let mut long = enrolment(&token);
    long["version"] = json!("1".repeat(2_000));
    assert_eq!(
        backend.anonymous().post("/v1/proxies/enroll", long.clone()).await.problem(422, "invalid_value")["pointer"],
        "/version"
    );
    // Without a credential, little is read.
    long["version"] = json!("1".repeat(100_000));
    backend.anonymous().post("/v1/proxies/enroll", long).await.problem(413, "body_too_large");
    let proxy =
        backend.anonymous().post("/v1/proxies/enroll", enrolment(&join_token(&admin).await)).await.created();
    let path = format!("/v1/proxies/{}/heartbeat", proxy["proxy_id"].as_str().unwrap());
    let proxy = backend.client(proxy["proxy_key"].as_str().unwrap());
    let beat = |version: &str, hash: &str| {
        json!({"version": version, "policy_version": 1, "spool_depth": 0,
               "head": {"seq": 1, "hash": hash}, "held_calls": 0})
    };
    let (hash, long) = ("a".repeat(64), "a".repeat(2_000));
    for (bad, pointer) in [(beat(&long, &hash), "/version"), (beat("1", &long), "/head/hash")] {
        assert_eq!(proxy.post(&path, bad).await.problem(422, "invalid_value")["pointer"], pointer);
    }
    proxy.post(&path, beat("1", &hash)).await.no_content();
    // The token was not used up by the refusals.
    let second = join_token(&admin).await;
    assert_ne!(token, second);
    backend.anonymous().post("/v1/proxies/enroll", enrolment(&token)).await.created();
}
