//! What every part of a running proxy shares.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use oakallow_policy::id::Name;
use tokio::sync::{Semaphore, watch};

use crate::approval::Holds;
use crate::backend::Backend;
use crate::config::Config;
use crate::forward::Upstream;
use crate::identity::Identity;
use crate::mcp::Mcp;
use crate::metrics::Metrics;
use crate::policy::Policy;
use crate::redact::Redactor;
use crate::schema::Schemas;
use crate::spool::{Chain, Spool};

/// A running proxy's parts.
pub struct App {
    /// As configured.
    pub config: Config,
    /// Who it is.
    pub identity: Identity,
    /// The control plane.
    pub backend: Backend,
    /// What decides.
    pub policy: Policy,
    /// Where events go.
    pub spool: Spool,
    /// The calls that wait.
    pub holds: Arc<Holds>,
    /// What is counted.
    pub metrics: Metrics,
    /// What hides secrets.
    pub redactor: Redactor,
    /// Compiled argument schemas.
    pub schemas: Schemas,
    /// The way to each route's tool server.
    pub upstreams: HashMap<Name, Upstream>,
    /// Sessions and held calls of MCP routes.
    pub mcp: Mcp,
    /// Bounds how many released calls go out at one time.
    pub releases: Semaphore,
    /// Turns true once, when the proxy stops.
    pub draining: watch::Sender<bool>,
    /// Requests being worked on.
    pub in_flight: AtomicUsize,
}

impl App {
    /// Whether it has begun to stop.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Why it is not ready for calls; `None` when it is.
    #[must_use]
    pub fn unready(&self) -> Option<&'static str> {
        if self.is_draining() {
            return Some("draining");
        }
        if self.policy.snapshot().rules.is_closed() {
            return Some("no policy");
        }
        match self.spool.chain() {
            Chain::Good => {}
            Chain::Unconfirmed => return Some("audit chain: not confirmed by the backend"),
            Chain::Contradicted => return Some("audit chain: refused by the backend"),
        }
        let full = self.spool.standing().depth() >= self.config.limits.spool_events_max;
        (self.spool.is_failing() || full).then_some("audit spool")
    }
}
