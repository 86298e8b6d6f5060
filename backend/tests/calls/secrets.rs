//! Secrets where names stand: they would be recorded as they are.

use serde_json::{Value, json};

use crate::stack::{Stack, start};

/// A key of ours, an access key of AWS, a JWT, and a URL with a key in it; all made up.
const SECRETS: [&str; 4] = [
    "oak_live_0123456789abcdef0123456789abcdef",
    "AKIA0123456789ABCDEF",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIwMTIzNDU2Nzg5In0.MDEyMzQ1Njc4OQ",
    "https://files.example/report?api_key=0123456789",
];

const ENDPOINTS: [&str; 4] =
    ["/v1/permissions/check", "/v1/approvals", "/v1/tokens/mint", "/v1/executions/log"];

fn body(path: &str, member: &str, name: &str) -> Value {
    let mut body = json!({"tool_name": "read_record", member: name});
    if path == "/v1/executions/log" {
        body["execution_result"] = json!("success");
    }
    body
}

/// Neither the log nor the drafts nor the approvals have it.
async fn assert_forgotten(stack: &Stack) {
    for path in ["/v1/audit/export", "/v1/tools?status=draft", "/v1/executions"] {
        let (status, kept) = stack.get(&stack.management, path).await;
        let kept = kept.to_string();
        assert_eq!(status, 200, "{kept}");
        assert!(SECRETS.iter().all(|secret| !kept.contains(secret)), "{path}: {kept}");
    }
    assert_eq!(stack.get(&stack.acme, "/v1/approvals").await.1["data"], json!([]));
}

#[tokio::test]
async fn a_call_that_is_named_like_a_secret_is_refused_and_not_recorded() {
    let stack = start().await;
    for path in ENDPOINTS {
        for member in ["tool_name", "resource_id", "method"] {
            for secret in SECRETS {
                let (status, problem) = stack.post(&stack.acme, path, &body(path, member, secret)).await;
                assert_eq!((status, &problem["code"]), (422, &json!("secret_in_name")), "{path} {problem}");
                assert_eq!(problem["pointer"], format!("/{member}"));
                assert!(!problem.to_string().contains("0123456789"), "repeated: {problem}");
            }
        }
    }
    let elsewhere = body("/v1/permissions/check", "audience", SECRETS[0]);
    assert_eq!(stack.post(&stack.acme, "/v1/permissions/check", &elsewhere).await.0, 422);
    assert_forgotten(&stack).await;
}

#[tokio::test]
async fn in_a_batch_the_others_are_answered() {
    let stack = start().await;
    let checks: Vec<Value> = ["r1", SECRETS[0], "r2"]
        .into_iter()
        .map(|name| body("/v1/permissions/check", "resource_id", name))
        .collect();
    let batch = json!({"checks": checks});
    let (status, answer) = stack.post(&stack.acme, "/v1/permissions/check/batch", &batch).await;
    assert_eq!(status, 200, "{answer}");
    let error = &answer["results"][1]["error"];
    assert_eq!((&error["code"], &error["status"]), (&json!("secret_in_name"), &json!(422)));
    assert_eq!(error["pointer"], "/checks/1/resource_id");
    assert!(!answer.to_string().contains("0123456789"), "repeated: {answer}");
    for answered in [0, 2] {
        assert_eq!(answer["results"][answered]["permission"], "allowed");
    }
    assert_eq!(stack.events("permission.checked").await.len(), 2);
    assert_forgotten(&stack).await;
}
