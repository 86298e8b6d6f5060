//! The only place that reads the system's clock and randomness. Everything else takes them as values,
//! so a test moves time by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use oakallow_policy::id::{self, Kind};
use oakallow_policy::timestamp::UnixMs;

/// Tells the time: the system's, or one that a test sets.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// `None`: the system's.
    manual: Option<Arc<AtomicU64>>,
}

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands still until [`Clock::advance_ms`]; its clones share the time.
    #[must_use]
    pub fn manual(start: UnixMs) -> Self {
        Self { manual: Some(Arc::new(AtomicU64::new(start))) }
    }

    /// Moves a manual clock; the system's clock takes no orders.
    pub fn advance_ms(&self, by: u64) {
        if let Some(now) = &self.manual {
            now.fetch_add(by, Ordering::SeqCst);
        }
    }

    /// Sets a manual clock back; the system's clock takes no orders.
    pub fn set_back_ms(&self, by: u64) {
        if let Some(now) = &self.manual {
            now.fetch_sub(by, Ordering::SeqCst);
        }
    }

    /// Milliseconds since 1970.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn now_ms(&self) -> UnixMs {
        if let Some(now) = &self.manual {
            return now.load(Ordering::SeqCst);
        }
        // A clock before 1970 reads as 0: everything has expired, nothing is allowed by it.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// The system's source of randomness.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Random;

impl Random {
    /// For ids.
    pub(crate) fn bytes10(self) -> [u8; 10] {
        self.bytes()
    }

    /// For keys.
    pub(crate) fn bytes32(self) -> [u8; 32] {
        self.bytes()
    }

    /// Any number of bytes.
    #[expect(clippy::disallowed_methods, reason = "this is the source of randomness")]
    #[expect(
        clippy::expect_used,
        reason = "a system without randomness can issue no secret: the request ends"
    )]
    pub(crate) fn bytes<const N: usize>(self) -> [u8; N] {
        let mut bytes = [0; N];
        getrandom::fill(&mut bytes).expect("the system has no randomness");
        bytes
    }

    /// A new id.
    pub(crate) fn id(self, kind: Kind, now: UnixMs) -> String {
        id::new_id(kind, now, self.bytes10())
    }
}
