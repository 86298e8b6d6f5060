//! What every part of a running proxy shares.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::approval::Holds;
use crate::backend::Backend;
use crate::bodies::Bodies;
use crate::connection::Connections;
use crate::identity::{Identity, Issuers};
use crate::live::Live;
use crate::mcp::Mcp;
use crate::metrics::Metrics;
use crate::observe::Observer;
use crate::policy::Policy;
use crate::schema::Schemas;
use crate::spool::{Chain, Spool};

/// A running proxy's parts.
pub struct App {
    /// The configuration, which a reload replaces.
    pub live: ArcSwap<Live>,
    /// Who it is.
    pub identity: Identity,
    /// Whose tokens say who calls.
    pub issuers: Issuers,
    /// The control plane.
    pub backend: Backend,
    /// What decides.
    pub policy: Policy,
    /// Where events go.
    pub spool: Spool,
    /// The calls that wait.
    pub holds: Arc<Holds>,
    /// Memory for bodies.
    pub bodies: Arc<Bodies>,
    /// Where what is seen of requests goes.
    pub observer: Arc<Observer>,
    /// What is counted.
    pub metrics: Metrics,
    /// Compiled argument schemas.
    pub schemas: Schemas,
    /// Sessions and held calls of MCP routes.
    pub mcp: Mcp,
    /// Those that agents have open.
    pub connections: Connections,
    /// Told when what stands behind tokens and certificates may have changed.
    pub trust: watch::Sender<()>,
    /// Turns true once, when the proxy stops.
    pub draining: watch::Sender<bool>,
    /// Requests being worked on.
    pub in_flight: AtomicUsize,
}

impl App {
    /// The configuration now.
    #[must_use]
    pub fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

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
        (self.spool.is_failing() || self.spool.is_full()).then_some("audit spool")
    }
}
