use oakallow_policy::canonical::{base64url, hex, sha256, unbase64url};
use oakallow_policy::token::{self, TokenKey};
use reqwest::Method;
use serde_json::{Value, json};

use crate::stack::{START, Stack, start};

async fn mint(stack: &Stack, body: &Value) -> Value {
    let (status, minted) = stack.post(&stack.acme, "/v1/tokens/mint", body).await;
    assert_eq!(status, 201, "{minted}");
    minted
}

#[tokio::test]
async fn a_token_says_what_was_decided_and_is_good_once() {
    let stack = start().await;
    let minted =
        mint(&stack, &json!({"tool_name": "read_record", "resource_id": "r1", "parameters": {"a": 1}})).await;
    let wrong = json!({"token": minted["token"], "tool_name": "read_record", "resource_id": "r2"});
    let (_, answer) = stack.post(&stack.tool, "/v1/tokens/verify", &wrong).await;
    assert_eq!((answer["valid"].as_bool(), answer["field"].as_str()), (Some(false), Some("resource_id")));
    let mut right = json!({"token": minted["token"], "tool_name": "read_record", "resource_id": "r1"});
    let (_, answer) = stack.post(&stack.tool, "/v1/tokens/verify", &right).await;
    assert_eq!(
        (answer["valid"].as_bool(), answer["reason"].as_str()),
        (Some(false), Some("arguments_required"))
    );
    right["arguments_sha256"] = json!(hex(&sha256(br#"{"a":1}"#)));
    let (_, answer) = stack.post(&stack.tool, "/v1/tokens/verify", &right).await;
    assert_eq!(answer["valid"], true, "{answer}");
    let claims = &answer["claims"];
    assert_eq!(claims["sub"], "agent-acme");
    assert_eq!((claims["tenant"].as_str(), claims["aud"].as_str()), (Some("acme"), Some("demo-tools")));
    assert_eq!(claims["ah"], base64url(&sha256(br#"{"a":1}"#)));
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 60);
    let (_, answer) = stack.post(&stack.tool, "/v1/tokens/verify", &right).await;
    assert_eq!((answer["valid"].as_bool(), answer["reason"].as_str()), (Some(false), Some("replayed")));
}

#[tokio::test]
async fn a_token_expires() {
    let stack = start().await;
    let minted = mint(&stack, &json!({"tool_name": "read_record"})).await;
    stack.clock.advance_ms(66_000);
    let body = json!({"token": minted["token"], "tool_name": "read_record"});
    let (_, answer) = stack.post(&stack.tool, "/v1/tokens/verify", &body).await;
    assert_eq!(answer["reason"], "expired");
}

#[tokio::test]
async fn what_is_not_allowed_is_not_minted() {
    let stack = start().await;
    for (tool, code) in [
        ("transfer_funds", "approval_required"),
        ("drop_database", "binding_required"),
        ("nobody_registered_this", "binding_required"),
    ] {
        let (status, problem) = stack.post(&stack.acme, "/v1/tokens/mint", &json!({"tool_name": tool})).await;
        assert_eq!((status, problem["code"].as_str()), (403, Some(code)), "{tool}: {problem}");
    }
    let bound = json!({"tool_name": "drop_database", "htm": "POST", "htu": "https://t.example/x",
                       "body": "{}"});
    let (status, problem) = stack.post(&stack.acme, "/v1/tokens/mint", &bound).await;
    assert_eq!((status, problem["code"].as_str()), (403, Some("disabled")));
    for key in [&stack.management, &stack.approver, &stack.tool] {
        assert_eq!(stack.post(key, "/v1/tokens/mint", &json!({"tool_name": "read_record"})).await.0, 403);
    }
}

#[tokio::test]
async fn an_approval_is_good_for_one_token() {
    let stack = start().await;
    let id = stack.ask("transfer_funds", json!({"amount": 5})).await["id"].clone();
    let body = json!({"tool_name": "transfer_funds", "parameters": {"amount": 5}, "approval_id": id});
    let (status, problem) = stack.post(&stack.acme, "/v1/tokens/mint", &body).await;
    assert_eq!((status, problem["code"].as_str()), (409, Some("approval_pending")));
    stack.decide(id.as_str().unwrap(), "approved").await;
    let altered = json!({"tool_name": "transfer_funds", "parameters": {"amount": 6}, "approval_id": id});
    let (status, problem) = stack.post(&stack.acme, "/v1/tokens/mint", &altered).await;
    assert_eq!((status, problem["code"].as_str()), (409, Some("other_call")));
    assert_eq!(stack.post(&stack.globex, "/v1/tokens/mint", &body).await.0, 404);
    let minted = mint(&stack, &body).await;
    assert_eq!(minted["approval_id"], id);
    let (status, problem) = stack.post(&stack.acme, "/v1/tokens/mint", &body).await;
    assert_eq!((status, problem["code"].as_str()), (409, Some("approval_consumed")));
    // What the agent reports of it is what the same call is told.
    let report =
        json!({"tool_name": "transfer_funds", "execution_result": "failed", "token_id": minted["token_id"]});
    let (status, logged) = stack.post(&stack.acme, "/v1/executions/log", &report).await;
    assert_eq!((status, logged["linked"].as_bool()), (201, Some(true)), "{logged}");
    let again = stack.ask("transfer_funds", json!({"amount": 5})).await;
    assert_eq!(again["already_executed"]["outcome"], "failed");
}

#[tokio::test]
async fn a_bound_token_fits_its_request_only() {
    let stack = start().await;
    let body = json!({"tool_name": "read_record", "htm": "POST", "htu": "https://t.example/x?y=1",
                      "body": "{}"});
    let minted = mint(&stack, &body).await;
    assert_eq!(minted["bound_to"], "request");
    let mut verify = json!({"token": minted["token"], "tool_name": "read_record", "htm": "POST",
                            "htu": "https://t.example/x?y=1", "body_sha256": base64url(&sha256(b"[]"))});
    let (_, answer) = stack.post(&stack.tool, "/v1/tokens/verify", &verify).await;
    assert_eq!(answer["field"], "body_sha256");
    verify["body_sha256"] = json!(base64url(&sha256(b"{}")));
    verify["arguments_sha256"] = json!(base64url(&sha256(b"{}")));
    assert_eq!(stack.post(&stack.tool, "/v1/tokens/verify", &verify).await.1["valid"], true);
    let half = json!({"tool_name": "read_record", "htm": "POST"});
    assert_eq!(stack.post(&stack.acme, "/v1/tokens/mint", &half).await.0, 422);
}

/// What `body` binds a call of acme's agent to.
fn bind(mut call: Value, body: &str) -> Value {
    call["htm"] = json!("POST");
    call["htu"] = json!("https://t.example/x");
    call["body"] = json!(body);
    call
}

#[tokio::test]
async fn an_approval_of_one_amount_moves_no_other() {
    let stack = start().await;
    let id = stack.ask("transfer_funds", json!({"amount": 1})).await["id"].clone();
    stack.decide(id.as_str().unwrap(), "approved").await;
    let (approved, other) = (r#"{"amount": 1}"#, r#"{"amount": 999999}"#);
    let call = json!({"tool_name": "transfer_funds", "approval_id": id});
    let with = |mut call: Value, field: &str, value: Value| {
        call[field] = value;
        call
    };
    let named = with(call.clone(), "parameters", json!({"amount": 1}));
    let mut digest = bind(call.clone(), "");
    digest.as_object_mut().unwrap().remove("body");
    digest["body_sha256"] = json!(hex(&sha256(other.as_bytes())));
    for (what, body, status, said) in [
        ("another body than the parameters", bind(named.clone(), other), 422, "/parameters"),
        ("another body", bind(call.clone(), other), 409, "other_call"),
        ("a body with a key twice", bind(named.clone(), r#"{"amount":999999,"amount":1}"#), 422, "/body"),
        ("a body that is no object", bind(call.clone(), "[1]"), 422, "/body"),
        ("no parameters", call.clone(), 422, "/parameters"),
        ("a digest alone", digest.clone(), 422, "/parameters"),
        (
            "a digest of another body",
            with(bind(call.clone(), approved), "body_sha256", digest["body_sha256"].clone()),
            422,
            "/body_sha256",
        ),
    ] {
        let (got, problem) = stack.post(&stack.acme, "/v1/tokens/mint", &body).await;
        let told = [&problem["code"], &problem["pointer"]].contains(&&json!(said));
        assert!(got == status && told, "{what}: {got} {problem}");
    }
    // With the digest of a body that nobody here can see, the tool server has the last word.
    let minted = mint(&stack, &with(digest, "parameters", json!({"amount": 1}))).await;
    let mut verify = json!({"token": minted["token"], "tool_name": "transfer_funds", "htm": "POST",
                            "htu": "https://t.example/x", "body_sha256": hex(&sha256(other.as_bytes()))});
    let (_, answer) = stack.post(&stack.tool, "/v1/tokens/verify", &verify).await;
    assert_eq!((&answer["valid"], &answer["reason"]), (&json!(false), &json!("arguments_required")));
    verify["arguments_sha256"] = json!(hex(&sha256(br#"{"amount":999999}"#)));
    let (_, answer) = stack.post(&stack.tool, "/v1/tokens/verify", &verify).await;
    assert_eq!((&answer["valid"], &answer["field"]), (&json!(false), &json!("arguments_sha256")));
    verify["arguments_sha256"] = json!(hex(&sha256(br#"{"amount":1}"#)));
    assert_eq!(stack.post(&stack.tool, "/v1/tokens/verify", &verify).await.1["valid"], true);
}

#[tokio::test]
async fn a_token_for_one_resource_is_none_for_another() {
    let stack = start().await;
    let other = json!({"resource_id": "server-prod-02", "permission": "disabled"});
    assert_eq!(stack.post(&stack.management, "/v1/rules", &other).await.0, 201);
    let body = r#"{"service":"server-prod-02"}"#;
    let seen = json!({"tool_name": "read_record", "resource_id": "server-prod-02", "htm": "POST",
                      "htu": "https://t.example/x", "body_sha256": hex(&sha256(body.as_bytes())),
                      "arguments_sha256": hex(&sha256(body.as_bytes()))});
    for named in [json!("server-prod-01"), Value::Null] {
        let call = json!({"tool_name": "read_record", "resource_id": named});
        let mut verify = seen.clone();
        verify["token"] = mint(&stack, &bind(call, body)).await["token"].clone();
        let (_, answer) = stack.post(&stack.tool, "/v1/tokens/verify", &verify).await;
        assert_eq!((&answer["valid"], &answer["field"]), (&json!(false), &json!("resource_id")), "{named}");
    }
    let call = json!({"tool_name": "read_record", "resource_id": "server-prod-02"});
    let (status, problem) = stack.post(&stack.acme, "/v1/tokens/mint", &bind(call, body)).await;
    assert_eq!((status, &problem["code"]), (403, &json!("disabled")));
}

#[tokio::test]
async fn a_token_of_no_request_is_none_for_a_request() {
    let stack = start().await;
    let minted = mint(&stack, &json!({"tool_name": "read_record"})).await;
    assert_eq!(minted["bound_to"], "none");
    for (field, value) in [
        ("htm", "POST".to_owned()),
        ("htu", "https://t.example/x".to_owned()),
        ("body_sha256", hex(&sha256(b"{}"))),
        ("arguments_sha256", hex(&sha256(b"{}"))),
    ] {
        let mut verify = json!({"token": minted["token"], "tool_name": "read_record"});
        verify[field] = json!(value);
        let (_, answer) = stack.post(&stack.tool, "/v1/tokens/verify", &verify).await;
        assert_eq!((&answer["valid"], &answer["field"]), (&json!(false), &json!(field)), "{answer}");
    }
}

#[tokio::test]
async fn a_tool_server_checks_by_itself_with_its_own_keys_only() {
    let stack = start().await;
    let minted = mint(&stack, &json!({"tool_name": "read_record"})).await;
    let (status, set) = stack.get(&stack.tool, "/v1/audiences/demo-tools/keys").await;
    assert_eq!(status, 200, "{set}");
    let keys = keys_of(&set);
    let token = minted["token"].as_str().unwrap();
    assert!(token::verify(token, &keys, "demo-tools", START / 1_000).is_ok());
    assert_eq!(stack.get(&stack.tool, "/v1/audiences/other/keys").await.0, 403);
    assert_eq!(stack.get(&stack.acme, "/v1/audiences/demo-tools/keys").await.0, 403);

    let rotated = stack.send(Method::POST, &stack.management, "/v1/token-keys/rotate", None).await;
    assert_eq!(rotated.status(), 200);
    let (_, set) = stack.get(&stack.tool, "/v1/audiences/demo-tools/keys").await;
    let keys = keys_of(&set);
    assert_eq!((keys.len(), keys[0].kid()), (2, "2.demo-tools"));
    assert!(token::verify(token, &keys, "demo-tools", START / 1_000).is_ok(), "the old key overlaps");
    stack.clock.advance_ms(65_000);
    let (_, set) = stack.get(&stack.tool, "/v1/audiences/demo-tools/keys").await;
    assert_eq!(keys_of(&set).len(), 1);
}

fn keys_of(set: &Value) -> Vec<TokenKey> {
    let key = |jwk: &Value| {
        let bytes = unbase64url(jwk["k"].as_str().unwrap()).unwrap().try_into().unwrap();
        TokenKey::from_bytes(jwk["kid"].as_str().unwrap().to_owned(), bytes)
    };
    set["keys"].as_array().unwrap().iter().map(key).collect()
}

#[tokio::test]
async fn forged_and_foreign_tokens_are_refused() {
    let stack = start().await;
    let minted = mint(&stack, &json!({"tool_name": "read_record"})).await;
    let token = minted["token"].as_str().unwrap();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let other = if signature.starts_with('A') { 'B' } else { 'A' };
    let forged = format!("{signed}.{other}{}", &signature[1..]);
    for (text, reason) in [(forged.as_str(), "bad_signature"), ("nonsense", "malformed"), ("", "malformed")] {
        let body = json!({"token": text, "tool_name": "read_record"});
        let (_, answer) = stack.post(&stack.tool, "/v1/tokens/verify", &body).await;
        assert_eq!((answer["valid"].as_bool(), answer["reason"].as_str()), (Some(false), Some(reason)));
    }
    let (_, other) = stack
        .post(&stack.management, "/v1/keys", &json!({"name": "o", "tier": "tool", "audience": "other"}))
        .await;
    let body = json!({"token": token, "tool_name": "read_record"});
    let (_, answer) = stack.post(other["key"].as_str().unwrap(), "/v1/tokens/verify", &body).await;
    assert_eq!(answer["reason"], "wrong_audience");
    let (_, answer) = stack.post(&stack.globex, "/v1/tokens/verify", &body).await;
    assert_eq!(answer["reason"], "wrong_tenant");
}

#[tokio::test]
async fn a_report_of_somebody_elses_token_links_nothing() {
    let stack = start().await;
    let minted = mint(&stack, &json!({"tool_name": "read_record"})).await;
    let report =
        json!({"tool_name": "read_record", "execution_result": "success", "token_id": minted["token_id"]});
    let (status, logged) = stack.post(&stack.globex, "/v1/executions/log", &report).await;
    assert_eq!((status, logged["linked"].as_bool()), (201, Some(false)));
    let (_, list) = stack.get(&stack.acme, "/v1/executions").await;
    assert_eq!(list["data"], json!([]));
    let (_, list) = stack.get(&stack.management, "/v1/executions").await;
    assert_eq!(list["data"][0]["source"], "reported");
}

#[tokio::test]
async fn a_clock_that_is_set_forth_and_back_makes_no_token_good_again() {
    let stack = start().await;
    let (_, minted) = stack.post(&stack.acme, "/v1/tokens/mint", &json!({"tool_name": "read_record"})).await;
    let verify = json!({"token": minted["token"], "tool_name": "read_record"});
    let verified = async || stack.post(&stack.tool, "/v1/tokens/verify", &verify).await.1;
    assert_eq!(verified().await["valid"], true);
    stack.clock.advance_ms(3_600_000);
    assert_eq!(verified().await["reason"], "expired");
    // Long enough for what has expired to be swept away.
    let kept = async || stack.raw().await.count("SELECT COUNT(*) FROM redemptions").await;
    stack.until("the redemption is forgotten", async || kept().await == 0).await;
    stack.clock.set_back_ms(3_600_000);
    assert_eq!(verified().await["reason"], "replayed");
    assert_eq!(stack.events("token.redeemed").await.len(), 1);
}

#[tokio::test]
async fn an_approval_follows_the_clock_of_the_backend_and_does_not_come_back_when_that_is_set_back() {
    let stack = start().await;
    let asked = stack.ask("transfer_funds", json!({"about": "x"})).await;
    let id = asked["id"].as_str().unwrap();
    stack.clock.set_back_ms(600_000);
    assert_eq!(stack.status(id).await, "pending");
    stack.clock.advance_ms(30 * 24 * 3_600_000);
    stack.until("it has expired", async || stack.events("approval.expired").await.len() == 1).await;
    stack.clock.set_back_ms(30 * 24 * 3_600_000);
    assert_eq!(stack.decide(id, "approved").await.0, 409);
    assert_eq!(stack.status(id).await, "expired");
}
