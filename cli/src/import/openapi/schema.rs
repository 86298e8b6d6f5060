//! Schemas of an OpenAPI document as JSON Schema 2020-12 that stands by itself: what is referred to comes
//! along in `$defs`, so that a schema may be recursive.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jsonschema::PatternOptions;
use serde_json::{Map, Value, json};

use super::document::{Dialect, Document};

/// Parts of one tool's schema. Each takes some 13 bytes at least (`"a":{"x":1},`), and a schema 64 KiB at most.
const PARTS_MAX: usize = 5_000;
/// Members that hold one schema, a list of schemas, or schemas by name.
const ONE: [&str; 11] = [
    "items",
    "additionalProperties",
    "not",
    "if",
    "then",
    "else",
    "contains",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
    "contentSchema",
];
const LIST: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
const NAMED: [&str; 5] = ["properties", "patternProperties", "dependentSchemas", "$defs", "definitions"];
/// Members that say nothing about a value, or give a schema a name of its own.
const DROPPED: [&str; 11] = [
    "example",
    "discriminator",
    "xml",
    "externalDocs",
    "nullable",
    "$schema",
    "$id",
    "$anchor",
    "$dynamicAnchor",
    "$comment",
    "$vocabulary",
];

/// The schemas of one tool.
pub(super) struct Schemas<'d> {
    document: &'d Document,
    /// By reference: the name under `$defs`.
    names: BTreeMap<String, String>,
    /// Those names.
    taken: BTreeSet<String>,
    /// References whose schemas are still to come.
    open: VecDeque<String>,
    parts: usize,
    /// What was left out, for people.
    pub(super) notes: Vec<String>,
}

impl<'d> Schemas<'d> {
    pub(super) fn new(document: &'d Document) -> Self {
        Self {
            document,
            names: BTreeMap::new(),
            taken: BTreeSet::new(),
            open: VecDeque::new(),
            parts: 0,
            notes: Vec::new(),
        }
    }

    /// The schemas that were referred to so far, and those that they refer to.
    pub(super) fn definitions(&mut self) -> Result<Map<String, Value>, String> {
        let mut definitions = Map::new();
        while let Some(reference) = self.open.pop_front() {
            let schema = self.convert(self.document.target(&reference)?)?;
            if let Some(name) = self.names.get(&reference) {
                definitions.insert(name.clone(), schema);
            }
        }
        Ok(definitions)
    }

    /// One schema, in 2020-12.
    pub(super) fn convert(&mut self, schema: &Value) -> Result<Value, String> {
        self.parts += 1;
        if self.parts > PARTS_MAX {
            return Err("its schema has too many parts".to_owned());
        }
        let Some(members) = schema.as_object() else {
            return if schema.is_boolean() {
                Ok(schema.clone())
            } else {
                Err("a schema is no object".to_owned())
            };
        };
        let mut converted = Map::new();
        if let Some(reference) = members.get("$ref") {
            let reference = reference.as_str().ok_or("a `$ref` is no text")?;
            converted.insert("$ref".to_owned(), self.local(reference)?.into());
            if self.document.dialect == Dialect::V30 {
                // What stands beside a reference is ignored there.
                return Ok(Value::Object(converted));
            }
        }
        for (name, value) in members.iter().filter(|(name, _)| *name != "$ref") {
            self.member(name, value, &mut converted)?;
        }
        if self.document.dialect == Dialect::V30 {
            bounds(members, &mut converted);
            nullable(members, &mut converted);
        }
        without_read_only(&mut converted);
        Ok(Value::Object(converted))
    }

    fn member(
        &mut self,
        name: &str,
        value: &Value,
        converted: &mut Map<String, Value>,
    ) -> Result<(), String> {
        let value = match value {
            _ if DROPPED.contains(&name) || name.starts_with("x-") => return Ok(()),
            _ if name == "$dynamicRef" => return Err("`$dynamicRef` is not understood".to_owned()),
            Value::Object(named) if NAMED.contains(&name) => {
                let converted = named.iter().map(|(name, part)| Ok((name.clone(), self.convert(part)?)));
                Value::Object(converted.collect::<Result<_, String>>()?)
            }
            Value::Array(parts) if LIST.contains(&name) => {
                Value::Array(parts.iter().map(|part| self.convert(part)).collect::<Result<_, _>>()?)
            }
            part if ONE.contains(&name) => self.convert(part)?,
            Value::String(pattern) if name == "pattern" && !is_linear(pattern) => {
                self.notes
                    .push(format!("the pattern {pattern:?} cannot be checked in linear time: left out"));
                return Ok(());
            }
            other => other.clone(),
        };
        converted.insert(name.to_owned(), value);
        Ok(())
    }

    /// Where what is referred to will be.
    fn local(&mut self, reference: &str) -> Result<String, String> {
        self.document.target(reference)?;
        if let Some(name) = self.names.get(reference) {
            return Ok(format!("#/$defs/{name}"));
        }
        let last = reference.rsplit('/').next().unwrap_or_default();
        let plain: String = last.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let mut name = plain.clone();
        for another in 2.. {
            if self.taken.insert(name.clone()) {
                break;
            }
            name = format!("{plain}_{another}");
        }
        let place = format!("#/$defs/{name}");
        self.names.insert(reference.to_owned(), name);
        self.open.push_back(reference.to_owned());
        Ok(place)
    }
}

/// Whether the engine that checks arguments, in time that grows with their length, takes the pattern.
fn is_linear(pattern: &str) -> bool {
    jsonschema::options()
        .with_pattern_options(PatternOptions::regex())
        .build(&json!({"pattern": pattern}))
        .is_ok()
}

/// OpenAPI 3.0 says by a boolean whether a bound itself is left out.
fn bounds(members: &Map<String, Value>, converted: &mut Map<String, Value>) {
    for (exclusive, bound) in [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")] {
        let Some(flag) = members.get(exclusive).and_then(Value::as_bool) else { continue };
        converted.remove(exclusive);
        if flag && let Some(limit) = converted.remove(bound) {
            converted.insert(exclusive.to_owned(), limit);
        }
    }
}

/// OpenAPI 3.0 says by a boolean that a value may be `null`.
fn nullable(members: &Map<String, Value>, converted: &mut Map<String, Value>) {
    if members.get("nullable") != Some(&Value::Bool(true)) {
        return;
    }
    if let Some(Value::String(kind)) = converted.get("type") {
        let kinds = json!([kind, "null"]);
        converted.insert("type".to_owned(), kinds);
    }
    if let Some(Value::Array(values)) = converted.get_mut("enum")
        && !values.contains(&Value::Null)
    {
        values.push(Value::Null);
    }
}

/// What only answers have is neither asked for nor taken: read-only properties.
fn without_read_only(schema: &mut Map<String, Value>) {
    let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
    let mut gone = Vec::new();
    properties.retain(|name, property| {
        let keep = property.get("readOnly") != Some(&Value::Bool(true));
        if !keep {
            gone.push(name.clone());
        }
        keep
    });
    if let Some(Value::Array(required)) = schema.get_mut("required") {
        required.retain(|name| !gone.iter().any(|gone| name == gone));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(version: &str, schema: &Value) -> Result<(Value, Map<String, Value>), String> {
        let document = json!({"openapi": version, "components": {"schemas": {
            "Node": {"type": "object", "properties": {"next": {"$ref": "#/components/schemas/Node"}}},
            "Id": {"type": "integer"}}}, "x": {"Id": {"type": "string"}}});
        let document = Document::parse("x", &document.to_string()).unwrap();
        let mut schemas = Schemas::new(&document);
        let schema = schemas.convert(schema)?;
        Ok((schema, schemas.definitions()?))
    }

    #[test]
    fn what_3_0_says_otherwise_is_said_as_2020_12_has_it() {
        for (schema, expected) in [
            (json!({"type": "string", "nullable": true}), json!({"type": ["string", "null"]})),
            (json!({"type": "string", "nullable": false}), json!({"type": "string"})),
            (
                json!({"type": "string", "enum": ["a"], "nullable": true}),
                json!({"type": ["string", "null"], "enum": ["a", null]}),
            ),
            (json!({"minimum": 1, "exclusiveMinimum": true}), json!({"exclusiveMinimum": 1})),
            (json!({"maximum": 1, "exclusiveMaximum": false}), json!({"maximum": 1})),
            (
                json!({"$ref": "#/components/schemas/Id", "description": "ignored"}),
                json!({"$ref": "#/$defs/Id"}),
            ),
            (json!({"type": "object", "example": {}, "xml": {}, "x-y": 1}), json!({"type": "object"})),
            // A property of that name is no keyword.
            (
                json!({"properties": {"example": {"type": "null"}}}),
                json!({"properties": {"example": {"type": "null"}}}),
            ),
        ] {
            assert_eq!(converted("3.0.3", &schema).unwrap().0, expected);
        }
    }

    #[test]
    fn what_is_referred_to_comes_along_once_even_when_it_refers_to_itself() {
        let schema = json!({"properties": {"a": {"$ref": "#/components/schemas/Node"},
            "b": {"$ref": "#/components/schemas/Id", "description": "kept"}, "c": {"$ref": "#/x/Id"}}});
        let (schema, definitions) = converted("3.1.0", &schema).unwrap();
        let expected = json!({"properties": {"a": {"$ref": "#/$defs/Node"},
            "b": {"$ref": "#/$defs/Id", "description": "kept"}, "c": {"$ref": "#/$defs/Id_2"}}});
        assert_eq!(schema, expected);
        assert_eq!(definitions.keys().collect::<Vec<_>>(), ["Id", "Id_2", "Node"]);
        assert_eq!(definitions["Node"]["properties"]["next"]["$ref"], "#/$defs/Node");
        assert_eq!(definitions["Id_2"]["type"], "string");
    }

    #[test]
    fn what_only_answers_have_is_not_asked_for() {
        let schema = json!({"required": ["id", "name"], "properties": {
            "id": {"readOnly": true, "type": "integer"}, "name": {"type": "string"}}});
        let expected = json!({"required": ["name"], "properties": {"name": {"type": "string"}}});
        assert_eq!(converted("3.0.0", &schema).unwrap().0, expected);
    }

    #[test]
    fn what_leads_elsewhere_or_is_no_schema_is_refused() {
        for (schema, why) in [
            (json!({"items": {"$ref": "https://example.com/x"}}), "out of the document"),
            (json!({"items": {"$ref": "#/components/schemas/None"}}), "nowhere"),
            (json!({"$dynamicRef": "#x"}), "$dynamicRef"),
            (json!({"items": 7}), "no object"),
        ] {
            let error = converted("3.1.0", &schema).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn what_would_be_too_long_anyway_is_given_up_early() {
        let many: Map<String, Value> = (0..=PARTS_MAX).map(|i| (format!("p{i}"), json!({}))).collect();
        let error = converted("3.1.0", &json!({"properties": many})).unwrap_err();
        assert!(error.contains("too many parts"), "{error}");
    }

    #[test]
    fn a_pattern_that_could_take_for_ever_is_left_out_and_told() {
        let document = Document::parse("x", "{\"openapi\": \"3.1.0\"}").unwrap();
        let mut schemas = Schemas::new(&document);
        let schema = schemas.convert(&json!({"type": "string", "pattern": "^(?=a)b"})).unwrap();
        assert_eq!(schema, json!({"type": "string"}));
        assert!(schemas.notes[0].contains("(?=a)"), "{:?}", schemas.notes);
    }
}
