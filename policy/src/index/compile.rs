//! From rules to an [`Index`].

use super::names::{Interner, NameRef};
use super::{Block, Directory, Entry, Index, bit, hash_name, narrow, scale, tag, tool_tag};
use crate::level::Level;
use crate::rule::{Permission, Rule};

/// Two rules with the same selector; their positions.
pub(crate) struct Duplicate {
    pub(crate) first: usize,
    pub(crate) second: usize,
}

/// A rule on its way into the index: the block it belongs to, its tag, its position in the input.
struct Placed {
    tool: NameRef,
    tag: u32,
    position: u32,
    resource: NameRef,
    method: NameRef,
    level: Level,
    permission: Permission,
}

impl Index {
    /// Compiles rules, which the caller has already picked to be of one scope.
    pub(crate) fn compile(rules: &[&Rule]) -> Result<Self, Duplicate> {
        let mut index = Self::default();
        let mut interner = Interner::new();
        let mut placed: Vec<Placed> = rules
            .iter()
            .enumerate()
            .map(|(position, rule)| index.place(&mut interner, position, rule))
            .collect();
        // Equal tags stay in input order, so that the second of two duplicates is the later one.
        placed.sort_unstable_by_key(|p| (p.tool, p.tag, p.position));
        for same_tag in placed.chunk_by(|a, b| (a.tool, a.tag) == (b.tool, b.tag)) {
            refuse_duplicates(same_tag)?;
        }
        index.fill(&placed, rules);
        index.names.shrink();
        index.ids.shrink_to_fit();
        Ok(index)
    }

    fn place(&mut self, interner: &mut Interner, position: usize, rule: &Rule) -> Placed {
        let (tool, _) = self.names.intern(interner, rule.tool.as_deref());
        let (resource, resource_hash) = self.names.intern(interner, rule.resource.as_deref());
        let (method, method_hash) = self.names.intern(interner, rule.method.as_deref());
        Placed {
            tool,
            tag: tag(resource_hash, method_hash),
            position: narrow(position),
            resource,
            method,
            level: rule.level(),
            permission: rule.permission.otherwise(),
        }
    }

    /// Lays out what is sorted by block and tag.
    fn fill(&mut self, placed: &[Placed], rules: &[&Rule]) {
        self.entries.reserve_exact(placed.len());
        self.id_ends.reserve_exact(placed.len());
        let mut blocks = Vec::new();
        for rules_of_block in placed.chunk_by(|a, b| a.tool == b.tool) {
            let mut block = Block { start: narrow(self.entries.len()), ..Block::default() };
            for p in rules_of_block {
                block.tool = p.tool;
                block.len += 1;
                block.present |= bit(p.tag);
                let (tag, level, permission) = (p.tag, p.level, p.permission);
                self.entries.push(Entry { tag, resource: p.resource, method: p.method, level, permission });
                self.push_id(rules.get(p.position as usize).copied());
            }
            if block.tool == NameRef::NONE {
                self.without_tool = block;
            } else {
                block.tag = tool_tag(hash_name(self.names.get(block.tool)));
                blocks.push(block);
            }
        }
        self.directory = Directory::new(blocks);
    }

    fn push_id(&mut self, rule: Option<&Rule>) {
        match rule {
            Some(Rule { id: Some(id), .. }) => self.ids.push_str(id),
            Some(rule) => self.ids.push_str(&rule.label()),
            None => {}
        }
        self.id_ends.push(narrow(self.ids.len()));
    }
}

impl Directory {
    fn new(mut blocks: Vec<Block>) -> Self {
        blocks.sort_unstable_by_key(|block| (block.tag, block.start));
        let homes = narrow(blocks.len() * 3 / 2);
        let mut slots = Vec::with_capacity(homes as usize + 8);
        for block in blocks {
            let home = scale(block.tag, homes as usize);
            if slots.len() < home {
                slots.resize(home, Block::default());
            }
            slots.push(block);
        }
        slots.shrink_to_fit();
        Self { homes, slots }
    }
}

/// Refuses two rules with the same selector among those of one block with the same tag.
fn refuse_duplicates(same_tag: &[Placed]) -> Result<(), Duplicate> {
    let selector = |p: &Placed| (p.level, p.resource, p.method);
    for (i, second) in same_tag.iter().enumerate() {
        let earlier = same_tag.iter().take(i).find(|first| selector(first) == selector(second));
        if let Some(first) = earlier {
            return Err(Duplicate { first: first.position as usize, second: second.position as usize });
        }
    }
    Ok(())
}
