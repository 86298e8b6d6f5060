//! What a proxy said of its chain, and what came of it.

use oakallow_backend::audit::Verified;
use oakallow_policy::audit::{Chained, EventData, EventType, Head};
use serde_json::json;

use crate::stack::{Proxy, Stack, start};

async fn beat(stack: &Stack, proxy: &Proxy, head: &Head) -> (u16, String) {
    let beat =
        json!({"version": "0.1.0", "policy_version": 1, "spool_depth": 0, "head": head, "held_calls": 0});
    let (status, answer) = stack.post(&proxy.key, &proxy.path("heartbeat"), &beat).await;
    (status, answer["code"].as_str().unwrap_or_default().to_owned())
}

async fn ship(stack: &Stack, proxy: &Proxy, events: &[Chained]) -> (u16, String) {
    let (status, answer) = stack.post(&proxy.key, &proxy.path("audit"), &proxy.batch(events)).await;
    (status, answer["code"].as_str().unwrap_or_default().to_owned())
}

fn some(proxy: &mut Proxy, txns: &[&str]) -> Vec<Chained> {
    txns.iter().map(|txn| proxy.event(EventType::CallRequested, txn, EventData::default())).collect()
}

async fn found(stack: &Stack) -> Verified {
    stack.verified().await
}

#[tokio::test]
async fn what_was_announced_is_missing_until_it_comes() {
    let stack = start().await;
    let mut proxy = stack.enrol().await;
    let events = some(&mut proxy, &["txn_a", "txn_b", "txn_c"]);
    assert_eq!(beat(&stack, &proxy, &proxy.head).await.0, 204);
    // Again, as each proxy does that has nothing new to say.
    assert_eq!(beat(&stack, &proxy, &proxy.head).await.0, 204);
    let before = found(&stack).await;
    assert!(before.is_sound(), "it may be on its way: {:?}", before.violations);
    assert_eq!(before.missing.len(), 1, "{:?}", before.missing);
    assert!(before.missing[0].contains(&proxy.id) && before.missing[0].contains("announced 3"));
    assert_eq!(ship(&stack, &proxy, &events).await.0, 200);
    assert_eq!(found(&stack).await.missing, Vec::<String>::new());
    assert_eq!(beat(&stack, &proxy, &proxy.head).await.0, 204);
    // What was announced meanwhile may be behind when it arrives.
    let first = Head { seq: 1, hash: events[1].prev.clone() };
    assert_eq!(beat(&stack, &proxy, &first).await.0, 204);
    assert!(found(&stack).await.is_sound());
}

#[tokio::test]
async fn other_events_in_the_place_of_announced_ones_are_refused_and_recorded() {
    let stack = start().await;
    let mut proxy = stack.enrol().await;
    let kept = some(&mut proxy, &["txn_a"]);
    let kept_head = proxy.head.clone();
    assert_eq!(ship(&stack, &proxy, &kept).await.0, 200);
    // These are lost with the disk that they were on.
    let _lost = some(&mut proxy, &["txn_lost_1", "txn_lost_2"]);
    assert_eq!(beat(&stack, &proxy, &proxy.head).await.0, 204);
    proxy.head = kept_head;
    let other = some(&mut proxy, &["txn_b", "txn_c"]);
    for _ in 0..2 {
        assert_eq!(ship(&stack, &proxy, &other).await, (409, "audit_chain_broken".to_owned()));
    }
    let found = found(&stack).await;
    assert_eq!(found.violations.len(), 1, "{:?}", found.violations);
    assert!(found.violations[0].contains(&proxy.id) && found.violations[0].contains("heartbeat"));
    assert_eq!(found.missing.len(), 1, "the lost ones: {:?}", found.missing);
    assert_eq!(stack.events("call.requested").await.len(), 1);
}

#[tokio::test]
async fn a_heartbeat_that_says_other_than_the_record_or_than_the_one_before_is_recorded() {
    let stack = start().await;
    let mut proxy = stack.enrol().await;
    let events = some(&mut proxy, &["txn_a"]);
    assert_eq!(ship(&stack, &proxy, &events).await.0, 200);
    let other = |seq| Head { seq, hash: "ab".repeat(32) };
    let broken = (409, "audit_chain_broken".to_owned());
    assert_eq!(beat(&stack, &proxy, &other(1)).await, broken, "against what is stored");
    some(&mut proxy, &["txn_b"]);
    assert_eq!(beat(&stack, &proxy, &proxy.head).await.0, 204);
    assert_eq!(beat(&stack, &proxy, &other(2)).await, broken, "against what was announced");
    assert_eq!(stack.events("proxy.chain_broken").await.len(), 2);
    // It shows in the fleet all the same that the proxy lives.
    let (_, fleet) = stack.get(&stack.management, "/v1/proxies").await;
    assert!(fleet["data"][0]["seen_at"].is_string(), "{fleet}");
}
