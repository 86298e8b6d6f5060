//! Parameter schemas of tools: JSON Schema 2020-12, checked before they are stored.

use std::sync::Arc;

use jsonschema::{Draft, PatternOptions, Validator};
use moka::sync::Cache;
use oakallow_policy::Tool;
use serde_json::Value;

use crate::error::ApiError;

/// Longest schema. Generous for hand-written ones; a schema is compiled by every proxy that serves it.
pub(crate) const SCHEMA_BYTES_MAX: usize = 64 * 1024;
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Refuses what is not a schema, is too long, or points outside of itself.
pub fn check(schema: &Value) -> Result<(), String> {
    let bytes = serde_json::to_vec(schema).map_or(usize::MAX, |text| text.len());
    if bytes > SCHEMA_BYTES_MAX {
        return Err(format!("the schema takes {bytes} bytes; {SCHEMA_BYTES_MAX} are allowed"));
    }
    if !schema.is_object() {
        return Err("a parameter schema is a JSON object".to_owned());
    }
    if schema.get("$schema").is_some_and(|dialect| dialect != DIALECT) {
        return Err(format!("$schema is {DIALECT}, or left out"));
    }
    only_local_references(schema)?;
    compile(schema).map(|_| ())
}

fn compile(schema: &Value) -> Result<Validator, String> {
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        // Linear time, whatever the pattern.
        .with_pattern_options(PatternOptions::regex())
        .build(schema)
        .map_err(|e| format!("{e} (at {})", e.instance_path()))
}

fn only_local_references(schema: &Value) -> Result<(), String> {
    match schema {
        Value::Array(items) => items.iter().try_for_each(only_local_references),
        Value::Object(members) => members.iter().try_for_each(|(name, value)| {
            let reference = matches!(name.as_str(), "$ref" | "$dynamicRef");
            match value.as_str() {
                Some(target) if reference && !target.starts_with('#') => {
                    Err(format!("`{name}` may only point into the schema itself, not to `{target}`"))
                }
                _ => only_local_references(value),
            }
        }),
        _ => Ok(()),
    }
}

/// Compiled schemas, by the hash of the definition that they are part of.
pub(crate) struct Validators(Cache<[u8; 32], Arc<Validator>>);

impl Validators {
    pub(crate) fn new() -> Self {
        Self(Cache::new(1_000))
    }

    /// 422 unless the arguments fit the tool's schema.
    pub(crate) fn check(&self, tool: &Tool, arguments: &Value) -> Result<(), ApiError> {
        let Some(schema) = &tool.parameter_schema else { return Ok(()) };
        let hash = tool.definition_hash().map_err(|e| ApiError::internal(&e))?;
        let validator = self
            .0
            .try_get_with(hash, || compile(schema).map(Arc::new))
            .map_err(|e| ApiError::internal(&format!("the stored schema of `{}`: {e}", tool.name)))?;
        validator.validate(arguments).map_err(|e| {
            ApiError::new(
                http::StatusCode::UNPROCESSABLE_ENTITY,
                "invalid_arguments",
                format!("{}.", e.masked()),
            )
            .with("pointer", format!("/parameters{}", e.instance_path()))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn schemas_that_cannot_be_trusted_are_refused() {
        for (bad, why) in [
            (json!({"type": "objekt"}), "objekt"),
            (json!({"$ref": "https://example.com/schema"}), "only point into"),
            (json!({"properties": {"a": {"$dynamicRef": "file:///etc/passwd"}}}), "only point into"),
            (json!({"$schema": "http://json-schema.org/draft-04/schema#"}), "$schema"),
            (json!({"pattern": "(a)\\1"}), "a"),
            (json!({"description": "x".repeat(SCHEMA_BYTES_MAX)}), "bytes"),
            (json!([]), "object"),
            (json!({"$ref": "#/$defs/missing"}), "missing"),
        ] {
            let error = check(&bad).expect_err(&bad.to_string());
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn an_ordinary_schema_passes() {
        let good = json!({"$schema": DIALECT, "type": "object", "properties": {"n": {"$ref": "#/$defs/n"}},
            "$defs": {"n": {"type": "integer", "minimum": 0}}, "additionalProperties": false});
        check(&good).unwrap();
    }
}
