//! Callers whom no agent and no key of ours names: nobody approves their own call, whatever they are known by.

use serde_json::{Value, json};

use crate::stack::{OWNER, Proxy, Stack, start};

/// A proxy asks for a call of this principal.
async fn ask(stack: &Stack, proxy: &Proxy, tool: &str, who: (&str, Option<&str>)) -> (u16, Value) {
    let (mut body, _) = proxy.asks(tool, &format!("{who:?}"), "txn_1");
    body["proxy"]["principal"] = json!(who.0);
    if let Some(owner) = who.1 {
        body["proxy"]["owner"] = json!(owner);
    }
    stack.post(&proxy.key, "/v1/approvals", &body).await
}

#[tokio::test]
async fn nobody_approves_for_a_token_or_a_certificate_of_their_own() {
    let stack = start().await;
    let proxy = stack.enrol().await;
    let loud = OWNER.to_uppercase();
    for (principal, owner) in [
        ("oidc:corp:7f3a".to_owned(), Some(OWNER)),
        ("oidc:corp:7f3a".to_owned(), Some(loud.as_str())),
        (format!("oidc:corp:{OWNER}"), Some("other@example.com")),
        (format!("oidc:corp:{loud}"), Some("other@example.com")),
        ("cert:spiffe://corp/bot".to_owned(), Some(OWNER)),
    ] {
        let (status, asked) = ask(&stack, &proxy, "transfer_funds", (&principal, owner)).await;
        assert_eq!(status, 201, "{asked}");
        let (status, problem) = stack.decide(asked["id"].as_str().unwrap(), "approved").await;
        assert_eq!((status, problem["code"].as_str()), (403, Some("self_approval")), "{principal} {owner:?}");
    }
    let (_, asked) = ask(&stack, &proxy, "transfer_funds", ("oidc:corp:7f3a", Some("ada@example.com"))).await;
    assert_eq!(stack.decide(asked["id"].as_str().unwrap(), "approved").await.0, 200);
}

#[tokio::test]
async fn who_is_named_in_a_token_does_not_decide_for_it_and_does_not_answer_for_it() {
    let stack = start().await;
    let proxy = stack.enrol().await;
    let ask_with = async |tool: &str, owner: Option<&str>, email: &str| {
        let (mut body, _) = proxy.asks(tool, &format!("{owner:?} {email}"), "txn_1");
        body["proxy"]["principal"] = json!("oidc:corp:7f3a");
        body["proxy"]["token_email"] = json!(email);
        if let Some(owner) = owner {
            body["proxy"]["owner"] = json!(owner);
        }
        stack.post(&proxy.key, "/v1/approvals", &body).await
    };
    for email in [OWNER, &OWNER.to_uppercase()] {
        let (status, asked) = ask_with("transfer_funds", Some("ops@example.com"), email).await;
        assert_eq!(status, 201, "{asked}");
        let (status, problem) = stack.decide(asked["id"].as_str().unwrap(), "approved").await;
        assert_eq!((status, problem["code"].as_str()), (403, Some("self_approval")), "{email}");
    }
    // It takes nobody's place: the owner is still barred, and still missing.
    let (_, asked) = ask_with("transfer_funds", Some(OWNER), "grace@example.com").await;
    assert_eq!(stack.decide(asked["id"].as_str().unwrap(), "approved").await.0, 403);
    let (status, problem) = ask_with("wipe_disk", None, "grace@example.com").await;
    assert_eq!((status, problem["code"].as_str()), (403, Some("owner_unknown")));
    let (status, problem) = ask_with("transfer_funds", Some(OWNER), "grace").await;
    assert_eq!(status, 422, "{problem}");
    let (_, asked) = ask_with("transfer_funds", Some("ops@example.com"), "grace@example.com").await;
    assert_eq!(stack.decide(asked["id"].as_str().unwrap(), "approved").await.0, 200);
}

#[tokio::test]
async fn nobody_is_asked_about_a_call_that_could_be_their_own() {
    let stack = start().await;
    let proxy = stack.enrol().await;
    for principal in ["oidc:corp:7f3a", "cert:bot.corp"] {
        // Of medium and of critical risk, and one that is not registered.
        for tool in ["transfer_funds", "wipe_disk", "unheard_of"] {
            let (status, problem) = ask(&stack, &proxy, tool, (principal, None)).await;
            assert_eq!((status, problem["code"].as_str()), (403, Some("owner_unknown")), "{problem}");
        }
        assert_eq!(ask(&stack, &proxy, "wipe_disk", (principal, Some("ada@example.com"))).await.0, 201);
    }
}

#[tokio::test]
async fn a_proxy_does_not_say_who_answers_for_an_agent() {
    let stack = start().await;
    let proxy = stack.enrol().await;
    let agent = json!({"id": "own-agent", "owner": OWNER, "tenants": ["acme"]});
    assert_eq!(stack.post(&stack.management, "/v1/agents", &agent).await.0, 201);
    let (_, asked) = ask(&stack, &proxy, "transfer_funds", ("own-agent", Some("ada@example.com"))).await;
    let (status, problem) = stack.decide(asked["id"].as_str().unwrap(), "approved").await;
    assert_eq!((status, problem["code"].as_str()), (403, Some("self_approval")));
}
