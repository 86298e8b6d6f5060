//! Consuming an approval when answers get lost and calls are not sent.

use oakallow_policy::audit::{EventData, EventType};
use oakallow_policy::fingerprint::Fingerprint;
use oakallow_policy::strict_json;
use reqwest::Method;
use serde_json::{Value, json};

use crate::stack::{Proxy, Stack, start};

/// An approved approval of a call: its id, and how to ask again.
async fn approved(stack: &Stack, proxy: &Proxy, txn: &str) -> (String, Value, Fingerprint) {
    let (body, fingerprint) = proxy.asks("transfer_funds", "once", txn);
    let (_, asked) = stack.post(&proxy.key, "/v1/approvals", &body).await;
    let id = asked["id"].as_str().unwrap().to_owned();
    assert_eq!(stack.decide(&id, "approved").await.0, 200);
    (id, body, fingerprint)
}

async fn consume(stack: &Stack, key: &str, id: &str, run: &Value) -> (u16, Value) {
    stack.post(key, &format!("/v1/approvals/{id}/consume"), run).await
}

async fn tell(stack: &Stack, proxy: &mut Proxy, kind: EventType, txn: &str) {
    let event = proxy.event(kind, txn, EventData::default());
    let (status, ack) = stack.post(&proxy.key, &proxy.path("audit"), &proxy.batch(&[event])).await;
    assert_eq!(status, 200, "{ack}");
}

#[tokio::test]
async fn who_lost_the_answer_is_told_again() {
    let stack = start().await;
    let mut proxy = stack.enrol().await;
    let other = stack.enrol().await;
    let (id, _, fingerprint) = approved(&stack, &proxy, "txn_a").await;
    let run = json!({"txn": "txn_a", "fingerprint": fingerprint});
    let first = consume(&stack, &proxy.key, &id, &run).await;
    assert_eq!(first.0, 200, "{}", first.1);
    assert_eq!(consume(&stack, &proxy.key, &id, &run).await, first);
    assert_eq!(stack.events("approval.consumed").await.len(), 1);
    // Another life, another call or another proxy is not the one that was told.
    let (_, foreign) = proxy.asks("transfer_funds", "other", "txn_a");
    for (key, run) in [
        (&proxy.key, json!({"txn": "txn_b", "fingerprint": fingerprint})),
        (&proxy.key, json!({"txn": "txn_a", "fingerprint": foreign})),
        (&other.key, run.clone()),
    ] {
        let (status, problem) = consume(&stack, key, &id, &run).await;
        assert_eq!((status, &problem["code"]), (409, &json!("approval_consumed")), "{run}");
    }
    // Nor is a call that has ended let through once more.
    tell(&stack, &mut proxy, EventType::CallCompleted, "txn_a").await;
    assert_eq!(consume(&stack, &proxy.key, &id, &run).await.0, 409);
}

#[tokio::test]
async fn a_call_that_was_not_sent_is_asked_for_anew() {
    for kind in [EventType::CallNotForwarded, EventType::CallRefused] {
        let stack = start().await;
        let mut proxy = stack.enrol().await;
        let mut stranger = stack.enrol().await;
        let (id, body, fingerprint) = approved(&stack, &proxy, "txn_a").await;
        let run = json!({"txn": "txn_a", "fingerprint": fingerprint});
        assert_eq!(consume(&stack, &proxy.key, &id, &run).await.0, 200);
        // Only the proxy that would have sent it knows.
        tell(&stack, &mut stranger, kind, "txn_a").await;
        let (_, again) = stack.post(&proxy.key, "/v1/approvals", &body).await;
        assert_eq!(again["already_executed"]["outcome"], "running", "{again}");
        // An intent after it is another attempt, which may run.
        tell(&stack, &mut proxy, kind, "txn_a").await;
        tell(&stack, &mut proxy, EventType::CallForwarded, "txn_a").await;
        let (_, again) = stack.post(&proxy.key, "/v1/approvals", &body).await;
        assert_eq!(again["already_executed"]["outcome"], "running", "{again}");
        tell(&stack, &mut proxy, kind, "txn_a").await;
        let (status, fresh) = stack.post(&proxy.key, "/v1/approvals", &body).await;
        assert_eq!((status, &fresh["status"]), (201, &json!("pending")), "{fresh}");
        assert_ne!(fresh["id"], json!(id));
        assert_eq!(consume(&stack, &proxy.key, &id, &run).await.0, 409, "the old one is spent");
    }
}

#[tokio::test]
async fn a_key_for_a_call_that_was_not_sent_stands_for_the_new_approval() {
    let stack = start().await;
    let mut proxy = stack.enrol().await;
    let (mut body, fingerprint) = proxy.asks("transfer_funds", "keyed", "txn_a");
    body["proxy"]["idempotency_key"] = json!("k1");
    let (_, asked) = stack.post(&proxy.key, "/v1/approvals", &body).await;
    let id = asked["id"].as_str().unwrap();
    stack.decide(id, "approved").await;
    let run = json!({"txn": "txn_a", "fingerprint": fingerprint});
    assert_eq!(consume(&stack, &proxy.key, id, &run).await.0, 200);
    tell(&stack, &mut proxy, EventType::CallNotForwarded, "txn_a").await;
    let (status, fresh) = stack.post(&proxy.key, "/v1/approvals", &body).await;
    assert_eq!(status, 201, "{fresh}");
    let (status, joined) = stack.post(&proxy.key, "/v1/approvals", &body).await;
    assert_eq!((status, &joined["id"]), (200, &fresh["id"]));
}

#[tokio::test]
async fn what_is_settled_is_told_in_documents_that_strict_readers_take() {
    let stack = start().await;
    let proxy = stack.enrol().await;
    let (id, _, fingerprint) = approved(&stack, &proxy, "txn_a").await;
    let run = json!({"txn": "txn_a", "fingerprint": fingerprint});
    assert_eq!(consume(&stack, &proxy.key, &id, &run).await.0, 200);
    let again = json!({"txn": "txn_b", "fingerprint": fingerprint});
    let verdict = json!({"decision": "denied", "note": "too late"});
    let reread = json!({"tool_name": "transfer_funds", "approval_id": id, "parameters": {"about": "once"}});
    for (key, path, body) in [
        (&proxy.key, format!("/v1/approvals/{id}/consume"), &again),
        (&stack.approver, format!("/v1/approvals/{id}/decide"), &verdict),
        (&stack.acme, format!("/v1/approvals/{id}/cancel"), &Value::Null),
        (&stack.acme, "/v1/tokens/mint".to_owned(), &reread),
    ] {
        let text = stack.send(Method::POST, key, &path, Some(body)).await.text().await.unwrap();
        let problem = strict_json::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{path}: {e}: {text}"));
        assert_eq!((&problem["status"], &problem["approval_status"]), (&json!(409), &json!("consumed")));
    }
}
