//! The rules of one scope (one tenant, or the org), indexed so that a look-up touches few cache lines.
//!
//! All is in one array of cells, see [`Index`]. Rules that name a tool stand together in that tool's block:
//! a head, the tool's name, the rules; a directory says where the blocks are. Each rule has a 32-bit tag,
//! a hash of its resource and method, and a block's rules are sorted by it; as hashes spread evenly, a
//! tag's value says nearly where it stands. A call's names are hashed once. A tag only nominates; the
//! names themselves decide.
//!
//! What a rule is called stands apart and is read only by who asks for it.

mod cell;
mod compile;
mod names;
#[cfg(test)]
mod tests;

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::hint::black_box;
use std::sync::Arc;

use foldhash::fast::FixedState;
use serde::{Serialize, Serializer};

use self::cell::{Cell, Head, RuleCell, present_bit, tag_of};
use crate::call::Call;
use crate::level::Level;
use crate::rule::{Permission, Rule};

/// The selectors within a block, in the order of the walk: resource and method, resource, method, none.
const SELECTORS: usize = 4;

/// How far from its expected place a tag is looked for step by step, before a binary search.
const NEAR: usize = 32;

/// The hashes of what a call can be selected by, computed once per call.
#[derive(Clone, Copy)]
pub(crate) struct Hashes {
    tool: u32,
    /// The tag of each of the [`SELECTORS`].
    tags: [u32; SELECTORS],
    /// Bit `n` is set when the call has the names that selector `n` selects by.
    applicable: u8,
}

impl Hashes {
    /// Of a call whose tool hashes to `tool` (see [`hash_name`]).
    pub(crate) fn of(call: &Call<'_>, tool: u64) -> Self {
        let applicable = match (call.resource, call.method) {
            (Some(_), Some(_)) => 0b1111,
            (Some(_), None) => 0b1010,
            (None, Some(_)) => 0b1100,
            (None, None) => 0b1000,
        };
        let (resource, method) = (call.resource.map_or(0, hash_name), call.method.map_or(0, hash_name));
        let tags = [tag(resource, method), tag(resource, 0), tag(0, method), tag(0, 0)];
        Self { tool: tool_tag(tool), tags, applicable }
    }

    /// The selectors that apply and for whose tag the lowest bit of `present` is set. Without a branch
    /// for each, as these would go either way.
    fn candidates(&self, present: impl Fn(u32) -> u32) -> u8 {
        let [a, b, c, d] = self.tags.map(|tag| (present(tag) & 1) as u8);
        (a | b << 1 | c << 2 | d << 3) & self.applicable
    }
}

/// A fixed seed: a rule set compiles to the same index everywhere. Only administrators' names enter
/// it, so a caller cannot build long runs of equal tags; and equal tags never decide.
const SEED: FixedState = FixedState::with_seed(0x6f61_6b61_6c6c_6f77);

pub(crate) fn hash_name(name: &str) -> u64 {
    hash_bytes(name.as_bytes())
}

fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hasher = SEED.build_hasher();
    hasher.write(bytes);
    hasher.finish()
}

/// The tag of a rule, or of what would select a call; 0 stands for a name that it lacks.
fn tag(resource: u64, method: u64) -> u32 {
    let wide = u128::from(resource ^ 0x9E37_79B9_7F4A_7C15) * u128::from(method ^ 0xA076_1D64_78BD_642F);
    ((wide as u64) ^ ((wide >> 64) as u64)) as u32
}

fn tool_tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

/// Where among `len` places something with this tag is expected.
fn scale(tag: u32, len: usize) -> usize {
    ((u64::from(tag) * len as u64) >> 32) as usize
}

/// A rule found by a look-up.
#[derive(Clone, Copy)]
pub(crate) struct Found<'r> {
    pub(crate) permission: Permission,
    pub(crate) rule: RuleRef<'r>,
}

/// A rule in an index.
#[derive(Clone, Copy)]
pub(crate) struct RuleRef<'r> {
    ids: &'r Ids,
    at: u32,
}

impl<'r> RuleRef<'r> {
    /// What the rule is called.
    pub(crate) fn id(self) -> &'r str {
        self.ids.get(self.at as usize)
    }
}

impl PartialEq for RuleRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for RuleRef<'_> {}

impl fmt::Debug for RuleRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.id(), f)
    }
}

impl Serialize for RuleRef<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.id().serialize(s)
    }
}

/// The compiled rules of one scope. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Index {
    /// In this order: [`Present`] of the rules without a tool; the names that rules select by; the
    /// directory; the rules without a tool; the tools' blocks, sorted by the tools' tags.
    cells: Arc<[Cell]>,
    ids: Arc<Ids>,
    /// Where the directory starts.
    directory: u32,
    /// The directory divides the range of tools' tags into so many parts. For each it has, in four
    /// bytes, where the part's first block starts, counted from `blocks`; at last, where all end.
    parts: u32,
    /// Where the rules without a tool start.
    blocks: u32,
    toolless: u32,
    rules: u32,
}

/// Which tags the rules without a tool have, a bit for each value of a tag's highest byte.
type Present = [u8; PRESENT_CELLS * size_of::<Cell>()];
const PRESENT_CELLS: usize = 2;

/// The byte and the bit of a tag in a [`Present`].
fn present_place(tag: u32) -> (usize, u32) {
    ((tag >> 27) as usize, tag >> 24 & 7)
}

/// The ids of the rules, in their order, and where each cell's ends.
#[derive(Default)]
struct Ids {
    text: Box<str>,
    ends: Box<[u32]>,
}

impl Ids {
    fn get(&self, at: usize) -> &str {
        let end = |at: usize| self.ends.get(at).map_or(0, |end| *end as usize);
        let start = at.checked_sub(1).map_or(0, end);
        self.text.get(start..end(at)).unwrap_or("")
    }
}

/// A run of cells: the rules of one tool, or of none; and which selectors can have a rule there.
#[derive(Clone, Copy)]
struct Block {
    start: usize,
    len: usize,
    candidates: u8,
}

impl Index {
    /// The number of rules.
    pub(crate) fn len(&self) -> usize {
        self.rules as usize
    }

    /// The first rule, in the order of the levels, that selects this call. Rules that name a tool are
    /// left out unless `with_tool`.
    pub(crate) fn first(
        &self,
        hashes: &Hashes,
        call: &Call<'_>,
        with_tool: bool,
    ) -> Option<(Level, Found<'_>)> {
        let [l1, l2, l3, l4, l5, l6, l7, l8] = Level::RULES;
        let block = if with_tool { self.tool_block(hashes, call) } else { None };
        let named = block.and_then(|block| self.first_in(block, [l1, l2, l3, l4], hashes, call));
        named.or_else(|| self.first_in(self.toolless_block(hashes), [l5, l6, l7, l8], hashes, call))
    }

    fn first_in(
        &self,
        block: Block,
        levels: [Level; SELECTORS],
        hashes: &Hashes,
        call: &Call<'_>,
    ) -> Option<(Level, Found<'_>)> {
        (0..SELECTORS).zip(levels).zip(hashes.tags).find_map(|((n, level), tag)| {
            if block.candidates & (1 << n) == 0 {
                return None;
            }
            self.find_in(block, level, tag, call).map(|found| (level, found))
        })
    }

    /// The rule of `level` that selects this call.
    pub(crate) fn find(&self, level: Level, hashes: &Hashes, call: &Call<'_>) -> Option<Found<'_>> {
        let block =
            if level.names_tool() { self.tool_block(hashes, call)? } else { self.toolless_block(hashes) };
        let selector = usize::from(level.number() - 1) % SELECTORS;
        if block.candidates & (1 << selector) == 0 {
            return None;
        }
        self.find_in(block, level, *hashes.tags.get(selector)?, call)
    }

    fn tool_block(&self, hashes: &Hashes, call: &Call<'_>) -> Option<Block> {
        let tag = hashes.tool;
        let (mut at, end) = self.part(tag)?;
        let mut cells = self.cells.get(at..end)?;
        read_ahead(cells);
        while let [first, rest @ ..] = cells {
            let head = Head::read(first);
            let (start, len) = (at + head.cells(), head.rules as usize);
            if head.tag == tag && head.is(call.tool, rest) {
                let candidates = hashes.candidates(|tag| head.present >> present_bit(tag));
                return Some(Block { start, len, candidates });
            }
            at = start + len;
            cells = self.cells.get(at..end)?;
        }
        None
    }

    /// Where the blocks of the tools with such a tag start and end.
    fn part(&self, tag: u32) -> Option<(usize, usize)> {
        let at = self.directory as usize * size_of::<Cell>() + scale(tag, self.parts as usize) * 4;
        let [start, end] = self.cells.as_flattened().get(at..at + 8)?.as_chunks().0 else { return None };
        let place = |bytes: &[u8; 4]| self.blocks as usize + u32::from_le_bytes(*bytes) as usize;
        Some((place(start), place(end)))
    }

    fn toolless_block(&self, hashes: &Hashes) -> Block {
        let present = self.cells.as_flattened().first_chunk::<{ size_of::<Present>() }>();
        let candidates = present.map_or(0, |present| {
            hashes.candidates(|tag| {
                let (byte, bit) = present_place(tag);
                present.get(byte).map_or(0, |bits| u32::from(bits >> bit))
            })
        });
        Block { start: self.blocks as usize, len: self.toolless as usize, candidates }
    }

    fn find_in(&self, block: Block, level: Level, tag: u32, call: &Call<'_>) -> Option<Found<'_>> {
        let rules = self.cells.get(block.start..)?.get(..block.len)?;
        let mut at = first_with(rules, tag);
        while let Some(rule) = rules.get(at).filter(|rule| tag_of(rule) == tag) {
            if let Some(permission) = RuleCell::permission(rule, level)
                && self.selects(rule, level, call)
            {
                let at = narrow(block.start + at) - self.blocks;
                return Some(Found { permission, rule: RuleRef { ids: &self.ids, at } });
            }
            at += 1;
        }
        None
    }

    /// Whether the names of a rule of this level are the call's.
    fn selects(&self, rule: &Cell, level: Level, call: &Call<'_>) -> bool {
        let names = self.cells.get(PRESENT_CELLS..).unwrap_or(&[]).as_flattened();
        let is = |at, name: &str| names::read(names, at) == name.as_bytes();
        (!level.names_resource() || call.resource.is_some_and(|r| is(RuleCell::resource(rule), r)))
            && (!level.names_method() || call.method.is_some_and(|m| is(RuleCell::method(rule), m)))
    }

    /// The id of the rule that has the same selector as `rule`.
    pub(crate) fn same_selector(&self, rule: &Rule) -> Option<&str> {
        let call = Call {
            org: "",
            tenant: None,
            principal: "",
            audience: "",
            tool: rule.tool.as_deref().unwrap_or(""),
            resource: rule.resource.as_deref(),
            method: rule.method.as_deref(),
        };
        self.find(rule.level(), &Hashes::of(&call, hash_name(call.tool)), &call).map(|found| found.rule.id())
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.cells)
            + size_of::<Ids>()
            + self.ids.text.len()
            + size_of_val(&*self.ids.ends)
            + 4 * size_of::<usize>()
    }
}

/// Reads what lies ahead, one cell in each cache line, and does nothing with it: so the lines of a block
/// come at the same time, and not each when the one before it has said where to look next.
fn read_ahead(cells: &[Cell]) {
    const LINE: usize = 64 / size_of::<Cell>();
    for cell in cells.iter().step_by(LINE).take(LINE) {
        black_box(tag_of(cell));
    }
}

/// Where the first rule with at least this tag stands, among rules sorted by tag.
fn first_with(rules: &[Cell], tag: u32) -> usize {
    let tag_at = |at: usize| rules.get(at).map(tag_of);
    let mut at = scale(tag, rules.len());
    for _ in 0..NEAR {
        if tag_at(at.wrapping_sub(1)).is_some_and(|t| t >= tag) {
            at -= 1;
        } else if tag_at(at).is_some_and(|t| t < tag) {
            at += 1;
        } else {
            return at;
        }
    }
    rules.partition_point(|rule| tag_of(rule) < tag)
}

/// Positions and offsets of one scope fit into 32 bits: a scope that had more would not fit into a
/// bundle. What does not fit finds nothing, it never finds something else.
fn narrow(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
