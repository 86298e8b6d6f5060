//! What every handler shares.

use std::sync::Arc;

use oakallow_policy::timestamp::UnixMs;
use tokio::sync::watch;

use crate::clock::{Clock, Random};
use crate::config::Config;
use crate::decide::Rulesets;
use crate::feed::Feed;
use crate::keys::Usage;
use crate::metrics::Metrics;
use crate::schema::Validators;
use crate::store::{Db, StoreError, Write};
use crate::vault::Vault;

/// The running backend: handlers take `State<Arc<App>>`.
pub(crate) struct App {
    pub(crate) config: Config,
    /// [`Config::public_url`], or what stands in for it. No slash at the end.
    pub(crate) public_url: String,
    pub(crate) db: Db,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    pub(crate) feed: Feed,
    pub(crate) vault: Vault,
    pub(crate) rulesets: Rulesets,
    pub(crate) validators: Validators,
    pub(crate) usage: Usage,
    pub(crate) metrics: Metrics,
    pub(crate) stopping: watch::Sender<bool>,
}

impl App {
    pub(crate) fn now(&self) -> UnixMs {
        self.clock.now_ms()
    }

    /// Begins the unit of work in which something of an org is changed.
    pub(crate) async fn write(self: &Arc<Self>, org: &str) -> Result<Write, StoreError> {
        Write::begin(Arc::clone(self), org).await
    }

    /// Begins a unit of work that is of no org: to remove what is kept no longer.
    pub(crate) async fn write_across(self: &Arc<Self>) -> Result<Write, StoreError> {
        Write::across(Arc::clone(self)).await
    }

    /// Ends when the backend is told to stop. Streams and long polls end with it.
    pub(crate) async fn stopped(&self) {
        let mut stopping = self.stopping.subscribe();
        // An error means that the sender is gone, which is a stop too.
        let _ = stopping.wait_for(|stop| *stop).await;
    }
}
