//! JSON without white space, as serde_json writes it, with strings looked through in words instead of bytes: what is
//! hashed consists of strings, and each event of each call is hashed.
//!
//! Only what events, fingerprints and JSON values are made of can be written; numbers are left to serde_json.

use serde::ser::{
    Error as _, Impossible, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeTuple,
    Serializer,
};
use serde_json::Error;

/// Enough for most events.
const BYTES_MIN: usize = 1024;

/// The JSON of a value.
pub(super) fn to_vec<T: Serialize>(value: &T) -> Result<Vec<u8>, Error> {
    let mut out = Vec::with_capacity(BYTES_MIN);
    value.serialize(Compact(&mut out))?;
    Ok(out)
}

struct Compact<'a>(&'a mut Vec<u8>);

/// What stands between brackets.
struct Items<'a> {
    out: &'a mut Vec<u8>,
    is_empty: bool,
    end: u8,
}

impl<'a> Items<'a> {
    fn begin(out: &'a mut Vec<u8>, [begin, end]: [u8; 2]) -> Self {
        out.push(begin);
        Self { out, is_empty: true, end }
    }

    /// To where the next one is written.
    fn next(&mut self) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.is_empty) {
            self.out.push(b',');
        }
        self.out
    }

    fn finish(self) {
        self.out.push(self.end);
    }
}

/// Writes a string between quotes; what is escaped, and how, is in RFC 8785 section 3.2.2.2.
fn string(out: &mut Vec<u8>, text: &str) {
    out.reserve(text.len() + 2);
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let (plain, behind) = rest.split_at_checked(plain_bytes(rest)).unwrap_or((rest, &[]));
        out.extend_from_slice(plain);
        let Some((byte, behind)) = behind.split_first() else { break };
        escape(out, *byte);
        rest = behind;
    }
    out.push(b'"');
}

/// How many bytes at the beginning stand for themselves.
fn plain_bytes(text: &[u8]) -> usize {
    let (words, rest) = text.as_chunks();
    for (at, word) in words.iter().enumerate() {
        let found = escaped_in(*word);
        if found != 0 {
            return at * WORD_BYTES + (found.trailing_zeros() / u8::BITS) as usize;
        }
    }
    // The rest once more with what stands before it is a word again.
    if text.last_chunk().is_some_and(|last| escaped_in(*last) == 0) {
        return text.len();
    }
    words.len() * WORD_BYTES + rest.iter().take_while(|byte| !is_escaped(**byte)).count()
}

const WORD_BYTES: usize = 8;

const fn is_escaped(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// The highest bit of each byte that is escaped. Behind the first such byte others may be marked as well: a subtraction
/// takes from the next one.
fn escaped_in(word: [u8; WORD_BYTES]) -> u64 {
    const fn each(byte: u8) -> u64 {
        u64::from_le_bytes([byte; WORD_BYTES])
    }
    let word = u64::from_le_bytes(word);
    let below = |word: u64, limit: u8| word.wrapping_sub(each(limit)) & !word;
    let is = |byte: u8| below(word ^ each(byte), 1);
    (below(word, 0x20) | is(b'"') | is(b'\\')) & each(0x80)
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        0x08 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        0x0c => b'f',
        b'\r' => b'r',
        b'"' | b'\\' => byte,
        _ => {
            out.extend_from_slice(b"\\u00");
            return out.extend_from_slice(super::hex(&[byte]).as_bytes());
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// Numbers, as serde_json writes them.
macro_rules! numbers {
    ($($method:ident: $number:ty,)*) => {
        $(fn $method(self, number: $number) -> Result<(), Error> {
            serde_json::to_writer(self.0, &number)
        })*
    };
}

impl<'a> Serializer for Compact<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Items<'a>;
    type SerializeTuple = Items<'a>;
    type SerializeTupleStruct = Impossible<(), Error>;
    type SerializeTupleVariant = Impossible<(), Error>;
    type SerializeMap = Items<'a>;
    type SerializeStruct = Items<'a>;
    type SerializeStructVariant = Impossible<(), Error>;

    numbers! {
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64,
        serialize_f32: f32, serialize_f64: f64,
    }

    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        self.0.extend_from_slice(if value { b"true" } else { b"false" });
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), Error> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), Error> {
        string(self.0, value);
        Ok(())
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<(), Error> {
        Err(unused())
    }

    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_some<T: ?Sized + Serialize>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Error> {
        self.0.extend_from_slice(b"null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Error> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Error> {
        Err(unused())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Items<'a>, Error> {
        Ok(Items::begin(self.0, *b"[]"))
    }

    fn serialize_tuple(self, _: usize) -> Result<Items<'a>, Error> {
        Ok(Items::begin(self.0, *b"[]"))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Impossible<(), Error>, Error> {
        Err(unused())
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Impossible<(), Error>, Error> {
        Err(unused())
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Items<'a>, Error> {
        Ok(Items::begin(self.0, *b"{}"))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Items<'a>, Error> {
        Ok(Items::begin(self.0, *b"{}"))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Impossible<(), Error>, Error> {
        Err(unused())
    }
}

/// Serde tells lists of known length from others; JSON does not.
macro_rules! lists {
    ($($kind:ident)*) => {
        $(impl $kind for Items<'_> {
            type Ok = ();
            type Error = Error;

            fn serialize_element<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), Error> {
                value.serialize(Compact(self.next()))
            }

            fn end(self) -> Result<(), Error> {
                self.finish();
                Ok(())
            }
        })*
    };
}

lists! { SerializeSeq SerializeTuple }

impl SerializeStruct for Items<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: ?Sized + Serialize>(&mut self, name: &'static str, value: &T) -> Result<(), Error> {
        string(self.next(), name);
        self.serialize_value(value)
    }

    fn end(self) -> Result<(), Error> {
        self.finish();
        Ok(())
    }
}

impl SerializeMap for Items<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: ?Sized + Serialize>(&mut self, name: &T) -> Result<(), Error> {
        let out = self.next();
        let begin = out.len();
        name.serialize(Compact(out))?;
        if out.get(begin) == Some(&b'"') { Ok(()) } else { Err(Error::custom("a name is a string")) }
    }

    fn serialize_value<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), Error> {
        self.out.push(b':');
        value.serialize(Compact(self.out))
    }

    fn end(self) -> Result<(), Error> {
        self.finish();
        Ok(())
    }
}

fn unused() -> Error {
    Error::custom("nothing that is hashed is of this kind")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Serialize;
    use serde_json::{Value, json};

    use super::*;

    fn values() -> impl Strategy<Value = Value> {
        let ascii = proptest::collection::vec(0_u8..0x80, 0..70);
        let text = prop_oneof![any::<String>(), ascii.prop_map(|b| String::from_utf8(b).unwrap())];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, move |inner| {
            let members = proptest::collection::vec((text.clone(), inner.clone()), 0..6);
            prop_oneof![
                proptest::collection::vec(inner, 0..6).prop_map(Value::from),
                members.prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_writes_what_serde_json_writes(value in values()) {
            prop_assert_eq!(to_vec(&value).unwrap(), serde_json::to_vec(&value).unwrap());
        }
    }

    #[test]
    fn each_character_is_escaped_as_by_serde_json_wherever_it_stands() {
        for code in (0..0x180).chain([0x2028, 0xfffd, 0x1_f600]) {
            for before in 0..20 {
                let text = format!("{}{}x", "a".repeat(before), char::from_u32(code).unwrap());
                assert_eq!(to_vec(&text).unwrap(), serde_json::to_vec(&text).unwrap(), "{text:?}");
            }
        }
    }

    #[test]
    fn what_events_are_made_of_is_written_alike() {
        #[derive(Serialize)]
        struct Pair(u8, u8);
        #[derive(Serialize)]
        struct All<'a> {
            list: [(u64, Option<bool>); 2],
            letter: char,
            none: Option<u8>,
            unit: (),
            #[serde(rename = "a \"quoted\" name")]
            named: &'a Value,
        }
        let all = All {
            list: [(u64::MAX, None), (0, Some(true))],
            letter: '"',
            none: None,
            unit: (),
            named: &json!({"": [], "b": {}}),
        };
        assert_eq!(to_vec(&all).unwrap(), serde_json::to_vec(&all).unwrap());
        assert!(to_vec(&Pair(0, 1)).is_err(), "refused, never written otherwise");
    }
}
