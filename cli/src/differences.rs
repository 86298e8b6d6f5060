//! How two JSON values differ: as people read it, and as a merge patch says it.

use std::fmt;

use oakallow_policy::id::is_invisible;
use serde_json::{Map, Value};

/// Longest value that is shown, in characters.
const SHOWN_MAX: usize = 72;

/// One place in which two values differ.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Difference<'v> {
    /// JSON pointer (RFC 6901).
    at: String,
    was: Option<&'v Value>,
    is: Option<&'v Value>,
}

impl fmt::Display for Difference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, was, is } = self;
        let at = tame(at);
        match (was, is) {
            (None, Some(is)) => write!(f, "{at}: + {}", shown(is)),
            (Some(was), None) => write!(f, "{at}: - {}", shown(was)),
            (Some(was), Some(is)) => write!(f, "{at}: {} -> {}", shown(was), shown(is)),
            (None, None) => Ok(()),
        }
    }
}

/// A value on one line, cut where it is long.
fn shown(value: &Value) -> String {
    let text = tame(&value.to_string());
    match text.char_indices().nth(SHOWN_MAX) {
        None => text,
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

/// A text from elsewhere, fit for a terminal: what is invisible could move the cursor or turn the line.
pub(crate) fn tame(text: &str) -> String {
    text.chars().map(|c| if is_invisible(c) { '\u{FFFD}' } else { c }).collect()
}

/// Every place in which the values differ. Lists are compared as wholes.
pub(crate) fn differences<'v>(was: &'v Value, is: &'v Value) -> Vec<Difference<'v>> {
    let mut found = Vec::new();
    collect(String::new(), Some(was), Some(is), &mut found);
    found
}

fn collect<'v>(at: String, was: Option<&'v Value>, is: Option<&'v Value>, found: &mut Vec<Difference<'v>>) {
    match (was, is) {
        (Some(was), Some(is)) if was == is => {}
        (Some(Value::Object(was)), Some(Value::Object(is))) => {
            for name in was.keys().chain(is.keys().filter(|name| !was.contains_key(*name))) {
                let at = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                collect(at, was.get(name), is.get(name), found);
            }
        }
        _ => found.push(Difference { at, was, is }),
    }
}

/// The merge patch (RFC 7396) that makes `is` of `was`. The members named in `whole` are replaced, not merged.
pub(crate) fn patch(was: &Map<String, Value>, is: &Map<String, Value>, whole: &[&str]) -> Map<String, Value> {
    let mut patch = Map::new();
    for name in was.keys().filter(|name| !is.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    for (name, new) in is.iter().filter(|(name, new)| was.get(*name) != Some(*new)) {
        let value = match (was.get(name), new) {
            (Some(Value::Object(was)), Value::Object(is)) if !whole.contains(&name.as_str()) => {
                Value::Object(self::patch(was, is, whole))
            }
            _ => new.clone(),
        };
        patch.insert(name.clone(), value);
    }
    patch
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_place_is_named_with_both_values() {
        let was = json!({"a": {"b/c": 1, "d": [1]}, "gone": true});
        let is = json!({"a": {"b/c": 2, "d": [1]}, "new": "x"});
        let told: Vec<String> = differences(&was, &is).iter().map(ToString::to_string).collect();
        assert_eq!(told, ["/a/b~1c: 1 -> 2", "/gone: - true", "/new: + \"x\""]);
        assert!(differences(&was, &was).is_empty());
    }

    #[test]
    fn what_is_shown_is_short_and_visible() {
        let (was, is) = (json!("x"), json!(format!("\u{202e}\u{9b}{}", "y".repeat(200))));
        let told = differences(&was, &is).first().unwrap().to_string();
        assert!(
            told.chars().count() < 100 && !told.contains('\u{202e}') && !told.contains('\u{9b}'),
            "{told}"
        );
    }

    #[test]
    fn a_patch_says_what_is_new_and_what_is_gone() {
        let was =
            json!({"approval": {"levels": 2, "timeout_s": 60}, "same": 1, "schema": {"a": 1}, "gone": 1});
        let is = json!({"approval": {"levels": 1}, "same": 1, "schema": {"b": 1}});
        let made = patch(was.as_object().unwrap(), is.as_object().unwrap(), &["schema"]);
        let expected =
            json!({"approval": {"levels": 1, "timeout_s": null}, "schema": {"b": 1}, "gone": null});
        assert_eq!(Value::Object(made), expected);
    }
}
