//! The progress of a call that waits for a person, and of the tool's own that follows: it only ever grows.

use serde_json::{Value, json};

/// Far below 1, so that the tool's own progress goes on from here.
const STEP: f64 = 1e-6;

/// The notification that says for the `told`th time that the call waits.
#[must_use]
pub fn waiting(token: &Value, told: u64) -> Value {
    json!({
        "jsonrpc": "2.0", "method": "notifications/progress",
        "params": {"progressToken": token, "progress": told as f64 * STEP, "message": "waiting for approval"},
    })
}

/// By how much the tool's own progress is later when the agent was told so often; 0 when it was told of none.
#[must_use]
pub fn shift(told: u64) -> f64 {
    // One step on: the tool's own begins at 0, and must be more than the last.
    if told > 0 { (told + 1) as f64 * STEP } else { 0.0 }
}
