//! What is counted, in the Prometheus text format. Label sets are bounded: no tenant, tool or argument.

use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

/// All metrics of one proxy, in a registry of their own.
pub struct Metrics {
    registry: Registry,
    /// Calls by decision, level and route.
    pub requests: IntCounterVec,
    /// Calls not forwarded, by reason.
    pub refusals: IntCounterVec,
    /// Time from the whole request to the decision.
    pub decision_seconds: HistogramVec,
    /// Time that calls were held, by how it ended.
    pub hold_seconds: HistogramVec,
    /// What became of forwarded calls.
    pub upstream_outcomes: IntCounterVec,
    /// Attempts to ship events that failed.
    pub ship_failures: IntCounter,
    held: IntGauge,
    spool_depth: IntGauge,
    spool_failing: IntGauge,
    policy_age: IntGauge,
    policy_version: IntGauge,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let made = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(made.clone())).map(|()| made)
        };
        let histograms = |name: &str, help: &str, label: &str, buckets: Vec<f64>| {
            let made = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), &[label])?;
            registry.register(Box::new(made.clone())).map(|()| made)
        };
        let gauge = |name: &str, help: &str| {
            let made = IntGauge::new(name, help)?;
            registry.register(Box::new(made.clone())).map(|()| made)
        };
        let ship_failures =
            IntCounter::new("oakallow_audit_ship_failures_total", "Attempts to ship events that failed")?;
        registry.register(Box::new(ship_failures.clone()))?;
        let fast = vec![0.000_05, 0.000_1, 0.000_25, 0.001, 0.005, 0.025, 0.1, 1.0];
        let slow = vec![0.1, 1.0, 5.0, 15.0, 30.0, 60.0, 300.0, 3600.0];
        Ok(Self {
            requests: counters("oakallow_requests_total", "Calls", &["decision", "resolved_from", "route"])?,
            refusals: counters("oakallow_refusals_total", "Calls not forwarded", &["reason"])?,
            decision_seconds: histograms("oakallow_decision_seconds", "Time to decide", "route", fast)?,
            hold_seconds: histograms("oakallow_hold_seconds", "Time held", "result", slow)?,
            upstream_outcomes: counters(
                "oakallow_upstream_outcomes_total",
                "Forwarded calls",
                &["result", "route"],
            )?,
            ship_failures,
            held: gauge("oakallow_held_calls", "Calls that wait for a person")?,
            spool_depth: gauge("oakallow_spool_events", "Events that the backend does not have yet")?,
            spool_failing: gauge("oakallow_spool_failing", "1 when the last write of events failed")?,
            policy_age: gauge("oakallow_policy_age_seconds", "Since the backend last confirmed the policy")?,
            policy_version: gauge("oakallow_policy_version", "Version of the policy in force")?,
            registry,
        })
    }

    /// The text that is scraped.
    pub fn render(&self, app: &crate::app::App) -> Result<String, prometheus::Error> {
        let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.held.set(gauge(app.holds.count() as u64));
        self.spool_depth.set(gauge(app.spool.standing().depth()));
        self.spool_failing.set(i64::from(app.spool.is_failing()));
        self.policy_age.set(gauge(app.policy.age_s()));
        self.policy_version.set(gauge(app.policy.version()));
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
