//! The export of a log: all that is needed to check it without the backend. One JSON object per line; the lines of
//! `docs/guide/audit-export.md`.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::merkle::{Commitment, Hash, Leaf, Salt};

/// The version that is written and read.
pub const VERSION: u32 = 1;

/// A line. Read strictly: as it would be written, to the byte.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The first one.
    Log(Header),
    /// A signed checkpoint. All of them stand before the leaves.
    Checkpoint(String),
    /// A leaf with its contents.
    Event(EventLine),
    /// A leaf whose contents were deleted when their time was over.
    Removed(RemovedLine),
}

/// Whose log it is, and where the export begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// [`VERSION`].
    pub version: u32,
    /// The log's name in its checkpoints.
    pub origin: String,
    /// Its keys, as [`crate::merkle::LogKey`] writes them. Worth as much as the way they came: better pin one.
    pub keys: Vec<String>,
    /// Index of the first leaf.
    pub from: u64,
    /// Of the leaves before that, what [`crate::merkle::Frontier::subtrees`] gives.
    pub frontier: Vec<Hash>,
}

/// A leaf with its contents.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventLine {
    /// Of the leaf.
    pub index: u64,
    /// What is in the leaf.
    pub commitment: Commitment,
    /// What opens it.
    pub salt: Salt,
    /// The event in its chain, in canonical form: the bytes that were committed to.
    pub contents: Box<RawValue>,
}

/// A leaf without its contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemovedLine {
    /// Of the leaf.
    pub index: u64,
    /// The chain.
    pub source: String,
    /// The number in it.
    pub seq: u64,
    /// What is in the leaf.
    pub commitment: Commitment,
}

impl RemovedLine {
    /// The leaf.
    #[must_use]
    pub fn leaf(&self) -> Leaf {
        Leaf { source: self.source.clone(), seq: self.seq, commitment: self.commitment }
    }
}

impl Line {
    /// Reads a line without its newline; `None` when it is not to the byte what would be written.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let line: Self = serde_json::from_slice(bytes).ok()?;
        (line.write()?.as_bytes() == bytes).then_some(line)
    }

    /// The line, without its newline.
    #[must_use]
    pub fn write(&self) -> Option<String> {
        serde_json::to_string(self).ok()
    }

    /// Index of the leaf that it is.
    #[must_use]
    pub const fn index(&self) -> Option<u64> {
        match self {
            Self::Event(line) => Some(line.index),
            Self::Removed(line) => Some(line.index),
            Self::Log(_) | Self::Checkpoint(_) => None,
        }
    }
}
