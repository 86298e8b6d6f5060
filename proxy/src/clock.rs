//! The only place that reads the system's clock and random source; everything else takes values.

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
#[expect(clippy::disallowed_methods, clippy::expect_used, reason = "the one place that reads the source")]
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Without randomness ids and keys would repeat: the process must not go on.
    getrandom::fill(&mut bytes).expect("the operating system has a random source");
    bytes
}

/// A new id.
#[must_use]
pub fn new_id(kind: Kind) -> String {
    id::new_id(kind, now_ms(), random())
}
