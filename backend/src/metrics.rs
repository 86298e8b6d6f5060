//! What Prometheus scrapes. Label sets are bounded: route templates, status classes, closed lists.

use std::time::Duration;

use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

/// The backend's metrics and their registry.
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    decisions: IntCounterVec,
    /// Proxies that listen to their feed.
    pub(crate) streams: IntGauge,
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
        let registry = Registry::new();
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        registry.register(Box::new(decisions.clone()))?;
        registry.register(Box::new(streams.clone()))?;
        Ok(Self { registry, requests, durations, decisions, streams })
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
