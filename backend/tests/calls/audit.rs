use oakallow_policy::audit::{ApprovalRecord, DecisionRecord, EventData, EventType, Head};
use oakallow_policy::canonical::{hex, sha256};
use oakallow_policy::permit::PermitReason;
use oakallow_policy::rule::Permission;
use reqwest::Method;
use serde_json::{Value, json};

use crate::stack::{Proxy, START, Stack, start};

fn decided(permission: Permission) -> EventData {
    let decision = DecisionRecord {
        permission,
        resolved_from: "tool_default".to_owned(),
        rule: None,
        policy_version: 1,
        unregistered: false,
        definition_changed: false,
    };
    EventData { decision: Some(decision), tool: Some("transfer_funds".to_owned()), ..EventData::default() }
}

fn forwarded(reason: PermitReason, approval: Option<&str>) -> EventData {
    let approval = approval.map(|id| ApprovalRecord { id: id.to_owned(), ..ApprovalRecord::default() });
    EventData { permit: Some(reason), approval, ..EventData::default() }
}

async fn ship(stack: &Stack, proxy: &Proxy, batch: &Value) -> (u16, Value) {
    stack.post(&proxy.key, &proxy.path("audit"), batch).await
}

#[tokio::test]
async fn a_batch_is_stored_once_and_may_be_sent_again() {
    let stack = start().await;
    let mut proxy = stack.enrol().await;
    let events: Vec<_> = (0..5)
        .map(|n| proxy.event(EventType::CallDecided, &format!("txn_{n}"), decided(Permission::Allowed)))
        .collect();
    let batch = proxy.batch(&events);
    for _ in 0..3 {
        let (status, ack) = ship(&stack, &proxy, &batch).await;
        assert_eq!((status, ack["acknowledged_seq"].as_u64()), (200, Some(5)), "{ack}");
    }
    assert_eq!(stack.events("call.decided").await.len(), 5);
    // An overlap: three known ones, one new.
    let next = proxy.event(EventType::CallCompleted, "txn_0", EventData::default());
    let overlap: Vec<_> = events[2..].iter().cloned().chain([next]).collect();
    let (_, ack) = ship(&stack, &proxy, &proxy.batch(&overlap)).await;
    assert_eq!(ack["acknowledged_seq"], 6);
}

#[tokio::test]
async fn a_gap_is_refused_and_the_proxy_told_what_is_missing() {
    let stack = start().await;
    let mut proxy = stack.enrol().await;
    let _lost = proxy.event(EventType::CallRequested, "txn_0", EventData::default());
    let second = proxy.event(EventType::CallRequested, "txn_1", EventData::default());
    let (status, problem) = ship(&stack, &proxy, &proxy.batch(&[second])).await;
    assert_eq!((status, problem["code"].as_str()), (409, Some("audit_gap")));
    assert_eq!(problem["expected_seq"], 1);
}

#[tokio::test]
async fn a_second_story_is_refused_and_recorded_once() {
    let stack = start().await;
    let mut proxy = stack.enrol().await;
    let first = proxy.event(EventType::CallRequested, "txn_0", EventData::default());
    assert_eq!(ship(&stack, &proxy, &proxy.batch(&[first])).await.0, 200);
    // The same place in the chain, told differently.
    proxy.head = Head::default();
    let other = proxy.event(EventType::CallRequested, "txn_forged", EventData::default());
    for _ in 0..2 {
        let (status, problem) = ship(&stack, &proxy, &proxy.batch(std::slice::from_ref(&other))).await;
        assert_eq!((status, problem["code"].as_str()), (409, Some("audit_chain_broken")));
    }
    assert_eq!(stack.events("proxy.chain_broken").await.len(), 1);
    let found = stack.verified().await;
    assert_eq!(found.violations.len(), 1, "{:?}", found.violations);
    assert!(found.violations[0].contains(&proxy.id), "{:?}", found.violations);
    assert_eq!(stack.events("call.requested").await[0]["txn"], "txn_0");
}

#[tokio::test]
async fn a_head_must_be_signed_by_the_proxy_and_be_the_end() {
    let stack = start().await;
    let mut proxy = stack.enrol().await;
    let event = proxy.event(EventType::CallRequested, "txn_0", EventData::default());
    let mut batch = proxy.batch(std::slice::from_ref(&event));
    let stranger = ed25519_dalek::SigningKey::from_bytes(&[9; 32]);
    let own = std::mem::replace(&mut proxy.signing, stranger);
    let (status, problem) = ship(&stack, &proxy, &proxy.batch(std::slice::from_ref(&event))).await;
    assert_eq!((status, problem["code"].as_str()), (403, Some("bad_signature")));
    proxy.signing = own;
    batch["head"] = proxy.batch_to(&[], &Head::default())["head"].clone();
    let (status, problem) = ship(&stack, &proxy, &batch).await;
    assert_eq!((status, problem["code"].as_str()), (409, Some("audit_head_mismatch")));
    assert_eq!(stack.events("call.requested").await.len(), 0);
}

#[tokio::test]
async fn a_proxy_speaks_for_itself_only() {
    let stack = start().await;
    let proxy = stack.enrol().await;
    let (status, _) = stack.post(&proxy.key, "/v1/proxies/prx_other/audit", &proxy.batch(&[])).await;
    assert_eq!(status, 403);
    assert_eq!(stack.post(&stack.acme, &proxy.path("audit"), &proxy.batch(&[])).await.0, 403);
}

fn plumbing() -> EventData {
    forwarded(PermitReason::Passthrough, None)
}

#[tokio::test]
async fn a_sound_record_verifies_and_a_forward_without_leave_does_not() {
    let stack = start().await;
    let mut proxy = stack.enrol().await;
    let (body, fingerprint) = proxy.asks("transfer_funds", "x", "txn_b");
    let (_, asked) = stack.post(&proxy.key, "/v1/approvals", &body).await;
    let id = asked["id"].as_str().unwrap();
    stack.decide(id, "approved").await;
    let run = json!({"txn": "txn_b", "fingerprint": fingerprint});
    assert_eq!(stack.post(&proxy.key, &format!("/v1/approvals/{id}/consume"), &run).await.0, 200);
    let events = [
        proxy.event(EventType::CallDecided, "txn_a", decided(Permission::Allowed)),
        proxy.event(EventType::CallForwarded, "txn_a", forwarded(PermitReason::Rule, None)),
        proxy.event(EventType::CallCompleted, "txn_a", EventData::default()),
        proxy.event(EventType::CallDecided, "txn_b", decided(Permission::RequiresApproval)),
        proxy.event(EventType::CallForwarded, "txn_b", forwarded(PermitReason::Approval, Some(id))),
        proxy.event(EventType::CallForwarded, "txn_p", forwarded(PermitReason::Passthrough, None)),
    ];
    assert_eq!(ship(&stack, &proxy, &proxy.batch(&events)).await.0, 200);
    let found = stack.verified().await;
    assert!(found.is_sound(), "{:?}", found.violations);
    assert_eq!((found.forwarded, found.open.len()), (3, 2));

    let bad = [
        proxy.event(EventType::CallDecided, "txn_c", decided(Permission::RequiresApproval)),
        proxy.event(EventType::CallForwarded, "txn_c", forwarded(PermitReason::Rule, None)),
        proxy.event(EventType::CallForwarded, "txn_d", forwarded(PermitReason::Approval, Some(id))),
        // The approval's own call, a second time.
        proxy.event(EventType::CallForwarded, "txn_b", forwarded(PermitReason::Approval, Some(id))),
        // Allowed at first, disabled when it was released.
        proxy.event(EventType::CallDecided, "txn_e", decided(Permission::Allowed)),
        proxy.event(EventType::CallDecided, "txn_e", decided(Permission::Disabled)),
        proxy.event(EventType::CallForwarded, "txn_e", forwarded(PermitReason::Rule, None)),
        // Calls that pass for plumbing.
        proxy.event(
            EventType::CallForwarded,
            "txn_f",
            EventData { tool: Some("drop_database".into()), ..plumbing() },
        ),
        proxy.event(
            EventType::CallForwarded,
            "txn_g",
            EventData { token_id: Some("jti_1".into()), ..plumbing() },
        ),
    ];
    assert_eq!(ship(&stack, &proxy, &proxy.batch(&bad)).await.0, 200);
    let found = stack.verified().await;
    assert_eq!(found.violations.len(), 6, "{:?}", found.violations);
}

#[tokio::test]
async fn the_log_refuses_change_and_a_changed_file_is_found() {
    let stack = start().await;
    let mut db = stack.raw().await;
    for sql in [
        "UPDATE events SET body = '{}'",
        "DELETE FROM events",
        "UPDATE chain_heads SET seq = 1",
        "DELETE FROM chain_heads",
    ] {
        let refused = db.execute(sql).await.unwrap_err();
        assert!(refused.contains("append-only") || refused.contains("only grows"), "{sql}: {refused}");
    }
    // Somebody with the file can drop the trigger; the chain still tells.
    let drop = db.either("DROP TRIGGER events_refuse_update", "DROP TRIGGER events_refuse_change ON events");
    db.execute(drop).await.unwrap();
    db.execute(
        "UPDATE events SET body = replace(body, 'demo-tools', 'evil-tools') WHERE type = 'key.created'",
    )
    .await
    .unwrap();
    let found = stack.verified().await;
    assert!(!found.is_sound());
}

#[tokio::test]
async fn the_log_is_searched_and_exported() {
    let stack = start().await;
    let mut proxy = stack.enrol().await;
    let events: Vec<_> = (0..7)
        .map(|n| {
            let mut data = decided(Permission::Allowed);
            data.tenant = Some(if n % 2 == 0 { "acme" } else { "globex" }.to_owned());
            data.reason = Some(format!("needle_{n}%"));
            proxy.event(EventType::CallDecided, &format!("txn_{n}"), data)
        })
        .collect();
    ship(&stack, &proxy, &proxy.batch(&events)).await;
    let count = async |query: &str| {
        let (status, page) = stack.get(&stack.management, &format!("/v1/audit?{query}")).await;
        assert_eq!(status, 200, "{query}: {page}");
        page["data"].as_array().unwrap().len()
    };
    assert_eq!(count("type=call.decided&tenant=acme").await, 4);
    assert_eq!(count("txn=txn_3").await, 1);
    assert_eq!(count("text=needle_3%25").await, 1);
    assert_eq!(count("text=needle_3%25x").await, 0);
    assert_eq!(count("decision=allowed&tool=transfer_funds").await, 7);
    let from = oakallow_policy::timestamp::rfc3339(START + 6);
    assert_eq!(count(&format!("type=call.decided&from={from}")).await, 2);
    // Pages, newest first, without a gap or a repetition.
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let (_, page) =
            stack.get(&stack.management, &format!("/v1/audit?type=call.decided&limit=3{cursor}")).await;
        seen.extend(page["data"].as_array().unwrap().iter().map(|e| e["seq"].as_u64().unwrap()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, [7, 6, 5, 4, 3, 2, 1]);
    let (_, export) = stack.get(&stack.management, "/v1/audit/export?type=call.decided").await;
    let lines: Vec<&str> = export.as_str().unwrap().lines().collect();
    assert_eq!(lines.len(), 7);
    assert_eq!(hex(&sha256(lines[6].as_bytes())), proxy.head.hash, "the export is exact to the byte");
    assert_eq!(stack.get(&stack.acme, "/v1/audit").await.0, 403);
    assert_eq!(stack.get(&stack.approver, "/v1/audit/export").await.0, 403);
    assert_eq!(stack.get(&stack.management, "/v1/audit?type=no.such").await.0, 400);
}

/// An event of about so many bytes.
fn large(proxy: &mut Proxy, n: usize, bytes: usize) -> Value {
    let data = EventData { reason: Some("x".repeat(bytes)), ..EventData::default() };
    json!(proxy.event(EventType::CallRefused, &format!("txn_{n}"), data))
}

#[tokio::test]
async fn a_page_of_large_events_ends_early_and_the_next_goes_on() {
    const PAGE: usize = 4 * 1024 * 1024;
    let stack = start().await;
    let mut proxy = stack.enrol().await;
    // One that is too large for a page with any other, in the midst of others.
    for (n, bytes) in
        [900 * 1024, 900 * 1024, PAGE - 2_000, 900 * 1024, 900 * 1024, 900 * 1024, 900 * 1024, 900 * 1024]
            .into_iter()
            .enumerate()
    {
        let event = large(&mut proxy, n, bytes);
        let batch = json!({"events": [event], "head": proxy.batch(&[])["head"]});
        let (status, ack) = ship(&stack, &proxy, &batch).await;
        assert_eq!(status, 200, "{ack}");
    }
    let (mut pages, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/audit?type=call.refused&limit=500{cursor}");
        let text = stack.send(Method::GET, &stack.management, &path, None).await.text().await.unwrap();
        assert!(text.len() < PAGE + 1_000, "{}", text.len());
        let page: Value = serde_json::from_str(&text).unwrap();
        let events = page["data"].as_array().unwrap();
        pages.push(events.iter().map(|e| e["seq"].as_u64().unwrap()).collect::<Vec<_>>());
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(pages, [vec![8, 7, 6, 5], vec![4], vec![3], vec![2, 1]]);
    let (_, export) = stack.get(&stack.management, "/v1/audit/export?type=call.refused").await;
    assert_eq!(export.as_str().unwrap().lines().count(), 8, "an export is whole");
}

#[tokio::test]
async fn exports_that_nobody_reads_keep_nobody_waiting() {
    let stack = start().await;
    let mut proxy = stack.enrol().await;
    // More than the buffers on the way take: the exports below stand still.
    for _ in 0..4 {
        let data = || EventData { reason: Some("x".repeat(64 * 1024)), ..EventData::default() };
        let events: Vec<_> =
            (0..50).map(|_| proxy.event(EventType::CallRefused, "txn_big", data())).collect();
        let (status, answer) = ship(&stack, &proxy, &proxy.batch(&events)).await;
        assert_eq!(status, 200, "{answer}");
    }
    let mut open = Vec::new();
    for _ in 0..12 {
        let mut export = stack.send(Method::GET, &stack.management, "/v1/audit/export", None).await;
        assert!(export.chunk().await.unwrap().is_some());
        open.push(export);
    }
    let (status, answer) = stack.get(&stack.management, "/v1/settings").await;
    assert_eq!(status, 200, "{answer}");
    // And one that is read on is whole.
    let mut export = open.pop().unwrap();
    let mut lines = 0;
    while let Some(part) = export.chunk().await.unwrap() {
        lines += part.iter().filter(|b| **b == b'\n').count();
    }
    assert!(lines >= 200, "{lines}");
}

#[tokio::test]
async fn a_proxy_reconciles_the_states_of_its_approvals() {
    let stack = start().await;
    let proxy = stack.enrol().await;
    let (body, _) = proxy.asks("transfer_funds", "one", "txn_a");
    let (_, asked) = stack.post(&proxy.key, "/v1/approvals", &body).await;
    let ids = json!({"ids": [asked["id"], "apr_unknown"]});
    let (status, states) = stack.post(&proxy.key, &proxy.path("approvals"), &ids).await;
    assert_eq!(status, 200);
    assert_eq!(states["approvals"].as_array().unwrap().len(), 1);
    assert_eq!(states["approvals"][0]["status"], "pending");
}
