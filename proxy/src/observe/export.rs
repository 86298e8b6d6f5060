//! Spans on their way to a collector, by OTLP over HTTP in protobuf: a queue of bounded length, and one task that
//! takes from it.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanContext, SpanKind, TraceContextExt as _, TraceId};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, ShouldSample as _, SpanData, SpanExporter as _};
use prometheus::{IntCounter, IntCounterVec};
use tokio::sync::{mpsc, oneshot};

use super::context::Context;
use crate::config::Tracing;
use crate::metrics::Metrics;

/// Requests whose spans wait; about 10 MB.
const QUEUE_MAX: usize = 2_048;
/// Spans in one request to the collector.
const BATCH_MAX: usize = 512;
/// How long spans wait for company.
const LINGER: Duration = Duration::from_secs(1);
/// How long the collector may take.
const EXPORT_MAX: Duration = Duration::from_secs(10);

enum Job {
    Spans(Vec<SpanData>),
    Flush(oneshot::Sender<()>),
}

/// What decides whether a request has spans, and where they go.
pub struct Tracer {
    sampler: Sampler,
    queue: mpsc::Sender<Job>,
    dropped: IntCounter,
}

impl Tracer {
    /// As configured; its task ends with this value.
    pub(super) fn new(
        config: &Tracing,
        metrics: &Metrics,
        instance: &str,
    ) -> Result<Self, ExporterBuildError> {
        let (queue, jobs) = mpsc::channel(QUEUE_MAX);
        let mut exporter = exporter(config)?;
        exporter.set_resource(&resource(config, instance));
        let counts = Counts {
            exported: metrics.seen.spans_exported.clone(),
            dropped: metrics.seen.spans_dropped.clone(),
        };
        tokio::spawn(run(exporter, jobs, counts));
        let dropped = metrics.seen.spans_dropped.with_label_values(&["queue"]);
        Ok(Self { sampler: config.sampler(), queue, dropped })
    }

    /// A span of a request that comes from there.
    pub(super) fn within(&self, remote: Option<Context>) -> Context {
        Context::within(remote, |trace_id, parent| self.samples(trace_id, parent))
    }

    fn samples(&self, trace_id: TraceId, parent: Option<&SpanContext>) -> bool {
        let parent = parent.map(|p| opentelemetry::Context::new().with_remote_span_context(p.clone()));
        let result = self.sampler.should_sample(parent.as_ref(), trace_id, "", &SpanKind::Server, &[], &[]);
        result.decision == SamplingDecision::RecordAndSample
    }

    /// Sends the spans of a request, unless too many wait already.
    pub(super) fn send(&self, spans: Vec<SpanData>) {
        let count = spans.len() as u64;
        if self.queue.try_send(Job::Spans(spans)).is_err() {
            self.dropped.inc_by(count);
        }
    }

    pub(super) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.queue.send(Job::Flush(done)).await.is_ok() {
            // An error means that the task is gone, and what it had with it.
            let _ = flushed.await;
        }
    }
}

/// What the file leaves open, the environment says (`OTEL_EXPORTER_OTLP_…`).
fn exporter(config: &Tracing) -> Result<SpanExporter, ExporterBuildError> {
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build();
    let client = client.map_err(|e| ExporterBuildError::InternalFailure(e.to_string()))?;
    let builder = SpanExporter::builder().with_http().with_http_client(client);
    match &config.endpoint {
        Some(endpoint) => builder.with_endpoint(endpoint).build(),
        None => builder.build(),
    }
}

fn resource(config: &Tracing, instance: &str) -> Resource {
    let builder = Resource::builder().with_attributes([
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", instance.to_owned()),
    ]);
    match &config.service_name {
        Some(name) => builder.with_service_name(name.clone()).build(),
        None => builder.build(),
    }
}

struct Counts {
    exported: IntCounter,
    dropped: IntCounterVec,
}

async fn run(exporter: SpanExporter, mut jobs: mpsc::Receiver<Job>, counts: Counts) {
    let mut failing = false;
    while let Some(job) = jobs.recv().await {
        let (batch, done) = collect(job, &mut jobs).await;
        let count = batch.len() as u64;
        if count > 0 {
            let sent = tokio::time::timeout(EXPORT_MAX, exporter.export(batch)).await;
            let problem = match sent {
                Ok(Ok(())) => None,
                Ok(Err(e)) => Some(e.to_string()),
                Err(_) => Some("the collector takes too long".to_owned()),
            };
            match &problem {
                None => counts.exported.inc_by(count),
                Some(_) => counts.dropped.with_label_values(&["export"]).inc_by(count),
            }
            // Once, not for every batch.
            if let Some(problem) = problem.as_ref().filter(|_| !failing) {
                tracing::warn!(problem, "spans cannot be exported");
            }
            failing = problem.is_some();
        }
        if let Some(done) = done {
            // Whoever waited may have given up.
            let _ = done.send(());
        }
    }
}

/// Waits a little for more spans, unless there are many or somebody waits for them to be gone.
async fn collect(first: Job, jobs: &mut mpsc::Receiver<Job>) -> (Vec<SpanData>, Option<oneshot::Sender<()>>) {
    let mut batch = match first {
        Job::Spans(spans) => spans,
        Job::Flush(done) => return (Vec::new(), Some(done)),
    };
    let until = tokio::time::Instant::now() + LINGER;
    while batch.len() < BATCH_MAX {
        match tokio::time::timeout_at(until, jobs.recv()).await {
            Ok(Some(Job::Spans(spans))) => batch.extend(spans),
            Ok(Some(Job::Flush(done))) => return (batch, Some(done)),
            Ok(None) | Err(_) => break,
        }
    }
    (batch, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::SpanId;

    #[test]
    fn spans_that_find_no_room_are_dropped_and_nobody_waits() {
        // Nobody takes from it.
        let (queue, _jobs) = mpsc::channel(1);
        let dropped = Metrics::new().unwrap().seen.spans_dropped.with_label_values(&["queue"]);
        let tracer = Tracer { sampler: Sampler::AlwaysOn, queue, dropped: dropped.clone() };
        for _ in 0..3 {
            let context = tracer.within(None);
            assert!(context.own.is_sampled() && context.upstream != SpanId::INVALID);
            let span = super::super::spans::tests::empty(context.own);
            tracer.send(vec![span.clone(), span]);
        }
        assert_eq!(dropped.get(), 4);
    }
}
