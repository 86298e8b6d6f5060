//! Names and identifiers.
//!
//! A [`Name`] is what people choose (org, tenant, tool, resource, method, category, audience); an id
//! (`apr_…`, `evt_…`) is made by us, sorts by time and needs no look-up to be understood.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::ops::Deref;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize};
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// Longest name, in bytes. Generous for paths and URIs used as resources.
pub const NAME_BYTES_MAX: usize = 1024;

/// A normalised name: Unicode NFC, no surrounding white space, no control or invisible characters,
/// 1 to [`NAME_BYTES_MAX`] bytes. Names are then compared byte for byte.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Name(Box<str>);

/// Why a string is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing but white space.
    #[error("a name must not be empty")]
    Empty,
    /// Longer than [`NAME_BYTES_MAX`].
    #[error("a name is at most {NAME_BYTES_MAX} bytes long")]
    TooLong,
    /// A control, bidirectional or zero-width character, which could make two names look alike.
    #[error("a name must not contain control or invisible characters (found U+{:04X})", *.0 as u32)]
    Invisible(char),
    /// Not as it would be kept; see [`Name::exact`].
    #[error("a name in a call has no white space around it and is in Unicode's normal form C")]
    NotNormal,
}

impl Name {
    /// Normalises and checks `raw`.
    pub fn new(raw: &str) -> Result<Self, NameError> {
        normalise(raw).map(|name| Self(name.into()))
    }

    /// Checks `raw`, which must be in normal form already. For names in calls: the tool gets the bytes as they
    /// came, and may take two spellings for two things that rules take for one.
    pub fn exact(raw: &str) -> Result<Self, NameError> {
        let name = Self::new(raw)?;
        if name.as_str() == raw { Ok(name) } else { Err(NameError::NotNormal) }
    }

    /// The normalised text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Normalises and checks a name without taking ownership: borrowed when it is in normal form already.
pub fn normalise(raw: &str) -> Result<Cow<'_, str>, NameError> {
    let trimmed = raw.trim();
    if trimmed.is_empty() {
        return Err(NameError::Empty);
    }
    if trimmed.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong);
    }
    if trimmed.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        return Ok(Cow::Borrowed(trimmed));
    }
    if let Some(found) = trimmed.chars().find(|c| is_invisible(*c)) {
        return Err(NameError::Invisible(found));
    }
    if is_nfc_quick(trimmed.chars()) == IsNormalized::Yes {
        return Ok(Cow::Borrowed(trimmed));
    }
    let composed: String = trimmed.nfc().collect();
    if composed.len() > NAME_BYTES_MAX { Err(NameError::TooLong) } else { Ok(Cow::Owned(composed)) }
}

/// Control characters, and those that take no space or turn the direction of text.
#[must_use]
pub fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00AD}' | '\u{034F}' | '\u{061C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}'
            | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}'
            | '\u{FFF0}'..='\u{FFFB}' | '\u{E0000}'..='\u{E0FFF}')
}

/// So that maps with names for keys can be asked with a text.
impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl std::str::FromStr for Name {
    type Err = NameError;
    fn from_str(raw: &str) -> Result<Self, NameError> {
        Self::new(raw)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_str(NameVisitor)
    }
}

/// Refuses inside the reader, which then knows the place.
struct NameVisitor;

impl Visitor<'_> for NameVisitor {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: serde::de::Error>(self, raw: &str) -> Result<Name, E> {
        Name::new(raw).map_err(E::custom)
    }
}

/// What an id names: the part before the underscore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the product's nouns")]
pub enum Kind {
    Approval,
    Check,
    Event,
    Execution,
    Key,
    Proxy,
    Rule,
    Session,
    Token,
    Txn,
    User,
}

impl Kind {
    /// The prefix, without the underscore.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Approval => "apr",
            Self::Check => "chk",
            Self::Event => "evt",
            Self::Execution => "exe",
            Self::Key => "key",
            Self::Proxy => "prx",
            Self::Rule => "rul",
            Self::Session => "ses",
            Self::Token => "tok",
            Self::Txn => "txn",
            Self::User => "usr",
        }
    }
}

/// Crockford's base 32: sorts like the bytes, no letters that are easily confused.
const BASE32: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// A new id: prefix, 48 bits of milliseconds, 80 bits of randomness, in the manner of a ULID; ids of
/// one kind sort by time of creation.
#[must_use]
pub fn new_id(kind: Kind, unix_ms: u64, random: [u8; 10]) -> String {
    let mut bits = u128::from(unix_ms & 0xFFFF_FFFF_FFFF) << 80;
    for (i, byte) in random.iter().enumerate() {
        bits |= u128::from(*byte) << (72 - 8 * i);
    }
    let mut id = String::with_capacity(30);
    id.push_str(kind.prefix());
    id.push('_');
    for i in (0..26).rev() {
        id.push(base32_digit((bits >> (5 * i)) as u8));
    }
    id
}

/// The short reference that people read to each other: `REF-XXXXXXXX-XXXX` (60 bits of randomness).
#[must_use]
pub fn new_reference(random: [u8; 10]) -> String {
    let mut reference = String::with_capacity(17);
    reference.push_str("REF-");
    let bits = random.iter().fold(0u128, |bits, byte| (bits << 8) | u128::from(*byte));
    for i in 0..12 {
        if i == 8 {
            reference.push('-');
        }
        reference.push(base32_digit((bits >> (5 * i)) as u8));
    }
    reference
}

#[expect(clippy::indexing_slicing, reason = "masked to five bits, the table has 32 entries")]
fn base32_digit(bits: u8) -> char {
    char::from(BASE32[usize::from(bits & 31)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised_once() {
        assert_eq!(Name::new("  café ").unwrap(), Name::new("cafe\u{301}").unwrap());
        assert_eq!(Name::new(" \t "), Err(NameError::Empty));
        assert_eq!(Name::new("a\u{202e}b"), Err(NameError::Invisible('\u{202e}')));
        assert_eq!(Name::new("a\nb"), Err(NameError::Invisible('\n')));
        assert_eq!(Name::new(&"x".repeat(1025)), Err(NameError::TooLong));
        assert_ne!(Name::new("Server").unwrap(), Name::new("server").unwrap());
    }

    #[test]
    fn a_name_in_a_call_is_spelt_as_it_is_kept() {
        for raw in [" safe", "safe ", "safe\n", "cafe\u{301}"] {
            assert_eq!(Name::exact(raw), Err(NameError::NotNormal), "{raw:?}");
        }
        assert_eq!(Name::exact("café").unwrap().as_str(), "café");
        assert_eq!(Name::exact(" "), Err(NameError::Empty));
    }

    #[test]
    fn ids_sort_by_time() {
        let early = new_id(Kind::Approval, 1_000, [255; 10]);
        let late = new_id(Kind::Approval, 1_001, [0; 10]);
        assert!(early < late, "{early} {late}");
        assert_eq!(early.len(), 30);
        assert_eq!(new_id(Kind::Rule, 0, [0; 10]), "rul_00000000000000000000000000");
        assert_eq!(new_reference([0xFF; 10]), "REF-ZZZZZZZZ-ZZZZ");
    }
}
