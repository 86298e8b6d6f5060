//! A tool call over plain HTTP: allowed, refused, held; decided by a person; repeated.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "test code")]

use std::time::Duration;

use oakallow_e2e::raw;
use oakallow_e2e::stack::{Split, Stack};
use oakallow_e2e::wait::until;
use serde_json::json;

#[tokio::test]
async fn an_allowed_call_reaches_the_tool_with_a_token_and_is_recorded_whole() {
    let stack = Stack::start().await;
    let answer =
        stack.acme().call("restart_service", &json!({"service": "server-prod-01"})).send().await.expect(200);
    assert_eq!(answer.header("x-oakallow-decision"), "allowed");
    assert_eq!(answer.body["result"]["status"], "restarted");
    let claims = &answer.body["token_claims"];
    assert_eq!(claims["tool"], "restart_service");
    assert_eq!(claims["resource"], "server-prod-01");
    assert_eq!(claims["tenant"], "acme");
    assert_eq!(claims["lvl"], "tenant_tool");
    assert!(claims["apr"].is_null(), "nobody had to approve");
    assert_eq!(stack.executions("restart_service").await, 1);

    let txn = answer.header("x-oakallow-txn");
    assert_eq!(claims["txn"], txn);
    let life = stack.control().await_event(txn, "call.completed").await;
    for kind in ["call.requested", "call.decided", "call.forwarded", "token.redeemed"] {
        assert!(life.iter().any(|event| event["type"] == kind), "{kind} is missing: {life:#?}");
    }
    let intent = life.iter().find(|event| event["type"] == "call.forwarded").unwrap();
    assert_eq!(intent["data"]["token_id"], claims["jti"]);
}

#[tokio::test]
async fn a_disabled_call_is_refused_with_a_reason_and_never_reaches_the_tool() {
    let stack = Stack::start().await;
    let answer = stack.acme().call("drop_database", &json!({"name": "orders"})).send().await;
    let answer = answer.expect_problem(403, "disabled");
    assert_eq!(answer.text_of("resolved_from"), "guardrail");
    assert!(!answer.text_of("detail").is_empty());
    assert_eq!(answer.header("x-oakallow-decision"), "disabled");
    assert_eq!(stack.executions("drop_database").await, 0);
    let life = stack.control().await_event(answer.header("x-oakallow-txn"), "call.refused").await;
    assert!(!life.iter().any(|event| event["type"] == "call.forwarded"), "{life:#?}");
}

#[tokio::test]
async fn a_held_call_completes_when_a_person_approves() {
    let stack = Stack::start().await;
    let control = stack.control();
    let call = stack.globex().call("restart_service", &json!({"service": "server-prod-01"})).spawn();
    let id = control.await_pending("restart_service").await;
    let seen = control.approval(&id).await;
    assert_eq!(
        seen["parameters"],
        json!({"service": "server-prod-01"}),
        "the approver sees the exact arguments"
    );
    assert_eq!(seen["tenant_id"], "globex");
    assert_eq!(stack.executions("restart_service").await, 0, "held means held");
    control.approve(&id).await;
    let answer = call.await.unwrap().expect(200);
    assert_eq!(answer.body["token_claims"]["apr"], id.as_str());
    assert_eq!(stack.executions("restart_service").await, 1);
    assert_eq!(control.approval(&id).await["status"], "consumed");
    let life = control.await_event(answer.header("x-oakallow-txn"), "call.completed").await;
    for kind in ["call.held", "approval.created", "approval.decided", "approval.consumed", "call.forwarded"] {
        assert!(life.iter().any(|event| event["type"] == kind), "{kind} is missing: {life:#?}");
    }
}

#[tokio::test]
async fn a_held_call_is_refused_with_the_note_when_a_person_denies() {
    let stack = Stack::start().await;
    let control = stack.control();
    let arguments = json!({"from": "operations", "to": "savings", "amount": 5});
    let call = stack.acme().call("transfer_funds", &arguments).spawn();
    let id = control.await_pending("transfer_funds").await;
    control.deny(&id, "not before the audit").await;
    let answer = call.await.unwrap().expect_problem(403, "approval_denied");
    assert!(answer.text.contains("not before the audit"), "{answer:#?}");
    let again = stack.acme().call("transfer_funds", &arguments).send().await;
    again.expect_problem(403, "approval_denied");
    assert!(control.pending("transfer_funds").await.is_empty(), "a denied call does not ask again");
    assert_eq!(stack.executions("transfer_funds").await, 0);
    let second = control.decide(&id, "approved", "").await;
    assert_eq!(second.status, 409, "the first decision wins: {second:#?}");
}

#[tokio::test]
async fn a_call_that_nobody_decides_about_expires_and_does_not_run() {
    let stack = Stack::start().await;
    let control = stack.control();
    // The shortest time that the product knows.
    let patch = json!({"approval": {"timeout_s": 60}}).to_string();
    let changed =
        control.management().request(reqwest::Method::PATCH, "/v1/tools/transfer_funds", patch).send().await;
    let _ = changed.expect(200);
    let arguments = json!({"from": "operations", "to": "savings", "amount": 7});
    let pending = stack.acme().call_async("transfer_funds", &arguments).send().await.expect(202);
    let id = pending.text_of("approval_id").to_owned();
    // Joined when less than a hold's budget is left, so that it expires while the call is held.
    let path = format!("/v1/approvals/{id}?wait=20");
    assert_eq!(control.approver().get(&path).await.text_of("status"), "pending");
    let held = stack.acme().call("transfer_funds", &arguments).send().await;
    held.expect_problem(403, "approval_expired");
    assert_eq!(control.approval(&id).await["status"], "expired");
    assert_eq!(control.decide(&id, "approved", "too late").await.status, 409);
    assert_eq!(stack.executions("transfer_funds").await, 0);
}

#[tokio::test]
async fn a_client_that_left_finds_its_approval_and_a_third_try_does_not_run_again() {
    let stack = Stack::start().await;
    let control = stack.control();
    let body = r#"{"service":"server-prod-03"}"#;
    let request = format!(
        "POST /tools/restart_service HTTP/1.1\r\nHost: tools\r\nX-API-Key: {}\r\nContent-Length: {}\r\n\r\n{body}",
        stack.env("OAKALLOW_GLOBEX_KEY"),
        body.len()
    );
    let held = async { drop(control.await_pending("restart_service").await) };
    raw::abandon(stack.env("OAKALLOW_PROXY"), request.as_bytes(), held).await;

    let arguments = json!({"service": "server-prod-03"});
    let pending = stack.globex().call_async("restart_service", &arguments).send().await.expect(202);
    let id = control.await_pending("restart_service").await;
    assert_eq!(pending.text_of("approval_id"), id, "the retry joins");
    let retry = stack.globex().call("restart_service", &arguments).spawn();
    control.approve(&id).await;
    let ran = retry.await.unwrap().expect(200);
    assert_eq!(stack.executions("restart_service").await, 1);

    let third = stack.globex().call("restart_service", &arguments).send().await;
    let third = third.expect_problem(409, "already_executed");
    assert_eq!(third.text_of("execution"), ran.header("x-oakallow-txn"));
    assert!(!third.body["time"].is_null() && !third.text_of("outcome").is_empty(), "{third:#?}");
    assert_eq!(stack.executions("restart_service").await, 1);
    assert!(control.pending("restart_service").await.is_empty());

    let fresh = stack.globex().call_async("restart_service", &arguments).header("idempotency-key", "again-1");
    let fresh = fresh.send().await.expect(202);
    assert_ne!(fresh.text_of("approval_id"), id, "a new Idempotency-Key asks for a new run");
}

#[tokio::test]
async fn respond_async_is_answered_at_once_and_says_how_to_go_on() {
    let stack = Stack::start().await;
    let arguments = json!({"service": "server-prod-04"});
    let begun = std::time::Instant::now();
    let pending = stack.globex().call_async("restart_service", &arguments).send().await.expect(202);
    assert!(begun.elapsed() < Duration::from_secs(5), "it was held");
    assert_eq!(pending.text_of("status"), "pending");
    let id = pending.text_of("approval_id");
    assert!(id.starts_with("apr_") && pending.text_of("reference").starts_with("REF-"), "{pending:#?}");
    assert!(pending.header("location").ends_with(&format!("/v1/approvals/{id}")), "{pending:#?}");
    assert!(pending.header("retry-after").parse::<u32>().is_ok(), "{pending:#?}");
    assert_eq!(pending.header("x-oakallow-decision"), "requires_approval");

    let short = stack.globex().call("restart_service", &arguments).header("prefer", "wait=1").send().await;
    assert_eq!(short.expect(202).text_of("approval_id"), id, "the same call, the same approval");
    stack.control().approve(id).await;
    let _ = stack.globex().call("restart_service", &arguments).send().await.expect(200);
    assert_eq!(stack.executions("restart_service").await, 1);
}

#[tokio::test]
async fn a_key_of_one_tenant_cannot_name_another() {
    let stack = Stack::start().await;
    let service = json!({"service": "server-prod-01"});
    let foreign = stack.acme().call("restart_service", &service).header("x-tenant-id", "globex").send().await;
    foreign.expect_problem(403, "tenant_not_allowed");
    let foreign = stack.globex().call("restart_service", &service).header("x-tenant-id", "acme").send().await;
    foreign.expect_problem(403, "tenant_not_allowed");
    let unknown = stack.acme().call("restart_service", &service).header("x-tenant-id", "nobody").send().await;
    unknown.expect_problem(403, "tenant_not_allowed");
    let own = stack.acme().call("restart_service", &service).header("x-tenant-id", "acme").send().await;
    let _ = own.expect(200);
    let wrong = stack.acme().with_key("oak_live_00000000000000000000000000000000");
    wrong.call("restart_service", &service).send().await.expect_problem(401, "unauthenticated");
    stack
        .acme()
        .with_key("")
        .call("restart_service", &service)
        .send()
        .await
        .expect_problem(401, "unauthenticated");
    assert_eq!(stack.executions("restart_service").await, 1);
}

#[tokio::test]
async fn a_tool_that_nobody_registered_is_not_forwarded_on_trust() {
    let stack = Stack::start().await;
    let pending = stack.acme().call_async("format_disk", &json!({"disk": "sda"})).send().await.expect(202);
    assert_eq!(pending.header("x-oakallow-decision"), "requires_approval");
    let decided = stack.control().await_event(pending.header("x-oakallow-txn"), "call.decided").await;
    let decision = decided.iter().find(|event| event["type"] == "call.decided").unwrap();
    assert_eq!(decision["data"]["decision"]["unregistered"], true, "{decision:#}");
    assert!(!decided.iter().any(|event| event["type"] == "call.forwarded"));
    let call = stack.acme().request(reqwest::Method::POST, "/elsewhere", "{}").send().await;
    call.expect_problem(404, "unknown_route");
}

#[tokio::test]
async fn an_approval_does_not_cover_a_call_that_was_altered() {
    let stack = Stack::start().await;
    let control = stack.control();
    let shown = json!({"from": "operations", "to": "savings", "amount": 100});
    let altered = json!({"from": "operations", "to": "savings", "amount": 99_900});
    let pending = stack.acme().call_async("transfer_funds", &shown).send().await.expect(202);
    let id = pending.text_of("approval_id").to_owned();
    control.approve(&id).await;

    let other = stack.acme().call_async("transfer_funds", &altered).send().await.expect(202);
    assert_ne!(other.text_of("approval_id"), id, "another call is another approval");
    let elsewhere = stack.globex().call_async("transfer_funds", &shown).send().await.expect(202);
    assert_ne!(elsewhere.text_of("approval_id"), id, "another tenant's call is another approval");
    assert_eq!(stack.executions("transfer_funds").await, 0);

    let done = stack.acme().call("transfer_funds", &shown).send().await.expect(200);
    assert_eq!(done.body["result"]["amount"], 100);
    assert_eq!(stack.executions("transfer_funds").await, 1);
}

#[tokio::test]
async fn an_idempotency_key_does_not_move_an_approval_to_another_call() {
    let stack = Stack::start().await;
    let ask = |amount: u32| {
        let arguments = json!({"from": "operations", "to": "savings", "amount": amount});
        stack.acme().call_async("transfer_funds", &arguments).header("idempotency-key", "pay-1").send()
    };
    let _ = ask(1).await.expect(202);
    let other = ask(2).await;
    assert_eq!(other.status, 422, "{other:#?}");
    assert_eq!(stack.control().pending("transfer_funds").await.len(), 1);
}

#[tokio::test]
async fn arguments_that_do_not_fit_the_schema_are_refused_with_the_place() {
    let stack = Stack::start().await;
    let surplus = json!({"service": "server-prod-01", "force": true});
    let answer = stack.acme().call("restart_service", &surplus).send().await;
    let _ = answer.expect_problem(422, "invalid_arguments");
    let wrong = json!({"from": "operations", "to": "savings", "amount": "all"});
    let answer =
        stack.acme().call("transfer_funds", &wrong).send().await.expect_problem(422, "invalid_arguments");
    assert_eq!(answer.text_of("pointer"), "/amount");
    assert_eq!(stack.executions("restart_service").await, 0);
}

#[tokio::test]
async fn a_name_that_only_its_normal_form_makes_known_is_refused() {
    let stack = Stack::start().await;
    for service in [" server-prod-01", "server-prod-01\n", "cafe\u{301}"] {
        let call = stack.acme().call("restart_service", &json!({"service": service})).send().await;
        assert_eq!(call.expect_problem(422, "invalid_arguments").text_of("pointer"), "/service");
    }
    stack
        .acme()
        .call("%20restart_service", &json!({"service": "a"}))
        .send()
        .await
        .expect_problem(400, "invalid_request");
    assert_eq!(stack.executions("restart_service").await, 0);
}

#[tokio::test]
async fn a_change_of_a_tenants_rules_moves_the_policy_version_of_its_calls() {
    let stack = Stack::start().await;
    let control = stack.control();
    let mut rule = json!({"tenant_id": "globex", "tool_name": "restart_service", "permission": "allowed"});
    rule["resource_id"] = json!("a");
    control.create("/v1/rules", rule).await;
    let asked = json!({"tool_name": "restart_service", "resource_id": "a"});
    let globex = stack.globex().with_base(stack.env("OAKALLOW_BACKEND"));
    let now = globex.post("/v1/permissions/check", &asked).await.expect(200).body["policy_version"].clone();
    let ran = until("the proxy to have heard of it", async || {
        let answer = stack.globex().call_async("restart_service", &json!({"service": "a"})).send().await;
        (answer.status == 200).then_some(answer)
    });
    let ran = ran.await;
    assert_eq!(ran.body["token_claims"]["pol"], now, "{ran:#?}");
    let life = control.await_event(ran.header("x-oakallow-txn"), "call.completed").await;
    let decided = life.iter().find(|event| event["type"] == "call.decided").unwrap();
    assert_eq!(decided["data"]["decision"]["policy_version"], now, "{decided:#}");
}

#[tokio::test]
async fn backend_tools_and_proxy_work_as_three_processes_set_up_through_the_api() {
    let mut split = Split::start().await;
    let agent = split.proxy.agent(&split.agent_key);
    let answer = agent.call("read_record", &json!({"id": "42"})).send().await.expect(200);
    assert_eq!(answer.body["result"]["record"]["customer"], "Ada");
    agent.call("restart_service", &json!({"service": "a"})).send().await.expect_problem(403, "disabled");
    let _ = split.control().await_event(answer.header("x-oakallow-txn"), "call.completed").await;
    assert_eq!(split.proxy.terminate(Duration::from_secs(15)).await.code(), Some(0));
    split.proxy.restart().await;
    let _ = agent.call("read_record", &json!({"id": "43"})).send().await.expect(200);
}

#[tokio::test]
async fn a_call_as_deep_as_calls_may_be_is_recorded_like_any_other() {
    let stack = Stack::start().await;
    let deep = |levels: usize| format!("{{\"n\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
    let post = |body: String| {
        let call = stack.acme().request(reqwest::Method::POST, "/tools/nobody_registered_this", body);
        call.header("prefer", "respond-async").send()
    };
    let pending = post(deep(64)).await.expect(202);
    stack.control().await_event(pending.header("x-oakallow-txn"), "call.decided").await;
    post(deep(65)).await.expect_problem(400, "invalid_request");
    // Nothing is stuck behind it.
    let ran = stack.acme().call("read_record", &json!({"id": "42"})).send().await.expect(200);
    stack.control().await_event(ran.header("x-oakallow-txn"), "call.completed").await;
    // A person sees it whole.
    let shown = stack.control().approval(pending.text_of("approval_id")).await;
    assert_eq!(shown["parameters"].to_string(), deep(64));
}

#[tokio::test]
async fn an_approval_covers_the_header_fields_that_the_tool_gets() {
    let stack = Stack::start().await;
    let control = stack.control();
    let restart = |environment: &str, key: &str| {
        let call = stack.globex().call_async("restart_service", &json!({"service": "server-prod-01"}));
        let call =
            call.header("x-environment", environment).header("authorization", &format!("Bearer {key}"));
        // How it is carried is not what is approved.
        call.header("user-agent", key).header("traceparent", key).send()
    };
    let pending = restart("staging", "theirs").await.expect(202);
    let id = pending.text_of("approval_id").to_owned();
    let shown = control.approval(&id).await;
    let headers = &shown["parameters"]["headers"];
    assert_eq!(headers["x-environment"], json!(["staging"]), "{shown:#}");
    assert!(
        !shown.to_string().contains("theirs"),
        "a credential is nothing that an approver needs: {shown:#}"
    );
    assert_eq!(shown["parameters"]["arguments"], json!({"service": "server-prod-01"}));
    control.approve(&id).await;
    for (environment, key) in [("production", "theirs"), ("staging", "others")] {
        let other = restart(environment, key).await.expect(202);
        assert_ne!(other.text_of("approval_id"), id, "{environment} {key}");
    }
    assert_eq!(stack.executions("restart_service").await, 0);
    let _ = restart("staging", "theirs").await.expect(200);
    assert_eq!(stack.executions("restart_service").await, 1);
}
