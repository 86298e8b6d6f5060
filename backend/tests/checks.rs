//! Permission checks: the answers of the engine, through the API.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use reqwest::Method;
use serde_json::{Value, json};
use support::{Backend, Client};

async fn check(client: &Client, body: Value) -> Value {
    client.post("/v1/permissions/check", body).await.ok()
}

#[tokio::test]
async fn a_json_answer_ends_with_a_line_break() {
    let backend = Backend::start().await;
    let org = backend.org("demo").await;
    for answer in [
        org.get("/v1/settings").await,
        org.post("/v1/tenants", json!({"id": "acme"})).await,
        org.get("/v1/tenants/nobody").await,
        org.get("/v1/nothing").await,
        backend.anonymous().get("/v1/settings").await,
    ] {
        answer.json();
        assert!(answer.text.ends_with("}\n") && !answer.text.ends_with("\n\n"), "{answer:?}");
    }
}

#[tokio::test]
async fn the_quick_start_check_answers_from_the_keys_tenant() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    admin.seed().await;
    let acme = admin.standard(&["acme"]).await;
    let answer = check(&acme, json!({"tool_name": "restart_service", "resource_id": "server-prod-01"})).await;
    assert_eq!(answer["permission"], "allowed");
    assert_eq!(answer["resolved_from"], "tenant_tool");
    assert!(answer["policy_version"].as_u64().unwrap() > 1);
    assert!(answer["check_id"].as_str().unwrap().starts_with("chk_"));
    assert!(answer.get("trace").is_none());
    let log = admin.get("/v1/audit?type=permission.checked").await.ok();
    assert_eq!(log["data"].as_array().unwrap().len(), 1, "{log}");
    assert!(log.to_string().contains(answer["check_id"].as_str().unwrap()), "{log}");
}

#[tokio::test]
async fn a_tenant_is_selected_never_added() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    admin.seed().await;
    admin.post("/v1/tenants", json!({"id": "third"})).await.created();
    let body = |tenant: &str| json!({"tool_name": "restart_service", "tenant_id": tenant});
    let path = "/v1/permissions/check";

    let one = admin.standard(&["acme"]).await;
    one.post(path, body("globex")).await.problem(403, "tenant_not_allowed");
    one.naming("globex").post(path, body("globex")).await.problem(403, "tenant_not_allowed");
    check(&one, body("acme")).await;

    let some = admin.standard(&["acme", "globex"]).await;
    some.post(path, json!({"tool_name": "restart_service"})).await.problem(400, "tenant_required");
    some.post(path, body("third")).await.problem(403, "tenant_not_allowed");
    some.naming("acme").post(path, body("globex")).await.problem(400, "invalid_request");
    let named = check(&some.naming("acme"), json!({"tool_name": "restart_service"})).await;
    assert_eq!(named["resolved_from"], "tenant_tool");

    let org = admin.standard(&[]).await;
    org.post(path, body("nobody")).await.problem(403, "tenant_not_allowed");
    assert_eq!(check(&org, json!({"tool_name": "restart_service"})).await["resolved_from"], "fail_safe");
    assert_eq!(check(&org, body("acme")).await["resolved_from"], "tenant_tool");
}

#[tokio::test]
async fn a_deleted_tenants_key_reaches_nothing() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    admin.seed().await;
    let acme = admin.standard(&["acme"]).await;
    admin.delete("/v1/tenants/acme").await.no_content();
    acme.post("/v1/permissions/check", json!({"tool_name": "restart_service"}))
        .await
        .problem(403, "tenant_not_allowed");
}

#[tokio::test]
async fn a_change_holds_from_the_next_check_on() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    admin.seed().await;
    let acme = admin.standard(&["acme"]).await;
    let call = json!({"tool_name": "restart_service"});
    let mut version = 0;
    for permission in ["disabled", "requires_approval", "allowed", "disabled"] {
        let rules = json!({"tenant_id": "acme", "rules": [{"tool_name": "restart_service", "permission": permission}]});
        admin.put("/v1/rules", rules).await.ok();
        let answer = check(&acme, call.clone()).await;
        assert_eq!(answer["permission"], permission);
        assert!(answer["policy_version"].as_u64().unwrap() > version, "versions only grow");
        version = answer["policy_version"].as_u64().unwrap();
    }
    admin.put("/v1/rules", json!({"tenant_id": "acme", "rules": []})).await.ok();
    for (switch, off) in [
        (json!({"scope": "org"}), "scope=org"),
        (json!({"scope": "tenant", "id": "acme"}), "scope=tenant&id=acme"),
        (json!({"scope": "tool", "id": "restart_service"}), "scope=tool&id=restart_service"),
    ] {
        admin.put("/v1/kill-switches", switch).await.ok();
        assert_eq!(check(&acme, call.clone()).await["resolved_from"], "kill_switch");
        admin.delete(&format!("/v1/kill-switches?{off}")).await.no_content();
        assert_eq!(check(&acme, call.clone()).await["resolved_from"], "fail_safe");
    }
    admin.patch("/v1/tools/restart_service", json!({"enabled": false})).await.ok();
    assert_eq!(check(&acme, call).await["resolved_from"], "tool_disabled");
}

#[tokio::test]
async fn many_checks_and_changes_at_once_all_succeed() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    admin.seed().await;
    let acme = admin.standard(&["acme"]).await;
    let checks = (0..40).map(|_| check(&acme, json!({"tool_name": "restart_service"})));
    let changes = (0..20).map(|i| {
        let admin = &admin;
        async move {
            let rule = json!({"tenant_id": "acme", "tool_name": format!("t{i}"), "permission": "allowed"});
            admin.post("/v1/rules", rule).await.created()
        }
    });
    let (checks, changes) =
        tokio::join!(futures_util::future::join_all(checks), futures_util::future::join_all(changes));
    assert!(checks.iter().all(|c| c["permission"] == "allowed"), "{checks:?}");
    assert_eq!(changes.len(), 20);
}

#[tokio::test]
async fn an_unregistered_tool_needs_a_person_and_leaves_a_draft() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    admin.seed().await;
    admin.post("/v1/rules", json!({"permission": "allowed"})).await.created();
    let org = admin.standard(&[]).await;
    let answer = check(&org, json!({"tool_name": "never_seen"})).await;
    assert_eq!((&answer["permission"], &answer["unregistered"]), (&json!("requires_approval"), &json!(true)));
    assert_eq!(answer["resolved_from"], "org_wildcard");
    check(&org, json!({"tool_name": "never_seen"})).await;
    let drafts = admin.get("/v1/tools?status=draft").await.ok();
    assert_eq!(drafts["data"].as_array().unwrap().len(), 1, "{drafts}");
    assert_eq!(
        (&drafts["data"][0]["name"], &drafts["data"][0]["status"]),
        (&json!("never_seen"), &json!("draft"))
    );

    // A registered name at another audience is not the registered tool.
    let elsewhere = check(&org, json!({"tool_name": "restart_service", "audience": "elsewhere"})).await;
    assert_eq!(elsewhere["unregistered"], true);

    admin.post("/v1/tools", json!({"name": "never_seen"})).await.created();
    assert_eq!(check(&org, json!({"tool_name": "never_seen"})).await["permission"], "allowed");
}

#[tokio::test]
async fn drafts_are_limited_to_a_hundred_a_day() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    let org = admin.standard(&[]).await;
    for half in 0..2 {
        let checks: Vec<Value> = (0..60).map(|i| json!({"tool_name": format!("t{half}-{i}")})).collect();
        let answer = org.post("/v1/permissions/check/batch", json!({"checks": checks})).await.ok();
        assert_eq!(answer["results"].as_array().unwrap().len(), 60);
    }
    let drafts = admin.get("/v1/tools?status=draft&limit=500").await.ok();
    assert_eq!(drafts["data"].as_array().unwrap().len(), 100);
    backend.clock.advance_ms(24 * 3600 * 1000 + 1);
    check(&org, json!({"tool_name": "next day"})).await;
    let drafts = admin.get("/v1/tools?status=draft&limit=500").await.ok();
    assert_eq!(drafts["data"].as_array().unwrap().len(), 101);
}

#[tokio::test]
async fn a_batch_answers_each_in_its_place() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    admin.seed().await;
    let acme = admin.standard(&["acme"]).await;
    let checks = json!({"checks": [
        {"tool_name": "restart_service"}, {"tool_name": "restart_service", "tenant_id": "globex"},
        {"tool_name": "other"}]});
    let results = acme.post("/v1/permissions/check/batch", checks).await.ok()["results"].clone();
    assert_eq!(results[0]["permission"], "allowed");
    assert_eq!(results[1]["error"]["code"], "tenant_not_allowed");
    assert_eq!(results[2]["permission"], "requires_approval");
    acme.post("/v1/permissions/check/batch", json!({"checks": []})).await.problem(422, "invalid_value");
}

#[tokio::test]
async fn a_trace_is_for_the_platform_only() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    admin.seed().await;
    let call = json!({"tool_name": "restart_service", "tenant_id": "acme", "explain": true});
    let acme = admin.standard(&["acme"]).await;
    acme.post("/v1/permissions/check", call.clone()).await.problem(403, "explain_not_allowed");
    let answer = check(&admin.standard(&[]).await, call).await;
    let matched: Vec<&Value> =
        answer["trace"].as_array().unwrap().iter().filter(|s| s["outcome"] == "matched").collect();
    assert_eq!(matched.len(), 1, "{answer}");
    assert_eq!((&matched[0]["at"], &matched[0]["level"]), (&json!("tenant_tool"), &json!(4)));
}

#[tokio::test]
async fn arguments_that_break_the_schema_are_refused_at_their_place() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    let schema =
        json!({"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": false});
    admin.post("/v1/tools", json!({"name": "t", "parameter_schema": schema})).await.created();
    let org = admin.standard(&[]).await;
    let bad = json!({"tool_name": "t", "parameters": {"n": "secret"}});
    let problem = org.post("/v1/permissions/check", bad).await.problem(422, "invalid_arguments");
    assert_eq!(problem["pointer"], "/parameters/n");
    assert!(!problem.to_string().contains("secret"), "an argument is in the answer: {problem}");
    check(&org, json!({"tool_name": "t", "parameters": {"n": 1}})).await;
}

#[tokio::test]
async fn an_agents_token_checks_and_decides_nothing() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    admin.seed().await;
    let agent = json!({"id": "bot", "owner": "robin@example.com", "tenants": ["acme"]});
    let made = admin.post("/v1/agents", agent.clone()).await.created();
    let token = made["key"]["key"].as_str().unwrap();
    assert!(token.starts_with("oak_agent_"), "{token}");
    let bot = backend.client(token);
    check(&bot, json!({"tool_name": "restart_service"})).await;
    let decision = json!({"decision": "approved"});
    let answer = bot.post("/v1/approvals/apr_x/decide", decision).await;
    assert_eq!(answer.status, 403, "{}", answer.text);
    let log = admin.get("/v1/audit?type=permission.checked").await.ok();
    assert!(log.to_string().contains(r#""principal":"bot""#), "{log}");
    admin.delete("/v1/agents/bot").await.no_content();
    bot.post("/v1/permissions/check", json!({"tool_name": "x"})).await.problem(401, "key_revoked");
    admin.post("/v1/agents", agent).await.problem(409, "already_exists");
}

#[tokio::test]
async fn the_quick_start_works_as_written() {
    let backend = Backend::start().await;
    let admin = backend.org("demo").await;
    admin.seed().await;
    let acme = admin.standard(&["acme"]).await;
    for (path, body) in [
        ("/v1/permissions/check", r#"{"tool_name":"restart_service","resource_id":"server-prod-01"}"#),
        ("/v1/tokens/mint", r#"{"tool_name":"restart_service"}"#),
        ("/v1/executions/log", r#"{"tool_name":"restart_service","execution_result":"success"}"#),
    ] {
        let request =
            acme.request(Method::POST, path).header("content-type", "application/x-www-form-urlencoded");
        let answer = request.body(body).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap());
    }
}
