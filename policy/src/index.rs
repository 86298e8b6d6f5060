//! The rules of one scope (one tenant, or the org), indexed so that a look-up touches few cache lines.
//!
//! Rules that name a tool stand together in that tool's block, the others in one block of their own; a
//! directory finds a tool's block. Within a block each rule has a 32-bit tag, a hash of its level,
//! resource and method, and the tags are sorted: a short block is scanned, a long one is searched. A
//! call's names are hashed once. A tag only nominates; the names themselves decide.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::call::Call;
use crate::level::Level;
use crate::rule::{Permission, Rule};

/// Up to this many tags (two cache lines), scanning them all beats a binary search.
const SCAN_MAX: usize = 32;

/// The hashes of what a call can be selected by, computed once per call.
#[derive(Clone, Copy)]
pub(crate) struct Hashes {
    tool: u64,
    resource: Option<u64>,
    method: Option<u64>,
}

impl Hashes {
    /// Of a call whose tool hashes to `tool` (see [`hash_name`]).
    pub(crate) fn of(call: &Call<'_>, tool: u64) -> Self {
        Self { tool, resource: call.resource.map(hash_name), method: call.method.map(hash_name) }
    }

    /// The tag that a rule of `level` would have; `None` when the call lacks a name that such rules
    /// select by.
    fn tag(&self, level: Level) -> Option<u32> {
        let resource = if level.names_resource() { self.resource? } else { 0 };
        let method = if level.names_method() { self.method? } else { 0 };
        Some(tag(level, resource, method))
    }
}

/// A fixed seed: a rule set compiles to the same index everywhere. Only administrators' names enter
/// it, so a caller cannot build long runs of equal tags; and equal tags never decide.
const SEED: FixedState = FixedState::with_seed(0x6f61_6b61_6c6c_6f77);

pub(crate) fn hash_name(name: &str) -> u64 {
    SEED.hash_one(name)
}

fn tag(level: Level, resource: u64, method: u64) -> u32 {
    let h = fold(u64::from(level.number()) ^ resource, 0x9E37_79B9_7F4A_7C15);
    fold(h ^ method, 0xA076_1D64_78BD_642F) as u32
}

const fn fold(a: u64, b: u64) -> u64 {
    let wide = (a as u128).wrapping_mul(b as u128);
    (wide as u64) ^ ((wide >> 64) as u64)
}

/// One rule: 16 bytes, besides its tag, id and share of the names.
struct Entry {
    resource: NameRef,
    method: NameRef,
    id_start: u32,
    id_bytes: u16,
    level: Level,
    permission: Permission,
}

/// Where the rules of one tool stand, or of none.
#[derive(Clone, Copy, Default)]
struct Block {
    tool: NameRef,
    start: u32,
    len: u32,
    /// Bit `n - 1` is set when a rule stands on level `n`.
    levels: u8,
}

/// A rule found by a look-up.
#[derive(Clone, Copy)]
pub(crate) struct Found<'r> {
    pub(crate) permission: Permission,
    pub(crate) id: &'r str,
}

/// Two rules with the same selector; their positions.
pub(crate) struct Duplicate {
    pub(crate) first: usize,
    pub(crate) second: usize,
}

/// The compiled rules of one scope.
#[derive(Default)]
pub(crate) struct Index {
    directory: HashTable<Block>,
    without_tool: Block,
    tags: Vec<u32>,
    entries: Vec<Entry>,
    names: Names,
    ids: String,
}

/// A rule on its way into the index: the block it belongs to, its tag, its position in the input.
struct Placed {
    tool: NameRef,
    tag: u32,
    position: u32,
    entry: Entry,
}

impl Index {
    /// Compiles rules, which the caller has already picked to be of one scope.
    pub(crate) fn compile<'a>(rules: impl ExactSizeIterator<Item = &'a Rule>) -> Result<Self, Duplicate> {
        let mut index = Self::default();
        let mut interner = HashTable::new();
        let mut placed = Vec::with_capacity(rules.len());
        for (position, rule) in rules.enumerate() {
            placed.push(index.place(&mut interner, position, rule));
        }
        // Equal tags stay in input order, so that the second of two duplicates is the later one.
        placed.sort_unstable_by_key(|p| (p.tool, p.tag, p.position));
        index.fill(placed)?;
        index.names.0.shrink_to_fit();
        index.ids.shrink_to_fit();
        Ok(index)
    }

    fn place(&mut self, interner: &mut HashTable<NameRef>, position: usize, rule: &Rule) -> Placed {
        let level = rule.level();
        let (tool, _) = self.names.intern(interner, rule.tool.as_deref());
        let (resource, resource_hash) = self.names.intern(interner, rule.resource.as_deref());
        let (method, method_hash) = self.names.intern(interner, rule.method.as_deref());
        let id_start = narrow(self.ids.len());
        match &rule.id {
            Some(id) => self.ids.push_str(id),
            None => self.ids.push_str(&rule.label()),
        }
        let id_bytes = self.ids.len() - id_start as usize;
        let entry = Entry {
            resource,
            method,
            id_start,
            id_bytes: u16::try_from(id_bytes).unwrap_or(u16::MAX),
            level,
            permission: rule.permission.otherwise(),
        };
        Placed { tool, tag: tag(level, resource_hash, method_hash), position: narrow(position), entry }
    }

    /// Lays out what is sorted by block and tag.
    fn fill(&mut self, placed: Vec<Placed>) -> Result<(), Duplicate> {
        self.tags = placed.iter().map(|p| p.tag).collect();
        for block in placed.chunk_by(|a, b| a.tool == b.tool) {
            for same_tag in block.chunk_by(|a, b| a.tag == b.tag) {
                refuse_duplicates(same_tag)?;
            }
        }
        self.entries.reserve_exact(placed.len());
        let mut block = Block::default();
        for Placed { tool, entry, .. } in placed {
            if tool != block.tool || self.entries.is_empty() {
                self.close(block);
                block = Block { tool, start: narrow(self.entries.len()), len: 0, levels: 0 };
            }
            block.len += 1;
            block.levels |= bit(entry.level);
            self.entries.push(entry);
        }
        self.close(block);
        Ok(())
    }

    fn close(&mut self, block: Block) {
        if block.len == 0 {
            return;
        }
        if block.tool == NameRef::NONE {
            self.without_tool = block;
            return;
        }
        let names = &self.names;
        let hash = |b: &Block| hash_name(names.get(b.tool));
        self.directory.insert_unique(hash(&block), block, hash);
    }

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
        let tool_block = if with_tool { self.tool_block(hashes.tool, call.tool) } else { None };
        let [l1, l2, l3, l4, l5, l6, l7, l8] = Level::RULES;
        let named = tool_block.and_then(|block| self.first_in(block, [l1, l2, l3, l4], hashes, call));
        named.or_else(|| self.first_in(&self.without_tool, [l5, l6, l7, l8], hashes, call))
    }

    fn first_in(
        &self,
        block: &Block,
        levels: [Level; 4],
        hashes: &Hashes,
        call: &Call<'_>,
    ) -> Option<(Level, Found<'_>)> {
        levels.into_iter().find_map(|level| {
            self.find_in(block, level, hashes.tag(level)?, call).map(|found| (level, found))
        })
    }

    /// The rule of `level` that selects this call.
    pub(crate) fn find(&self, level: Level, hashes: &Hashes, call: &Call<'_>) -> Option<Found<'_>> {
        let block =
            if level.names_tool() { self.tool_block(hashes.tool, call.tool)? } else { &self.without_tool };
        self.find_in(block, level, hashes.tag(level)?, call)
    }

    fn tool_block(&self, hash: u64, tool: &str) -> Option<&Block> {
        self.directory.find(hash, |block| self.names.is(block.tool, tool))
    }

    fn find_in(&self, block: &Block, level: Level, tag: u32, call: &Call<'_>) -> Option<Found<'_>> {
        if block.levels & bit(level) == 0 {
            return None;
        }
        let range = block.start as usize..(block.start + block.len) as usize;
        let tags = self.tags.get(range.clone())?;
        let first = if tags.len() <= SCAN_MAX {
            tags.iter().position(|t| *t == tag)?
        } else {
            tags.partition_point(|t| *t < tag)
        };
        let run = tags.iter().skip(first).take_while(|t| **t == tag).count();
        let entries = self.entries.get(range)?.get(first..first + run)?;
        let entry = entries.iter().find(|entry| self.selects(entry, level, call))?;
        Some(Found { permission: entry.permission, id: self.id(entry) })
    }

    fn selects(&self, entry: &Entry, level: Level, call: &Call<'_>) -> bool {
        entry.level == level
            && (!level.names_resource() || call.resource.is_some_and(|r| self.names.is(entry.resource, r)))
            && (!level.names_method() || call.method.is_some_and(|m| self.names.is(entry.method, m)))
    }

    fn id(&self, entry: &Entry) -> &str {
        let start = entry.id_start as usize;
        self.ids.get(start..start + usize::from(entry.id_bytes)).unwrap_or("")
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
        self.find(rule.level(), &Hashes::of(&call, hash_name(call.tool)), &call).map(|found| found.id)
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.directory.allocation_size()
            + self.tags.capacity() * size_of::<u32>()
            + self.entries.capacity() * size_of::<Entry>()
            + self.names.0.capacity()
            + self.ids.capacity()
    }
}

const fn bit(level: Level) -> u8 {
    1 << (level.number() - 1)
}

/// Positions and offsets of one scope fit into 32 bits: a scope that had more would not fit into a
/// bundle. What does not fit finds nothing, it never finds something else.
fn narrow(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Refuses two rules with the same selector among those of one block with the same tag.
fn refuse_duplicates(same_tag: &[Placed]) -> Result<(), Duplicate> {
    let selector = |p: &Placed| (p.entry.level, p.entry.resource, p.entry.method);
    for (i, second) in same_tag.iter().enumerate() {
        let earlier = same_tag.iter().take(i).find(|first| selector(first) == selector(second));
        if let Some(first) = earlier {
            return Err(Duplicate { first: first.position as usize, second: second.position as usize });
        }
    }
    Ok(())
}

/// A name in [`Names`]: where its length stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct NameRef(u32);

impl NameRef {
    /// No name: the rule does not select by this.
    const NONE: Self = Self(u32::MAX);
}

impl Default for NameRef {
    fn default() -> Self {
        Self::NONE
    }
}

/// The distinct names of a scope, end to end; each is two bytes of length and its text.
#[derive(Default)]
struct Names(Vec<u8>);

impl Names {
    fn intern(&mut self, interner: &mut HashTable<NameRef>, name: Option<&str>) -> (NameRef, u64) {
        let Some(name) = name else { return (NameRef::NONE, 0) };
        let hash = hash_name(name);
        if let Some(known) = interner.find(hash, |at| self.is(*at, name)) {
            return (*known, hash);
        }
        let at = NameRef(narrow(self.0.len()));
        // A name has at most 1,024 bytes (`id::NAME_BYTES_MAX`).
        let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(name.as_bytes());
        interner.insert_unique(hash, at, |at| hash_name(self.get(*at)));
        (at, hash)
    }

    fn is(&self, at: NameRef, name: &str) -> bool {
        self.bytes(at) == name.as_bytes()
    }

    fn get(&self, at: NameRef) -> &str {
        std::str::from_utf8(self.bytes(at)).unwrap_or("")
    }

    fn bytes(&self, at: NameRef) -> &[u8] {
        let rest = self.0.get(at.0 as usize..).unwrap_or(&[]);
        let Some((length, text)) = rest.split_first_chunk::<2>() else { return &[] };
        text.get(..usize::from(u16::from_le_bytes(*length))).unwrap_or(&[])
    }
}
