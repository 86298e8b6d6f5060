//! The names that the rules of a scope select by.

use hashbrown::HashTable;

use super::{hash_bytes, hash_name, narrow};

/// A name in [`Names`]: where its length stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct NameRef(u32);

impl NameRef {
    /// No name: the rule does not select by this. It points to an empty name, which no call has.
    pub(super) const NONE: Self = Self(0);

    /// As it is kept in a cell.
    pub(super) const fn to_word(self) -> u32 {
        self.0
    }

    /// Back from [`NameRef::to_word`].
    pub(super) const fn from_word(word: u32) -> Self {
        Self(word)
    }
}

/// The distinct names of a scope, end to end; each is two bytes of length and its text.
#[derive(Default)]
pub(super) struct Names {
    text: Vec<u8>,
    known: HashTable<NameRef>,
}

impl Names {
    /// Where the name stands, which is added if it is new; and its hash.
    pub(super) fn intern(&mut self, name: Option<&str>) -> (NameRef, u64) {
        let Some(name) = name else { return (NameRef::NONE, 0) };
        let hash = hash_name(name);
        let Self { text, known } = self;
        if let Some(at) = known.find(hash, |at| read(text, *at) == name.as_bytes()) {
            return (*at, hash);
        }
        if text.is_empty() {
            text.extend_from_slice(&0_u16.to_le_bytes());
        }
        let at = NameRef(narrow(text.len()));
        // A name has at most 1,024 bytes (`id::NAME_BYTES_MAX`).
        let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
        text.extend_from_slice(&length.to_le_bytes());
        text.extend_from_slice(name.as_bytes());
        known.insert_unique(hash, at, |at| hash_bytes(read(text, *at)));
        (at, hash)
    }

    /// The text of a name.
    pub(super) fn get(&self, at: NameRef) -> &[u8] {
        read(&self.text, at)
    }

    /// All names, as [`read`] takes them.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }
}

/// The text of a name among those of [`Names::text`].
pub(super) fn read(names: &[u8], at: NameRef) -> &[u8] {
    let rest = names.get(at.0 as usize..).unwrap_or(&[]);
    let Some((length, text)) = rest.split_first_chunk::<2>() else { return &[] };
    text.get(..usize::from(u16::from_le_bytes(*length))).unwrap_or(&[])
}
