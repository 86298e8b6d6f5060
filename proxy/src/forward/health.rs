//! Whether requests go to an endpoint, and what is told of it.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use http::StatusCode;
use tokio::sync::Notify;

use super::failure::Unopened;
use crate::causes::Causes;
use crate::metrics::EndpointMetrics;
use crate::seldom::Seldom;

/// Failures are told this often at most: a tool server that is away is one thing to know, not one for each call.
const TELL_EVERY: Duration = Duration::from_secs(30);

pub(super) struct Health {
    out: AtomicBool,
    /// Checks in a row that went the other way than `out` says.
    against: AtomicU32,
    /// Wakes whoever finds out when it is back.
    pub(super) fell: Notify,
    told: Mutex<Seldom>,
    metrics: EndpointMetrics,
}

/// Why a check was not answered with a yes.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unwell {
    #[error(transparent)]
    Unopened(#[from] Unopened),
    #[error("no answer came")]
    NoAnswer,
    #[error("it took longer than `interval_s`")]
    Late,
    #[error("it answers {0}")]
    Status(StatusCode),
}

impl Health {
    pub(super) fn new(metrics: EndpointMetrics) -> Self {
        metrics.up.set(1);
        Self {
            out: AtomicBool::new(false),
            against: AtomicU32::new(0),
            fell: Notify::new(),
            told: Mutex::new(Seldom::once_in(TELL_EVERY)),
            metrics,
        }
    }

    pub(super) fn is_out(&self) -> bool {
        self.out.load(Ordering::Relaxed)
    }

    /// There was no connection for a call.
    pub(super) fn unreached(&self, why: &Unopened, has_others: bool) {
        self.metrics.connect_failures(why.reason()).inc();
        if has_others && why.is_of_the_endpoint() {
            self.goes_out(why);
        } else {
            self.tell(why);
        }
    }

    /// Whoever looks after it has found that it is back.
    pub(super) fn back(&self) {
        self.against.store(0, Ordering::Relaxed);
        if self.out.swap(false, Ordering::Relaxed) {
            self.metrics.up.set(1);
            let (route, endpoint) = (&self.metrics.route, &self.metrics.endpoint);
            tracing::info!(route, endpoint, "an endpoint of a tool server is well again");
        }
    }

    /// Takes the result of a check in; so many in a row change the state.
    pub(super) fn checked(&self, result: Result<(), Unwell>, (unhealthy_after, healthy_after): (u32, u32)) {
        let out = self.is_out();
        if result.is_ok() != out {
            self.against.store(0, Ordering::Relaxed);
            return;
        }
        let needed = if out { healthy_after } else { unhealthy_after };
        if self.against.fetch_add(1, Ordering::Relaxed) + 1 >= needed {
            match result {
                Ok(()) => self.back(),
                Err(why) => self.goes_out(&why),
            }
        }
    }

    fn goes_out(&self, why: &(dyn std::error::Error + 'static)) {
        self.against.store(0, Ordering::Relaxed);
        if self.out.swap(true, Ordering::Relaxed) {
            return;
        }
        self.metrics.up.set(0);
        let (route, endpoint) = (&self.metrics.route, &self.metrics.endpoint);
        tracing::warn!(
            route,
            endpoint,
            error = %Causes(why),
            "no calls go to this endpoint of a tool server until it is well again"
        );
        self.fell.notify_one();
    }

    fn tell(&self, why: &Unopened) {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).tells();
        let Some(untold) = told else { return };
        let (route, endpoint, reason) = (&self.metrics.route, &self.metrics.endpoint, why.reason());
        tracing::warn!(route, endpoint, reason, untold, error = %Causes(why), "a call found no connection to its tool server");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn so_many_checks_in_a_row_change_the_state() {
        let health = Health::new(EndpointMetrics::new(&Metrics::new().unwrap(), "r", "127.0.0.1:1"));
        let limits = (3, 2);
        for (well, out) in [
            (false, false),
            (false, false),
            (true, false),
            (false, false),
            (false, false),
            (false, true),
            (true, true),
            (false, true),
            (true, true),
            (true, false),
        ] {
            health.checked(if well { Ok(()) } else { Err(Unwell::Late) }, limits);
            assert_eq!(health.is_out(), out);
        }
    }
}
