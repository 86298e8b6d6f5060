//! How deep a call may be nested, and what is around it.

use oakallow_policy::audit::{EventData, EventType};
use oakallow_policy::strict_json::CALL_DEPTH_MAX;
use serde_json::{Map, Value, json};

use crate::stack::{Stack, start};

/// An object that is nested so deep.
fn nested(depth: usize) -> Value {
    (1..depth).fold(json!({}), |inner, _| json!({"in": inner}))
}

/// What a batch of two checks says of the second.
async fn second_of_batch(stack: &Stack, parameters: Value) -> Value {
    let checks =
        [json!({"tool_name": "read_record"}), json!({"tool_name": "read_record", "parameters": parameters})];
    let (status, answer) =
        stack.post(&stack.acme, "/v1/permissions/check/batch", &json!({"checks": checks})).await;
    assert_eq!(status, 200, "{answer}");
    answer["results"][1].clone()
}

#[tokio::test]
async fn parameters_are_as_deep_as_a_call_may_be_and_no_deeper() {
    let stack = start().await;
    for (path, tool) in [
        ("/v1/permissions/check", "read_record"),
        ("/v1/approvals", "transfer_funds"),
        ("/v1/tokens/mint", "read_record"),
    ] {
        let call = |depth| json!({"tool_name": tool, "parameters": nested(depth)});
        let (status, answer) = stack.post(&stack.acme, path, &call(CALL_DEPTH_MAX)).await;
        assert!(status == 200 || status == 201, "{path}: {answer}");
        let (status, problem) = stack.post(&stack.acme, path, &call(CALL_DEPTH_MAX + 1)).await;
        assert_eq!((status, &problem["code"]), (422, &json!("invalid_value")), "{path}: {problem}");
        assert_eq!(problem["pointer"], "/parameters");
    }
    assert_eq!(second_of_batch(&stack, nested(CALL_DEPTH_MAX)).await["permission"], "allowed");
    let refused = second_of_batch(&stack, nested(CALL_DEPTH_MAX + 1)).await;
    assert_eq!(refused["error"]["pointer"], "/checks/1/parameters", "{refused}");
}

#[tokio::test]
async fn the_deepest_call_of_a_proxy_is_approved_and_recorded() {
    let stack = start().await;
    let mut proxy = stack.enrol().await;
    let (mut body, _) = proxy.asks("transfer_funds", "deep", "txn_deep");
    body["parameters"] = nested(CALL_DEPTH_MAX);
    let (status, asked) = stack.post(&proxy.key, "/v1/approvals", &body).await;
    assert_eq!(status, 201, "{asked}");
    let (_, shown) =
        stack.get(&stack.approver, &format!("/v1/approvals/{}", asked["id"].as_str().unwrap())).await;
    assert_eq!(shown["parameters"], nested(CALL_DEPTH_MAX));

    let detail = Map::from_iter([("arguments".to_owned(), nested(CALL_DEPTH_MAX))]);
    let event =
        proxy.event(EventType::CallRequested, "txn_deep", EventData { detail, ..EventData::default() });
    let (status, ack) = stack.post(&proxy.key, &proxy.path("audit"), &proxy.batch(&[event])).await;
    assert_eq!(status, 200, "{ack}");
    assert_eq!(
        stack.events("call.requested").await[0]["data"]["detail"]["arguments"],
        nested(CALL_DEPTH_MAX)
    );
}
