use oakallow_policy::audit::{EventData, EventType};
use reqwest::Method;
use serde_json::json;

use crate::stack::{DEVELOPER, OWNER, start, start_with};

const MINUTE: u64 = 60_000;

#[tokio::test]
async fn the_same_call_joins_and_another_does_not() {
    let stack = start().await;
    let first = stack.ask("transfer_funds", json!({"amount": 5})).await;
    let again = stack.ask("transfer_funds", json!({"amount": 5})).await;
    let other = stack.ask("transfer_funds", json!({"amount": 6})).await;
    assert_eq!((first["joined"].as_bool(), again["joined"].as_bool()), (Some(false), Some(true)));
    assert_eq!(first["id"], again["id"]);
    assert_ne!(first["id"], other["id"]);
    assert!(first["reference"].as_str().unwrap().starts_with("REF-"));
    assert_eq!(stack.events("approval.created").await.len(), 2);
}

#[tokio::test]
async fn a_denial_needs_a_note_and_is_remembered_for_ten_minutes() {
    let stack = start().await;
    let id = stack.ask("transfer_funds", json!({})).await["id"].as_str().unwrap().to_owned();
    let (status, problem) = stack
        .post(&stack.approver, &format!("/v1/approvals/{id}/decide"), &json!({"decision": "denied"}))
        .await;
    assert_eq!((status, problem["pointer"].as_str()), (422, Some("/note")));
    assert_eq!(stack.decide(&id, "denied").await.0, 200);
    stack.clock.advance_ms(10 * MINUTE - 1);
    let same = stack.ask("transfer_funds", json!({})).await;
    assert_eq!((same["id"].as_str(), same["status"].as_str()), (Some(id.as_str()), Some("denied")));
    assert_eq!(same["note"], "seen");
    stack.clock.advance_ms(1);
    assert_ne!(stack.ask("transfer_funds", json!({})).await["id"], same["id"]);
}

#[tokio::test]
async fn nobody_approves_for_an_agent_of_their_own() {
    let stack = start().await;
    let agent = json!({"id": "own-agent", "owner": OWNER.to_uppercase(), "tenants": ["acme"]});
    let (status, made) = stack.post(&stack.management, "/v1/agents", &agent).await;
    assert_eq!(status, 201, "{made}");
    let key = made["key"]["key"].as_str().unwrap();
    let (_, asked) = stack.post(key, "/v1/approvals", &json!({"tool_name": "transfer_funds"})).await;
    let id = asked["id"].as_str().unwrap();
    let (status, problem) = stack.decide(id, "approved").await;
    assert_eq!((status, problem["code"].as_str()), (403, Some("self_approval")));
    // Nor do they see the arguments there: that is for those who decide.
    let (_, seen) = stack.get(&stack.approver, &format!("/v1/approvals/{id}")).await;
    assert!(seen.get("parameters").is_none(), "{seen}");
    assert_eq!(stack.status(id).await, "pending");
}

#[tokio::test]
async fn only_approvers_decide_and_only_they_see_arguments() {
    let stack = start().await;
    let id = stack.ask("transfer_funds", json!({"iban": "XX-1"})).await["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/approvals/{id}/decide");
    for key in [&stack.acme, &stack.management, &stack.tool] {
        let (status, _) = stack.post(key, &path, &json!({"decision": "approved"})).await;
        assert_eq!(status, 403);
    }
    let (_, seen) = stack.get(&stack.approver, &format!("/v1/approvals/{id}")).await;
    assert_eq!(seen["parameters"], json!({"iban": "XX-1"}));
    let (_, own) = stack.get(&stack.acme, &format!("/v1/approvals/{id}")).await;
    assert!(own.get("parameters").is_none());
    // Another tenant's agent does not learn that it exists.
    assert_eq!(stack.get(&stack.globex, &format!("/v1/approvals/{id}")).await.0, 404);
    let (_, list) = stack.get(&stack.globex, "/v1/approvals").await;
    assert_eq!(list["data"], json!([]));
}

#[tokio::test]
async fn an_approver_key_decides_critical_calls_only_if_the_org_says_so() {
    let stack = start().await;
    let id = stack.ask("wipe_disk", json!({})).await["id"].as_str().unwrap().to_owned();
    let (status, problem) = stack.decide(&id, "approved").await;
    assert_eq!((status, problem["code"].as_str()), (403, Some("key_not_enough")));
    let patch = json!({"approver_keys_decide_high_risk": true});
    let changed = stack.send(Method::PATCH, &stack.management, "/v1/settings", Some(&patch)).await;
    assert_eq!(changed.status(), 200);
    assert_eq!(stack.decide(&id, "approved").await.0, 200);
}

#[tokio::test]
async fn a_pending_approval_expires_and_the_waiter_hears_of_it() {
    let stack = start().await;
    let id = stack.ask("transfer_funds", json!({})).await["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/approvals/{id}?wait=30");
    let waiting = stack.get(&stack.acme, &path);
    let advance = async {
        stack.clock.advance_ms(3_600_000);
    };
    let ((status, answer), ()) = tokio::join!(waiting, advance);
    assert_eq!((status, answer["status"].as_str()), (200, Some("expired")));
    stack.until("the event", || async { !stack.events("approval.expired").await.is_empty() }).await;
    assert_eq!(stack.decide(&id, "approved").await.0, 409);
}

#[tokio::test]
async fn a_long_poll_ends_with_the_decision() {
    let stack = start().await;
    let id = stack.ask("transfer_funds", json!({})).await["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/approvals/{id}?wait=30");
    let began = std::time::Instant::now();
    let ((_, answer), _) = tokio::join!(stack.get(&stack.acme, &path), stack.decide(&id, "approved"));
    assert_eq!(answer["status"], "approved");
    assert!(began.elapsed().as_secs() < 20);
}

#[tokio::test]
async fn an_approved_one_is_consumed_within_fifteen_minutes_or_expires() {
    let stack = start().await;
    let proxy = stack.enrol().await;
    let (body, fingerprint) = proxy.asks("transfer_funds", "late", "txn_a");
    let (status, asked) = stack.post(&proxy.key, "/v1/approvals", &body).await;
    assert_eq!(status, 201, "{asked}");
    let id = asked["id"].as_str().unwrap();
    let consume = format!("/v1/approvals/{id}/consume");
    let (status, problem) =
        stack.post(&proxy.key, &consume, &json!({"txn": "txn_a", "fingerprint": fingerprint})).await;
    assert_eq!((status, problem["code"].as_str()), (409, Some("approval_pending")));
    assert_eq!(stack.decide(id, "approved").await.0, 200);
    stack.clock.advance_ms(15 * MINUTE);
    let (status, problem) =
        stack.post(&proxy.key, &consume, &json!({"txn": "txn_a", "fingerprint": fingerprint})).await;
    assert_eq!((status, problem["code"].as_str()), (409, Some("approval_expired")));
    assert_eq!(stack.events("approval.consumed").await.len(), 0);
}

#[tokio::test]
async fn an_approval_covers_its_own_call_only() {
    let stack = start().await;
    let proxy = stack.enrol().await;
    let (body, _) = proxy.asks("transfer_funds", "ten", "txn_a");
    let (_, other) = proxy.asks("transfer_funds", "a million", "txn_a");
    let (_, asked) = stack.post(&proxy.key, "/v1/approvals", &body).await;
    let id = asked["id"].as_str().unwrap();
    stack.decide(id, "approved").await;
    let consume = format!("/v1/approvals/{id}/consume");
    let (status, problem) =
        stack.post(&proxy.key, &consume, &json!({"txn": "txn_a", "fingerprint": other})).await;
    assert_eq!((status, problem["code"].as_str()), (409, Some("other_call")));
    assert_eq!(stack.status(id).await, "approved");
}

#[tokio::test]
async fn after_it_ran_the_same_call_is_told_so_for_fifteen_minutes() {
    let stack = start().await;
    let mut proxy = stack.enrol().await;
    let (body, fingerprint) = proxy.asks("transfer_funds", "once", "txn_a");
    let (_, asked) = stack.post(&proxy.key, "/v1/approvals", &body).await;
    let id = asked["id"].as_str().unwrap();
    stack.decide(id, "approved").await;
    let run = json!({"txn": "txn_a", "fingerprint": fingerprint});
    let (status, consumption) = stack.post(&proxy.key, &format!("/v1/approvals/{id}/consume"), &run).await;
    assert_eq!((status, consumption["txn"].as_str()), (200, Some("txn_a")));

    let (status, again) = stack.post(&proxy.key, "/v1/approvals", &body).await;
    assert_eq!(status, 200);
    assert_eq!(again["already_executed"]["execution"], "txn_a");
    assert_eq!(again["already_executed"]["outcome"], "running");
    for (kind, outcome) in [(EventType::CallUnknown, "unknown"), (EventType::CallCompleted, "success")] {
        let event = proxy.event(kind, "txn_a", EventData::default());
        let (status, ack) = stack.post(&proxy.key, &proxy.path("audit"), &proxy.batch(&[event])).await;
        assert_eq!(status, 200, "{ack}");
        let (_, again) = stack.post(&proxy.key, "/v1/approvals", &body).await;
        assert_eq!(again["already_executed"]["outcome"], outcome);
    }
    // A new key says: run it again.
    let mut keyed = body.clone();
    keyed["proxy"]["idempotency_key"] = json!("second");
    let (status, fresh) = stack.post(&proxy.key, "/v1/approvals", &keyed).await;
    assert_eq!((status, fresh["status"].as_str()), (201, Some("pending")));
    let (_, cancelled) = stack
        .post(&proxy.key, &format!("/v1/approvals/{}/cancel", fresh["id"].as_str().unwrap()), &json!({}))
        .await;
    assert_eq!(cancelled["status"], "cancelled", "{cancelled}");
    stack.clock.advance_ms(15 * MINUTE);
    let (status, _) = stack.post(&proxy.key, "/v1/approvals", &body).await;
    assert_eq!(status, 201);
}

#[tokio::test]
async fn an_idempotency_key_stands_for_one_call() {
    let stack = start().await;
    let ask = |amount: u32| {
        stack
            .http
            .post(format!("{}/v1/approvals", stack.url))
            .header("x-api-key", &stack.acme)
            .header("idempotency-key", "k1")
            .json(&json!({"tool_name": "transfer_funds", "parameters": {"amount": amount}}))
            .send()
    };
    assert_eq!(ask(1).await.unwrap().status(), 201);
    assert_eq!(ask(1).await.unwrap().status(), 200);
    let other: serde_json::Value = ask(2).await.unwrap().json().await.unwrap();
    assert_eq!((&other["status"], &other["code"]), (&json!(422), &json!("idempotency_key_reused")));
    // The same from a proxy, which goes by these codes.
    let proxy = stack.enrol().await;
    for (about, expected) in
        [("one", json!(null)), ("one", json!(null)), ("two", json!("idempotency_key_reused"))]
    {
        let (mut body, _) = proxy.asks("transfer_funds", about, "txn_k");
        body["proxy"]["idempotency_key"] = json!("k2");
        let (_, answer) = stack.post(&proxy.key, "/v1/approvals", &body).await;
        assert_eq!(answer["code"], expected, "{answer}");
    }
}

#[tokio::test]
async fn an_approval_names_the_rule_that_asks_for_it() {
    let stack = start().await;
    let rule = json!({"tenant_id": "acme", "tool_name": "transfer_funds", "permission": "requires_approval"});
    let (_, rule) = stack.post(&stack.management, "/v1/rules", &rule).await;
    let through_rest = stack.ask("transfer_funds", json!({})).await;
    assert_eq!((&through_rest["rule"], &through_rest["resolved_from"]), (&rule["id"], &json!("tenant_tool")));
    let by_default = stack.ask("wipe_disk", json!({})).await;
    assert_eq!((&by_default["rule"], &by_default["resolved_from"]), (&json!(null), &json!("tool_default")));
    let proxy = stack.enrol().await;
    let (mut body, _) = proxy.asks("transfer_funds", "rule", "txn_r");
    body["proxy"]["rule"] = json!("rul_of_the_proxy");
    let (status, asked) = stack.post(&proxy.key, "/v1/approvals", &body).await;
    assert_eq!(status, 201, "{asked}");
    let (_, seen) =
        stack.get(&stack.approver, &format!("/v1/approvals/{}", asked["id"].as_str().unwrap())).await;
    assert_eq!(seen["rule"], "rul_of_the_proxy");
    assert_eq!(stack.events("approval.created").await[0]["data"]["decision"]["rule"], "rul_of_the_proxy");
    // It is shown to people: nothing invisible, nothing endless.
    for (field, bad) in
        [("rule", "a\u{202e}b".to_owned()), ("txn", "x".repeat(100_000)), ("resolved_from", String::new())]
    {
        let (mut body, _) = proxy.asks("transfer_funds", field, "txn_b");
        body["proxy"][field] = json!(bad);
        let (status, problem) = stack.post(&proxy.key, "/v1/approvals", &body).await;
        assert_eq!((status, &problem["pointer"]), (422, &json!(format!("/proxy/{field}"))), "{problem}");
    }
}

#[tokio::test]
async fn a_principal_has_a_limited_number_pending() {
    let stack = start_with(|config| config.approvals.pending_per_principal_max = 3).await;
    for n in 0..3 {
        stack.ask("transfer_funds", json!({"n": n})).await;
    }
    let body = json!({"tool_name": "transfer_funds", "parameters": {"n": 3}});
    let (status, problem) = stack.post(&stack.acme, "/v1/approvals", &body).await;
    assert_eq!((status, problem["code"].as_str()), (429, Some("too_many_pending_approvals")));
    // Another one's are not counted.
    assert_eq!(stack.post(&stack.globex, "/v1/approvals", &body).await.0, 201);
}

#[tokio::test]
async fn two_levels_take_two_people() {
    let stack = start().await;
    let patch = json!({"approval": {"levels": 2}});
    stack.send(Method::PATCH, &stack.management, "/v1/tools/transfer_funds", Some(&patch)).await;
    let id = stack.ask("transfer_funds", json!({})).await["id"].as_str().unwrap().to_owned();
    let (status, first) = stack.decide(&id, "approved").await;
    assert_eq!((status, first["status"].as_str()), (200, Some("pending")));
    let (status, problem) = stack.decide(&id, "approved").await;
    assert_eq!((status, problem["code"].as_str()), (403, Some("same_approver")));
    let second = json!({"org": "demo", "email": "second@example.com"});
    let bootstrap = oakallow_backend::Bootstrap {
        org: "demo".to_owned(),
        owner_email: second["email"].as_str().unwrap().to_owned(),
    };
    stack.running.bootstrap(bootstrap).await.unwrap();
    let key = stack.running.issue_approver_key("demo", "second@example.com").await.unwrap();
    let (status, done) = stack
        .post(key.expose(), &format!("/v1/approvals/{id}/decide"), &json!({"decision": "approved"}))
        .await;
    assert_eq!((status, done["status"].as_str()), (200, Some("approved")), "{done}");
}

#[tokio::test]
async fn exact_arguments_are_sealed_and_gone_after_their_time() {
    let stack = start().await;
    let id = stack.ask("transfer_funds", json!({"iban": "SENTINEL-IBAN-77"})).await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    stack.decide(&id, "denied").await;
    for entry in std::fs::read_dir(stack.dir.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(16).any(|w| w == b"SENTINEL-IBAN-77"), "arguments are stored in the clear");
    }
    let path = format!("/v1/approvals/{id}");
    assert!(stack.get(&stack.approver, &path).await.1.get("parameters").is_some());
    stack.clock.advance_ms(7 * 24 * 60 * MINUTE + MINUTE);
    stack
        .until("the arguments are deleted", || async {
            stack.get(&stack.approver, &path).await.1.get("parameters").is_none()
        })
        .await;
}

#[tokio::test]
async fn what_is_allowed_or_disabled_gets_no_approval() {
    let stack = start().await;
    let (status, problem) =
        stack.post(&stack.acme, "/v1/approvals", &json!({"tool_name": "read_record"})).await;
    assert_eq!((status, problem["code"].as_str()), (409, Some("approval_not_needed")));
    let (status, problem) =
        stack.post(&stack.acme, "/v1/approvals", &json!({"tool_name": "drop_database"})).await;
    assert_eq!((status, problem["code"].as_str()), (403, Some("disabled")));
    let (status, _) = stack
        .post(&stack.acme, "/v1/approvals", &json!({"tool_name": "transfer_funds", "tenant_id": "globex"}))
        .await;
    assert_eq!(status, 403);
    let forged = json!({"tool_name": "transfer_funds", "proxy": {"principal": DEVELOPER, "route": "r",
        "audience": "demo-tools", "fingerprint": "0".repeat(64), "definition_hash": null, "txn": "t",
        "resolved_from": "x", "policy_version": 1}});
    assert_eq!(stack.post(&stack.acme, "/v1/approvals", &forged).await.0, 422);
}

#[tokio::test]
async fn the_stream_tells_of_each_change_and_resumes() {
    let stack = start().await;
    let mut stream = stack.send(Method::GET, &stack.approver, "/v1/approvals/events", None).await;
    let id = stack.ask("transfer_funds", json!({})).await["id"].as_str().unwrap().to_owned();
    stack.decide(&id, "approved").await;
    let mut text = String::new();
    while text.matches("event: approval").count() < 2 || !text.ends_with("\n\n") {
        text.push_str(std::str::from_utf8(&stream.chunk().await.unwrap().unwrap()).unwrap());
    }
    assert!(text.contains("\"status\":\"approved\"") && text.matches(&id).count() >= 2, "{text}");
    drop(stream);
    let mut resumed = stack
        .http
        .get(format!("{}/v1/approvals/events", stack.url))
        .header("x-api-key", &stack.approver)
        .header("last-event-id", "0")
        .send()
        .await
        .unwrap();
    let mut text = String::new();
    while text.matches(&id).count() < 2 {
        text.push_str(std::str::from_utf8(&resumed.chunk().await.unwrap().unwrap()).unwrap());
    }
}

#[tokio::test]
async fn who_may_not_list_approvals_is_told_who_may() {
    let stack = start().await;
    for (key, kind) in [(&stack.management, "management"), (&stack.tool, "tool")] {
        for path in ["/v1/approvals", "/v1/approvals/events"] {
            let (status, problem) = stack.get(key, path).await;
            assert_eq!((status, &problem["code"]), (403, &json!("wrong_credential")), "{problem}");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains("oak_appr_") && detail.contains(&format!("a {kind} key")), "{detail}");
        }
    }
}
