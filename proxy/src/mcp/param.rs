//! `Mcp-Param-*`: arguments that a client repeats in the head (2026-07-28). Which argument a field repeats
//! is for the tool's schema to say (`x-mcp-header`); where the registered one does not, the field's name is
//! the argument's. A field that repeats nothing, or something else than what the body says, is refused:
//! somebody on the way may act on it.

use http::{HeaderMap, HeaderName};
use serde_json::{Map, Value};

use super::era::decode;

const PREFIX: &str = "mcp-param-";
/// In a schema: the end of the name of the field that repeats the property.
const ANNOTATION: &str = "x-mcp-header";

/// The fields of a request that repeat arguments.
pub(super) fn fields(headers: &HeaderMap) -> impl Iterator<Item = &HeaderName> {
    headers.keys().filter(|name| name.as_str().starts_with(PREFIX))
}

/// Checks them against the arguments of a call, by the tool's schema.
pub(super) fn check(
    headers: &HeaderMap,
    arguments: Option<&Value>,
    schema: Option<&Value>,
) -> Result<(), String> {
    for name in fields(headers) {
        let end = name.as_str().strip_prefix(PREFIX).unwrap_or_default();
        let mut values = headers.get_all(name).iter();
        let said = values.next().and_then(|value| decode(value.to_str().ok()?));
        if values.next().is_some() {
            return Err(format!("the header {name} stands twice"));
        }
        let repeated = arguments.and_then(|arguments| {
            schema
                .and_then(|schema| annotated(arguments, schema, end))
                .or_else(|| top_level(arguments.as_object()?, end))
        });
        if !said.zip(repeated).is_some_and(|(said, repeated)| says(&said, repeated)) {
            return Err(format!("the header {name} and the body disagree"));
        }
    }
    Ok(())
}

/// The argument whose property the schema gives this name in the head, as deep as `properties` leads.
fn annotated<'a>(arguments: &'a Value, schema: &Value, end: &str) -> Option<&'a Value> {
    let properties = schema.get("properties")?.as_object()?;
    properties.iter().find_map(|(name, of_member)| {
        let member = arguments.get(name)?;
        let called = of_member.get(ANNOTATION).and_then(Value::as_str);
        if called.is_some_and(|called| called.eq_ignore_ascii_case(end)) {
            return Some(member);
        }
        annotated(member, of_member, end)
    })
}

fn top_level<'a>(arguments: &'a Map<String, Value>, end: &str) -> Option<&'a Value> {
    arguments.iter().find(|(name, _)| name.eq_ignore_ascii_case(end)).map(|(_, value)| value)
}

/// Whether a field says this argument; `42.0` says 42.
fn says(said: &str, argument: &Value) -> bool {
    match argument {
        Value::String(text) => said == text,
        Value::Bool(yes) => said == if *yes { "true" } else { "false" },
        Value::Number(number) => {
            let as_double = || said.parse::<f64>().ok().zip(number.as_f64());
            said == number.to_string()
                || as_double().is_some_and(|(a, b)| a.total_cmp(&b) == std::cmp::Ordering::Equal)
        }
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use serde_json::json;

    fn holds(name: &'static str, value: &'static str) -> bool {
        let headers =
            HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))]);
        let arguments = json!({
            "region": "west", "count": 42, "dry": true, "place": {"zone": "größe"}, "none": null, "id": "7",
        });
        let schema = json!({"properties": {
            "id": {"x-mcp-header": "Ticket"},
            "place": {"properties": {"zone": {"x-mcp-header": "Zone"}}},
        }});
        check(&headers, Some(&arguments), Some(&schema)).is_ok()
    }

    #[test]
    fn a_field_says_what_the_body_says() {
        for (name, value) in [
            ("mcp-param-region", "west"),
            ("mcp-param-count", "42"),
            ("mcp-param-count", "42.0"),
            ("mcp-param-dry", "true"),
            ("mcp-param-ticket", "7"),
            ("mcp-param-zone", "=?base64?Z3LDtsOfZQ==?="),
        ] {
            assert!(holds(name, value), "{name}: {value}");
        }
    }

    #[test]
    fn a_field_that_says_something_else_is_refused() {
        for (name, value) in [
            ("mcp-param-region", "east"),
            ("mcp-param-region", "West"),
            ("mcp-param-region", "=?base64?!?="),
            ("mcp-param-count", "43"),
            ("mcp-param-dry", "false"),
            ("mcp-param-none", "null"),
            ("mcp-param-none", ""),
            ("mcp-param-ticket", "8"),
            ("mcp-param-zone", "west"),
            ("mcp-param-other", "x"),
            ("mcp-param-", "x"),
        ] {
            assert!(!holds(name, value), "{name}: {value}");
        }
    }

    #[test]
    fn where_there_are_no_arguments_none_is_repeated() {
        let headers = HeaderMap::from_iter([(
            HeaderName::from_static("mcp-param-region"),
            HeaderValue::from_static("west"),
        )]);
        assert!(check(&headers, None, None).is_err());
        assert!(check(&HeaderMap::new(), None, None).is_ok());
    }
}
