//! What the demo tools are called and take: one definition for the server, for MCP's `tools/list` and
//! for the registration at the backend.

use serde_json::{Value, json};

/// A tool as it is described to people, models and the backend.
pub(crate) struct ToolDefinition {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it does.
    pub(crate) description: &'static str,
    /// JSON Schema of its arguments.
    pub(crate) schema: Value,
}

/// The resource that a call acts on, for the tools that have one: what rules for resources are about.
pub(super) fn resource<'a>(tool: &str, arguments: &'a Value) -> Option<&'a str> {
    match tool {
        "restart_service" => arguments.get("service")?.as_str(),
        _ => None,
    }
}

/// The four tools.
pub(crate) fn tools() -> Vec<ToolDefinition> {
    vec![
        ToolDefinition {
            name: "read_record",
            description: "Read one record by its id.",
            schema: object(&[("id", json!({"type": "string", "minLength": 1, "maxLength": 64}))]),
        },
        ToolDefinition {
            name: "restart_service",
            description: "Restart a service. Requests in flight on it are lost.",
            schema: object(&[("service", json!({"type": "string", "minLength": 1, "maxLength": 128}))]),
        },
        ToolDefinition {
            name: "transfer_funds",
            description: "Move an amount, in whole cents, from one account to another.",
            schema: object(&[
                ("from", json!({"type": "string", "minLength": 1, "maxLength": 64})),
                ("to", json!({"type": "string", "minLength": 1, "maxLength": 64})),
                ("amount", json!({"type": "integer", "minimum": 1, "maximum": 100_000_000})),
            ]),
        },
        ToolDefinition {
            name: "drop_database",
            description: "Delete a database and everything in it.",
            schema: object(&[("name", json!({"type": "string", "minLength": 1, "maxLength": 64}))]),
        },
    ]
}

/// An object schema in which every property is required and no other is allowed.
fn object(properties: &[(&str, Value)]) -> Value {
    let names: Vec<&str> = properties.iter().map(|(name, _)| *name).collect();
    let properties: serde_json::Map<String, Value> =
        properties.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": properties,
        "required": names,
        "additionalProperties": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_is_valid_and_closed() {
        for tool in tools() {
            let schema = jsonschema::validator_for(&tool.schema).unwrap();
            assert!(!schema.is_valid(&json!({})), "{} takes no arguments at all", tool.name);
            assert!(!schema.is_valid(&json!({"surplus": 1})), "{} takes anything", tool.name);
        }
    }

    #[test]
    fn the_example_policy_registers_these_tools_as_they_are() {
        let policy = include_str!("../../../config/policy.yaml");
        let document = oakallow_policy::document::Document::parse("policy.yaml", policy).unwrap();
        let registered = document.policy.tools;
        assert_eq!(registered.len(), tools().len());
        for (tool, registered) in tools().into_iter().zip(registered) {
            assert_eq!(registered.name.as_str(), tool.name);
            assert_eq!(registered.description, tool.description);
            assert_eq!(registered.parameter_schema, Some(tool.schema));
        }
    }
}
