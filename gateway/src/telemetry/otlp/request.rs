//! A request, in the semantic conventions for generative AI.

use opentelemetry::{
    KeyValue,
    trace::{Span as _, Status},
};
use opentelemetry_sdk::trace::Span;
use tower_spillover::{Served, served::Attempt};

use super::call::{self, signed};
use crate::{
    access_record::{self, Ended, held, late},
    telemetry::{labels::Labels, metrics::millis, trace::Trace},
};

/// Ends the span of a request and those of its calls, with their results.
///
/// The request is the logical operation, however often it was sent, as in the conventions for
/// GenAI; its calls follow those for HTTP clients.
pub(crate) fn end(labels: &Labels<'_>, trace: Option<&Trace>) {
    let record = labels.record;
    let Some((mut span, calls)) = trace.and_then(Trace::end) else { return };
    let (calls, others) = call::pair(labels, calls);
    for (number, (call, attempt)) in calls.into_iter().enumerate() {
        call::end(labels, number, call, attempt);
    }
    span.update_name(format!("{} {}", operation(labels), labels.model));
    span.set_attributes(attributes(labels));
    for attempt in others {
        add_event(&mut span, labels, attempt);
    }
    if record.status.is_server_error() || record.ended != Ended::Complete {
        span.set_status(Status::error(""));
    }
    span.end_with_timestamp(record.at.checked_add(record.total).unwrap_or(record.at));
}

/// The attributes of the GenAI metrics.
pub(crate) fn metric_attributes(labels: &Labels<'_>) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("gen_ai.operation.name", operation(labels)),
        KeyValue::new("gen_ai.provider.name", "azure.ai.openai"),
        KeyValue::new("gen_ai.request.model", labels.model.to_owned()),
    ];
    if let Some(host) = labels.server_address() {
        attributes.push(KeyValue::new("server.address", host.to_owned()));
    }
    let status = labels.record.status;
    if status.is_client_error() || status.is_server_error() {
        attributes.push(KeyValue::new("error.type", status.as_str().to_owned()));
    }
    attributes
}

/// Attributes of metrics and spans about the gateway's decisions.
pub(crate) fn decision_attributes(labels: &Labels<'_>) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("spillover.client", labels.client.to_owned()),
        KeyValue::new("spillover.decision", labels.decision.as_str()),
    ];
    if let Some(backend) = labels.backend() {
        attributes.push(KeyValue::new("spillover.backend", backend.to_owned()));
    }
    if let Some(why) = labels.record.served.as_ref().and_then(access_record::why) {
        attributes.push(KeyValue::new("spillover.why", why));
    }
    attributes
}

fn attributes(labels: &Labels<'_>) -> Vec<KeyValue> {
    let record = labels.record;
    let mut attributes = metric_attributes(labels);
    attributes.extend(decision_attributes(labels));
    attributes.extend([
        KeyValue::new("http.response.status_code", i64::from(record.status.as_u16())),
        KeyValue::new("spillover.request.id", record.id.clone()),
        KeyValue::new("spillover.operation", labels.operation),
        KeyValue::new("spillover.streaming", record.streaming),
        KeyValue::new("spillover.ended", record.ended.as_str()),
        KeyValue::new("spillover.to_head_ms", signed(millis(record.to_head))),
    ]);
    if let Some(time) = record.first_token {
        attributes.push(KeyValue::new("spillover.first_token_ms", signed(millis(time))));
    }
    if let Some(class) = &record.class {
        attributes.push(KeyValue::new("spillover.class", class.clone()));
    }
    if let Some(served) = &record.served {
        let attempts = i64::try_from(served.attempts().len()).unwrap_or(i64::MAX);
        attributes.extend([
            KeyValue::new("spillover.attempts", attempts),
            KeyValue::new("spillover.waited_ms", signed(millis(served.waited()))),
        ]);
    }
    let served = record.served.as_ref();
    if let Some(second) = served.and_then(Served::late) {
        attributes.push(KeyValue::new("spillover.late", late(second)));
    }
    if served.is_some_and(Served::gate_was_alone) {
        attributes.push(KeyValue::new("spillover.gate", "local"));
    }
    if let Some(why) = served.and_then(Served::held) {
        attributes.push(KeyValue::new("spillover.sticky", held(why)));
    }
    if let Some(tokens) = record.usage {
        attributes.extend([
            KeyValue::new("gen_ai.usage.input_tokens", signed(tokens.prompt)),
            KeyValue::new("gen_ai.usage.output_tokens", signed(tokens.completion)),
            KeyValue::new("gen_ai.usage.cache_read.input_tokens", signed(tokens.cached)),
        ]);
    }
    attributes
}

/// An attempt without a call, for example because there was no access token.
fn add_event(span: &mut Span, labels: &Labels<'_>, attempt: &Attempt) {
    let at = labels.record.at.checked_add(attempt.at()).unwrap_or(labels.record.at);
    let attributes = vec![
        KeyValue::new("spillover.backend", attempt.backend().to_owned()),
        KeyValue::new("spillover.tier", labels.tier(attempt.backend())),
    ];
    span.add_event_with_timestamp("spillover.attempt", at, attributes);
}

/// The operation's name in the conventions, or the gateway's own.
fn operation(labels: &Labels<'_>) -> &'static str {
    match labels.operation {
        "chat.completions" | "responses" => "chat",
        "completions" => "text_completion",
        other => other,
    }
}
