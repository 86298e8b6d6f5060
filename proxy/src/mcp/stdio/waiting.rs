//! A held call of the client's: it hears of it when it has asked for progress, and ends the hold with
//! `notifications/cancelled`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::client::Gone;
use crate::enforce::Waiter;
use crate::mcp::stdio::client::Client;
use crate::progress;

/// What waits. That the client has left ends it by the proxy's own end.
pub(super) struct Waiting<'a> {
    client: &'a Client,
    /// The token under which the client hears of progress, and how often.
    progress: Option<(&'a Value, Duration)>,
    told: u64,
    next_beat: Option<Instant>,
    cancel: Arc<Notify>,
    cancelled: bool,
}

impl<'a> Waiting<'a> {
    pub(super) fn new(
        client: &'a Client,
        progress: Option<(&'a Value, Duration)>,
        cancel: Arc<Notify>,
    ) -> Self {
        Self { client, progress, told: 0, next_beat: None, cancel, cancelled: false }
    }

    /// Whether the client has cancelled the call.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled || self.cancel.notified().now_or_never().is_some()
    }

    /// By how much the tool's own progress is later.
    pub(super) fn shift(&self) -> f64 {
        progress::shift(self.told)
    }

    fn plan_beat(&mut self) {
        self.next_beat = self.progress.map(|(_, every)| Instant::now() + every);
    }
}

impl Waiter for Waiting<'_> {
    async fn hold_begins(&mut self) -> Result<(), Gone> {
        self.plan_beat();
        Ok(())
    }

    fn next_beat(&self) -> Option<Instant> {
        self.next_beat
    }

    async fn beat(&mut self) -> Result<(), Gone> {
        let Some((token, _)) = self.progress else { return Ok(()) };
        self.told += 1;
        self.plan_beat();
        self.client.say(&progress::waiting(token, self.told)).await
    }

    async fn gone(&mut self) {
        self.cancel.notified().await;
        self.cancelled = true;
    }
}
