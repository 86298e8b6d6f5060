//! How much may wait for the backend: events, and bytes of them. A reload may change both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Standing;
use crate::config::Limits;

/// The limits of one spool. Cheap to clone.
#[derive(Clone)]
pub(super) struct Room(Arc<Bounds>);

struct Bounds {
    events_max: AtomicU64,
    bytes_max: AtomicU64,
}

impl Room {
    pub(super) fn new(limits: &Limits) -> Self {
        let [events_max, bytes_max] = [limits.spool_events_max, limits.spool_bytes_max].map(AtomicU64::new);
        Self(Arc::new(Bounds { events_max, bytes_max }))
    }

    pub(super) fn set(&self, limits: &Limits) {
        self.0.events_max.store(limits.spool_events_max, Ordering::Relaxed);
        self.0.bytes_max.store(limits.spool_bytes_max, Ordering::Relaxed);
    }

    /// Whether there is none left. Calls that are let in at the same moment may go beyond it, each by its own
    /// events.
    pub(super) fn is_used_up(&self, standing: &Standing) -> bool {
        standing.depth() >= self.0.events_max.load(Ordering::Relaxed)
            || standing.waiting_bytes >= self.0.bytes_max.load(Ordering::Relaxed)
    }
}
