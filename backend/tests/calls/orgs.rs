//! Two orgs on one backend: nothing of one is seen, heard or moved by the other.

use oakallow_backend::Bootstrap;
use oakallow_policy::audit::{EventData, EventType};
use reqwest::Method;
use serde_json::{Value, json};

use crate::stack::{DEVELOPER, Proxy, Stack, start};

/// The other org, with a key of each kind.
struct Rival {
    management: String,
    approver: String,
    standard: String,
    tool: String,
    proxy: Proxy,
}

async fn rival(stack: &Stack) -> Rival {
    let owner = Bootstrap { org: "rival".to_owned(), owner_email: DEVELOPER.to_owned() };
    let management = stack.running.bootstrap(owner).await.unwrap().expose().to_owned();
    let approver = stack.running.issue_approver_key("rival", DEVELOPER).await.unwrap().expose().to_owned();
    let key = async |body: Value| {
        let (status, made) = stack.post(&management, "/v1/keys", &body).await;
        assert_eq!(status, 201, "{made}");
        made["key"].as_str().unwrap().to_owned()
    };
    // The same names as in the other org.
    let (status, _) = stack.post(&management, "/v1/tenants", &json!({"id": "acme"})).await;
    assert_eq!(status, 201);
    Rival {
        standard: key(json!({"name": "s", "tier": "standard", "tenancy": "org"})).await,
        tool: key(json!({"name": "t", "tier": "tool", "audience": "demo-tools"})).await,
        proxy: stack.enrol_in(&management).await,
        management,
        approver,
    }
}

#[tokio::test]
async fn an_approval_is_neither_seen_nor_moved_from_another_org() {
    let stack = start().await;
    let rival = rival(&stack).await;
    let own = stack.enrol().await;
    let (body, fingerprint) = own.asks("transfer_funds", "theirs", "txn_a");
    let (_, asked) = stack.post(&own.key, "/v1/approvals", &body).await;
    let id = asked["id"].as_str().unwrap();
    let run = json!({"txn": "txn_a", "fingerprint": fingerprint});
    for status in ["pending", "approved"] {
        let verdict = json!({"decision": "approved", "note": "mine now"});
        for (key, path, body) in [
            (&rival.approver, "decide", &verdict),
            (&rival.standard, "cancel", &json!({})),
            (&rival.proxy.key, "cancel", &json!({})),
            (&rival.proxy.key, "consume", &run),
        ] {
            let (code, problem) = stack.post(key, &format!("/v1/approvals/{id}/{path}"), body).await;
            assert_eq!(code, 404, "{path}: {problem}");
        }
        for key in [&rival.approver, &rival.standard] {
            assert_eq!(stack.get(key, &format!("/v1/approvals/{id}")).await.0, 404);
            assert_eq!(stack.get(key, "/v1/approvals").await.1["data"], json!([]));
        }
        let (_, states) =
            stack.post(&rival.proxy.key, &rival.proxy.path("approvals"), &json!({"ids": [id]})).await;
        assert_eq!(states["approvals"], json!([]));
        assert_eq!(stack.status(id).await, status);
        stack.decide(id, "approved").await;
    }
}

#[tokio::test]
async fn a_token_and_the_log_stay_in_their_org() {
    let stack = start().await;
    let rival = rival(&stack).await;
    let mut own = stack.enrol().await;
    let (_, minted) = stack.post(&stack.acme, "/v1/tokens/mint", &json!({"tool_name": "read_record"})).await;
    for key in [&rival.tool, &rival.standard] {
        let body = json!({"token": minted["token"], "tool_name": "read_record"});
        let (_, verified) = stack.post(key, "/v1/tokens/verify", &body).await;
        assert_eq!(verified["valid"], false, "{verified}");
    }
    let (_, mine) = stack.get(&rival.tool, "/v1/audiences/demo-tools/keys").await;
    let (_, theirs) = stack.get(&stack.tool, "/v1/audiences/demo-tools/keys").await;
    assert_ne!(mine["keys"][0]["k"], theirs["keys"][0]["k"]);
    let report = json!({"tool_name": "read_record", "execution_result": "success",
                        "token_id": minted["token_id"], "tenant_id": "acme"});
    assert_eq!(stack.post(&rival.standard, "/v1/executions/log", &report).await.1["linked"], false);
    let event = own.event(EventType::CallCompleted, "txn_a", EventData::default());
    let (status, _) = stack.post(&own.key, &own.path("audit"), &own.batch(&[event])).await;
    assert_eq!(status, 200);
    for path in ["/v1/audit?limit=500", "/v1/executions", "/v1/audit/export"] {
        let (status, seen) = stack.get(&rival.management, path).await;
        assert_eq!(status, 200, "{seen}");
        let seen = seen.to_string();
        for foreign in [&own.id, "agent-acme", "txn_a", minted["token_id"].as_str().unwrap()] {
            assert!(!seen.contains(foreign), "{path} tells of {foreign}");
        }
    }
    assert_eq!(stack.post(&rival.proxy.key, &own.path("audit"), &own.batch(&[])).await.0, 403);
    // It was not redeemed by the attempts.
    let body = json!({"token": minted["token"], "tool_name": "read_record"});
    assert_eq!(stack.post(&stack.tool, "/v1/tokens/verify", &body).await.1["valid"], true);
}

#[tokio::test]
async fn a_stream_tells_of_its_own_org_only() {
    let stack = start().await;
    let rival = rival(&stack).await;
    let agent = json!({"id": "agent-acme", "owner": "somebody@rival.example", "tenants": ["acme"]});
    assert_eq!(stack.post(&rival.management, "/v1/agents", &agent).await.0, 201);
    let streams = [
        (&rival.approver, "/v1/approvals/events".to_owned()),
        (&rival.proxy.key, rival.proxy.path("events")),
    ];
    for (key, path) in streams {
        let mut stream = stack
            .http
            .get(format!("{}{path}", stack.url))
            .header("x-api-key", key)
            // From the beginning of the feed, where there is more to leak.
            .header("last-event-id", "0")
            .send()
            .await
            .unwrap();
        let theirs = stack.ask("transfer_funds", json!({"path": path})).await;
        let own = json!({"tool_name": "anything", "tenant_id": "acme", "parameters": {"path": path}});
        let mine = if path.ends_with("approvals/events") {
            stack.post(&rival.standard, "/v1/approvals", &own).await.1
        } else {
            let (body, _) = rival.proxy.asks("anything", &path, "txn_m");
            stack.post(&rival.proxy.key, "/v1/approvals", &body).await.1
        };
        let (mine, theirs) = (mine["id"].as_str().unwrap(), theirs["id"].as_str().unwrap());
        // Theirs came first: once mine is heard, theirs would have been.
        let mut heard = String::new();
        while !heard.contains(mine) {
            heard.push_str(std::str::from_utf8(&stream.chunk().await.unwrap().unwrap()).unwrap());
        }
        assert!(!heard.contains(theirs), "{heard}");
    }
}

#[tokio::test]
async fn whoever_answered_for_a_deleted_agent_still_does_not_decide_its_calls() {
    let stack = start().await;
    let proxy = stack.enrol().await;
    let gone = stack.send(Method::DELETE, &stack.management, "/v1/agents/agent-acme", None).await;
    assert_eq!(gone.status(), 204);
    let developer = Bootstrap { org: "demo".to_owned(), owner_email: DEVELOPER.to_owned() };
    stack.running.bootstrap(developer).await.unwrap();
    let developer = stack.running.issue_approver_key("demo", DEVELOPER).await.unwrap();
    // A proxy that has not heard of it yet.
    let (body, _) = proxy.asks("transfer_funds", "late", "txn_l");
    let (_, asked) = stack.post(&proxy.key, "/v1/approvals", &body).await;
    let path = format!("/v1/approvals/{}/decide", asked["id"].as_str().unwrap());
    let (status, problem) = stack.post(developer.expose(), &path, &json!({"decision": "approved"})).await;
    assert_eq!((status, &problem["code"]), (403, &json!("self_approval")), "{problem}");
}

#[tokio::test]
async fn a_long_poll_ends_with_its_key() {
    let stack = start().await;
    let asked = stack.ask("transfer_funds", json!({})).await;
    let id = asked["id"].as_str().unwrap();
    let path = format!("/v1/approvals/{id}?wait=30");
    let delete = stack.send(Method::DELETE, &stack.management, "/v1/agents/agent-acme", None);
    let ((status, problem), gone) = tokio::join!(stack.get(&stack.acme, &path), delete);
    assert_eq!(gone.status(), 204);
    assert_eq!((status, &problem["code"]), (401, &json!("key_revoked")), "{problem}");
}
