//! What is counted, in the Prometheus text format; docs/guide/metrics.md lists it. Label sets are
//! bounded: no tenant, tool or argument.
//!
//! Here: what counts, and what is read when somebody asks. [`made`]: registering. [`panics`]: those of the
//! whole process. [`upstream`]: the ways to tool servers.

mod made;
mod panics;
mod upstream;

use std::sync::atomic::Ordering;

use oakallow_policy::RiskLevel;
use prometheus::{Encoder as _, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, TextEncoder};

use crate::app::App;
use crate::config::Config;
use crate::policy::BadBundle;
use crate::spool::Chain;
use made::Made;
use upstream::Upstreams;
pub use upstream::{EndpointMetrics, RouteMetrics};

/// From a decision in memory to one that had to load a tenant's rules.
const FAST: [f64; 8] = [0.000_05, 0.000_1, 0.000_25, 0.001, 0.005, 0.025, 0.1, 1.0];
/// From "decided already" to the longest wait that a client may ask for.
const SLOW: [f64; 8] = [0.1, 1.0, 5.0, 15.0, 30.0, 60.0, 300.0, 3600.0];
/// From a tool on this machine to one that takes as long as the default of its route's timeout lets it.
const UPSTREAM: [f64; 10] = [0.001, 0.005, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0, 60.0];
/// The risks whose calls an old policy stops deciding.
const RISKS: [RiskLevel; 4] = [RiskLevel::Low, RiskLevel::Medium, RiskLevel::High, RiskLevel::Critical];
/// Refusals that somebody is woken for: at zero from the start.
const ALARMING: [&str; 5] =
    ["audit_unavailable", "backend_unavailable", "policy_unavailable", "too_many_holds", "unauthenticated"];

/// All metrics of one proxy, in a registry of their own.
pub struct Metrics {
    made: Made,
    /// Calls by decision, level and route.
    pub requests: IntCounterVec,
    /// Requests not forwarded, by reason.
    pub refusals: IntCounterVec,
    /// Calls refused for the age of the policy, by risk.
    pub staleness_refusals: IntCounterVec,
    /// Time from the whole request to the decision.
    pub decision_seconds: HistogramVec,
    /// Time that calls were held, by how it ended.
    pub hold_seconds: HistogramVec,
    /// Calls that a limit kept from waiting, by limit.
    pub holds_refused: IntCounterVec,
    /// Execution tokens, by route.
    pub tokens_minted: IntCounterVec,
    /// What became of what was forwarded.
    pub upstream_outcomes: IntCounterVec,
    /// Calls whose outcome the tool server did not give, by why.
    pub upstream_errors: IntCounterVec,
    /// From the sending of a call to the end of its answer.
    pub upstream_seconds: HistogramVec,
    /// Attempts to ship events that failed.
    pub ship_failures: IntCounter,
    /// Bundles and confirmations that were not accepted, by why.
    pub bundles_refused: IntCounterVec,
    /// Whether the backend's events are being read.
    pub feed_connected: IntGauge,
    /// Times that the configuration's file was read again, by what came of it.
    pub config_reloads: IntCounterVec,
    /// Whether the file as it is now is refused.
    pub config_refused: IntGauge,
    /// Connections beyond the limit.
    pub connections_refused: IntCounter,
    /// Connections that ended for their client's haste.
    pub connections_cut: IntCounter,
    /// Listeners, and who calls by them.
    pub entrance: Entrance,
    /// The access log and traces.
    pub seen: Seen,
    upstreams: Upstreams,
    now: Now,
    configured: Configured,
}

/// Of the access log and of traces.
pub struct Seen {
    /// Lines of the access log that were written.
    pub access_lines_written: IntCounter,
    /// Those that were not.
    pub access_lines_dropped: IntCounter,
    /// Spans that the collector took.
    pub spans_exported: IntCounter,
    /// Those that it did not get, by why.
    pub spans_dropped: IntCounterVec,
}

impl Seen {
    fn new(made: &Made) -> Result<Self, prometheus::Error> {
        Ok(Self {
            access_lines_written: made
                .counter("oakallow_access_lines_written_total", "Lines of the access log")?,
            access_lines_dropped: made.counter(
                "oakallow_access_lines_dropped_total",
                "Lines of the access log that could not be written",
            )?,
            spans_exported: made.counter("oakallow_spans_exported_total", "Spans that the collector took")?,
            spans_dropped: made.counters_of(
                ("oakallow_spans_dropped_total", "Spans that the collector did not get"),
                "reason",
                &["queue", "export"],
            )?,
        })
    }
}

/// What is looked up when somebody asks.
struct Now {
    connections: IntGauge,
    in_flight: IntGauge,
    held: IntGauge,
    held_bytes: IntGauge,
    bodies_bytes: IntGauge,
    spool_depth: IntGauge,
    spool_oldest_age: IntGauge,
    spool_bytes: IntGauge,
    spool_waiting_bytes: IntGauge,
    spool_failing: IntGauge,
    chain_refused: IntGauge,
    policy_age: IntGauge,
    clock_ahead: IntGauge,
    policy_version: IntGauge,
    changed_definitions: IntGauge,
    ready: IntGauge,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Result<Self, prometheus::Error> {
        let made = Made::default();
        about_process(&made)?;
        let c = |name: &str, help: &str, labels: &[&str]| made.counters(name, help, labels);
        let upstream = [("oakallow_upstream_seconds", "From the sending of a call to the end of its answer")];
        Ok(Self {
            requests: c("oakallow_requests_total", "Calls", &["decision", "resolved_from", "route"])?,
            refusals: made.counters_of(
                ("oakallow_refusals_total", "Requests not forwarded"),
                "reason",
                &ALARMING,
            )?,
            staleness_refusals: made.counters_of(
                ("oakallow_staleness_refusals_total", "Calls refused because the policy is too old for them"),
                "risk",
                &RISKS.map(|risk| risk.as_str()),
            )?,
            decision_seconds: made.histograms(
                ("oakallow_decision_seconds", "Time to decide"),
                "route",
                &FAST,
            )?,
            hold_seconds: made.histograms(("oakallow_hold_seconds", "Time held"), "result", &SLOW)?,
            holds_refused: made.counters_of(
                ("oakallow_holds_refused_total", "Calls that a limit kept from waiting"),
                "limit",
                &["holds_max", "holds_per_principal_max", "hold_bytes_max", "hold_bytes_per_principal_max"],
            )?,
            tokens_minted: c("oakallow_tokens_minted_total", "Execution tokens", &["route"])?,
            upstream_outcomes: c(
                "oakallow_upstream_outcomes_total",
                "What became of what was forwarded",
                &["result", "permit", "route"],
            )?,
            upstream_errors: c(
                "oakallow_upstream_errors_total",
                "Forwarded requests that got no whole answer",
                &["reason", "route"],
            )?,
            upstream_seconds: made.histograms(upstream[0], "route", &UPSTREAM)?,
            ship_failures: made
                .counter("oakallow_audit_ship_failures_total", "Attempts to ship events that failed")?,
            bundles_refused: made.counters_of(
                (
                    "oakallow_bundles_refused_total",
                    "Bundles and confirmations of the backend that were not accepted",
                ),
                "reason",
                &BadBundle::ALL.map(BadBundle::as_str),
            )?,
            feed_connected: made.gauge("oakallow_feed_connected", "1 while the backend's events are read")?,
            config_reloads: made.counters_of(
                ("oakallow_config_reloads_total", "Times that the configuration was read again"),
                "result",
                &["applied", "unchanged", "refused"],
            )?,
            config_refused: made
                .gauge("oakallow_config_refused", "1 when the configuration on disk is not accepted")?,
            connections_cut: made
                .counter("oakallow_connections_cut_total", "Connections with too many requests under way")?,
            connections_refused: made
                .counter("oakallow_connections_refused_total", "Connections beyond the limit")?,
            entrance: Entrance::new(&made)?,
            seen: Seen::new(&made)?,
            upstreams: Upstreams::new(&made)?,
            now: Now::new(&made)?,
            configured: Configured::new(&made)?,
            made,
        })
    }

    /// The text that is scraped.
    pub fn render(&self, app: &App) -> Result<String, prometheus::Error> {
        self.now.look(app);
        self.configured.look(&app.live().config);
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.made.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

impl Now {
    fn new(made: &Made) -> Result<Self, prometheus::Error> {
        let g = |name: &str, help: &str| made.gauge(name, help);
        Ok(Self {
            connections: g("oakallow_connections", "Connections that agents have open")?,
            in_flight: g("oakallow_requests_in_flight", "Requests being worked on, held ones included")?,
            held: g("oakallow_held_calls", "Calls that wait for a person")?,
            held_bytes: g("oakallow_held_bytes", "Bytes of the bodies of the calls that wait")?,
            bodies_bytes: g(
                "oakallow_bodies_bytes",
                "Bytes of the larger bodies of requests that are not held",
            )?,
            spool_depth: g("oakallow_spool_events", "Events that the backend does not have yet")?,
            spool_oldest_age: g(
                "oakallow_spool_oldest_age_seconds",
                "Age of the oldest event that the backend does not have; 0 when it has all",
            )?,
            spool_bytes: g("oakallow_spool_bytes", "What the spool takes up on its disk")?,
            spool_waiting_bytes: g(
                "oakallow_spool_waiting_bytes",
                "Bytes of the events that the backend does not have yet",
            )?,
            spool_failing: g("oakallow_spool_failing", "1 when the last write of events failed")?,
            chain_refused: g(
                "oakallow_audit_chain_refused",
                "1 when the backend refuses the events of this proxy",
            )?,
            policy_age: g("oakallow_policy_age_seconds", "Since the backend last confirmed the policy")?,
            clock_ahead: g("oakallow_clock_ahead_seconds", "Of the proxy's clock, against the backend's")?,
            policy_version: g("oakallow_policy_version", "Version of the policy in force")?,
            changed_definitions: g(
                "oakallow_changed_definitions",
                "Registered tools that their server lists otherwise than they are pinned",
            )?,
            ready: g("oakallow_ready", "1 when the proxy takes calls, as /readyz says")?,
        })
    }

    fn look(&self, app: &App) {
        self.connections.set(gauge(app.connections.count() as u64));
        self.in_flight.set(gauge(app.in_flight.load(Ordering::Relaxed) as u64));
        self.held.set(gauge(app.holds.count() as u64));
        self.held_bytes.set(gauge(app.holds.bytes() as u64));
        self.bodies_bytes.set(gauge(app.bodies.bytes() as u64));
        self.spool_depth.set(gauge(app.spool.standing().depth()));
        self.spool_oldest_age.set(gauge(app.spool.oldest_age_s(crate::clock::now_ms())));
        self.spool_bytes.set(gauge(app.spool.bytes()));
        self.spool_waiting_bytes.set(gauge(app.spool.standing().waiting_bytes));
        self.spool_failing.set(i64::from(app.spool.is_failing()));
        self.chain_refused.set(i64::from(app.spool.chain() == Chain::Contradicted));
        self.policy_age.set(gauge(app.policy.age_s()));
        self.clock_ahead.set(app.policy.clock_ahead_s());
        self.policy_version.set(gauge(app.policy.version()));
        let changed = app.policy.definitions.changed(&app.policy.snapshot().rules);
        self.changed_definitions.set(gauge(changed as u64));
        self.ready.set(i64::from(app.unready().is_none()));
    }
}

/// As the configuration in force says, which may change while the proxy runs.
struct Configured {
    routes: IntGaugeVec,
    policy_age_limit: IntGaugeVec,
    spool_events_max: IntGauge,
    spool_waiting_bytes_max: IntGauge,
}

impl Configured {
    fn new(made: &Made) -> Result<Self, prometheus::Error> {
        Ok(Self {
            routes: made.gauges(
                "oakallow_route_info",
                "1, for each route",
                &["route", "kind", "audience"],
            )?,
            policy_age_limit: made.gauges(
                "oakallow_policy_age_limit_seconds",
                "Age of the policy from which calls of this risk are refused",
                &["risk"],
            )?,
            spool_events_max: made
                .gauge("oakallow_spool_events_max", "Events in the spool from which calls are refused")?,
            spool_waiting_bytes_max: made.gauge(
                "oakallow_spool_waiting_bytes_max",
                "Bytes of events in the spool from which calls are refused",
            )?,
        })
    }

    fn look(&self, config: &Config) {
        self.routes.reset();
        for route in &config.routes {
            let labels = [route.name.as_str(), route.kind.as_str(), route.audience.as_str()];
            self.routes.with_label_values(&labels).set(1);
        }
        for risk in RISKS {
            self.policy_age_limit
                .with_label_values(&[risk.as_str()])
                .set(gauge(config.staleness.limit_s(risk)));
        }
        self.spool_events_max.set(gauge(config.limits.spool_events_max));
        self.spool_waiting_bytes_max.set(gauge(config.limits.spool_bytes_max));
    }
}

/// What does not change while the process runs, and what it uses.
fn about_process(made: &Made) -> Result<(), prometheus::Error> {
    let build = made.gauges("oakallow_build_info", "1", &["version"])?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    made.register(panics::counter()?)?;
    #[cfg(target_os = "linux")]
    made.registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    Ok(())
}

fn gauge(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Of listeners, and of what says who calls.
pub struct Entrance {
    /// Times that changed certificates were read, by what came of it.
    pub certificate_reloads: IntCounterVec,
    /// Listeners whose changed certificates are not accepted.
    pub certificates_refused: IntGauge,
    /// TLS handshakes of agents that failed.
    pub tls_handshake_failures: IntCounter,
    /// Times that the keys of an issuer were read on schedule, by what came of it.
    pub issuer_key_reads: IntCounterVec,
    /// Tokens that were not good, by their issuer and by why.
    pub tokens_refused: IntCounterVec,
}

impl Entrance {
    fn new(made: &Made) -> Result<Self, prometheus::Error> {
        Ok(Self {
            certificate_reloads: made.counters_of(
                (
                    "oakallow_certificate_reloads_total",
                    "Times that certificates of listeners were read again",
                ),
                "result",
                &["applied", "unchanged", "refused"],
            )?,
            certificates_refused: made.gauge(
                "oakallow_certificates_refused",
                "Listeners whose changed certificates are not accepted: those that run stay",
            )?,
            tls_handshake_failures: made
                .counter("oakallow_tls_handshake_failures_total", "TLS handshakes of agents that failed")?,
            issuer_key_reads: made.counters(
                "oakallow_issuer_key_reads_total",
                "Times that the keys of an issuer were read",
                &["issuer", "result"],
            )?,
            tokens_refused: made.counters(
                "oakallow_tokens_refused_total",
                "Tokens of callers that were not good",
                &["issuer", "reason"],
            )?,
        })
    }
}
