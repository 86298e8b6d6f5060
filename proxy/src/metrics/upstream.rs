//! Of the ways to tool servers; their labels are configured.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::Metrics;
use super::made::Made;

/// Of all routes.
pub(super) struct Upstreams {
    endpoint_up: IntGaugeVec,
    connect_failures: IntCounterVec,
    lookup_failures: IntCounterVec,
    reload_failures: IntCounterVec,
}

impl Upstreams {
    pub(super) fn new(made: &Made) -> Result<Self, prometheus::Error> {
        Ok(Self {
            endpoint_up: made.gauges(
                "oakallow_upstream_endpoint_up",
                "1 when calls go to this endpoint of a tool server",
                &["route", "endpoint"],
            )?,
            connect_failures: made.counters(
                "oakallow_upstream_connect_failures_total",
                "Connections to an endpoint of a tool server that could not be opened for a call",
                &["route", "endpoint"],
            )?,
            lookup_failures: made.counters(
                "oakallow_upstream_lookup_failures_total",
                "Names of endpoints that could not be looked up",
                &["route"],
            )?,
            reload_failures: made.counters(
                "oakallow_upstream_reload_failures_total",
                "Changed certificates and credentials for a tool server that could not be used",
                &["route"],
            )?,
        })
    }
}

/// Of one endpoint of a tool server.
pub struct EndpointMetrics {
    /// The route.
    pub route: String,
    /// The endpoint, as configured.
    pub endpoint: String,
    /// Whether calls go there.
    pub up: IntGauge,
    /// Connections that could not be opened.
    pub connect_failures: IntCounter,
}

impl EndpointMetrics {
    /// In these metrics.
    #[must_use]
    pub fn new(metrics: &Metrics, route: &str, endpoint: &str) -> Self {
        let labels = [route, endpoint];
        Self {
            route: route.to_owned(),
            endpoint: endpoint.to_owned(),
            up: metrics.upstreams.endpoint_up.with_label_values(&labels),
            connect_failures: metrics.upstreams.connect_failures.with_label_values(&labels),
        }
    }
}

/// Of the way to a route's tool server.
pub struct RouteMetrics {
    /// The route.
    pub route: String,
    /// Names that could not be looked up.
    pub lookup_failures: IntCounter,
    /// Changed files that could not be used.
    pub reload_failures: IntCounter,
}

impl RouteMetrics {
    /// In these metrics.
    #[must_use]
    pub fn new(metrics: &Metrics, route: &str) -> Self {
        Self {
            route: route.to_owned(),
            lookup_failures: metrics.upstreams.lookup_failures.with_label_values(&[route]),
            reload_failures: metrics.upstreams.reload_failures.with_label_values(&[route]),
        }
    }
}
