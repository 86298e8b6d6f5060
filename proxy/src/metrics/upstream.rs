//! Of the ways to tool servers; their labels are configured.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use prometheus::core::{Collector as _, MetricVec, MetricVecBuilder};
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::Metrics;
use super::made::Made;
use crate::forward::REASONS;
use crate::route::Route;

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
                &["route", "endpoint", "reason"],
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

impl Metrics {
    /// Ends the series of ways that none of these routes has.
    pub fn keep_ways_of(&self, routes: &[Arc<Route>]) {
        let endpoints = routes.iter().flat_map(|route| {
            route.link.endpoints.iter().map(|place| (route.name.as_str(), place.to_string()))
        });
        let endpoints: HashSet<(&str, String)> = endpoints.collect();
        let names: HashSet<&str> = routes.iter().map(|route| route.name.as_str()).collect();
        let is_kept = |labels: &HashMap<&str, &str>| {
            let route = labels.get("route").copied().unwrap_or_default();
            match labels.get("endpoint") {
                Some(endpoint) => endpoints.contains(&(route, (*endpoint).to_owned())),
                None => names.contains(route),
            }
        };
        let Upstreams { endpoint_up, connect_failures, lookup_failures, reload_failures } = &self.upstreams;
        keep_only(endpoint_up, is_kept);
        for counters in [connect_failures, lookup_failures, reload_failures] {
            keep_only(counters, is_kept);
        }
    }
}

fn keep_only<T: MetricVecBuilder>(all: &MetricVec<T>, is_kept: impl Fn(&HashMap<&str, &str>) -> bool) {
    for family in all.collect() {
        for metric in family.get_metric() {
            let labels: HashMap<&str, &str> =
                metric.get_label().iter().map(|label| (label.name(), label.value())).collect();
            if !is_kept(&labels) {
                // Gone already is as good.
                let _ = all.remove(&labels);
            }
        }
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
    connect_failures: IntCounterVec,
}

impl EndpointMetrics {
    /// In these metrics.
    #[must_use]
    pub fn new(metrics: &Metrics, route: &str, endpoint: &str) -> Self {
        let connect_failures = metrics.upstreams.connect_failures.clone();
        for reason in REASONS {
            // From the start, so that the first one is an increase.
            connect_failures.with_label_values(&[route, endpoint, reason]).inc_by(0);
        }
        Self {
            route: route.to_owned(),
            endpoint: endpoint.to_owned(),
            up: metrics.upstreams.endpoint_up.with_label_values(&[route, endpoint]),
            connect_failures,
        }
    }

    /// Connections that could not be opened, for one of the reasons of [`crate::forward`].
    #[must_use]
    pub fn connect_failures(&self, reason: &str) -> IntCounter {
        self.connect_failures.with_label_values(&[&self.route, &self.endpoint, reason])
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
