//! What is seen of each request from outside: a line in the access log, spans for a tracing backend. Nothing that
//! is decided, stored or sent depends on it, and it never makes a request wait: what finds no room is dropped and
//! counted. Off unless the configuration says otherwise.
//!
//! [`trail`]: what is noted while a request goes its way. [`access`]: its line. [`spans`]: its spans. [`context`]:
//! whose trace it belongs to. [`export`]: the way to a collector.

pub mod access;
pub mod context;
pub mod export;
mod spans;
pub mod trail;

use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::metrics::Metrics;
use access::AccessLog;
use export::Tracer;
pub use trail::{Phase, Trail};

/// At the end what is queued gets this long to be written.
const FINISH_MAX: Duration = Duration::from_secs(2);

/// Where what is seen goes; shared by the requests that are under way.
#[derive(Default)]
pub struct Observer {
    pub(crate) access: Option<AccessLog>,
    pub(crate) tracer: Option<Tracer>,
}

impl Observer {
    /// As configured. `instance`: this proxy's id.
    pub fn new(config: &Config, metrics: &Metrics, instance: &str) -> Result<Arc<Self>, String> {
        let access = config.access_log.as_ref().map(|to| AccessLog::open(to, metrics)).transpose();
        let access = access.map_err(|e| format!("the access log cannot be opened: {e}"))?;
        let tracer =
            config.tracing.as_ref().map(|tracing| Tracer::new(tracing, metrics, instance)).transpose();
        let tracer = tracer.map_err(|e| format!("spans cannot be exported: {e}"))?;
        Ok(Arc::new(Self { access, tracer }))
    }

    /// A request begins.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> Trail {
        if self.access.is_none() && self.tracer.is_none() { Trail::off() } else { Trail::new(self.clone()) }
    }

    /// Writes what is queued, within bounds.
    pub async fn finish(&self) {
        let all = async {
            if let Some(access) = &self.access {
                access.flush().await;
            }
            if let Some(tracer) = &self.tracer {
                tracer.flush().await;
            }
        };
        if tokio::time::timeout(FINISH_MAX, all).await.is_err() {
            tracing::warn!("some access log lines or spans were not written in time");
        }
    }
}
