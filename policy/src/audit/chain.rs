//! Events in their place: numbered, each with the hash of the one before.

use serde::{Deserialize, Serialize, Serializer};

use super::{Event, EventData, EventType};
use crate::canonical::{self, CanonicalError};

/// An event in its place: the CloudEvents envelope, with the chain as extension attributes. Reading one
/// refuses unknown attributes: the hash would not cover them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "ReadChained")]
pub struct Chained {
    /// Always `1.0` (CloudEvents).
    pub specversion: String,
    /// Who writes this chain: `proxy/prx_…` or `backend`.
    pub source: String,
    /// From 1, without gaps.
    pub seq: u64,
    /// Hash of the event before, hex; 64 zeros for the first.
    pub prev: String,
    /// The event.
    pub event: Event,
}

impl Serialize for Chained {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let Self { specversion, source, seq, prev, event } = self;
        let Event { id, kind, time, txn, data } = event;
        WrittenChained {
            data,
            id,
            prev,
            seq: *seq,
            source,
            specversion,
            time,
            txn: txn.as_deref(),
            kind: *kind,
        }
        .serialize(s)
    }
}

/// [`Chained`] as it is written: in canonical order.
#[derive(Serialize)]
struct WrittenChained<'a> {
    data: &'a EventData,
    id: &'a str,
    prev: &'a str,
    seq: u64,
    source: &'a str,
    specversion: &'a str,
    time: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    txn: Option<&'a str>,
    #[serde(rename = "type")]
    kind: EventType,
}

/// [`Chained`] as it is read: `flatten` would let unknown attributes pass.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadChained {
    specversion: String,
    source: String,
    seq: u64,
    prev: String,
    id: String,
    #[serde(rename = "type")]
    kind: EventType,
    time: String,
    #[serde(default)]
    txn: Option<String>,
    data: EventData,
}

/// The CloudEvents version that is written and read.
const SPECVERSION: &str = "1.0";

impl TryFrom<ReadChained> for Chained {
    type Error = String;

    fn try_from(read: ReadChained) -> Result<Self, String> {
        let ReadChained { specversion, source, seq, prev, id, kind, time, txn, data } = read;
        if specversion != SPECVERSION {
            return Err(format!("specversion is `{SPECVERSION}`, not `{specversion}`"));
        }
        Ok(Self { specversion, source, seq, prev, event: Event { id, kind, time, txn, data } })
    }
}

/// Where a chain ends: the number and hash of its last event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Number of the last event; 0 when there is none.
    pub seq: u64,
    /// Its hash, hex.
    pub hash: String,
}

impl Default for Head {
    fn default() -> Self {
        Self { seq: 0, hash: "0".repeat(64) }
    }
}

/// How a chain is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ChainError {
    #[error("expected event {expected}, found {found}: an event is missing, added or out of order")]
    Sequence { expected: u64, found: u64 },
    #[error("event {seq} does not continue the one before: one of the two was changed")]
    Link { seq: u64 },
    #[error("event {seq} belongs to the chain of `{found}`")]
    Source { seq: u64, found: String },
    #[error("event {seq} has no canonical form")]
    Canonical { seq: u64 },
}

impl Chained {
    /// Puts an event at the end of a chain. Returns it with its canonical bytes and the new head.
    pub fn append(source: &str, head: &Head, event: Event) -> Result<(Self, Vec<u8>, Head), CanonicalError> {
        let chained = Self {
            specversion: SPECVERSION.to_owned(),
            source: source.to_owned(),
            seq: head.seq + 1,
            prev: head.hash.clone(),
            event,
        };
        let bytes = chained.bytes()?;
        let head = Head { seq: chained.seq, hash: canonical::hex(&canonical::sha256(&bytes)) };
        Ok((chained, bytes, head))
    }

    /// Its canonical form: what the next one's `prev` is the hash of.
    pub fn bytes(&self) -> Result<Vec<u8>, CanonicalError> {
        let EventData { parameters, detail, .. } = &self.event.data;
        canonical::ordered_bytes(self, parameters.as_ref(), detail)
    }

    /// Checks that this event continues the chain of `source` at `head`, and returns the head after it.
    pub fn follow(&self, source: &str, head: &Head) -> Result<Head, ChainError> {
        let seq = self.seq;
        if self.source != source {
            return Err(ChainError::Source { seq, found: self.source.clone() });
        }
        let expected = head.seq.saturating_add(1);
        if seq != expected {
            return Err(ChainError::Sequence { expected, found: seq });
        }
        if self.prev != head.hash {
            return Err(ChainError::Link { seq });
        }
        let bytes = self.bytes().map_err(|_| ChainError::Canonical { seq })?;
        Ok(Head { seq, hash: canonical::hex(&canonical::sha256(&bytes)) })
    }
}
