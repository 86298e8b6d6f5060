//! From rules to an [`Index`].

use std::sync::Arc;

use super::cell::{Cell, Head, RuleCell, cells_of};
use super::names::{NameRef, Names};
use super::{Ids, Index, Present, narrow, present_place, scale, tag, tool_tag};
use crate::level::Level;
use crate::rule::{Permission, Rule};

/// Two rules with the same selector; their positions.
pub(crate) struct Duplicate {
    pub(crate) first: usize,
    pub(crate) second: usize,
}

/// A rule on its way into the index.
struct Placed {
    /// What it is sorted by: the tag of its tool, its tool, its tag, its position in the input. Rules
    /// without a tool come first, and the later of two duplicates stays behind the other.
    key: u128,
    resource: NameRef,
    method: NameRef,
    level: Level,
    permission: Permission,
}

impl Placed {
    fn tool_tag(&self) -> u32 {
        (self.key >> 96) as u32
    }

    fn tool(&self) -> NameRef {
        NameRef::from_word((self.key >> 64) as u32)
    }

    fn tag(&self) -> u32 {
        (self.key >> 32) as u32
    }

    fn position(&self) -> usize {
        self.key as u32 as usize
    }
}

impl Index {
    /// Compiles rules, which the caller has already picked to be of one scope.
    pub(crate) fn compile(rules: &[&Rule]) -> Result<Self, Duplicate> {
        let (mut tools, mut names) = (Names::default(), Names::default());
        let mut placed: Vec<Placed> = rules
            .iter()
            .enumerate()
            .map(|(position, rule)| place(&mut tools, &mut names, position, rule))
            .collect();
        placed.sort_unstable_by_key(|p| p.key);
        for same_tag in placed.chunk_by(|a, b| a.key >> 32 == b.key >> 32) {
            refuse_duplicates(same_tag)?;
        }
        Ok(Layout::of(&placed, rules, &tools).join(&names, rules.len()))
    }
}

fn place(tools: &mut Names, names: &mut Names, position: usize, rule: &Rule) -> Placed {
    let (tool, tool_hash) = tools.intern(rule.tool.as_deref());
    let (resource, resource_hash) = names.intern(rule.resource.as_deref());
    let (method, method_hash) = names.intern(rule.method.as_deref());
    let key = [tool_tag(tool_hash), tool.to_word(), tag(resource_hash, method_hash), narrow(position)];
    Placed {
        key: key.into_iter().fold(0, |key, word| key << 32 | u128::from(word)),
        resource,
        method,
        level: rule.level(),
        permission: rule.permission.otherwise(),
    }
}

/// The parts of an index, before they are put end to end.
#[derive(Default)]
struct Layout {
    present: Present,
    toolless: u32,
    /// The rules without a tool, then the tools' blocks.
    blocks: Vec<Cell>,
    /// The tags of the tools, and where their blocks start.
    heads: Vec<(u32, u32)>,
    ids: String,
    id_ends: Vec<u32>,
}

impl Layout {
    /// Of rules that are sorted.
    fn of(placed: &[Placed], rules: &[&Rule], tools: &Names) -> Self {
        let mut layout = Self::default();
        layout.blocks.reserve(placed.len() * 5 / 4);
        layout.id_ends.reserve(placed.len() * 5 / 4);
        for block in placed.chunk_by(|a, b| a.key >> 64 == b.key >> 64) {
            match block.first() {
                Some(first) if first.tool() != NameRef::NONE => {
                    layout.head(first.tool_tag(), tools.get(first.tool()), block);
                }
                _ => layout.toolless(block),
            }
            for p in block {
                let &Placed { resource, method, level, permission, .. } = p;
                let rule = RuleCell { tag: p.tag(), resource, method, level, permission };
                layout.blocks.push(rule.write());
                layout.id(rules.get(p.position()).copied());
            }
        }
        layout
    }

    fn head(&mut self, tag: u32, tool: &[u8], block: &[Placed]) {
        self.heads.push((tag, narrow(self.blocks.len())));
        self.blocks.push(Head::new(tag, tool, block.iter().map(Placed::tag)).write());
        self.blocks.extend(cells_of(tool));
        self.id_ends.resize(self.blocks.len(), narrow(self.ids.len()));
    }

    fn toolless(&mut self, block: &[Placed]) {
        self.toolless = narrow(block.len());
        for p in block {
            let (byte, bit) = present_place(p.tag());
            if let Some(bits) = self.present.get_mut(byte) {
                *bits |= 1 << bit;
            }
        }
    }

    fn id(&mut self, rule: Option<&Rule>) {
        match rule {
            Some(Rule { id: Some(id), .. }) => self.ids.push_str(id),
            Some(rule) => self.ids.push_str(&rule.label()),
            None => {}
        }
        self.id_ends.push(narrow(self.ids.len()));
    }

    /// With more parts than heads, few parts have more than one.
    fn parts(&self) -> usize {
        self.heads.len() + self.heads.len() / 2
    }

    fn directory(&self) -> Vec<u8> {
        let mut directory = Vec::with_capacity(self.parts() + 1);
        for (tag, at) in &self.heads {
            let part = scale(*tag, self.parts());
            if directory.len() <= part {
                directory.resize(part + 1, *at);
            }
        }
        directory.resize(self.parts() + 1, narrow(self.blocks.len()));
        directory.into_iter().flat_map(u32::to_le_bytes).collect()
    }

    fn join(self, names: &Names, rules: usize) -> Index {
        let directory_text = self.directory();
        let mut cells = Vec::new();
        cells.extend(cells_of(&self.present));
        cells.extend(cells_of(names.text()));
        let directory = narrow(cells.len());
        cells.extend(cells_of(&directory_text));
        let blocks = narrow(cells.len());
        cells.extend_from_slice(&self.blocks);
        Index {
            cells: cells.into(),
            directory,
            parts: narrow(self.parts()),
            blocks,
            toolless: self.toolless,
            rules: narrow(rules),
            ids: Arc::new(Ids { text: self.ids.into(), ends: self.id_ends.into() }),
        }
    }
}

/// Refuses two rules with the same selector among those of one block with the same tag.
fn refuse_duplicates(same_tag: &[Placed]) -> Result<(), Duplicate> {
    let selector = |p: &Placed| (p.level, p.resource, p.method);
    for (i, second) in same_tag.iter().enumerate() {
        let earlier = same_tag.iter().take(i).find(|first| selector(first) == selector(second));
        if let Some(first) = earlier {
            return Err(Duplicate { first: first.position(), second: second.position() });
        }
    }
    Ok(())
}
