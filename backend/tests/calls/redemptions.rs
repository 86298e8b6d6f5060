//! Redeemed tokens in the record: each was signed by somebody who said so.

use oakallow_policy::audit::{EventData, EventType};
use oakallow_policy::canonical::unbase64url;
use oakallow_policy::timestamp;
use oakallow_policy::token::{self, Binding, Claims, TokenKey};
use serde_json::{Value, json};

use crate::stack::{Proxy, START, Stack, start};

/// Signs as a proxy of the audience does, and redeems as its tool server does.
async fn redeem(stack: &Stack, jti: &str) {
    let (_, set) = stack.get(&stack.tool, "/v1/audiences/demo-tools/keys").await;
    let bytes = unbase64url(set["keys"][0]["k"].as_str().unwrap()).unwrap().try_into().unwrap();
    let key = TokenKey::from_bytes(set["keys"][0]["kid"].as_str().unwrap().to_owned(), bytes);
    let claims = Claims {
        iss: token::issuer("demo"),
        aud: "demo-tools".to_owned(),
        sub: "agent-acme".to_owned(),
        org: "demo".to_owned(),
        tenant: Some("acme".to_owned()),
        tool: "read_record".to_owned(),
        resource: None,
        method: None,
        htm: None,
        htu: None,
        bnd: Binding::None,
        bdh: None,
        ah: None,
        apr: None,
        pol: 1,
        lvl: "tool_default".to_owned(),
        jti: jti.to_owned(),
        txn: format!("txn_{jti}"),
        iat: START / 1_000,
        nbf: START / 1_000,
        exp: START / 1_000 + 60,
    };
    let verify = json!({"token": token::sign(&claims, &key), "tool_name": "read_record"});
    let (_, answer) = stack.post(&stack.tool, "/v1/tokens/verify", &verify).await;
    assert_eq!(answer["valid"], true, "{answer}");
}

/// What a check finds: tokens not yet shipped, and violations.
async fn found(stack: &Stack) -> (Vec<String>, Vec<String>) {
    let found = stack.verified().await;
    (found.unshipped, found.violations)
}

async fn beat(stack: &Stack, proxy: &Proxy, seq: u64) {
    let beat = json!({"version": "0.1.0", "policy_version": 1, "spool_depth": 0, "held_calls": 0,
                      "head": {"seq": seq, "hash": "0".repeat(64)}});
    let (status, answer) = stack.post(&proxy.key, &proxy.path("heartbeat"), &beat).await;
    assert_eq!(status, 204, "{answer}");
}

#[tokio::test]
async fn a_token_that_nobody_recorded_is_found_once_the_proxies_have_shipped() {
    let stack = start().await;
    let (status, minted) =
        stack.post(&stack.acme, "/v1/tokens/mint", &json!({"tool_name": "read_record"})).await;
    assert_eq!(status, 201, "{minted}");
    let verify = json!({"token": minted["token"], "tool_name": "read_record"});
    assert_eq!(stack.post(&stack.tool, "/v1/tokens/verify", &verify).await.1["valid"], true);
    assert_eq!(found(&stack).await, (vec![], vec![]), "it was minted here");

    let proxy = stack.enrol().await;
    redeem(&stack, "tok_silent").await;
    assert_eq!(found(&stack).await, (vec!["tok_silent".to_owned()], vec![]));
    // At that very moment it proves nothing, nor while there is something to ship.
    beat(&stack, &proxy, 0).await;
    assert_eq!(found(&stack).await.1.len(), 0);
    stack.clock.advance_ms(6_000);
    beat(&stack, &proxy, 1).await;
    assert_eq!(found(&stack).await.1.len(), 0);
    beat(&stack, &proxy, 0).await;
    let (unshipped, violations) = found(&stack).await;
    assert_eq!((unshipped.len(), violations.len()), (0, 1), "{violations:?}");
    assert!(violations[0].contains("tok_silent"), "{violations:?}");
}

#[tokio::test]
async fn a_token_that_its_proxy_recorded_is_sound_and_the_chain_tells_of_the_other() {
    let stack = start().await;
    let mut proxy = stack.enrol().await;
    redeem(&stack, "tok_told").await;
    redeem(&stack, "tok_untold").await;
    let intent = EventData { token_id: Some("tok_told".to_owned()), ..EventData::default() };
    let intent = proxy.event(EventType::CallForwarded, "txn_told", intent);
    let ship = async |proxy: &Proxy, events: &[_]| {
        let batch: Value = proxy.batch(events);
        assert_eq!(stack.post(&proxy.key, &proxy.path("audit"), &batch).await.0, 200);
    };
    ship(&proxy, &[intent]).await;
    assert_eq!(found(&stack).await.0, ["tok_untold"]);
    let mut later = proxy.event(EventType::CallRequested, "txn_later", EventData::default());
    later.event.time = timestamp::rfc3339(START + 5_001);
    let (later, _, head) =
        oakallow_policy::audit::Chained::append(&later.source, &head_before(&later), later.event).unwrap();
    proxy.head = head;
    ship(&proxy, &[later]).await;
    let (unshipped, violations) = found(&stack).await;
    assert_eq!(unshipped.len(), 0);
    assert_eq!(violations.iter().filter(|v| v.contains("tok_untold")).count(), 1, "{violations:?}");
    assert!(!violations.iter().any(|v| v.contains("tok_told")), "{violations:?}");
}

fn head_before(chained: &oakallow_policy::audit::Chained) -> oakallow_policy::audit::Head {
    oakallow_policy::audit::Head { seq: chained.seq - 1, hash: chained.prev.clone() }
}

#[tokio::test]
async fn a_token_of_an_audience_that_no_proxy_serves_was_signed_by_nobody() {
    let stack = start().await;
    redeem(&stack, "tok_forged").await;
    assert_eq!(found(&stack).await.1.len(), 1);
}
