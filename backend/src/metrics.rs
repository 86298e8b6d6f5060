//! What Prometheus scrapes. Label sets are bounded: route templates, status classes, closed lists.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::store::standing::Standing;

/// The backend's metrics and their registry.
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    decisions: IntCounterVec,
    stored: Stored,
    /// Proxies that listen to their feed.
    pub(crate) streams: IntGauge,
}

/// What is read from the database when somebody asks.
struct Stored {
    approvals_pending: IntGauge,
    audit_events: IntGauge,
    feed_seq: IntGauge,
    proxies: IntGauge,
    database_up: IntGauge,
}

impl Stored {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let made = IntGauge::new(name, help)?;
            registry.register(Box::new(made.clone())).map(|()| made)
        };
        Ok(Self {
            approvals_pending: gauge(
                "oakallow_backend_approvals_pending",
                "Approvals that wait for a person.",
            )?,
            audit_events: gauge("oakallow_backend_audit_events", "Audit events in the database.")?,
            feed_seq: gauge("oakallow_backend_feed_seq", "Number of the newest line of the change feed.")?,
            proxies: gauge("oakallow_backend_proxies", "Proxies that are enrolled and not removed.")?,
            database_up: gauge(
                "oakallow_backend_database_up",
                "1 when the database could be read for this page; else the gauges from it are of before.",
            )?,
        })
    }
}

impl Metrics {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new("oakallow_backend_requests_total", "Requests by route and class of status."),
            &["route", "method", "status"],
        )?;
        let durations = HistogramVec::new(
            HistogramOpts::new("oakallow_backend_request_duration_seconds", "Time until the answer began.")
                .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0]),
            &["route"],
        )?;
        let decisions = IntCounterVec::new(
            Opts::new("oakallow_backend_checks_total", "Permission checks by answer and level."),
            &["permission", "resolved_from"],
        )?;
        let streams = IntGauge::new("oakallow_backend_proxy_streams", "Proxies that listen to their feed.")?;
        let build = IntGaugeVec::new(Opts::new("oakallow_backend_build_info", "1."), &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let registry = Registry::new();
        let all: [Box<dyn Collector>; 5] = [
            Box::new(requests.clone()),
            Box::new(durations.clone()),
            Box::new(decisions.clone()),
            Box::new(streams.clone()),
            Box::new(build),
        ];
        all.into_iter().try_for_each(|one| registry.register(one))?;
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let stored = Stored::new(&registry)?;
        Ok(Self { registry, requests, durations, decisions, stored, streams })
    }

    /// What the database says now; `None` when it says nothing.
    pub(crate) fn look(&self, standing: Option<&Standing>) {
        self.stored.database_up.set(i64::from(standing.is_some()));
        let Some(Standing { approvals_pending, audit_events, feed_seq, proxies }) = standing.copied() else {
            return;
        };
        self.stored.approvals_pending.set(approvals_pending);
        self.stored.audit_events.set(audit_events);
        self.stored.feed_seq.set(feed_seq);
        self.stored.proxies.set(proxies);
    }

    pub(crate) fn answered(&self, route: &str, method: &str, status: u16, took: Duration) {
        let class = match status / 100 {
            1 => "1xx",
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
        self.requests.with_label_values(&[route, method, class]).inc();
        self.durations.with_label_values(&[route]).observe(took.as_secs_f64());
    }

    pub(crate) fn decided(&self, permission: &str, resolved_from: &str) {
        self.decisions.with_label_values(&[permission, resolved_from]).inc();
    }

    /// The text exposition format.
    pub(crate) fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        Ok(out)
    }
}
