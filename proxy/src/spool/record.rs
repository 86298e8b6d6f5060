//! One record of the log: its length, a checksum, what it is, and what it says.
//!
//! ```text
//! length  u32, little endian: of what follows the checksum
//! check   u32, little endian: CRC-32 (ISO-HDLC) of what follows
//! kind    u8
//! text    the rest
//! ```

use bytes::{Buf as _, Bytes, BytesMut};

/// Length and checksum.
const FRAME_BYTES: usize = 8;
/// A length beyond this was never written.
const BYTES_MAX: usize = 256 * 1024 * 1024;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// An event of the chain, in canonical form.
    Event = 1,
    /// The event that opened a call, of the chain or not, in case nothing closes the call.
    Opening = 2,
    /// Up to which event the backend has all: a `u64`, little endian.
    Acknowledged = 3,
    /// Where the chain stands here: the first of each segment.
    Head = 4,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        [Self::Event, Self::Opening, Self::Acknowledged, Self::Head].into_iter().find(|k| *k as u8 == byte)
    }
}

/// A record that was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) kind: Kind,
    pub(super) text: Bytes,
}

/// What stands at the beginning of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A whole record, which was taken out.
    Whole(Record),
    /// The beginning of one of so many bytes.
    Part(usize),
    /// One of a kind that is not known here.
    Unknown,
    /// Nothing that was written here.
    Damaged,
}

/// What stands before the text.
pub(super) const HEADER_BYTES: usize = FRAME_BYTES + 1;

/// Writes a record behind others.
pub(super) fn put(out: &mut Vec<u8>, kind: Kind, text: &[u8]) {
    let length = u32::try_from(text.len() + 1).unwrap_or(u32::MAX);
    let mut check = crc32fast::Hasher::new();
    check.update(&[kind as u8]);
    check.update(text);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&check.finalize().to_le_bytes());
    out.push(kind as u8);
    out.extend_from_slice(text);
}

/// Takes the first record out of `bytes`.
pub(super) fn take(bytes: &mut BytesMut) -> Found {
    let Some((length, rest)) = bytes.split_first_chunk() else { return Found::Part(FRAME_BYTES) };
    let Some((check, rest)) = rest.split_first_chunk() else { return Found::Part(FRAME_BYTES) };
    let (length, check) = (u32::from_le_bytes(*length) as usize, u32::from_le_bytes(*check));
    if length == 0 || length > BYTES_MAX {
        return Found::Damaged;
    }
    let Some(body) = rest.get(..length) else { return Found::Part(FRAME_BYTES + length) };
    if crc32fast::hash(body) != check {
        return Found::Damaged;
    }
    let Some(kind) = body.first().copied().and_then(Kind::of) else { return Found::Unknown };
    let mut record = bytes.split_to(FRAME_BYTES + length).freeze();
    record.advance(HEADER_BYTES);
    Found::Whole(Record { kind, text: record })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back_and_no_byte_may_be_missing_or_another() {
        let mut written = Vec::new();
        put(&mut written, Kind::Event, b"{\"seq\":1}");
        let whole = Record { kind: Kind::Event, text: Bytes::from_static(b"{\"seq\":1}") };
        assert_eq!(take(&mut written.as_slice().into()), Found::Whole(whole));
        for end in 0..written.len() {
            assert!(matches!(take(&mut written[..end].into()), Found::Part(_)), "{end}");
        }
        for at in 0..written.len() {
            let mut changed = written.clone();
            changed[at] ^= 1;
            assert!(!matches!(take(&mut changed.as_slice().into()), Found::Whole(_)), "{at}");
        }
        let mut later = vec![2, 0, 0, 0];
        later.extend_from_slice(&crc32fast::hash(&[9, 9]).to_le_bytes());
        later.extend_from_slice(&[9, 9]);
        assert_eq!(take(&mut later.as_slice().into()), Found::Unknown);
        assert_eq!(take(&mut [0; 64][..].into()), Found::Damaged);
        assert_eq!(take(&mut [255; 64][..].into()), Found::Damaged);
    }
}
