//! Proofs: that a leaf is in a tree, and that a tree goes on from an earlier one (RFC 9162 section 2.1.3 and 2.1.4).
//!
//! Making one takes two steps, so that reading may be slow: first ask which [`Tile`]s are needed, then give them.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use tlog_tiles::HashReader;

use super::{Hash, SIZE_MAX, Tile, Tiles};

/// Hashes in the longest proof: one for each level, and one more where a proof of consistency begins.
const PATH_MAX: usize = 64;

/// Why a proof was not made, or does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ProofError {
    #[error("a tree of {size} leaves has no leaf {index}")]
    NoSuchLeaf { index: u64, size: u64 },
    #[error("a tree of {size} leaves cannot go on from one of {before}")]
    Shrunk { before: u64, size: u64 },
    #[error("a tree has at most {SIZE_MAX} leaves")]
    TooLarge,
    #[error("a tile that the proof needs is missing")]
    MissingTile,
    #[error("the proof does not hold")]
    Wrong,
}

/// That the tree of `size` leaves has a leaf at `index`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inclusion {
    /// Of the leaf.
    pub index: u64,
    /// Of the tree.
    pub size: u64,
    /// The hashes beside the way from the leaf to the root, from the leaf on.
    pub path: Vec<Hash>,
}

impl Inclusion {
    /// The tiles that the proof is made from.
    pub fn tiles(index: u64, size: u64) -> Result<Vec<Tile>, ProofError> {
        Self::possible(index, size)?;
        Ok(needed(size, |reader| drop(tlog_tiles::prove_record(size, index, reader))))
    }

    /// Makes it from the hashes of those tiles.
    pub fn prove(index: u64, size: u64, tiles: &Tiles) -> Result<Self, ProofError> {
        Self::possible(index, size)?;
        let path = tlog_tiles::prove_record(size, index, tiles).map_err(|_| ProofError::MissingTile)?;
        Ok(Self { index, size, path: ours(&path) })
    }

    /// Whether the tree with this root has this leaf.
    pub fn check(&self, root: Hash, leaf: Hash) -> Result<(), ProofError> {
        let Self { index, size, .. } = *self;
        Self::possible(index, size)?;
        tlog_tiles::check_record(&theirs(&self.path)?, size, root.theirs(), index, leaf.theirs())
            .map_err(|_| ProofError::Wrong)
    }

    fn possible(index: u64, size: u64) -> Result<(), ProofError> {
        match size {
            _ if size > SIZE_MAX => Err(ProofError::TooLarge),
            _ if index >= size => Err(ProofError::NoSuchLeaf { index, size }),
            _ => Ok(()),
        }
    }
}

/// That the tree of `size` leaves begins with the `before` leaves of an earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consistency {
    /// Size of the earlier tree.
    pub before: u64,
    /// Size of the later one.
    pub size: u64,
    /// Hashes, in the order of RFC 9162.
    pub path: Vec<Hash>,
}

impl Consistency {
    /// The tiles that the proof is made from.
    pub fn tiles(before: u64, size: u64) -> Result<Vec<Tile>, ProofError> {
        Self::possible(before, size)?;
        if before == 0 {
            return Ok(Vec::new());
        }
        Ok(needed(size, |reader| drop(tlog_tiles::prove_tree(size, before, reader))))
    }

    /// Makes it from the hashes of those tiles.
    pub fn prove(before: u64, size: u64, tiles: &Tiles) -> Result<Self, ProofError> {
        Self::possible(before, size)?;
        // Every tree begins with nothing.
        if before == 0 {
            return Ok(Self { before, size, path: Vec::new() });
        }
        let path = tlog_tiles::prove_tree(size, before, tiles).map_err(|_| ProofError::MissingTile)?;
        Ok(Self { before, size, path: ours(&path) })
    }

    /// Whether the tree with the second root begins with that of the first.
    pub fn check(&self, root_before: Hash, root: Hash) -> Result<(), ProofError> {
        let Self { before, size, .. } = *self;
        Self::possible(before, size)?;
        let path = theirs(&self.path)?;
        if before == 0 {
            let holds = path.is_empty() && root_before == Hash::EMPTY && (size > 0 || root == Hash::EMPTY);
            return if holds { Ok(()) } else { Err(ProofError::Wrong) };
        }
        tlog_tiles::check_tree(&path, size, root.theirs(), before, root_before.theirs())
            .map_err(|_| ProofError::Wrong)
    }

    fn possible(before: u64, size: u64) -> Result<(), ProofError> {
        match size {
            _ if size > SIZE_MAX => Err(ProofError::TooLarge),
            _ if before > size => Err(ProofError::Shrunk { before, size }),
            _ => Ok(()),
        }
    }
}

fn ours(path: &[tlog_tiles::Hash]) -> Vec<Hash> {
    path.iter().map(|hash| Hash(hash.0)).collect()
}

/// Refuses a path longer than any: checking copies it at each step.
fn theirs(path: &[Hash]) -> Result<Vec<tlog_tiles::Hash>, ProofError> {
    if path.len() > PATH_MAX {
        return Err(ProofError::Wrong);
    }
    Ok(path.iter().map(|hash| hash.theirs()).collect())
}

impl HashReader for Tiles {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog_tiles::Hash>, tlog_tiles::Error> {
        let node = |index: &u64| {
            let (height, index) = tlog_tiles::split_stored_hash_index(*index);
            self.node(height, index).map(Hash::theirs).ok_or(tlog_tiles::Error::IndexesNotInTree)
        };
        indexes.iter().map(node).collect()
    }
}

/// Writes down what a proof reads. What comes out of that proof is thrown away.
#[derive(Default)]
struct Asked(RefCell<Vec<u64>>);

impl HashReader for Asked {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog_tiles::Hash>, tlog_tiles::Error> {
        self.0.borrow_mut().extend(indexes);
        Ok(vec![tlog_tiles::EMPTY_HASH; indexes.len()])
    }
}

fn needed(size: u64, prove: impl FnOnce(&Asked)) -> Vec<Tile> {
    let asked = Asked::default();
    prove(&asked);
    let tiles: BTreeSet<Tile> = asked
        .0
        .into_inner()
        .into_iter()
        // As wide as it is in this tree: C2SP serves no other width.
        .filter_map(|index| {
            tlog_tiles::Tile::from_index(super::tile::TILE_HEIGHT as u8, index).parent(0, size)
        })
        .map(|tile| Tile::of_theirs(&tile))
        .collect();
    tiles.into_iter().collect()
}
