//! The only place that reads the system's clock and random source; everything else takes values.

use std::cell::RefCell;

use oakallow_policy::id::{self, Kind};
use oakallow_policy::timestamp::UnixMs;

/// Milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
#[must_use]
pub fn now_ms() -> UnixMs {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// Nanoseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
#[must_use]
pub fn now_ns() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

/// Random bytes from the operating system.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill(&mut bytes);
    bytes
}

#[expect(clippy::disallowed_methods, clippy::expect_used, reason = "the one place that reads the source")]
fn fill(bytes: &mut [u8]) {
    // Without randomness ids and keys would repeat: the process must not go on.
    getrandom::fill(bytes).expect("the operating system has a random source");
}

/// A new id.
#[must_use]
pub fn new_id(kind: Kind) -> String {
    let random = STOCK.with_borrow_mut(Stock::take);
    id::new_id(kind, now_ms(), random)
}

/// Random bytes of ids: a call takes six of them.
const ID_BYTES: usize = 10;
/// Ids for which the system is asked at one time.
const STOCK_IDS: usize = 48;

thread_local! {
    static STOCK: RefCell<Stock> = const { RefCell::new(Stock { bytes: [0; ID_BYTES * STOCK_IDS], left: 0 }) };
}

/// Random bytes that were read ahead: each is given out once. Ids are no secrets; keys are made of [`random`].
struct Stock {
    bytes: [u8; ID_BYTES * STOCK_IDS],
    left: usize,
}

impl Stock {
    fn take(&mut self) -> [u8; ID_BYTES] {
        if self.left < ID_BYTES {
            fill(&mut self.bytes);
            self.left = self.bytes.len();
        }
        let (rest, _) = self.bytes.split_at_mut(self.left);
        let Some((_, taken)) = rest.split_last_chunk_mut::<ID_BYTES>() else { return random() };
        self.left -= ID_BYTES;
        std::mem::take(taken)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_ids_are_alike() {
        let ids: HashSet<String> = (0..10 * STOCK_IDS).map(|_| new_id(Kind::Event)).collect();
        assert_eq!(ids.len(), 10 * STOCK_IDS);
        // The last sixteen digits are random: none of them may be the bytes that a given-out id leaves behind.
        assert!(ids.iter().all(|id| !id.ends_with("0000000000000000")), "{ids:?}");
    }
}
