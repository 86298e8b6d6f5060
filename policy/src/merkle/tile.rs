//! Tiles: runs of at most 256 hashes, by which a tree is stored and served (C2SP tlog-tiles).

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use super::{Hash, SIZE_MAX, Stored};

/// Levels of the tree in a tile.
pub(super) const TILE_HEIGHT: u32 = 8;
/// Hashes in a full tile.
pub const TILE_WIDTH: u16 = 1 << TILE_HEIGHT;
/// The longest entry: its length is written as 16 bits.
pub const ENTRY_BYTES_MAX: usize = u16::MAX as usize;
/// Levels of tiles in the largest tree.
const LEVELS: u8 = 8;

/// A tile: hashes `index`·256 to `index`·256 + `width` of a level, each the root of 256^`level` leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tile {
    level: u8,
    index: u64,
    width: u16,
}

impl Tile {
    /// A tile that a tree can have; `None` when there is no such tile.
    #[must_use]
    pub fn new(level: u8, index: u64, width: u16) -> Option<Self> {
        let tile = Self { level, index, width };
        let possible = level < LEVELS && (1..=TILE_WIDTH).contains(&width) && index < SIZE_MAX >> TILE_HEIGHT;
        (possible && tile.end() <= SIZE_MAX >> tile.height_below()).then_some(tile)
    }

    /// 0 for hashes of leaves.
    #[must_use]
    pub const fn level(self) -> u8 {
        self.level
    }

    /// How many hashes it has; 256 when it is full.
    #[must_use]
    pub const fn width(self) -> u16 {
        self.width
    }

    /// Index of its first hash in its level.
    #[must_use]
    pub const fn start(self) -> u64 {
        self.index << TILE_HEIGHT
    }

    /// Index after its last hash in its level.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.start() + self.width as u64
    }

    /// Whether a tree of this size has all of its hashes.
    #[must_use]
    pub const fn is_in(self, size: u64) -> bool {
        self.end() <= size >> self.height_below()
    }

    const fn height_below(self) -> u32 {
        self.level as u32 * TILE_HEIGHT
    }

    /// The tiles that a tree of `size` has and one of `before` has not, or has with fewer hashes.
    #[must_use]
    pub fn added(before: u64, size: u64) -> Vec<Self> {
        if before >= size || size > SIZE_MAX {
            return Vec::new();
        }
        tlog_tiles::Tile::new_tiles(TILE_HEIGHT as u8, before, size).iter().map(Self::of_theirs).collect()
    }

    pub(super) fn of_theirs(tile: &tlog_tiles::Tile) -> Self {
        let width = u16::try_from(tile.width()).unwrap_or(TILE_WIDTH);
        Self { level: tile.level(), index: tile.level_index(), width }
    }
}

/// What is served of a log under its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// `tile/<L>/<N>[.p/<W>]`: hashes.
    Tile(Tile),
    /// `tile/entries/<N>[.p/<W>]`: the entries whose hashes are in that tile of level 0.
    Entries(Tile),
}

/// The path names no tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a tile: tile/<level>/<index> or tile/entries/<index>, with .p/<width> when it is not full")]
pub struct TilePathError;

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tile = match self {
            Self::Tile(tile) => {
                write!(f, "tile/{}/", tile.level)?;
                tile
            }
            Self::Entries(tile) => {
                f.write_str("tile/entries/")?;
                tile
            }
        };
        write_index(f, tile.index)?;
        if tile.width < TILE_WIDTH { write!(f, ".p/{}", tile.width) } else { Ok(()) }
    }
}

/// In groups of three digits, all but the last with an `x` before them.
fn write_index(f: &mut fmt::Formatter<'_>, index: u64) -> fmt::Result {
    let (rest, group) = (index / 1000, index % 1000);
    if rest > 0 {
        write_leading(f, rest)?;
    }
    write!(f, "{group:03}")
}

fn write_leading(f: &mut fmt::Formatter<'_>, index: u64) -> fmt::Result {
    let (rest, group) = (index / 1000, index % 1000);
    if rest > 0 {
        write_leading(f, rest)?;
    }
    write!(f, "x{group:03}/")
}

impl FromStr for Resource {
    type Err = TilePathError;

    fn from_str(path: &str) -> Result<Self, TilePathError> {
        let (level, rest) =
            path.strip_prefix("tile/").and_then(|p| p.split_once('/')).ok_or(TilePathError)?;
        let (index, width) = match rest.split_once(".p/") {
            Some((index, width)) => (index, number(width).filter(|w| *w < u64::from(TILE_WIDTH))),
            None => (rest, Some(u64::from(TILE_WIDTH))),
        };
        let index = index.split('/').try_fold(0_u64, |sum, group| {
            let digits = group.trim_start_matches('x');
            sum.checked_mul(1000)?.checked_add(digits.parse().ok()?)
        });
        let width = width.and_then(|w| u16::try_from(w).ok()).ok_or(TilePathError)?;
        let tile = |level: u64| Tile::new(u8::try_from(level).ok()?, index?, width);
        let resource = match level {
            "entries" => tile(0).map(Self::Entries),
            level => number(level).and_then(tile).map(Self::Tile),
        };
        // One path for one tile: what would be written is what was asked for.
        resource.filter(|resource| resource.to_string() == path).ok_or(TilePathError)
    }
}

fn number(digits: &str) -> Option<u64> {
    digits.parse().ok()
}

/// Hashes of tiles, to make proofs from: filled with what [`super::Inclusion::tiles`] and
/// [`super::Consistency::tiles`] ask for.
#[derive(Debug, Clone, Default)]
pub struct Tiles(HashMap<(u8, u64), Hash>);

impl Tiles {
    /// The hashes of a tile, as many as it is wide.
    pub fn insert(&mut self, tile: Tile, hashes: &[Hash]) {
        for (index, hash) in (tile.start()..tile.end()).zip(hashes) {
            self.0.insert((tile.level, index), *hash);
        }
    }

    /// The root of 2^`height` leaves, the `index`-th of its kind: of that many hashes of one tile.
    pub(super) fn node(&self, height: u8, index: u64) -> Option<Hash> {
        let (level, inside) = (height / TILE_HEIGHT as u8, height % TILE_HEIGHT as u8);
        if inside == 0 {
            return self.0.get(&(level, index)).copied();
        }
        let half = height - 1;
        Some(Hash::of_node(self.node(half, index << 1)?, self.node(half, (index << 1) | 1)?))
    }
}

impl Extend<Stored> for Tiles {
    fn extend<T: IntoIterator<Item = Stored>>(&mut self, stored: T) {
        self.0.extend(stored.into_iter().map(|s| ((s.level, s.index), s.hash)));
    }
}

/// An entry that does not fit, or a bundle that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum BundleError {
    #[error("an entry is at most {ENTRY_BYTES_MAX} bytes long, this one {0}")]
    TooLong(usize),
    #[error("the bundle ends inside an entry")]
    Short,
}

/// Entries as they are served: each after its length in 16 bits, the higher byte first.
pub fn bundle<'a>(entries: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<u8>, BundleError> {
    let mut bytes = Vec::new();
    for entry in entries {
        let length = u16::try_from(entry.len()).map_err(|_| BundleError::TooLong(entry.len()))?;
        bytes.extend(length.to_be_bytes());
        bytes.extend(entry);
    }
    Ok(bytes)
}

/// The entries of a bundle.
pub fn unbundle(mut bytes: &[u8]) -> Result<Vec<&[u8]>, BundleError> {
    let mut entries = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length));
        let (entry, rest) = rest.split_at_checked(length).ok_or(BundleError::Short)?;
        entries.push(entry);
        bytes = rest;
    }
    if bytes.is_empty() { Ok(entries) } else { Err(BundleError::Short) }
}
