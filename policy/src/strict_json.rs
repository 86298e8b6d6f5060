//! JSON read the one way that every reader agrees on.
//!
//! A policy decides on what *it* read; the tool acts on what *it* reads. Where parsers differ (duplicate
//! keys, numbers beyond a double, lone surrogates) an attacker can show each a different call, so such
//! input is refused, in the spirit of I-JSON (RFC 7493). The same goes for keys that `serde_json` itself
//! reads as something else than a key.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Deepest nesting of arrays and objects in a call.
pub const CALL_DEPTH_MAX: usize = 64;
/// Most values in a call, those inside of others among them. The smallest of them, an object of one member, takes eight
/// bytes as text and more than 600 in memory: by its length alone a body is not bounded. What carries calls inside is,
/// by its length, and not by this: the record of calls, however many, can be delivered.
pub const CALL_VALUES_MAX: usize = 100_000;
/// Deepest nesting in what carries calls inside: batches of events, requests for approval. Whatever a call
/// may be, its record can be delivered.
pub const ENVELOPE_DEPTH_MAX: usize = CALL_DEPTH_MAX + 32;
/// The largest integer that every JSON reader keeps exactly: 2^53 - 1 (RFC 7493 section 2.2).
const INTEGER_MAX: u64 = (1 << 53) - 1;
/// Significant digits that a double can need: more say something that is lost.
const DIGITS_MAX: usize = 17;
/// From here on the canonical form writes a number with an exponent (RFC 8785 section 3.2.2.3); below it,
/// a whole number is written as an integer, and must then be one that every reader keeps.
const EXPONENT_FROM: f64 = 1e21;
/// Keys that `serde_json` takes for a marker of its own: a reader that builds a `Value` from the same
/// bytes would see what the member's text says in the place of the object.
const RESERVED_PREFIX: &str = "$serde_json::private::";

/// Why the input was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON, or JSON that readers disagree on.
    #[error("{message} (line {line}, column {column})")]
    Syntax {
        /// What is wrong.
        message: String,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// More than can be kept in memory for one call.
    #[error("it has more than {max} values")]
    TooMany {
        /// [`CALL_VALUES_MAX`].
        max: usize,
    },
    /// A number that other readers would change.
    #[error("the number at byte {at} cannot be carried exactly: write it as a string")]
    Number {
        /// Offset of its first character.
        at: usize,
    },
    /// A key that differs from an expected one only by case.
    #[error("the key `{found}` differs from `{expected}` only by case")]
    Case {
        /// As it stands.
        found: String,
        /// As it is known.
        expected: String,
    },
}

/// Parses one JSON text strictly: no duplicate keys, no number that changes on the way, no lone
/// surrogates, at most [`CALL_DEPTH_MAX`] deep and of [`CALL_VALUES_MAX`] values, nothing after it.
pub fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    parse_within(bytes, CALL_DEPTH_MAX, CALL_VALUES_MAX)
}

/// [`parse`] for what has calls inside: at most [`ENVELOPE_DEPTH_MAX`] deep, of any number of values. The caller bounds
/// its length.
pub fn parse_envelope(bytes: &[u8]) -> Result<Value, JsonError> {
    parse_within(bytes, ENVELOPE_DEPTH_MAX, usize::MAX)
}

fn parse_within(bytes: &[u8], depth_max: usize, values_max: usize) -> Result<Value, JsonError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let room = Room::of(values_max);
    let value = Strict { depth: 0, depth_max, room: &room }.deserialize(&mut reader).map_err(|e| {
        if room.is_exceeded.get() { JsonError::TooMany { max: values_max } } else { syntax(&e) }
    })?;
    reader.end().map_err(|e| syntax(&e))?;
    check_numbers(bytes)?;
    Ok(value)
}

/// Reads a part of something larger, in whatever form that has, as strictly as [`parse`] reads a text
/// (numbers aside: their written form is gone): for `serde(deserialize_with)`.
pub(crate) fn optional_value<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Value>, D::Error> {
    let value = Strict { depth: 0, depth_max: CALL_DEPTH_MAX, room: &Room::of(usize::MAX) }.deserialize(d)?;
    Ok(Some(value).filter(|value| !value.is_null()))
}

/// Whether a value is nested deeper than a call may be: one that came inside of something larger.
#[must_use]
pub fn is_too_deep(value: &Value) -> bool {
    fn within(value: &Value, left: usize) -> bool {
        let mut parts: Box<dyn Iterator<Item = &Value>> = match value {
            Value::Array(items) => Box::new(items.iter()),
            Value::Object(members) => Box::new(members.values()),
            _ => return true,
        };
        left > 0 && parts.all(|part| within(part, left - 1))
    }
    !within(value, CALL_DEPTH_MAX)
}

/// Refuses keys of `object` that a case-insensitive reader would take for one of `known`.
pub fn check_case<'k>(
    object: &Map<String, Value>,
    known: impl IntoIterator<Item = &'k str>,
) -> Result<(), JsonError> {
    for expected in known {
        let odd = object.keys().find(|k| k.as_str() != expected && same_but_case(k, expected));
        if let Some(found) = odd {
            return Err(JsonError::Case { found: found.clone(), expected: expected.to_owned() });
        }
    }
    Ok(())
}

/// Equal when case is folded; `ſ` and `K` count, since readers that fold with Unicode take them for
/// `s` and `k`.
fn same_but_case(a: &str, b: &str) -> bool {
    if a.is_ascii() && b.is_ascii() {
        return a.eq_ignore_ascii_case(b);
    }
    let fold = |c: char| match c {
        '\u{017F}' => 's',
        '\u{212A}' => 'k',
        c => c,
    };
    let folded = |s: &str| s.chars().map(fold).flat_map(char::to_lowercase).collect::<String>();
    folded(a) == folded(b)
}

fn syntax(e: &serde_json::Error) -> JsonError {
    let whole = e.to_string();
    let message = whole.split(" at line ").next().unwrap_or("invalid JSON").to_owned();
    JsonError::Syntax { message, line: e.line(), column: e.column() }
}

/// Looks at every number as it is written: what the parser made of it no longer shows what was lost.
fn check_numbers(bytes: &[u8]) -> Result<(), JsonError> {
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = after_string(bytes, at),
            b'-' | b'0'..=b'9' => {
                let rest = bytes.get(at..).unwrap_or(&[]);
                let length = rest.iter().take_while(|b| is_number_byte(**b)).count();
                if !is_exact(rest.get(..length).unwrap_or(&[])) {
                    return Err(JsonError::Number { at });
                }
                at += length;
            }
            _ => at += 1,
        }
    }
    Ok(())
}

/// The offset after the closing quote of the string that opens at `at`.
fn after_string(bytes: &[u8], mut at: usize) -> usize {
    at += 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    at
}

const fn is_number_byte(b: u8) -> bool {
    matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
}

fn is_exact(number: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(number) else { return false };
    if !text.contains(['.', 'e', 'E']) {
        return text.trim_start_matches('-').parse::<u64>().is_ok_and(|n| n <= INTEGER_MAX);
    }
    let mantissa = text.split(['e', 'E']).next().unwrap_or("");
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let significant = digits.trim_start_matches('0');
    let Ok(double) = text.parse::<f64>() else { return false };
    let vanished = double == 0.0 && !significant.is_empty();
    let too_large = double.abs() > INTEGER_MAX as f64 && double.abs() < EXPONENT_FROM;
    significant.len() <= DIGITS_MAX && double.is_finite() && !vanished && !too_large
}

/// How many values may still come.
struct Room {
    values: Cell<usize>,
    is_exceeded: Cell<bool>,
}

impl Room {
    fn of(values: usize) -> Self {
        Self { values: Cell::new(values), is_exceeded: Cell::new(false) }
    }

    fn take<E: serde::de::Error>(&self) -> Result<(), E> {
        let left = self.values.get().checked_sub(1);
        self.is_exceeded.set(left.is_none());
        self.values.set(left.ok_or_else(|| E::custom("too many values"))?);
        Ok(())
    }
}

/// Builds a value, refusing what `serde_json` would let pass.
#[derive(Clone, Copy)]
struct Strict<'r> {
    depth: usize,
    depth_max: usize,
    room: &'r Room,
}

impl Strict<'_> {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == self.depth_max {
            return Err(E::custom(format_args!("nested deeper than {}", self.depth_max)));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;
    fn deserialize<D: serde::Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        self.room.take()?;
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: serde::Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        self.deserialize(d)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Value, E> {
        Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            if key.starts_with(RESERVED_PREFIX) {
                return Err(A::Error::custom(format_args!("the key `{key}` is reserved")));
            }
            if object.contains_key(&key) {
                return Err(A::Error::custom(format_args!("duplicate key `{key}`")));
            }
            let value = members.next_value_seed(inner)?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_readers_disagree_on_is_refused() {
        for bad in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":{"b":1,"\u0062":2}}"#,
            "9007199254740992",
            "-9007199254740992",
            "18446744073709551616",
            "0.100000000000000000001",
            "9007199254740993.0",
            "9007199254740993e0",
            "900719925474099.3e1",
            "1e20",
            "1e400",
            "1e-400",
            r#""\ud800""#,
            "{} {}",
            "[1,]",
            "NaN",
            "",
            "\u{feff}{}",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad} passed");
        }
        let deep = format!("{}{}", "[".repeat(65), "]".repeat(65));
        assert!(parse(deep.as_bytes()).is_err());
        assert!(parse(b"\"\xff\"").is_err());
    }

    #[test]
    fn every_value_counts_wherever_it_stands() {
        let list = |items: usize, item: &str| format!("[{}]", vec![item; items].join(","));
        let one_more = CALL_VALUES_MAX;
        for (text, fits) in [
            (list(one_more - 1, "0"), true),
            (list(one_more, "0"), false),
            (list(one_more / 2 - 1, r#"{"":""}"#), true),
            (list(one_more / 2, r#"{"":""}"#), false),
            (list(one_more / 4, "[[],null,true]"), false),
        ] {
            let too_many = JsonError::TooMany { max: CALL_VALUES_MAX };
            assert_eq!(parse(text.as_bytes()).err(), (!fits).then_some(too_many));
            assert!(parse_envelope(text.as_bytes()).is_ok());
        }
    }

    #[test]
    fn an_object_that_serde_json_would_replace_is_refused() {
        let disguised = r#"{"to":{"$serde_json::private::RawValue":"\"mallory\""}}"#;
        assert!(parse(disguised.as_bytes()).is_err());
        let number = r#"{"$serde_json::private::Number":"1"}"#;
        assert!(parse(number.as_bytes()).is_err());
    }

    #[test]
    fn ordinary_json_passes() {
        for good in [
            "9007199254740991",
            "-1.5e10",
            "0.1",
            "0.30000000000000004",
            "1e21",
            "9007199254740991.0",
            r#"{"a":[1,"x\"9e999",null,true]}"#,
            "0.0",
            "1e300",
        ] {
            let ours = parse(good.as_bytes()).unwrap();
            assert_eq!(ours, serde_json::from_str::<Value>(good).unwrap());
        }
        let deep = format!("{}{}", "[".repeat(64), "]".repeat(64));
        assert!(parse(deep.as_bytes()).is_ok());
    }

    #[test]
    fn keys_that_differ_by_case_are_refused() {
        let object = parse(br#"{"Method":"x"}"#).unwrap();
        assert!(check_case(object.as_object().unwrap(), ["method"]).is_err());
        let object = parse("{\"argument\u{17f}\":1}".as_bytes()).unwrap();
        assert!(check_case(object.as_object().unwrap(), ["arguments"]).is_err());
        let object = parse(br#"{"method":"x","other":1}"#).unwrap();
        assert!(check_case(object.as_object().unwrap(), ["method"]).is_ok());
    }
}
