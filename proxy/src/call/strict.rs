//! Arguments that every reader understands alike, however it compares the names of members.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use oakallow_policy::Tool;
use oakallow_policy::strict_json::{self, JsonError};
use serde_json::{Map, Value};

use crate::refusal::Refusal;

/// Reads a body strictly: [`strict_json::parse`], and no two members of one object that differ only by
/// case. A reader that ignores case takes the last of them, wherever they stand.
pub fn parse(body: &[u8]) -> Result<Value, JsonError> {
    let value = strict_json::parse(body)?;
    check_twins(&value)?;
    Ok(value)
}

fn check_twins(value: &Value) -> Result<(), JsonError> {
    match value {
        Value::Object(members) if has_few(members) => {
            for (at, name) in members.keys().enumerate() {
                let twin = members.keys().take(at).find(|other| other.eq_ignore_ascii_case(name));
                if let Some(expected) = twin {
                    return Err(JsonError::Case { found: name.clone(), expected: expected.clone() });
                }
            }
            members.values().try_for_each(check_twins)
        }
        Value::Object(members) => {
            let mut seen: HashMap<String, &String> = HashMap::with_capacity(members.len());
            for (name, value) in members {
                match seen.entry(folded(name)) {
                    Entry::Occupied(other) => {
                        let expected = (*other.get()).clone();
                        return Err(JsonError::Case { found: name.clone(), expected });
                    }
                    Entry::Vacant(place) => place.insert(name),
                };
                check_twins(value)?;
            }
            Ok(())
        }
        Value::Array(items) => items.iter().try_for_each(check_twins),
        _ => Ok(()),
    }
}

/// Whether comparing each with each is the quicker way, and case means the same to every reader.
fn has_few(members: &Map<String, Value>) -> bool {
    members.len() <= 16 && members.keys().all(|name| name.is_ascii())
}

/// As the most lenient of readers compares: by upper case, then by lower case (Java), so that `ſ`, `ı` and
/// the sign of Kelvin count as `s`, `i` and `k`.
fn folded(name: &str) -> String {
    let dotted = |c: char| if c == '\u{130}' { 'i' } else { c };
    name.chars().map(dotted).flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// Refuses members that a reader which ignores case would take for one that the tool's schema or a
/// pointer names.
pub fn check_members(parameters: &Value, tool: Option<&Tool>, pointers: &[&String]) -> Result<(), Refusal> {
    let bad = |e: JsonError| Refusal::InvalidRequest(e.to_string());
    if let Some(members) = parameters.as_object() {
        // Further down a pointer's names are there as they are written, or the call is refused.
        let pointed = pointers.iter().filter_map(|p| p.split('/').nth(1));
        strict_json::check_case(members, pointed).map_err(bad)?;
    }
    tool.and_then(|t| t.parameter_schema.as_ref())
        .map_or(Ok(()), |s| check_schema(parameters, s))
        .map_err(bad)
}

/// As far as the schema says by `properties` and `items` what there is.
fn check_schema(value: &Value, schema: &Value) -> Result<(), JsonError> {
    match value {
        Value::Object(members) => {
            let known = schema.get("properties").and_then(Value::as_object);
            for (name, of_member) in known.into_iter().flat_map(Map::iter) {
                strict_json::check_case(members, [name.as_str()])?;
                if let Some(member) = members.get(name) {
                    check_schema(member, of_member)?;
                }
            }
            Ok(())
        }
        Value::Array(items) => {
            let of_items = schema.get("items");
            of_items.map_or(Ok(()), |schema| items.iter().try_for_each(|item| check_schema(item, schema)))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn members_that_differ_by_case_are_refused_at_any_depth() {
        for bad in [
            r#"{"name":"dev","Name":"prod"}"#,
            r#"{"target":{"name":"dev","NAME":"prod"}}"#,
            r#"[{"a":[{"id":1,"Id":2}]}]"#,
            "{\"s\":1,\"\u{17f}\":2}",
            "{\"k\":1,\"\u{212a}\":2}",
            "{\"i\":1,\"\u{131}\":2}",
            "{\"i\":1,\"\u{130}\":2}",
            "{\"straße\":1,\"STRASSE\":2}",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        for good in [r#"{"a":{"name":1},"b":{"Name":1}}"#, r#"{"a":1,"b":[{"a":1},{"A":1}]}"#, "7"] {
            assert!(parse(good.as_bytes()).is_ok(), "{good}");
        }
    }

    #[test]
    fn a_member_that_the_schema_knows_otherwise_is_refused_at_any_depth() {
        let schema = json!({"properties": {"options": {"properties": {"force": {}}}, "items": {"items": {"properties": {"id": {}}}}}});
        for bad in [
            json!({"Options": {}}),
            json!({"options": {"Force": true}}),
            json!({"items": [{"id": 1}, {"ID": 1}]}),
        ] {
            assert!(check_schema(&bad, &schema).is_err(), "{bad}");
        }
        let good =
            json!({"options": {"force": true, "Other": 1}, "items": [{"id": 1}], "more": {"Force": 1}});
        assert!(check_schema(&good, &schema).is_ok());
    }
}
