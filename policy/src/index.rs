//! The rules of one scope (one tenant, or the org), indexed so that a look-up costs a hash probe.
//!
//! A rule is found under a hash of its level and the hashes of the names it selects by. A call's three
//! names are hashed once; each level then costs one multiply and one probe, and only levels that have
//! rules are probed at all. Names live in one arena per scope, so a rule is a few integers.

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

use crate::call::Call;
use crate::level::Level;
use crate::rule::{Permission, Rule};

/// No name: the rule does not select by this.
const NONE: u32 = u32::MAX;

/// The hashes of what a call can be selected by, computed once per call.
#[derive(Clone, Copy)]
pub(crate) struct Hashes {
    tool: u64,
    resource: Option<u64>,
    method: Option<u64>,
}

impl Hashes {
    pub(crate) fn of(call: &Call<'_>) -> Self {
        Self {
            tool: hash_name(call.tool),
            resource: call.resource.map(hash_name),
            method: call.method.map(hash_name),
        }
    }

    /// The key under which a rule of `level` would stand; `None` when the call lacks a name that such
    /// rules select by.
    fn key(&self, level: Level) -> Option<u64> {
        let resource = if level.names_resource() { self.resource? } else { 0 };
        let method = if level.names_method() { self.method? } else { 0 };
        let tool = if level.names_tool() { self.tool } else { 0 };
        Some(combine(level, tool, resource, method))
    }
}

pub(crate) fn hash_name(name: &str) -> u64 {
    // A fixed seed: a rule set compiles to the same table everywhere. Only administrators' names enter
    // the table, so a caller cannot build collisions.
    FixedState::with_seed(0x6f61_6b61_6c6c_6f77).hash_one(name)
}

/// Folds the parts together; each multiply spreads what came before over all bits.
fn combine(level: Level, tool: u64, resource: u64, method: u64) -> u64 {
    let mut h = fold(u64::from(level.number()) ^ tool, 0x9E37_79B9_7F4A_7C15);
    h = fold(h ^ resource, 0xD6E8_FEB8_6659_FD93);
    fold(h ^ method, 0xA076_1D64_78BD_642F)
}

const fn fold(a: u64, b: u64) -> u64 {
    let wide = (a as u128).wrapping_mul(b as u128);
    (wide as u64) ^ ((wide >> 64) as u64)
}

/// One rule: 20 bytes, plus its place in the table and its id.
struct Entry {
    tool: u32,
    resource: u32,
    method: u32,
    id_end: u32,
    level: Level,
    permission: Permission,
}

/// A rule found by a look-up.
#[derive(Clone, Copy)]
pub(crate) struct Found<'r> {
    pub(crate) permission: Permission,
    pub(crate) id: &'r str,
}

/// Two rules with the same selector; the ids of both.
pub(crate) struct Duplicate {
    pub(crate) first: String,
    pub(crate) second: String,
}

/// The compiled rules of one scope.
#[derive(Default)]
pub(crate) struct Index {
    /// Bit `n - 1` is set when a rule stands on level `n`.
    levels: u8,
    table: HashTable<u32>,
    entries: Vec<Entry>,
    names: Arena,
    ids: String,
}

impl Index {
    /// Compiles rules, which the caller has already picked to be of one scope.
    pub(crate) fn compile<'a>(rules: impl ExactSizeIterator<Item = &'a Rule>) -> Result<Self, Duplicate> {
        let mut index = Self {
            table: HashTable::with_capacity(rules.len()),
            entries: Vec::with_capacity(rules.len()),
            ..Self::default()
        };
        let mut interner = HashTable::new();
        for (position, rule) in rules.enumerate() {
            index.insert(&mut interner, position, rule)?;
        }
        index.names.bytes.shrink_to_fit();
        index.names.ends.shrink_to_fit();
        index.ids.shrink_to_fit();
        Ok(index)
    }

    fn insert(
        &mut self,
        interner: &mut HashTable<u32>,
        position: usize,
        rule: &Rule,
    ) -> Result<(), Duplicate> {
        let level = rule.level();
        let (tool, tool_hash) = self.intern(interner, rule.tool.as_deref());
        let (resource, resource_hash) = self.intern(interner, rule.resource.as_deref());
        let (method, method_hash) = self.intern(interner, rule.method.as_deref());
        let key = combine(level, tool_hash, resource_hash, method_hash);
        let same = |at: &u32| {
            self.entries
                .get(*at as usize)
                .is_some_and(|e| (e.level, e.tool, e.resource, e.method) == (level, tool, resource, method))
        };
        if let Some(first) = self.table.find(key, same) {
            return Err(Duplicate { first: self.id(*first).to_owned(), second: rule_id(position, rule) });
        }
        match &rule.id {
            Some(id) => self.ids.push_str(id),
            None => self.ids.push_str(&rule_id(position, rule)),
        }
        let at = u32::try_from(self.entries.len()).unwrap_or(NONE);
        self.entries.push(Entry {
            tool,
            resource,
            method,
            id_end: u32::try_from(self.ids.len()).unwrap_or(NONE),
            level,
            permission: rule.permission.otherwise(),
        });
        let (entries, names) = (&self.entries, &self.names);
        self.table.insert_unique(key, at, |at| rehash(entries, names, *at));
        self.levels |= 1 << (level.number() - 1);
        Ok(())
    }

    fn intern(&mut self, interner: &mut HashTable<u32>, name: Option<&str>) -> (u32, u64) {
        let Some(name) = name else { return (NONE, 0) };
        let hash = hash_name(name);
        let names = &mut self.names;
        if let Some(at) = interner.find(hash, |at| names.get(*at) == name) {
            return (*at, hash);
        }
        let at = names.push(name);
        interner.insert_unique(hash, at, |at| hash_name(names.get(*at)));
        (at, hash)
    }

    /// The number of rules.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether some rule stands on `level`.
    pub(crate) fn has_level(&self, level: Level) -> bool {
        self.levels & (1 << (level.number() - 1)) != 0
    }

    /// The rule of `level` that selects this call.
    pub(crate) fn find(&self, level: Level, hashes: &Hashes, call: &Call<'_>) -> Option<Found<'_>> {
        if !self.has_level(level) {
            return None;
        }
        let key = hashes.key(level)?;
        let at = self.table.find(key, |at| self.selects(*at, level, call))?;
        let entry = self.entries.get(*at as usize)?;
        Some(Found { permission: entry.permission, id: self.id(*at) })
    }

    fn selects(&self, at: u32, level: Level, call: &Call<'_>) -> bool {
        let Some(entry) = self.entries.get(at as usize) else { return false };
        entry.level == level
            && (!level.names_tool() || self.names.get(entry.tool) == call.tool)
            && (!level.names_resource() || call.resource == Some(self.names.get(entry.resource)))
            && (!level.names_method() || call.method == Some(self.names.get(entry.method)))
    }

    fn id(&self, at: u32) -> &str {
        let start = match at.checked_sub(1) {
            Some(before) => self.entries.get(before as usize).map_or(0, |e| e.id_end),
            None => 0,
        };
        let end = self.entries.get(at as usize).map_or(start, |e| e.id_end);
        self.ids.get(start as usize..end as usize).unwrap_or("")
    }

    /// The id of the rule that has the same selector as `rule`.
    pub(crate) fn same_selector(&self, rule: &Rule) -> Option<&str> {
        let level = rule.level();
        let hash = |name: Option<&str>| name.map_or(0, hash_name);
        let (tool, resource, method) =
            (rule.tool.as_deref(), rule.resource.as_deref(), rule.method.as_deref());
        let key = combine(level, hash(tool), hash(resource), hash(method));
        let call = Call {
            org: "",
            tenant: None,
            principal: "",
            audience: "",
            tool: tool.unwrap_or(""),
            resource,
            method,
        };
        self.table.find(key, |at| self.selects(*at, level, &call)).map(|at| self.id(*at))
    }

    /// Bytes on the heap.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.table.allocation_size()
            + self.entries.capacity() * size_of::<Entry>()
            + self.names.bytes.capacity()
            + self.names.ends.capacity() * size_of::<u32>()
            + self.ids.capacity()
    }
}

fn rehash(entries: &[Entry], names: &Arena, at: u32) -> u64 {
    let Some(entry) = entries.get(at as usize) else { return 0 };
    let hash = |name: u32| if name == NONE { 0 } else { hash_name(names.get(name)) };
    combine(entry.level, hash(entry.tool), hash(entry.resource), hash(entry.method))
}

/// The name under which decisions report a rule that brought no id of its own.
fn rule_id(position: usize, rule: &Rule) -> String {
    rule.id.as_ref().map_or_else(|| format!("#{}", position + 1), |id| id.as_str().to_owned())
}

/// Strings end to end, found by their number.
#[derive(Default)]
struct Arena {
    bytes: String,
    ends: Vec<u32>,
}

impl Arena {
    fn push(&mut self, text: &str) -> u32 {
        let at = u32::try_from(self.ends.len()).unwrap_or(NONE);
        self.bytes.push_str(text);
        self.ends.push(u32::try_from(self.bytes.len()).unwrap_or(NONE));
        at
    }

    fn get(&self, at: u32) -> &str {
        let start = match at.checked_sub(1) {
            Some(before) => self.ends.get(before as usize).copied().unwrap_or(0),
            None => 0,
        };
        let end = self.ends.get(at as usize).copied().unwrap_or(start);
        self.bytes.get(start as usize..end as usize).unwrap_or("")
    }
}
