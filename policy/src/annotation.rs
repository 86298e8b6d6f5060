//! What a tool server says of its tools' effects: the annotations of MCP's `Tool` (`ToolAnnotations`,
//! specification 2025-03-26 and later). They are hints of a server that nobody has to believe, so they help a
//! person who registers a tool and decide nothing.

use serde_json::Value;

use crate::tool::RiskLevel;

/// The risk level that a definition's annotations speak for; `None` when it has none. What is left unsaid
/// counts as the specification has it: not read-only, and destructive.
#[must_use]
pub fn annotated_risk_level(definition: &Value) -> Option<RiskLevel> {
    let annotations = definition.get("annotations")?.as_object()?;
    let hint = |name: &str, unsaid: bool| annotations.get(name).and_then(Value::as_bool).unwrap_or(unsaid);
    Some(match (hint("readOnlyHint", false), hint("destructiveHint", true)) {
        (true, _) => RiskLevel::Low,
        (false, false) => RiskLevel::Medium,
        (false, true) => RiskLevel::High,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn hints_speak_for_a_risk_level() {
        for (annotations, expected) in [
            (json!({"readOnlyHint": true}), Some(RiskLevel::Low)),
            (json!({"readOnlyHint": true, "destructiveHint": true}), Some(RiskLevel::Low)),
            (json!({"readOnlyHint": false, "destructiveHint": false}), Some(RiskLevel::Medium)),
            (json!({"destructiveHint": true}), Some(RiskLevel::High)),
            (json!({"title": "Pay"}), Some(RiskLevel::High)),
            // What is no hint is not one.
            (json!({"readOnlyHint": "true"}), Some(RiskLevel::High)),
            (json!("readOnlyHint"), None),
        ] {
            let definition = json!({"name": "pay", "annotations": annotations});
            assert_eq!(annotated_risk_level(&definition), expected, "{definition}");
        }
        assert_eq!(annotated_risk_level(&json!({"name": "pay"})), None);
    }
}
