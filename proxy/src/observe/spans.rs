//! A request's spans: one of the request as a whole, one for each phase of it, made when it has ended.
//!
//! Names follow the semantic conventions of OpenTelemetry for MCP and for tools of generative AI; what those do not
//! have begins with `oakallow.`.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::context::Context;
use super::trail::{Ended, Noted, Passed, Phase, STDIO};
use crate::clock;

/// The spans of a request, the request's own first; `None` when it is not sampled, or nobody knows who sent it: whoever
/// reaches the port could fill the queue with those.
pub(super) fn of(ended: &Ended<'_>) -> Option<Vec<SpanData>> {
    let noted = ended.noted;
    let context = noted.context.as_ref().filter(|c| c.own.is_sampled() && noted.principal.is_some())?;
    let passed = noted.passed.iter().map(|passed| child(ended, context, *passed));
    Some(std::iter::once(whole(ended, context)).chain(passed).collect())
}

fn whole(ended: &Ended<'_>, context: &Context) -> SpanData {
    let noted = ended.noted;
    let (begun, end) = (at(ended, ended.begun), at(ended, Instant::now()));
    let mut span = span(context.own.clone(), name(noted), (begun, end));
    if let Some(parent) = &context.parent {
        span.parent_span_id = parent.span_id();
        span.parent_span_is_remote = true;
    }
    span.span_kind = SpanKind::Server;
    span.attributes = attributes(noted);
    if is_error(noted) {
        span.status = Status::error("");
    }
    span
}

fn child(ended: &Ended<'_>, context: &Context, passed: Passed) -> SpanData {
    let id =
        if passed.phase == Phase::Upstream { context.upstream } else { SpanId::from_bytes(clock::random()) };
    let begun = at(ended, passed.begun);
    let own = SpanContext::new(
        context.own.trace_id(),
        id,
        TraceFlags::SAMPLED,
        false,
        context.own.trace_state().clone(),
    );
    let name = match passed.phase {
        Phase::Decide => "decide",
        Phase::Hold => "hold",
        Phase::Consume => "consume",
        Phase::Intent => "intent",
        Phase::Upstream => "upstream",
    };
    let mut span = span(own, name.to_owned(), (begun, begun + passed.took));
    span.parent_span_id = context.own.span_id();
    if passed.phase == Phase::Upstream {
        span.span_kind = SpanKind::Client;
        span.attributes = of_upstream(ended.noted);
        if is_error(ended.noted) {
            span.status = Status::error("");
        }
    }
    span
}

fn span(own: SpanContext, name: String, (start_time, end_time): (SystemTime, SystemTime)) -> SpanData {
    SpanData {
        span_context: own,
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: name.into(),
        start_time,
        end_time,
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::builder("oakallow")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    }
}

/// By the clock of the system as it was when the request began: spans of one request do not jump with it.
fn at(ended: &Ended<'_>, instant: Instant) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(ended.begun_at_ns) + instant.saturating_duration_since(ended.begun)
}

/// What the message acts on: the tool of a `tools/call`, else the name of a prompt. A resource's URI would make too many
/// names.
fn name(noted: &Noted) -> String {
    let of_call = noted.tool.as_ref().filter(|_| is_tool_call(noted));
    let of_prompt = noted.resource.as_ref().filter(|_| noted.mcp_method == Some("prompts/get"));
    match (noted.mcp_method, of_call.or(of_prompt)) {
        (Some(method), Some(target)) => format!("{method} {target}"),
        (Some(method), None) => method.to_owned(),
        (None, Some(tool)) => format!("execute_tool {tool}"),
        (None, None) => noted.route.as_ref().map_or_else(|| "request".to_owned(), ToString::to_string),
    }
}

fn is_tool_call(noted: &Noted) -> bool {
    noted.tool.is_some() && noted.mcp_method.is_none_or(|method| method == "tools/call")
}

fn is_error(noted: &Noted) -> bool {
    let unavailable = |code: &str| code.ends_with("_unavailable") || code.starts_with("upstream_");
    noted.outcome.is_some_and(|outcome| outcome != "success") || noted.error.is_some_and(unavailable)
}

/// By the names of OpenTelemetry's conventions.
fn transport(listener: &str) -> &'static str {
    match listener {
        STDIO => "pipe",
        address if address.starts_with("unix:") => "unix",
        _ => "tcp",
    }
}

fn attributes(noted: &Noted) -> Vec<KeyValue> {
    let mut all = vec![
        KeyValue::new("oakallow.txn", noted.txn.clone()),
        KeyValue::new("network.transport", transport(&noted.listener)),
    ];
    let mut put = |key: &'static str, value: Option<String>| {
        all.extend(value.map(|value| KeyValue::new(key, value)));
    };
    let text = |value: Option<&str>| value.map(str::to_owned);
    let named = |value: Option<&oakallow_policy::Name>| value.map(ToString::to_string);
    let of_method =
        |method: &str| named(noted.resource.as_ref()).filter(|_| noted.mcp_method == Some(method));
    if is_tool_call(noted) {
        put("gen_ai.operation.name", text(Some("execute_tool")));
        put("gen_ai.tool.name", named(noted.tool.as_ref()));
    }
    put("gen_ai.prompt.name", of_method("prompts/get"));
    put("mcp.resource.uri", of_method("resources/read"));
    put("mcp.method.name", text(noted.mcp_method));
    put("mcp.protocol.version", noted.mcp_version.clone());
    put("mcp.session.id", noted.mcp_session.clone());
    put("network.protocol.name", noted.http_version.map(|_| "http".to_owned()));
    put("network.protocol.version", text(noted.http_version));
    put("error.type", text(noted.error.or((noted.outcome == Some("failed")).then_some("tool_error"))));
    put("oakallow.route", named(noted.route.as_ref()));
    put("oakallow.principal", named(noted.principal.as_ref()));
    put("oakallow.tenant", named(noted.tenant.as_ref()));
    put("oakallow.decision", text(noted.decision));
    put("oakallow.resolved_from", noted.resolved_from.clone());
    put("oakallow.approval.id", noted.approval.clone());
    put("oakallow.permit", text(noted.permit));
    put("oakallow.outcome", text(noted.outcome));
    all.extend(noted.status.map(|status| KeyValue::new("http.response.status_code", i64::from(status))));
    all
}

fn of_upstream(noted: &Noted) -> Vec<KeyValue> {
    let known = [
        ("mcp.method.name", noted.mcp_method),
        ("oakallow.outcome", noted.outcome),
        ("error.type", noted.error.or((noted.outcome == Some("failed")).then_some("tool_error"))),
    ];
    known.into_iter().filter_map(|(key, value)| Some(KeyValue::new(key, value?))).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A span that says nothing.
    pub(in crate::observe) fn empty(own: SpanContext) -> SpanData {
        span(own, String::new(), (UNIX_EPOCH, UNIX_EPOCH))
    }
}
