//! Making and registering: each metric is one line where it is declared.

use prometheus::core::Collector;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// What making one may end in: a name that is taken or not valid, which the first start shows.
type Result<T> = std::result::Result<T, prometheus::Error>;

/// The registry of one proxy.
#[derive(Default)]
pub(super) struct Made {
    pub(super) registry: Registry,
}

impl Made {
    pub(super) fn register<C: Collector + Clone + 'static>(&self, made: C) -> Result<C> {
        self.registry.register(Box::new(made.clone())).map(|()| made)
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> Result<IntCounter> {
        self.register(IntCounter::new(name, help)?)
    }

    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    /// Counters that stand at zero from the start, so that the first event is an increase.
    pub(super) fn counters_of(
        &self,
        (name, help): (&str, &str),
        label: &str,
        values: &[&str],
    ) -> Result<IntCounterVec> {
        let made = self.counters(name, help, &[label])?;
        for value in values {
            made.with_label_values(&[value]).inc_by(0);
        }
        Ok(made)
    }

    pub(super) fn histograms(
        &self,
        (name, help): (&str, &str),
        label: &str,
        buckets: &[f64],
    ) -> Result<HistogramVec> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.register(HistogramVec::new(options, &[label])?)
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> Result<IntGauge> {
        self.register(IntGauge::new(name, help)?)
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }
}
