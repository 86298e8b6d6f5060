//! What changes, told to those who wait: proxies (server-sent events), long polls, the dashboard.
//!
//! The `feed` table is the truth and the place to resume from; the in-process channel only says that
//! there is something new. A listener that falls behind reads the table, so it misses nothing.

use oakallow_policy::id::Name;
use oakallow_policy::wire::ApprovalState;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Change {
    /// A new policy version; `tenant` when only that tenant's rules changed.
    Version { version: u64, tenant: Option<Name> },
    /// An approval changed its state. Audience and tenant say which proxies hear of it.
    Approval { state: ApprovalState, tenant: Option<Name>, audience: Name },
}

/// One line of the feed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FeedItem {
    /// Grows; the place to resume from.
    pub(crate) seq: i64,
    pub(crate) org: Name,
    pub(crate) change: Change,
}

/// The channel. Messages come after their transaction has been committed.
pub(crate) struct Feed {
    sender: broadcast::Sender<FeedItem>,
}

/// A listener this far behind reads the table instead.
const BACKLOG: usize = 1024;

impl Feed {
    pub(crate) fn new() -> Self {
        Self { sender: broadcast::channel(BACKLOG).0 }
    }

    /// Hears of everything committed from now on; `RecvError::Lagged` means: read the table.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<FeedItem> {
        self.sender.subscribe()
    }

    pub(crate) fn publish(&self, item: FeedItem) {
        // Nobody listens: that is fine.
        let _ = self.sender.send(item);
    }
}
