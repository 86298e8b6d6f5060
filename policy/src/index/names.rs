//! The distinct names of a scope.

use hashbrown::HashTable;

use super::{hash_name, narrow};

/// A name in [`Names`]: where its length stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NameRef(u32);

impl NameRef {
    /// No name: the rule does not select by this.
    pub(super) const NONE: Self = Self(u32::MAX);
}

/// The distinct names of a scope, end to end; each is two bytes of length and its text.
#[derive(Default)]
pub(super) struct Names(Vec<u8>);

/// What [`Names`] holds by hash, while it is filled.
pub(super) type Interner = HashTable<NameRef>;

impl Names {
    /// Where the name stands, which is added if it is new; and its hash.
    pub(super) fn intern(&mut self, interner: &mut Interner, name: Option<&str>) -> (NameRef, u64) {
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

    pub(super) fn is(&self, at: NameRef, name: &str) -> bool {
        self.bytes(at) == name.as_bytes()
    }

    pub(super) fn get(&self, at: NameRef) -> &str {
        std::str::from_utf8(self.bytes(at)).unwrap_or("")
    }

    fn bytes(&self, at: NameRef) -> &[u8] {
        let rest = self.0.get(at.0 as usize..).unwrap_or(&[]);
        let Some((length, text)) = rest.split_first_chunk::<2>() else { return &[] };
        text.get(..usize::from(u16::from_le_bytes(*length))).unwrap_or(&[])
    }

    pub(super) fn shrink(&mut self) {
        self.0.shrink_to_fit();
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.0.capacity()
    }
}
