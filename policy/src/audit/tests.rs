//! How events are written.

use serde_json::json;

use super::*;
use crate::canonical;

/// With everything in it that an event can have.
fn whole() -> Chained {
    let data = json!({
        "tenant": "acme", "principal": "agent", "audience": "tools", "route": "r", "tool": "pay", "resource": "r-1",
        "method": "post", "parameters": {"b": 1, "a": [true, null, "é\u{1f}"]}, "fingerprint": "00", "permit": "approval",
        "decision": {"permission": "allowed", "resolved_from": "tenant_tool", "rule": "rul_1", "policy_version": 7,
            "unregistered": true, "definition_changed": true},
        "approval": {"id": "apr_1", "reference": "REF-1", "status": "approved", "decided_by": "ada", "note": "ok"},
        "token_id": "tok_1", "reason": "why", "detail": {"z": 1, "a": 2},
        "execution": {"result": "success", "status": 200, "duration_ms": 5, "request_sha256": "01",
            "response_sha256": "02", "response_bytes": 6},
    });
    serde_json::from_value(json!({
        "specversion": "1.0", "source": "proxy/prx_1", "seq": 3, "prev": "00", "id": "evt_1", "type": "call.forwarded",
        "time": "2026-11-24T00:00:00.000Z", "txn": "txn_1", "data": data,
    }))
    .unwrap()
}

#[test]
fn events_are_written_in_canonical_order() {
    let mut event = whole();
    let missing = serde_json::to_value(&event.event.data).unwrap();
    assert_eq!(missing.as_object().unwrap().len(), 16, "a member of `EventData` is not in this test");
    assert_eq!(event.bytes().unwrap(), canonical::json_bytes(&event).unwrap());
    event.event.data.parameters = Some(json!({"\u{fb33}": 1.5, "😀": 1e21, "n": 9_007_199_254_740_993_u64}));
    assert_eq!(event.bytes().ok(), canonical::json_bytes(&event).ok());
}
