//! What is counted, in the Prometheus text format; docs/guide/metrics.md lists it. Label sets are
//! bounded: no tenant, tool or argument.

use prometheus::core::Collector;
use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};

use crate::app::App;
use crate::spool::Chain;

/// From a decision in memory to one that had to load a tenant's rules.
const FAST: [f64; 8] = [0.000_05, 0.000_1, 0.000_25, 0.001, 0.005, 0.025, 0.1, 1.0];
/// From "decided already" to the longest wait that a client may ask for.
const SLOW: [f64; 8] = [0.1, 1.0, 5.0, 15.0, 30.0, 60.0, 300.0, 3600.0];

/// All metrics of one proxy, in a registry of their own.
pub struct Metrics {
    made: Made,
    /// Calls by decision, level and route.
    pub requests: IntCounterVec,
    /// Requests not forwarded, by reason.
    pub refusals: IntCounterVec,
    /// Time from the whole request to the decision.
    pub decision_seconds: HistogramVec,
    /// Time that calls were held, by how it ended.
    pub hold_seconds: HistogramVec,
    /// What became of what was forwarded.
    pub upstream_outcomes: IntCounterVec,
    /// Attempts to ship events that failed.
    pub ship_failures: IntCounter,
    /// Times that the configuration's file was read again, by what came of it.
    pub config_reloads: IntCounterVec,
    /// Whether the file as it is now is refused.
    pub config_refused: IntGauge,
    connections: IntGauge,
    held: IntGauge,
    spool_depth: IntGauge,
    spool_oldest_age: IntGauge,
    spool_bytes: IntGauge,
    spool_waiting_bytes: IntGauge,
    spool_failing: IntGauge,
    chain_refused: IntGauge,
    policy_age: IntGauge,
    policy_version: IntGauge,
}

/// The registry, and the names in it: gathering shows only those that have counted something.
#[derive(Default)]
struct Made {
    registry: Registry,
    names: Vec<String>,
}

impl Made {
    fn register<C: Collector + Clone + 'static>(&mut self, made: C) -> Result<C, prometheus::Error> {
        self.names.extend(made.desc().iter().map(|d| d.fq_name.clone()));
        self.registry.register(Box::new(made.clone())).map(|()| made)
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn histograms(
        &mut self,
        (name, help): (&str, &str),
        label: &str,
        buckets: &[f64],
    ) -> Result<HistogramVec, prometheus::Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.register(HistogramVec::new(options, &[label])?)
    }

    fn gauge(&mut self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.register(IntGauge::new(name, help)?)
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Result<Self, prometheus::Error> {
        let mut made = Made::default();
        Ok(Self {
            requests: made.counters(
                "oakallow_requests_total",
                "Calls",
                &["decision", "resolved_from", "route"],
            )?,
            refusals: made.counters("oakallow_refusals_total", "Requests not forwarded", &["reason"])?,
            decision_seconds: made.histograms(
                ("oakallow_decision_seconds", "Time to decide"),
                "route",
                &FAST,
            )?,
            hold_seconds: made.histograms(("oakallow_hold_seconds", "Time held"), "result", &SLOW)?,
            upstream_outcomes: made.counters(
                "oakallow_upstream_outcomes_total",
                "What became of what was forwarded",
                &["result", "permit", "route"],
            )?,
            ship_failures: made.register(IntCounter::new(
                "oakallow_audit_ship_failures_total",
                "Attempts to ship events that failed",
            )?)?,
            config_reloads: made.counters(
                "oakallow_config_reloads_total",
                "Times that the configuration was read again",
                &["result"],
            )?,
            config_refused: made
                .gauge("oakallow_config_refused", "1 when the configuration on disk is not accepted")?,
            connections: made.gauge("oakallow_connections", "Connections that agents have open")?,
            held: made.gauge("oakallow_held_calls", "Calls that wait for a person")?,
            spool_depth: made.gauge("oakallow_spool_events", "Events that the backend does not have yet")?,
            spool_oldest_age: made.gauge(
                "oakallow_spool_oldest_age_seconds",
                "Age of the oldest event that the backend does not have; 0 when it has all",
            )?,
            spool_bytes: made.gauge("oakallow_spool_bytes", "What the spool takes up on its disk")?,
            spool_waiting_bytes: made.gauge(
                "oakallow_spool_waiting_bytes",
                "Bytes of the events that the backend does not have yet",
            )?,
            spool_failing: made.gauge("oakallow_spool_failing", "1 when the last write of events failed")?,
            chain_refused: made.gauge(
                "oakallow_audit_chain_refused",
                "1 when the backend refuses the events of this proxy",
            )?,
            policy_age: made
                .gauge("oakallow_policy_age_seconds", "Since the backend last confirmed the policy")?,
            policy_version: made.gauge("oakallow_policy_version", "Version of the policy in force")?,
            made,
        })
    }

    /// The text that is scraped.
    pub fn render(&self, app: &App) -> Result<String, prometheus::Error> {
        let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.connections.set(gauge(app.connections.count() as u64));
        self.held.set(gauge(app.holds.count() as u64));
        self.spool_depth.set(gauge(app.spool.standing().depth()));
        self.spool_oldest_age.set(gauge(app.spool.oldest_age_s(crate::clock::now_ms())));
        self.spool_bytes.set(gauge(app.spool.bytes()));
        self.spool_waiting_bytes.set(gauge(app.spool.standing().waiting_bytes));
        self.spool_failing.set(i64::from(app.spool.is_failing()));
        self.chain_refused.set(i64::from(app.spool.chain() == Chain::Contradicted));
        self.policy_age.set(gauge(app.policy.age_s()));
        self.policy_version.set(gauge(app.policy.version()));
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.made.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Names that the guide gives in backticks, the backend's apart.
    fn documented() -> BTreeSet<String> {
        let guide = include_str!("../../docs/guide/metrics.md");
        let quoted = guide.split('`').skip(1).step_by(2);
        let words = quoted.flat_map(|text| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
        let ours = words.filter(|w| w.starts_with("oakallow_") && !w.starts_with("oakallow_backend_"));
        ours.map(str::to_owned).collect()
    }

    #[test]
    fn the_guide_lists_every_metric_and_no_other() {
        let exported: BTreeSet<String> = Metrics::new().unwrap().made.names.into_iter().collect();
        assert!(exported.len() > 10);
        assert_eq!(documented(), exported);
    }
}
