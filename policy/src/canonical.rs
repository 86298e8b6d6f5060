//! Canonical bytes and digests: the one place that says what is hashed and how it is written.

mod compact;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::{Map, Number, Value};
use sha2::{Digest, Sha256};

/// A value that has no canonical form (a map with keys that are not strings, a NaN).
#[derive(Debug, thiserror::Error)]
#[error("the value has no canonical JSON form: {0}")]
pub struct CanonicalError(String);

/// The JSON Canonicalization Scheme of RFC 8785: sorted keys, shortest numbers, no white space.
pub fn json_bytes<T: Serialize>(value: &T) -> Result<Vec<u8>, CanonicalError> {
    serde_json_canonicalizer::to_vec(value).map_err(|e| CanonicalError(e.to_string()))
}

/// [`json_bytes`] of a value, without the sorting and the buffers where it is in order already.
pub fn value_bytes(value: &Value) -> Result<Vec<u8>, CanonicalError> {
    ordered_bytes(value, Some(value), &Map::new())
}

/// [`json_bytes`] of something whose members stand in canonical order, and whose numbers are whole and exact;
/// `part` and `more` are what is in it of which that is not known.
pub(crate) fn ordered_bytes<T: Serialize>(
    value: &T,
    part: Option<&Value>,
    more: &Map<String, Value>,
) -> Result<Vec<u8>, CanonicalError> {
    if part.is_none_or(is_ordered) && is_ordered_map(more) {
        return compact::to_vec(value).map_err(|e| CanonicalError(e.to_string()));
    }
    json_bytes(value)
}

/// Whether a value is written canonically as it stands. Of ASCII, the order of bytes is the order of UTF-16.
fn is_ordered(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => true,
        Value::Number(number) => is_exact(number),
        Value::Array(items) => items.iter().all(is_ordered),
        Value::Object(members) => is_ordered_map(members),
    }
}

/// [`is_ordered`], of an object.
fn is_ordered_map(members: &Map<String, Value>) -> bool {
    members.keys().all(|name| name.is_ascii())
        && members.keys().is_sorted()
        && members.values().all(is_ordered)
}

/// Written alike as an integer and as a double.
fn is_exact(number: &Number) -> bool {
    number.as_i64().is_some_and(|n| n.unsigned_abs() < 1 << 53)
}

/// SHA-256 (FIPS 180-4).
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Lower-case hexadecimal: the written form of digests in events, tables and the API.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    let mut text = vec![0; bytes.len() * 2];
    for (pair, byte) in text.as_chunks_mut().0.iter_mut().zip(bytes) {
        *pair = [digit(byte >> 4), digit(byte & 15)];
    }
    String::from_utf8(text).unwrap_or_default()
}

/// The bytes of lower-case hexadecimal text; `None` when it is anything else.
#[must_use]
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2)
        || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    {
        return None;
    }
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(text.get(i..i + 2)?, 16).ok()).collect()
}

/// Base64url without padding (RFC 4648 section 5): the written form inside tokens and signatures.
#[must_use]
pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The bytes of base64url text without padding; `None` when it is anything else.
#[must_use]
pub fn unbase64url(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_way_writes_what_the_long_way_writes() {
        for text in [
            "null",
            "true",
            "-0",
            "-0.0",
            "0",
            "1.0",
            "1.5",
            "1e3",
            "1e21",
            "9007199254740991",
            "9007199254740993",
            "-9007199254740992",
            "18446744073709551615",
            r#""""#,
            r#""\u0000\b\t\n\f\r\u001f\u007f\"\\/é😀\u2028""#,
            r#"{"b":[{"z":1,"a":2},1.0],"a":{},"A":null}"#,
            r#"{"\ufb33":1,"😀":2,"é":3,"":4}"#,
            "[]",
        ] {
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(value_bytes(&value).unwrap(), json_bytes(&value).unwrap(), "{text}");
        }
    }

    #[test]
    fn hex_there_and_back() {
        assert_eq!(hex(&[0, 0xAB, 0xFF]), "00abff");
        assert_eq!(unhex("00abff"), Some(vec![0, 0xAB, 0xFF]));
        assert_eq!(unhex("0"), None);
        assert_eq!(unhex("AB"), None);
        assert_eq!(unhex("+1"), None);
    }
}
