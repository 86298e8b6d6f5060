//! Numbers that should come one after the other.

use std::collections::BTreeMap;
use std::ops::Range;

/// Where a number stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It is the next one.
    Next,
    /// Some before it have not come.
    Ahead,
    /// It should have come earlier.
    Late,
    /// It came already.
    Again,
}

/// What has come, and what was left out so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Order {
    next: u64,
    gaps: BTreeMap<u64, u64>,
}

impl Order {
    pub(super) fn from(first: u64) -> Self {
        Self { next: first, gaps: BTreeMap::new() }
    }

    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn take(&mut self, number: u64) -> Place {
        if number < self.next {
            return if self.fill(number) { Place::Late } else { Place::Again };
        }
        let place = if number == self.next {
            Place::Next
        } else {
            self.gaps.insert(self.next, number);
            Place::Ahead
        };
        self.next = number.saturating_add(1);
        place
    }

    /// Goes on from somewhere, whatever lies between.
    pub(super) fn jump(&mut self, number: u64) {
        self.next = self.next.max(number.saturating_add(1));
    }

    fn fill(&mut self, number: u64) -> bool {
        let gap = self.gaps.range(..=number).next_back().map(|(from, to)| *from..*to);
        let Some(gap) = gap.filter(|gap| gap.contains(&number)) else { return false };
        self.gaps.remove(&gap.start);
        for part in [gap.start..number, number + 1..gap.end] {
            if !part.is_empty() {
                self.gaps.insert(part.start, part.end);
            }
        }
        true
    }

    /// What never came.
    pub(super) fn missing(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.gaps.iter().map(|(from, to)| *from..*to)
    }
}
