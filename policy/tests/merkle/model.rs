//! RFC 9162 section 2.1, word for word, over hashes of leaves; what was worked out once is remembered.

use std::cell::RefCell;
use std::collections::HashMap;

use oakallow_policy::merkle::Hash;

pub(crate) struct Model {
    leaves: Vec<Hash>,
    roots: RefCell<HashMap<(usize, usize), Hash>>,
}

/// The largest power of two below `n`.
fn split(n: usize) -> usize {
    n.next_power_of_two() / 2
}

impl Model {
    pub(crate) fn of(leaves: &[Hash]) -> Self {
        Self { leaves: leaves.to_vec(), roots: RefCell::default() }
    }

    /// Section 2.1.1, of leaves `from` to `to`.
    pub(crate) fn root(&self, from: usize, to: usize) -> Hash {
        if let Some(known) = self.roots.borrow().get(&(from, to)) {
            return *known;
        }
        let root = match &self.leaves[from..to] {
            [] => Hash::EMPTY,
            [leaf] => *leaf,
            leaves => {
                let middle = from + split(leaves.len());
                Hash::of_node(self.root(from, middle), self.root(middle, to))
            }
        };
        self.roots.borrow_mut().insert((from, to), root);
        root
    }

    /// Section 2.1.3.1.
    pub(crate) fn path(&self, index: usize, (from, to): (usize, usize)) -> Vec<Hash> {
        if from + 1 == to {
            return Vec::new();
        }
        let middle = from + split(to - from);
        let (mut path, beside) = if index < middle {
            (self.path(index, (from, middle)), self.root(middle, to))
        } else {
            (self.path(index, (middle, to)), self.root(from, middle))
        };
        path.push(beside);
        path
    }

    /// Section 2.1.4.1; from nothing to anything there is nothing to prove.
    pub(crate) fn consistency(&self, before: usize, size: usize) -> Vec<Hash> {
        if before == 0 { Vec::new() } else { self.subproof(before, (0, size), true) }
    }

    fn subproof(&self, before: usize, (from, to): (usize, usize), complete: bool) -> Vec<Hash> {
        if before == to {
            return if complete { Vec::new() } else { vec![self.root(from, to)] };
        }
        let middle = from + split(to - from);
        let (mut path, beside) = if before <= middle {
            (self.subproof(before, (from, middle), complete), self.root(middle, to))
        } else {
            (self.subproof(before, (middle, to), false), self.root(from, middle))
        };
        path.push(beside);
        path
    }
}
