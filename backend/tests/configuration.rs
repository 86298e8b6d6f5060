//! Configuration: what a management key sets up, and what nobody else may.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use support::{Backend, START_MS};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test]
async fn a_key_is_shown_once_and_stored_nowhere() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    let made =
        admin.post("/v1/keys", json!({"name": "ci", "tier": "standard", "tenancy": "org"})).await.created();
    let key = made["key"].as_str().unwrap();
    assert!(key.starts_with("oak_live_") && key.len() == 9 + 32, "{key}");
    assert_eq!(made["prefix"], key[..14]);
    let listed = admin.get("/v1/keys").await.ok();
    assert!(!listed.to_string().contains(key), "{listed}");
    for entry in std::fs::read_dir(backend.data_dir()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(key.len()).any(|w| w == key.as_bytes()), "the key is on disk");
    }
}

#[tokio::test]
async fn a_text_that_one_database_could_not_hold_is_refused_on_both() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    let switch = json!({"scope": "org", "reason": "a\u{0}b"});
    admin.put("/v1/kill-switches", switch).await.problem(422, "invalid_value");
    assert_eq!(admin.get("/v1/kill-switches").await.ok()["data"], json!([]));
}

#[cfg(unix)]
#[tokio::test]
async fn the_data_directory_is_its_owners_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let backend = Backend::start().await;
    let mode = std::fs::metadata(backend.data_dir()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    for entry in std::fs::read_dir(backend.data_dir()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?} can be read by others", entry.path());
    }
}

#[tokio::test]
async fn a_wrong_revoked_or_expired_key_is_401() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    let check = json!({"tool_name": "x"});
    backend.anonymous().post("/v1/permissions/check", check.clone()).await.problem(401, "unauthenticated");
    let unknown = backend.client("oak_live_00000000000000000000000000000000");
    let answer = unknown.post("/v1/permissions/check", check.clone()).await;
    assert!(answer.headers.contains_key("www-authenticate"));
    answer.problem(401, "invalid_key");

    let expires = oakallow_policy::timestamp::rfc3339(START_MS + 60_000);
    let short = json!({"name": "short", "tier": "standard", "tenancy": "org", "expires_at": expires});
    let short = admin.issued(short).await;
    short.post("/v1/permissions/check", check.clone()).await.ok();
    backend.clock.advance_ms(60_000);
    short.post("/v1/permissions/check", check.clone()).await.problem(401, "key_expired");

    let made =
        admin.post("/v1/keys", json!({"name": "k", "tier": "standard", "tenancy": "org"})).await.created();
    let revoked = backend.client(made["key"].as_str().unwrap());
    revoked.post("/v1/permissions/check", check.clone()).await.ok();
    admin.delete(&format!("/v1/keys/{}", made["id"].as_str().unwrap())).await.no_content();
    revoked.post("/v1/permissions/check", check).await.problem(401, "key_revoked");
}

#[tokio::test]
async fn a_bearer_token_works_and_two_different_keys_do_not() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    let key = admin.key.clone().unwrap();
    let bearer = backend.anonymous().request(Method::GET, "/v1/tenants").bearer_auth(&key);
    assert_eq!(bearer.send().await.unwrap().status(), 200);
    let both = admin.request(Method::GET, "/v1/tenants").bearer_auth("oak_live_other");
    assert_eq!(both.send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn a_rotated_key_ends_after_the_overlap_and_its_heir_does_not() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    let made =
        admin.post("/v1/keys", json!({"name": "k", "tier": "standard", "tenancy": "org"})).await.created();
    let old = backend.client(made["key"].as_str().unwrap());
    let path = format!("/v1/keys/{}/rotate", made["id"].as_str().unwrap());
    let heir = admin.post(&path, json!({"overlap_s": 60})).await.created();
    let heir = backend.client(heir["key"].as_str().unwrap());
    let check = json!({"tool_name": "x"});
    old.post("/v1/permissions/check", check.clone()).await.ok();
    backend.clock.advance_ms(60_000);
    old.post("/v1/permissions/check", check.clone()).await.problem(401, "key_expired");
    heir.post("/v1/permissions/check", check).await.ok();
}

#[tokio::test]
async fn a_management_key_makes_no_approver_key_and_calls_nothing() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    let refused =
        admin.post("/v1/keys", json!({"name": "n", "tier": "approver"})).await.problem(422, "invalid_value");
    assert_eq!(refused["pointer"], "/tier");
    let check = json!({"tool_name": "x"});
    admin.post("/v1/permissions/check", check).await.problem(403, "wrong_credential");
}

#[tokio::test]
async fn an_unknown_field_is_refused_with_what_was_meant() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    let problem =
        admin.post("/v1/rules", json!({"permision": "allowed"})).await.problem(422, "invalid_value");
    assert!(problem["detail"].as_str().unwrap().contains("did you mean `permission`?"), "{problem}");
    let problem = admin
        .post("/v1/tools", json!({"name": "t", "approval": {"timeout_s": "soon"}}))
        .await
        .problem(422, "invalid_value");
    assert_eq!(problem["pointer"], "/approval/timeout_s");
    let twice =
        admin.request(Method::POST, "/v1/tenants").body(r#"{"id":"a","id":"b"}"#).send().await.unwrap();
    assert_eq!(twice.status(), 400);
    assert_eq!(admin.get("/v1/tenants").await.ok()["data"], json!([]));
}

#[tokio::test]
async fn a_schema_that_points_elsewhere_is_refused() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    let tool = |schema: Value| json!({"name": "t", "parameter_schema": schema});
    for bad in [json!({"$ref": "https://example.com/s"}), json!({"type": "nonsense"}), json!("text")] {
        let problem = admin.post("/v1/tools", tool(bad)).await.problem(422, "invalid_value");
        assert_eq!(problem["pointer"], "/parameter_schema");
    }
    admin.post("/v1/tools", tool(json!({"type": "object"}))).await.created();
}

#[tokio::test]
async fn a_second_rule_with_the_same_selector_is_409_and_names_the_first() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    admin.seed().await;
    let rule = json!({"tool_name": "x", "method": "read", "permission": "allowed"});
    let first = admin.post("/v1/rules", rule.clone()).await.created();
    let problem = admin.post("/v1/rules", rule).await.problem(409, "duplicate_rule");
    assert_eq!(problem["rule"], first["id"]);
    // The same selector for a tenant is another rule.
    let tenants = json!({"tenant_id": "acme", "tool_name": "x", "method": "read", "permission": "disabled"});
    admin.post("/v1/rules", tenants).await.created();
}

#[tokio::test]
async fn a_rule_for_a_tool_that_nobody_registered_is_taken_with_a_warning() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    admin.seed().await;
    let rule = |tool: &str| json!({"tool_name": tool, "permission": "allowed"});
    let added = admin.post("/v1/rules", rule("restart_servce")).await.created();
    let warnings = added["warnings"].as_array().unwrap();
    assert!(warnings.len() == 1 && warnings[0].as_str().unwrap().contains("`restart_servce`"), "{added}");
    assert_eq!(added["tool_name"], "restart_servce");
    for quiet in [rule("restart_service"), json!({"permission": "requires_approval"})] {
        assert!(admin.post("/v1/rules", quiet).await.created().get("warnings").is_none());
    }
}

#[tokio::test]
async fn replacing_a_scope_is_all_or_nothing_and_keeps_ids() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    admin.seed().await;
    let before = admin.get("/v1/rules?tenant_id=acme").await.ok();
    let twice =
        json!({"tenant_id": "acme", "rules": [{"permission": "allowed"}, {"permission": "disabled"}]});
    let problem = admin.put("/v1/rules", twice).await.problem(422, "invalid_value");
    assert_eq!(problem["pointer"], "/rules/1");
    assert_eq!(admin.get("/v1/rules?tenant_id=acme").await.ok(), before);

    let wanted = json!({"tenant_id": "acme", "rules": [
        {"tool_name": "restart_service", "permission": "disabled"}, {"method": "read", "permission": "allowed"}]});
    let replaced = admin.put("/v1/rules", wanted).await.ok();
    assert_eq!(replaced["rules"][0]["id"], before["data"][0]["id"]);
    assert_eq!(replaced["rules"].as_array().unwrap().len(), 2);
    let acme = admin.standard(&["acme"]).await;
    let answer = acme.post("/v1/permissions/check", json!({"tool_name": "restart_service"})).await.ok();
    assert_eq!(
        (
            answer["permission"].as_str(),
            answer["policy_version"].as_u64() >= replaced["policy_version"].as_u64()
        ),
        (Some("disabled"), true)
    );
}

#[tokio::test]
async fn a_simulation_shows_what_a_draft_would_do_and_changes_nothing() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    admin.seed().await;
    let asked = json!({"call": {"tool_name": "restart_service", "tenant_id": "acme"},
        "draft": {"tenant_id": "acme", "rules": [{"permission": "disabled"}]}});
    let simulated = admin.post("/v1/rules/simulate", asked).await.ok();
    assert_eq!(simulated["decision"]["permission"], "disabled");
    assert_eq!(simulated["decision"]["resolved_from"], "tenant_wildcard");
    assert_eq!(simulated["current"]["resolved_from"], "tenant_tool");
    assert!(simulated["trace"].as_array().unwrap().len() > 12, "{simulated}");
    let acme = admin.standard(&["acme"]).await;
    let answer = acme.post("/v1/permissions/check", json!({"tool_name": "restart_service"})).await.ok();
    assert_eq!(answer["permission"], "allowed");
}

#[tokio::test]
async fn a_guardrail_belongs_to_the_org_and_always_disables() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    admin.seed().await;
    let loose = json!({"tool_name": "restart_service", "permission": "allowed", "guardrail": true});
    admin.post("/v1/rules", loose).await.problem(422, "invalid_value");
    let tenants = json!({"tenant_id": "acme", "method": "x", "permission": "disabled", "guardrail": true});
    admin.post("/v1/rules", tenants).await.problem(422, "invalid_value");
    let guardrail = json!({"tool_name": "restart_service", "permission": "disabled", "guardrail": true});
    admin.post("/v1/rules", guardrail).await.created();
    let acme = admin.standard(&["acme"]).await;
    let answer = acme.post("/v1/permissions/check", json!({"tool_name": "restart_service"})).await.ok();
    assert_eq!((&answer["permission"], &answer["resolved_from"]), (&json!("disabled"), &json!("guardrail")));
}

#[tokio::test]
async fn lists_come_in_pages_without_gaps() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    for i in 0..7 {
        admin.post("/v1/tenants", json!({"id": format!("t{i}")})).await.created();
        admin.post("/v1/tools", json!({"name": format!("tool {i}")})).await.created();
    }
    for (list, key) in [("tenants", "id"), ("tools", "name")] {
        let mut seen = Vec::new();
        let mut path = format!("/v1/{list}?limit=3");
        loop {
            let page = admin.get(&path).await.ok();
            seen.extend(page["data"].as_array().unwrap().iter().map(|t| t[key].as_str().unwrap().to_owned()));
            let Some(cursor) = page["next_cursor"].as_str() else { break };
            path = format!("/v1/{list}?limit=3&cursor={cursor}");
        }
        assert_eq!(seen.len(), 7, "{seen:?}");
        assert!(seen.is_sorted(), "{seen:?}");
    }
    admin.get("/v1/tenants?cursor=%21").await.problem(400, "invalid_request");
    admin.get("/v1/tenants?lmit=3").await.problem(400, "invalid_request");
}

#[tokio::test]
async fn a_changed_definition_is_no_longer_approved() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    admin.post("/v1/tools", json!({"name": "t", "approved": true, "description": "reads"})).await.created();
    let same = admin.patch("/v1/tools/t", json!({"risk_level": "high"})).await.ok();
    assert_eq!(same["approved"], true);
    let changed = admin.patch("/v1/tools/t", json!({"description": "deletes"})).await.ok();
    assert_eq!(changed["approved"], false);
    let looked_at = admin.patch("/v1/tools/t", json!({"description": "x", "approved": true})).await.ok();
    assert_eq!(looked_at["approved"], true);
}

#[tokio::test]
async fn a_patched_schema_is_the_new_one_and_not_a_mixture() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    let old = json!({"type": "object", "properties": {"force": {"type": "boolean"}}});
    admin.post("/v1/tools", json!({"name": "t", "parameter_schema": old})).await.created();
    let new =
        json!({"type": "object", "properties": {"name": {"default": null}}, "additionalProperties": false});
    let patched = admin.patch("/v1/tools/t", json!({"parameter_schema": new})).await.ok();
    assert_eq!(patched["parameter_schema"], new);
    let without = admin.patch("/v1/tools/t", json!({"parameter_schema": null})).await.ok();
    assert_eq!(without["parameter_schema"], Value::Null);
}

#[tokio::test]
async fn what_is_in_use_stays() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    admin.post("/v1/categories", json!({"name": "infra"})).await.created();
    admin.post("/v1/categories", json!({"name": "infra"})).await.problem(409, "already_exists");
    admin.post("/v1/tools", json!({"name": "t", "category": "other"})).await.problem(422, "invalid_value");
    admin.post("/v1/tools", json!({"name": "t", "category": "infra"})).await.created();
    admin.post("/v1/tools", json!({"name": "t"})).await.problem(409, "already_exists");
    admin.delete("/v1/categories/infra").await.problem(409, "in_use");
    admin.patch("/v1/tools/t", json!({"category": null})).await.ok();
    admin.delete("/v1/categories/infra").await.no_content();
}

#[tokio::test]
async fn every_change_is_in_the_audit_log() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    admin.seed().await;
    admin.patch("/v1/settings", json!({"approval_timeout_s": 120})).await.ok();
    admin.put("/v1/kill-switches", json!({"scope": "org", "reason": "drill"})).await.ok();
    admin.delete("/v1/kill-switches?scope=org").await.no_content();
    let log = admin.get("/v1/audit?limit=100").await.ok().to_string();
    for kind in [
        "key.created",
        "tenant.created",
        "tool.created",
        "rule.created",
        "settings.updated",
        "kill_switch.on",
        "kill_switch.off",
        "user.created",
    ] {
        assert!(log.contains(kind), "{kind} is missing: {log}");
    }
}

#[tokio::test]
async fn health_and_safety() {
    let backend = Backend::start_with(|c| c.body_bytes_max = 1024).await;
    let admin = backend.org("demo").await;
    let anyone = backend.anonymous();
    assert_eq!(anyone.get("/healthz").await.status, 200);
    assert_eq!(anyone.get("/readyz").await.status, 200);
    anyone.get("/nowhere").await.problem(404, "unknown_route");
    let wrong = anyone.send(Method::DELETE, "/v1/tenants", None).await;
    assert!(wrong.headers.contains_key("allow"));
    wrong.problem(405, "method_not_allowed");
    let big = json!({"id": "a", "name": "x".repeat(2000)});
    admin.post("/v1/tenants", big).await.problem(413, "body_too_large");
    let answer = admin.get("/v1/tenants").await;
    for header in ["cache-control", "x-content-type-options", "content-security-policy", "x-request-id"] {
        assert!(answer.headers.contains_key(header), "{header}: {:?}", answer.headers);
    }
    let metrics = anyone.get("/metrics").await.text;
    let line = r#"oakallow_backend_requests_total{method="GET",route="/v1/tenants",status="2xx"} 1"#;
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test]
async fn a_client_that_trickles_its_headers_is_cut_off() {
    let backend = Backend::start_with(|c| c.header_timeout = Duration::from_millis(200)).await;
    let address = backend.url.trim_start_matches("http://").to_owned();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();
    let mut rest = Vec::new();
    let cut = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
    // Closed or reset: either way it is over.
    assert!(cut.is_ok(), "the connection is still open");
    assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
}

#[tokio::test]
async fn a_database_that_cannot_be_written_fails_readiness_and_changes_nothing() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    let mut other = backend.raw().await;
    // Another process that holds what a writer needs.
    let hold = other.either("BEGIN IMMEDIATE", "BEGIN; LOCK TABLE orgs IN EXCLUSIVE MODE");
    other.execute(hold).await.unwrap();
    let anyone = backend.anonymous();
    let (ready, write) =
        tokio::join!(anyone.get("/readyz"), admin.post("/v1/tenants", json!({"id": "acme"})));
    ready.problem(503, "unavailable");
    assert!(write.headers.contains_key("retry-after"));
    write.problem(503, "unavailable");
    assert_eq!(anyone.get("/healthz").await.status, 200);
    assert_eq!(admin.get("/v1/tenants").await.ok()["data"], json!([]));
    other.execute("ROLLBACK").await.unwrap();
    assert_eq!(anyone.get("/readyz").await.status, 200);
    admin.post("/v1/tenants", json!({"id": "acme"})).await.created();
}

#[tokio::test]
async fn a_restart_keeps_everything() {
    let mut backend = Backend::start().await;
    let admin = backend.org("demo").await;
    admin.seed().await;
    let before = admin.everything().await;
    backend.restart().await;
    let admin = backend.client(admin.key.as_deref().unwrap());
    assert_eq!(admin.everything().await, before);
    let used = admin.get("/v1/keys").await.ok();
    assert!(used["data"][0]["last_used_at"].is_string(), "{used}");
}
