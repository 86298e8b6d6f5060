//! Arguments against the tool's registered JSON Schema (2020-12).

use std::sync::Arc;

use jsonschema::Validator;
use oakallow_policy::Tool;
use serde_json::Value;

use crate::refusal::Refusal;

/// Compiled schemas that are kept.
const SCHEMAS_MAX: u64 = 10_000;
/// Largest schema that is compiled: a larger one costs memory in every proxy, whoever registered it.
const SCHEMA_BYTES_MAX: usize = 64 * 1024;

/// Compiled schemas by the hash of the definition they belong to.
pub struct Schemas(moka::sync::Cache<[u8; 32], Result<Arc<Validator>, String>>);

impl Default for Schemas {
    fn default() -> Self {
        Self(moka::sync::Cache::new(SCHEMAS_MAX))
    }
}

impl Schemas {
    /// Refuses arguments that do not fit. A schema that cannot be compiled fits nothing.
    pub fn check(&self, tool: &Tool, definition: [u8; 32], arguments: &Value) -> Result<(), Refusal> {
        let Some(schema) = &tool.parameter_schema else { return Ok(()) };
        let compiled = self.0.get_with(definition, || compile(schema));
        let validator = compiled.map_err(|problem| {
            Refusal::PolicyUnavailable(format!("the schema of `{}` cannot be used: {problem}", tool.name))
        })?;
        match validator.validate(arguments) {
            Ok(()) => Ok(()),
            Err(e) => {
                // The message with values masked: arguments may be secret, and errors are logged.
                let pointer = e.instance_path().as_str().to_owned();
                Err(Refusal::InvalidArguments { message: e.masked().to_string(), pointer })
            }
        }
    }
}

fn compile(schema: &Value) -> Result<Arc<Validator>, String> {
    if schema.to_string().len() > SCHEMA_BYTES_MAX {
        return Err(format!("it is larger than {SCHEMA_BYTES_MAX} bytes"));
    }
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .with_pattern_options(jsonschema::PatternOptions::regex())
        .build(schema)
        .map(Arc::new)
        .map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tool(schema: &Value) -> Tool {
        serde_json::from_value(json!({"name": "t", "parameter_schema": schema})).unwrap()
    }

    #[test]
    fn the_error_names_the_place_and_not_the_value() {
        let tool = tool(&json!({
            "type": "object", "required": ["id"], "additionalProperties": false,
            "properties": {"id": {"type": "string", "pattern": "^[a-z]+$"}}
        }));
        let schemas = Schemas::default();
        let hash = tool.definition_hash().unwrap();
        assert!(schemas.check(&tool, hash, &json!({"id": "abc"})).is_ok());
        let refusal = schemas.check(&tool, hash, &json!({"id": "S3CRET"})).unwrap_err();
        let Refusal::InvalidArguments { pointer, message } = refusal else { panic!("{refusal:?}") };
        assert_eq!(pointer, "/id");
        assert!(!message.contains("S3CRET"), "{message}");
        assert!(schemas.check(&tool, hash, &json!({"id": "a", "other": 1})).is_err());
    }

    #[test]
    fn a_remote_reference_is_not_followed() {
        let tool = tool(&json!({"$ref": "http://127.0.0.1:1/schema.json"}));
        let refusal =
            Schemas::default().check(&tool, tool.definition_hash().unwrap(), &json!({})).unwrap_err();
        assert_eq!(refusal.code(), "policy_unavailable");
    }

    #[test]
    fn a_schema_that_is_too_large_fits_nothing() {
        let tool = tool(&json!({"description": "x".repeat(SCHEMA_BYTES_MAX)}));
        let refusal =
            Schemas::default().check(&tool, tool.definition_hash().unwrap(), &json!({})).unwrap_err();
        assert_eq!(refusal.code(), "policy_unavailable");
    }
}
