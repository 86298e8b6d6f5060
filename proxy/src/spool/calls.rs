//! Which calls are open, and where in the log the event stands that opened each.

use std::collections::HashMap;

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Of the segment.
    pub(super) number: u64,
    /// Offset in it.
    pub(super) at: u64,
    /// Of the record.
    pub(super) bytes: u64,
}

#[derive(Default)]
pub(super) struct OpenCalls {
    by_txn: HashMap<String, Place>,
    bytes: u64,
}

/// What a record does to the list.
#[derive(Debug)]
pub(super) enum Change {
    Opens(String, Place),
    Closes(String),
}

impl OpenCalls {
    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::Opens(txn, place) => {
                self.bytes += place.bytes;
                let before = self.by_txn.insert(txn, place);
                self.bytes -= before.map_or(0, |place| place.bytes);
            }
            Change::Closes(txn) => self.bytes -= self.by_txn.remove(&txn).map_or(0, |place| place.bytes),
        }
    }

    /// Of the records that opened them.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Those whose record is in one of the segments up to this one, in the order of the records.
    pub(super) fn up_to(&self, number: u64) -> Vec<(String, Place)> {
        let found = self.by_txn.iter().filter(|(_, place)| place.number <= number);
        let mut found: Vec<_> = found.map(|(txn, place)| (txn.clone(), *place)).collect();
        found.sort_unstable_by_key(|(_, place)| *place);
        found
    }
}
