//! Callers whose last key was taken: what they have open ends with it.

use oakallow_policy::fingerprint::Fingerprint;
use reqwest::Method;
use serde_json::{Value, json};

use crate::stack::{DEVELOPER, Proxy, Stack, start};

/// An approval that the proxy asked for, approved or not.
async fn asked(stack: &Stack, proxy: &Proxy, about: &str, approve: bool) -> (String, Fingerprint) {
    let (body, fingerprint) = proxy.asks("transfer_funds", about, &format!("txn_{about}"));
    let (_, asked) = stack.post(&proxy.key, "/v1/approvals", &body).await;
    let id = asked["id"].as_str().unwrap().to_owned();
    if approve {
        assert_eq!(stack.decide(&id, "approved").await.0, 200);
    }
    (id, fingerprint)
}

async fn delete(stack: &Stack, path: &str) {
    let answer = stack.send(Method::DELETE, &stack.management, path, None).await;
    assert_eq!(answer.status(), 204, "{path}");
}

/// The key of acme's agent, as it is listed.
async fn key_of_acme(stack: &Stack) -> String {
    let (_, keys) = stack.get(&stack.management, "/v1/keys").await;
    let own = |key: &&Value| key["agent_id"] == "agent-acme";
    keys["data"].as_array().unwrap().iter().find(own).unwrap()["id"].as_str().unwrap().to_owned()
}

async fn consume(stack: &Stack, proxy: &Proxy, of: &(String, Fingerprint), txn: &str) -> (u16, Value) {
    let run = json!({"txn": txn, "fingerprint": of.1});
    stack.post(&proxy.key, &format!("/v1/approvals/{}/consume", of.0), &run).await
}

#[tokio::test]
async fn revoking_the_last_key_cancels_what_is_open() {
    let stack = start().await;
    let proxy = stack.enrol().await;
    let pending = asked(&stack, &proxy, "pending", false).await;
    let approved = asked(&stack, &proxy, "approved", true).await;
    let consumed = asked(&stack, &proxy, "consumed", true).await;
    assert_eq!(consume(&stack, &proxy, &consumed, "txn_consumed").await.0, 200);
    // Another agent's is not touched.
    let body = json!({"tool_name": "transfer_funds", "parameters": {}});
    let (_, other) = stack.post(&stack.globex, "/v1/approvals", &body).await;

    let mut feed = stack.send(Method::GET, &proxy.key, &proxy.path("events"), None).await;
    delete(&stack, &format!("/v1/keys/{}", key_of_acme(&stack).await)).await;
    for (id, _) in [&pending, &approved] {
        assert_eq!(stack.status(id).await, "cancelled");
    }
    assert_eq!(stack.status(&consumed.0).await, "consumed");
    assert_eq!(stack.status(other["id"].as_str().unwrap()).await, "pending");
    assert_eq!(stack.events("approval.cancelled").await.len(), 2);
    let mut told = String::new();
    while told.matches("\"status\":\"cancelled\"").count() < 2 {
        told.push_str(std::str::from_utf8(&feed.chunk().await.unwrap().unwrap()).unwrap());
    }
    let (status, problem) = consume(&stack, &proxy, &approved, "txn_approved").await;
    assert_eq!((status, &problem["code"]), (409, &json!("approval_cancelled")));
    // Nor is a lost answer told again.
    assert_eq!(consume(&stack, &proxy, &consumed, "txn_consumed").await.0, 409);
}

#[tokio::test]
async fn one_key_of_two_takes_nothing_with_it() {
    let stack = start().await;
    let proxy = stack.enrol().await;
    let first = key_of_acme(&stack).await;
    let second = json!({"overlap_s": 60});
    let (status, made) = stack.post(&stack.management, &format!("/v1/keys/{first}/rotate"), &second).await;
    assert_eq!(status, 201, "{made}");
    let approved = asked(&stack, &proxy, "approved", true).await;
    delete(&stack, &format!("/v1/keys/{first}")).await;
    assert_eq!(stack.status(&approved.0).await, "approved");
    assert_eq!(consume(&stack, &proxy, &approved, "txn_approved").await.0, 200);
}

#[tokio::test]
async fn deleting_an_agent_cancels_what_it_has_open() {
    let stack = start().await;
    let proxy = stack.enrol().await;
    let pending = asked(&stack, &proxy, "pending", false).await;
    delete(&stack, "/v1/agents/agent-acme").await;
    assert_eq!(stack.status(&pending.0).await, "cancelled");
    assert_eq!(stack.decide(&pending.0, "approved").await.0, 409);
}

#[tokio::test]
async fn a_caller_whose_keys_have_expired_consumes_nothing() {
    let stack = start().await;
    let proxy = stack.enrol().await;
    let agent = json!({"id": "short", "owner": DEVELOPER, "tenants": ["acme"]});
    let (_, made) = stack.post(&stack.management, "/v1/agents", &agent).await;
    let key = made["key"]["id"].as_str().unwrap();
    let rotate = json!({"overlap_s": 60});
    let (_, newer) = stack.post(&stack.management, &format!("/v1/keys/{key}/rotate"), &rotate).await;
    let (mut body, fingerprint) = proxy.asks("transfer_funds", "short", "txn_short");
    body["proxy"]["principal"] = json!("short");
    let (_, asked) = stack.post(&proxy.key, "/v1/approvals", &body).await;
    let approval = (asked["id"].as_str().unwrap().to_owned(), fingerprint);
    stack.decide(&approval.0, "approved").await;
    // The older key carries it on for its overlap, and no longer.
    delete(&stack, &format!("/v1/keys/{}", newer["id"].as_str().unwrap())).await;
    assert_eq!(stack.status(&approval.0).await, "approved");
    stack.clock.advance_ms(60_000);
    let (status, problem) = consume(&stack, &proxy, &approval, "txn_short").await;
    assert_eq!((status, &problem["code"]), (409, &json!("approval_cancelled")));
    assert_eq!(stack.status(&approval.0).await, "cancelled");
}
