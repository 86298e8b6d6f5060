//! What the array of an index consists of: cells of 16 bytes.

use super::names::NameRef;
use crate::level::Level;
use crate::rule::Permission;

/// A head, a rule, or 16 bytes of something longer.
pub(super) type Cell = [u8; 16];

/// The word at `n` of four.
fn word(cell: &Cell, n: usize) -> u32 {
    cell.as_chunks().0.get(n).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// As many cells as these bytes take.
pub(super) fn cells_of(bytes: &[u8]) -> impl Iterator<Item = Cell> {
    bytes.chunks(size_of::<Cell>()).map(|part| {
        let mut cell = Cell::default();
        cell.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
        cell
    })
}

fn cell(words: [u32; 4]) -> Cell {
    let mut cell = [0; 16];
    for (bytes, word) in cell.as_chunks_mut().0.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
    cell
}

/// The tag of a rule's selector, or of a head's tool.
pub(super) fn tag_of(cell: &Cell) -> u32 {
    word(cell, 0)
}

/// One rule, besides its id and its share of the names.
pub(super) struct RuleCell {
    pub(super) tag: u32,
    pub(super) resource: NameRef,
    pub(super) method: NameRef,
    pub(super) level: Level,
    pub(super) permission: Permission,
}

impl RuleCell {
    pub(super) fn write(&self) -> Cell {
        let verdict = u32::from(self.level.number()) << 8 | self.permission as u32;
        cell([self.tag, self.resource.to_word(), self.method.to_word(), verdict])
    }

    /// What the rule says, if it is of `level`.
    pub(super) fn permission(cell: &Cell, level: Level) -> Option<Permission> {
        let [permission, number, ..] = word(cell, 3).to_le_bytes();
        let known = [Permission::Allowed, Permission::RequiresApproval, Permission::Disabled];
        if number == level.number() { known.get(usize::from(permission)).copied() } else { None }
    }

    pub(super) fn resource(cell: &Cell) -> NameRef {
        NameRef::from_word(word(cell, 1))
    }

    pub(super) fn method(cell: &Cell) -> NameRef {
        NameRef::from_word(word(cell, 2))
    }
}

/// What stands before a tool's rules: it, then the tool's name.
pub(super) struct Head {
    pub(super) tag: u32,
    name_bytes: u32,
    pub(super) rules: u32,
    /// Which tags its rules have, by their highest bits: most selectors that have no rule are known by it.
    pub(super) present: u32,
}

impl Head {
    pub(super) fn new(tag: u32, name: &[u8], rules: impl ExactSizeIterator<Item = u32>) -> Self {
        Self {
            tag,
            name_bytes: super::narrow(name.len()),
            rules: super::narrow(rules.len()),
            present: rules.fold(0, |bits, tag| bits | 1 << present_bit(tag)),
        }
    }

    pub(super) fn write(&self) -> Cell {
        cell([self.tag, self.name_bytes, self.rules, self.present])
    }

    pub(super) fn read(cell: &Cell) -> Self {
        let [tag, name_bytes, rules, present] = [0, 1, 2, 3].map(|n| word(cell, n));
        Self { tag, name_bytes, rules, present }
    }

    /// How many cells it and the name take.
    pub(super) fn cells(&self) -> usize {
        1 + (self.name_bytes as usize).div_ceil(size_of::<Cell>())
    }

    /// Whether the name, which starts with the cells given, is this.
    pub(super) fn is(&self, name: &str, cells: &[Cell]) -> bool {
        cells.as_flattened().get(..self.name_bytes as usize) == Some(name.as_bytes())
    }
}

/// The bit of a tag in [`Head::present`].
pub(super) fn present_bit(tag: u32) -> u32 {
    tag >> 27
}
