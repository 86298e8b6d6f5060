use std::collections::HashSet;

use futures_util::future::join_all;
use serde_json::json;

use crate::stack::{start, start_with};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_deciders_one_wins_and_the_others_learn_who() {
    let stack = start().await;
    for round in 0..5 {
        let id =
            stack.ask("transfer_funds", json!({"round": round})).await["id"].as_str().unwrap().to_owned();
        let verdicts = ["approved", "denied"].into_iter().cycle().take(16);
        let answers = join_all(verdicts.map(|v| stack.decide(&id, v))).await;
        let won: Vec<_> = answers.iter().filter(|(status, _)| *status == 200).collect();
        assert_eq!(won.len(), 1);
        let winner = won[0].1["status"].as_str().unwrap();
        for (status, problem) in answers.iter().filter(|(status, _)| *status != 200) {
            assert_eq!((*status, problem["approval_status"].as_str()), (409, Some(winner)), "{problem}");
            assert!(problem["decided_by"].is_string());
        }
        assert_eq!(stack.status(&id).await, winner);
    }
    assert_eq!(stack.events("approval.decided").await.len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_creators_all_get_one_approval() {
    let stack = start().await;
    let answers = join_all((0..20).map(|_| stack.ask("transfer_funds", json!({"same": true})))).await;
    let ids: HashSet<_> = answers.iter().map(|a| a["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(answers.iter().filter(|a| a["joined"] == false).count(), 1);
    assert_eq!(stack.events("approval.created").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_consumers_one_gets_it() {
    let stack = start().await;
    let proxy = stack.enrol().await;
    let (body, fingerprint) = proxy.asks("transfer_funds", "race", "txn_0");
    let (_, asked) = stack.post(&proxy.key, "/v1/approvals", &body).await;
    let id = asked["id"].as_str().unwrap();
    stack.decide(id, "approved").await;
    let path = format!("/v1/approvals/{id}/consume");
    let bodies: Vec<_> =
        (0..20).map(|n| json!({"txn": format!("txn_{n}"), "fingerprint": fingerprint})).collect();
    let answers = join_all(bodies.iter().map(|body| stack.post(&proxy.key, &path, body))).await;
    assert_eq!(answers.iter().filter(|(status, _)| *status == 200).count(), 1);
    assert_eq!(answers.iter().filter(|(status, _)| *status == 409).count(), 19);
    assert_eq!(stack.events("approval.consumed").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expiry_and_consumption_never_both_happen() {
    let stack = start().await;
    let proxy = stack.enrol().await;
    for round in 0..12 {
        let (body, fingerprint) = proxy.asks("transfer_funds", &format!("edge {round}"), "txn_e");
        let (_, asked) = stack.post(&proxy.key, "/v1/approvals", &body).await;
        let id = asked["id"].as_str().unwrap().to_owned();
        stack.decide(&id, "approved").await;
        stack.clock.advance_ms(15 * 60_000 - 1);
        let path = format!("/v1/approvals/{id}/consume");
        let run = json!({"txn": "txn_e", "fingerprint": fingerprint});
        let (consumed, ()) = tokio::join!(stack.post(&proxy.key, &path, &run), async {
            stack.clock.advance_ms(1);
        });
        let expected = if consumed.0 == 200 { "consumed" } else { "expired" };
        assert_eq!(stack.status(&id).await, expected, "{}", consumed.1);
    }
    let settled =
        stack.events("approval.consumed").await.len() + stack.events("approval.expired").await.len();
    assert_eq!(settled, 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_redemptions_one_wins() {
    let stack = start().await;
    let (status, minted) =
        stack.post(&stack.acme, "/v1/tokens/mint", &json!({"tool_name": "read_record"})).await;
    assert_eq!(status, 201, "{minted}");
    let body = json!({"token": minted["token"], "tool_name": "read_record"});
    let answers = join_all((0..100).map(|_| stack.post(&stack.tool, "/v1/tokens/verify", &body))).await;
    assert!(answers.iter().all(|(status, _)| *status == 200));
    assert_eq!(answers.iter().filter(|(_, a)| a["valid"] == true).count(), 1);
    assert_eq!(answers.iter().filter(|(_, a)| a["reason"] == "replayed").count(), 99);
    assert_eq!(stack.events("token.redeemed").await.len(), 1);
    assert_eq!(stack.events("token.replayed").await.len(), 99);
}

/// More than the pool of readers has connections: none of them may need two at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_that_ask_at_once_do_not_wait_for_each_other() {
    let stack = start_with(|config| config.approvals.pending_per_principal_max = 1_000).await;
    let proxy = stack.enrol().await;
    let of_proxy: Vec<_> = (0..64)
        .map(|n| proxy.asks("transfer_funds", &format!("at once {n}"), &format!("txn_{n}")).0)
        .collect();
    let of_rest: Vec<_> =
        (0..64).map(|n| json!({"tool_name": "transfer_funds", "parameters": {"n": n}})).collect();
    let by_proxy = join_all(of_proxy.iter().map(|body| stack.post(&proxy.key, "/v1/approvals", body)));
    let by_rest = join_all(of_rest.iter().map(|body| stack.post(&stack.acme, "/v1/approvals", body)));
    let (by_proxy, by_rest) = tokio::join!(by_proxy, by_rest);
    for (status, answer) in by_proxy.into_iter().chain(by_rest) {
        assert_eq!(status, 201, "{answer}");
    }
}
