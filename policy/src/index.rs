//! The rules of one scope (one tenant, or the org), indexed so that a look-up touches few cache lines.
//!
//! Rules that name a tool stand together in that tool's block, the others in one block of their own; a
//! directory finds a tool's block. Each rule has a 32-bit tag, a hash of its resource and method, and a
//! block's rules are sorted by it; as hashes spread evenly, a tag's value says nearly where it stands. A
//! call's names are hashed once. A tag only nominates; the names themselves decide.
//!
//! What a rule is called stands apart and is read only by who asks for it.

mod compile;
mod names;

use std::fmt;
use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use serde::{Serialize, Serializer};

use self::names::{NameRef, Names};
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
}

/// A fixed seed: a rule set compiles to the same index everywhere. Only administrators' names enter
/// it, so a caller cannot build long runs of equal tags; and equal tags never decide.
const SEED: FixedState = FixedState::with_seed(0x6f61_6b61_6c6c_6f77);

pub(crate) fn hash_name(name: &str) -> u64 {
    SEED.hash_one(name)
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

/// The bit of a tag in [`Block::present`].
fn bit(tag: u32) -> u64 {
    1 << (tag >> 26)
}

/// One rule: 16 bytes, besides its id and its share of the names.
struct Entry {
    tag: u32,
    resource: NameRef,
    method: NameRef,
    level: Level,
    permission: Permission,
}

/// Where the rules of one tool stand, or of none.
#[derive(Clone, Copy)]
struct Block {
    /// The bits of its rules' tags: most selectors that have no rule are known by it alone.
    present: u64,
    tag: u32,
    tool: NameRef,
    start: u32,
    len: u32,
}

impl Default for Block {
    fn default() -> Self {
        Self { present: 0, tag: u32::MAX, tool: NameRef::NONE, start: 0, len: 0 }
    }
}

/// The blocks of the tools: sorted by tag, each at the place its tag is expected at, or soon after; the
/// gaps are empty blocks.
#[derive(Default)]
struct Directory {
    homes: u32,
    slots: Vec<Block>,
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
    index: &'r Index,
    at: u32,
}

impl<'r> RuleRef<'r> {
    /// What the rule is called.
    pub(crate) fn id(self) -> &'r str {
        self.index.id(self.at as usize)
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

/// The compiled rules of one scope.
#[derive(Default)]
pub(crate) struct Index {
    directory: Directory,
    entries: Vec<Entry>,
    names: Names,
    without_tool: Block,
    /// The ids of the entries, in their order, and where each ends.
    ids: String,
    id_ends: Vec<u32>,
}

impl Index {
    /// The number of rules.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The first rule, in the order of the levels, that selects this call. Rules that name a tool are
    /// left out unless `with_tool`.
    pub(crate) fn first(
        &self,
        hashes: &Hashes,
        call: &Call<'_>,
        with_tool: bool,
    ) -> Option<(Level, Found<'_>)> {
        let tool_block = if with_tool { self.tool_block(hashes, call) } else { None };
        let [l1, l2, l3, l4, l5, l6, l7, l8] = Level::RULES;
        let named = tool_block.and_then(|block| self.first_in(block, [l1, l2, l3, l4], hashes, call));
        named.or_else(|| self.first_in(&self.without_tool, [l5, l6, l7, l8], hashes, call))
    }

    fn first_in(
        &self,
        block: &Block,
        levels: [Level; SELECTORS],
        hashes: &Hashes,
        call: &Call<'_>,
    ) -> Option<(Level, Found<'_>)> {
        let [a, b, c, d] = hashes.tags.map(|tag| (block.present >> (tag >> 26)) as u8 & 1);
        let candidates = (a | b << 1 | c << 2 | d << 3) & hashes.applicable;
        (0..SELECTORS).zip(levels).zip(hashes.tags).find_map(|((n, level), tag)| {
            if candidates & (1 << n) == 0 {
                return None;
            }
            self.find_in(block, level, tag, call).map(|found| (level, found))
        })
    }

    /// The rule of `level` that selects this call.
    pub(crate) fn find(&self, level: Level, hashes: &Hashes, call: &Call<'_>) -> Option<Found<'_>> {
        let block = if level.names_tool() { self.tool_block(hashes, call)? } else { &self.without_tool };
        let selector = usize::from(level.number() - 1) % SELECTORS;
        if hashes.applicable & (1 << selector) == 0 {
            return None;
        }
        self.find_in(block, level, *hashes.tags.get(selector)?, call)
    }

    fn tool_block(&self, hashes: &Hashes, call: &Call<'_>) -> Option<&Block> {
        let Directory { homes, slots } = &self.directory;
        let tag = hashes.tool;
        slots
            .get(scale(tag, *homes as usize)..)?
            .iter()
            .take_while(|block| block.len != 0 && block.tag <= tag)
            .find(|block| block.tag == tag && self.names.is(block.tool, call.tool))
    }

    fn find_in(&self, block: &Block, level: Level, tag: u32, call: &Call<'_>) -> Option<Found<'_>> {
        let start = block.start as usize;
        let entries = self.entries.get(start..start + block.len as usize)?;
        let first = first_with(entries, tag);
        let (at, entry) = entries
            .iter()
            .enumerate()
            .skip(first)
            .take_while(|(_, entry)| entry.tag == tag)
            .find(|(_, entry)| self.selects(entry, level, call))?;
        Some(Found { permission: entry.permission, rule: RuleRef { index: self, at: narrow(start + at) } })
    }

    fn selects(&self, entry: &Entry, level: Level, call: &Call<'_>) -> bool {
        entry.level == level
            && (!level.names_resource() || call.resource.is_some_and(|r| self.names.is(entry.resource, r)))
            && (!level.names_method() || call.method.is_some_and(|m| self.names.is(entry.method, m)))
    }

    fn id(&self, at: usize) -> &str {
        let end = |at: usize| self.id_ends.get(at).map_or(0, |end| *end as usize);
        let start = at.checked_sub(1).map_or(0, end);
        self.ids.get(start..end(at)).unwrap_or("")
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
        self.directory.slots.capacity() * size_of::<Block>()
            + self.entries.capacity() * size_of::<Entry>()
            + self.names.heap_bytes()
            + self.ids.capacity()
            + self.id_ends.capacity() * size_of::<u32>()
    }
}

/// Where the first entry with at least this tag stands, among entries sorted by tag.
fn first_with(entries: &[Entry], tag: u32) -> usize {
    let guess = scale(tag, entries.len());
    let (before, after) = entries.split_at_checked(guess).unwrap_or((entries, &[]));
    let back = before.iter().rev().take(NEAR).take_while(|entry| entry.tag >= tag).count();
    let on = if back == 0 { after.iter().take(NEAR).take_while(|entry| entry.tag < tag).count() } else { 0 };
    if back == NEAR || on == NEAR {
        return entries.partition_point(|entry| entry.tag < tag);
    }
    guess - back + on
}

/// Positions and offsets of one scope fit into 32 bits: a scope that had more would not fit into a
/// bundle. What does not fit finds nothing, it never finds something else.
fn narrow(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
