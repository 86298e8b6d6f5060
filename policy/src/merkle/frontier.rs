//! The right edge of the tree: all that appending needs.

use super::tile::TILE_HEIGHT;
use super::{Hash, SIZE_MAX};

/// The roots of the complete subtrees that a tree of this size falls into, from the left, that is from the largest:
/// as many as the size has bits set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    subtrees: Vec<Hash>,
}

/// A hash that tiles hold: the `index`-th of tile level `level`, the root of 256^`level` leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// 0 for leaves.
    pub level: u8,
    /// From 0, in its level.
    pub index: u64,
    /// The hash.
    pub hash: Hash,
}

/// Why a frontier is none, or does not grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum FrontierError {
    #[error("a tree of {size} leaves has {expected} subtrees on its edge, not {found}")]
    Subtrees { size: u64, expected: u32, found: usize },
    #[error("the log is full")]
    Full,
}

impl Frontier {
    /// As it was stored: the size, and [`Self::subtrees`].
    pub fn restore(size: u64, subtrees: Vec<Hash>) -> Result<Self, FrontierError> {
        if size > SIZE_MAX {
            return Err(FrontierError::Full);
        }
        let (expected, found) = (size.count_ones(), subtrees.len());
        if expected as usize != found {
            return Err(FrontierError::Subtrees { size, expected, found });
        }
        Ok(Self { size, subtrees })
    }

    /// Number of leaves.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// What has to be stored to go on from here.
    #[must_use]
    pub fn subtrees(&self) -> &[Hash] {
        &self.subtrees
    }

    /// Appends a leaf, and adds to `stored` what tiles hold of it: the leaf's hash, and the root of each subtree
    /// of 256, 65 536, … leaves that it completes. What is added is final.
    pub fn append(&mut self, leaf: Hash, stored: &mut Vec<Stored>) -> Result<(), FrontierError> {
        if self.size >= SIZE_MAX {
            return Err(FrontierError::Full);
        }
        let mut node = leaf;
        stored.push(Stored { level: 0, index: self.size, hash: leaf });
        // Each trailing one of the size is a subtree that this leaf completes a larger one with.
        for height in 1..=self.size.trailing_ones() {
            if let Some(left) = self.subtrees.pop() {
                node = Hash::of_node(left, node);
            }
            if height.is_multiple_of(TILE_HEIGHT) {
                let level = (height / TILE_HEIGHT) as u8;
                stored.push(Stored { level, index: self.size >> height, hash: node });
            }
        }
        self.subtrees.push(node);
        self.size += 1;
        Ok(())
    }

    /// The root (RFC 9162 section 2.1.1).
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut subtrees = self.subtrees.iter().rev().copied();
        let Some(last) = subtrees.next() else { return Hash::EMPTY };
        subtrees.fold(last, |right, left| Hash::of_node(left, right))
    }
}
