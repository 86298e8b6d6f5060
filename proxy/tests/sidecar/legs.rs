//! A call of the stateless era waits in legs (2026-07-28).

use oakallow_policy::wire::ApprovalStatus;
use serde_json::{Value, json};

use crate::support::policy::{ACME, AGENT};
use crate::support::sidecar::Sidecar;
use crate::support::until;

/// A proxy whose MCP route holds a call for no time at all.
async fn impatient() -> Sidecar {
    Sidecar::with(json!({"hold": {"budget_s": 0}})).await
}

fn asked(extra: &Value) -> Value {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let mut params = json!({"name": "ask", "arguments": {"id": "42"}, "_meta": meta});
    for (name, value) in extra.as_object().unwrap() {
        params[name] = value.clone();
    }
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
}

async fn leg(sidecar: &Sidecar, extra: &Value) -> Value {
    leg_of(AGENT, sidecar, extra).await
}

async fn leg_of(key: &str, sidecar: &Sidecar, extra: &Value) -> Value {
    let request = sidecar.rpc_as(key, &asked(extra)).header("mcp-protocol-version", "2026-07-28");
    let answer = request.header("mcp-method", "tools/call").header("mcp-name", "ask").send().await.unwrap();
    let text = answer.text().await.unwrap();
    let json = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or(&text);
    serde_json::from_str(json).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// The state to come back with.
fn state(answer: &Value) -> Value {
    let result = &answer["result"];
    assert_eq!(result["resultType"], "input_required", "{answer:#}");
    assert_eq!(result.as_object().unwrap().len(), 2, "a state and nothing to ask for: {answer:#}");
    json!({"requestState": result["requestState"]})
}

#[tokio::test]
async fn a_client_comes_back_until_a_person_has_decided() {
    let sidecar = impatient().await;
    let mut back = state(&leg(&sidecar, &json!({})).await);
    // A client that answers what nobody asked is the same client.
    back["inputResponses"] = json!({});
    let back = state(&leg(&sidecar, &back).await);
    assert_eq!(sidecar.backend.approvals().len(), 1, "each leg joins the same approval");
    sidecar.backend.decide(ApprovalStatus::Approved);
    let sent = json!({"jsonrpc": "2.0", "id": 1, "result": {"content": [], "resultType": "complete"}});
    sidecar.upstream.answers("application/json", &sent.to_string());
    assert_eq!(leg(&sidecar, &back).await, sent);
    let seen = sidecar.upstream.seen();
    let forwarded: Value = serde_json::from_slice(&seen.last().unwrap().body).unwrap();
    assert_eq!(forwarded, asked(&json!({})), "the tool server gets the call of the first leg");
    until("an outcome", async || {
        sidecar.backend.lives().iter().flatten().find(|k| k.as_str() == "call.completed").map(drop)
    })
    .await;
}

#[tokio::test]
async fn the_tenth_answer_is_a_result_that_says_how_to_go_on() {
    let sidecar = impatient().await;
    let mut back = json!({});
    for _ in 1..10 {
        back = state(&leg(&sidecar, &back).await);
    }
    let last = leg(&sidecar, &back).await;
    let text = last["result"]["content"][0]["text"].as_str().unwrap();
    assert!(last["result"]["isError"] == true && text.contains("repeat the same call"), "{last:#}");
    assert_eq!(last["result"]["resultType"], "complete");
    assert_eq!((sidecar.backend.approvals().len(), sidecar.upstream.count()), (1, 0));
}

#[tokio::test]
async fn a_state_that_was_changed_or_is_somebody_elses_is_refused() {
    let sidecar = impatient().await;
    let good = state(&leg(&sidecar, &json!({})).await);
    let text = good["requestState"].as_str().unwrap().to_owned();
    let mut bent = text.clone().into_bytes();
    bent[7] ^= 1;
    let states = [String::from_utf8(bent).unwrap(), "oak1.".to_owned(), "oak1.e30.AAAA".to_owned()];
    for state in states {
        let said = leg(&sidecar, &json!({"requestState": state})).await;
        assert_eq!(said["error"]["code"], -32_602, "{state}: {said:#}");
    }
    let said = leg_of(ACME, &sidecar, &good).await;
    assert_eq!(said["error"]["code"], -32_602, "{said:#}");
    assert_eq!(sidecar.upstream.count(), 0);
}

#[tokio::test]
async fn a_state_of_the_tool_servers_own_is_part_of_what_is_approved_and_comes_back_to_it() {
    let sidecar = impatient().await;
    let theirs = json!({"requestState": "theirs", "inputResponses": {"a": {"action": "accept"}}});
    let mut back = state(&leg(&sidecar, &theirs).await);
    back["inputResponses"] = theirs["inputResponses"].clone();
    let back = {
        let mut next = state(&leg(&sidecar, &back).await);
        // Clients differ in what they send along when nothing was asked.
        next["inputResponses"] = json!({});
        next
    };
    assert_eq!(sidecar.backend.approvals().len(), 1);
    sidecar.backend.decide(ApprovalStatus::Approved);
    // Another state is another call, and asks again.
    let other = json!({"requestState": "forged", "inputResponses": theirs["inputResponses"]});
    let _ = state(&leg(&sidecar, &other).await);
    assert_eq!((sidecar.backend.approvals().len(), sidecar.upstream.count()), (2, 0));
    let _ = leg(&sidecar, &back).await;
    let seen = sidecar.upstream.seen();
    let forwarded: Value = serde_json::from_slice(&seen.last().unwrap().body).unwrap();
    assert_eq!(forwarded, asked(&theirs));
}
