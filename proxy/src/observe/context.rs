//! Whose trace a request belongs to (W3C Trace Context), and how the tool server is told.

use http::{HeaderMap, HeaderValue};
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use serde_json::{Map, Value, json};

use crate::clock;

const FIELDS: [&str; 2] = ["traceparent", "tracestate"];
/// What a list of vendors' states may have (W3C Trace Context, section 3.3.1.5); more is dropped.
const STATE_BYTES_MAX: usize = 512;

/// A place in a trace.
#[derive(Debug, Clone)]
pub struct Context {
    /// The span that the request came from, if it said so.
    pub(super) parent: Option<SpanContext>,
    /// The span of the request itself; the remote one when the proxy takes no part.
    pub(super) own: SpanContext,
    /// The id of the span of its way to the tool server.
    pub(super) upstream: SpanId,
    /// Whether the proxy takes part: otherwise what came is left as it is.
    takes_part: bool,
}

impl Context {
    pub(super) fn of_headers(headers: &HeaderMap) -> Option<Self> {
        // Which of two it would be, nobody can say.
        let single = |name: &str| headers.get_all(name).iter().count() <= 1;
        if !headers.contains_key("traceparent") || !FIELDS.into_iter().all(single) {
            return None;
        }
        Self::remote(&Headers(headers))
    }

    pub(super) fn of_meta(params: &Map<String, Value>) -> Option<Self> {
        Self::remote(&Meta(params.get("_meta")?.as_object()?))
    }

    fn remote(from: &dyn Extractor) -> Option<Self> {
        let found = TraceContextPropagator::new().extract_with_context(&opentelemetry::Context::new(), from);
        let parent = found.span().span_context().clone();
        parent.is_valid().then(|| Self {
            own: parent.clone(),
            parent: Some(parent),
            upstream: SpanId::INVALID,
            takes_part: false,
        })
    }

    /// A span of our own in it, or in a trace that begins here.
    pub(super) fn within(
        remote: Option<Self>,
        sampled: impl FnOnce(TraceId, Option<&SpanContext>) -> bool,
    ) -> Self {
        let parent = remote.and_then(|remote| remote.parent);
        let trace_id =
            parent.as_ref().map_or_else(|| TraceId::from_bytes(clock::random()), SpanContext::trace_id);
        let flags = TraceFlags::default().with_sampled(sampled(trace_id, parent.as_ref()));
        let state = parent.as_ref().map(|parent| parent.trace_state().clone()).unwrap_or_default();
        let state = if state.header().len() <= STATE_BYTES_MAX { state } else { TraceState::default() };
        let own = SpanContext::new(trace_id, SpanId::from_bytes(clock::random()), flags, false, state);
        Self { parent, own, upstream: SpanId::from_bytes(clock::random()), takes_part: true }
    }

    /// For the access log.
    pub(super) fn trace_id(&self) -> String {
        self.own.trace_id().to_string()
    }

    pub(super) fn put_headers(&self, headers: &mut HeaderMap) {
        if self.takes_part {
            FIELDS.iter().for_each(|name| drop(headers.remove(*name)));
            self.inject(&mut HeadersOut(headers));
        }
    }

    pub(super) fn put_meta(&self, message: &mut Value) {
        // Not into a message without parameters: an answer has none.
        let Some(params) =
            message.get_mut("params").and_then(Value::as_object_mut).filter(|_| self.takes_part)
        else {
            return;
        };
        let meta = params.entry("_meta").or_insert_with(|| json!({}));
        let Some(meta) = meta.as_object_mut() else { return };
        FIELDS.iter().for_each(|name| drop(meta.remove(*name)));
        self.inject(&mut MetaOut(meta));
    }

    fn inject(&self, to: &mut dyn Injector) {
        let own = &self.own;
        let upstream = SpanContext::new(
            own.trace_id(),
            self.upstream,
            own.trace_flags(),
            false,
            own.trace_state().clone(),
        );
        let within = opentelemetry::Context::new().with_remote_span_context(upstream);
        TraceContextPropagator::new().inject_context(&within, to);
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        FIELDS.to_vec()
    }
}

struct Meta<'a>(&'a Map<String, Value>);

impl Extractor for Meta<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(Value::as_str)
    }

    fn keys(&self) -> Vec<&str> {
        FIELDS.to_vec()
    }
}

struct HeadersOut<'a>(&'a mut HeaderMap);

impl Injector for HeadersOut<'_> {
    fn set(&mut self, key: &str, value: String) {
        let name = FIELDS.into_iter().find(|name| *name == key);
        if let (Some(name), Ok(value)) = (name, HeaderValue::from_str(&value))
            && !value.is_empty()
        {
            self.0.insert(name, value);
        }
    }
}

struct MetaOut<'a>(&'a mut Map<String, Value>);

impl Injector for MetaOut<'_> {
    fn set(&mut self, key: &str, value: String) {
        if !value.is_empty() {
            self.0.insert(key.to_owned(), Value::String(value));
        }
    }
}
