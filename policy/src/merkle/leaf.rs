//! What is logged of an event: where it stands in its chain, and a commitment to its contents that says nothing
//! about them.
//!
//! The contents go after their time, and with them the salt; the leaf stays. Without the salt, 32 random bytes that
//! are kept nowhere else, nobody can find out by trying what the contents were. The chain's hash of the event is
//! not salted: it is part of the contents and goes with them.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::Hash;

/// Length of a salt: as many as the hash has.
pub const SALT_BYTES: usize = 32;

const COMMITMENT_CONTEXT: &[u8] = b"oakallow/commitment/v1\n";
const LEAF_CONTEXT: &str = "oakallow/leaf/v1";

/// What makes a commitment say nothing. From a random source, for one event only, and deleted with its contents.
#[derive(Clone, PartialEq, Eq)]
pub struct Salt(pub [u8; SALT_BYTES]);

/// SHA-256("oakallow/commitment/v1\n" ‖ salt ‖ contents), the contents being the event's canonical bytes.
pub type Commitment = Hash;

impl Salt {
    /// Commits to the canonical bytes of an event.
    #[must_use]
    pub fn commit(&self, contents: &[u8]) -> Commitment {
        let hash = Sha256::new().chain_update(COMMITMENT_CONTEXT).chain_update(self.0).chain_update(contents);
        Hash(hash.finalize().into())
    }
}

/// Nothing of it: who has it can try contents.
impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Salt(…)")
    }
}

impl Serialize for Salt {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for Salt {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        // Not with a quote of what was there in the message.
        let text = String::deserialize(d)?;
        let bytes = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| serde::de::Error::custom("not a salt: 32 bytes in base64"))
    }
}

/// A leaf of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Whose chain the event is in.
    pub source: String,
    /// Its number there. In the leaf, so that a chain shows no gap where contents are gone.
    pub seq: u64,
    /// To its contents.
    pub commitment: Commitment,
}

/// A text is not a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a leaf: four lines, `{LEAF_CONTEXT}`, source, number and commitment")]
pub struct LeafError;

impl Leaf {
    /// The entry that is hashed: four lines, each with its newline.
    #[must_use]
    pub fn entry(&self) -> String {
        format!("{LEAF_CONTEXT}\n{}\n{}\n{}\n", self.source, self.seq, self.commitment)
    }

    /// Its hash in the tree.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::of_leaf(self.entry().as_bytes())
    }

    /// Reads an entry, to the byte as it would be written.
    pub fn parse(entry: &str) -> Result<Self, LeafError> {
        let mut lines = entry.split('\n');
        let mut line = || lines.next().ok_or(LeafError);
        let (_, source, seq, commitment) = (line()?, line()?, line()?, line()?);
        let seq = seq.parse().map_err(|_| LeafError)?;
        let commitment = commitment.parse().map_err(|_| LeafError)?;
        let leaf = Self { source: source.to_owned(), seq, commitment };
        if leaf.entry() == entry { Ok(leaf) } else { Err(LeafError) }
    }
}
