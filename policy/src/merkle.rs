//! The Merkle log over an org's audit events: who kept an earlier tree head sees whether history was changed.
//!
//! In scope: hashing as RFC 9162 section 2.1 (that of RFC 6962), appending with as little state as there are
//! bits in the size ([`Frontier`]), proofs made from stored tiles and checked ([`Inclusion`], [`Consistency`]),
//! signed tree heads ([`Checkpoint`]), what a leaf is ([`Leaf`]), and what somebody keeps who watches the log
//! ([`Watch`]). Texts and paths are those of C2SP: signed-note, tlog-checkpoint, tlog-tiles.
//!
//! Out of scope: where tiles are kept, and who may read them. The tree's arithmetic and the syntax of notes are
//! those of the crates `tlog_tiles` and `signed_note` (docs/decisions/0024-provable-log.md).

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use checkpoint::{Checkpoint, CheckpointError, LogKey, LogKeyError, LogSigner, OriginError, origin};
pub use frontier::{Frontier, FrontierError, Stored};
pub use leaf::{Commitment, Leaf, LeafError, SALT_BYTES, Salt};
pub use proof::{Consistency, Inclusion, ProofError};
pub use tile::{
    BundleError, ENTRY_BYTES_MAX, Resource, TILE_WIDTH, Tile, TilePathError, Tiles, bundle, unbundle,
};
pub use watch::{Watch, WatchError};

mod checkpoint;
mod frontier;
mod leaf;
mod proof;
mod tile;
mod watch;

/// The largest tree: sizes and indexes are below 2⁵⁶, so that no arithmetic on them overflows. At a million leaves
/// a second it is full after two thousand years.
pub const SIZE_MAX: u64 = 1 << 56;

/// A node of the tree, or its root. Written in base64 (RFC 4648 section 4), as C2SP does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The root of the tree without leaves: SHA-256 of nothing.
    pub const EMPTY: Self = Self(tlog_tiles::EMPTY_HASH.0);

    /// Of a leaf: SHA-256(0x00 ‖ entry).
    #[must_use]
    pub fn of_leaf(entry: &[u8]) -> Self {
        Self(tlog_tiles::record_hash(entry).0)
    }

    /// Of an inner node: SHA-256(0x01 ‖ left ‖ right).
    #[must_use]
    pub fn of_node(left: Self, right: Self) -> Self {
        Self(tlog_tiles::node_hash(left.theirs(), right.theirs()).0)
    }

    fn theirs(self) -> tlog_tiles::Hash {
        tlog_tiles::Hash(self.0)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 32 bytes in base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a hash: 32 bytes in base64")]
pub struct HashError;

impl FromStr for Hash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        let bytes = STANDARD.decode(text).map_err(|_| HashError)?;
        bytes.try_into().map(Self).map_err(|_| HashError)
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}
