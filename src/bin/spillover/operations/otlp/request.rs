//! A request by the semantic conventions for generative AI.

use opentelemetry::{
    Context, KeyValue,
    trace::{Event, Span, SpanKind, Status, Tracer},
};
use opentelemetry_sdk::trace::SdkTracer;
use tower_spillover::served::Attempt;

use crate::operations::{facts::Facts, metrics::millis};

/// Records the span of a finished request, with an event for every attempt.
pub(super) fn span(tracer: &SdkTracer, facts: &Facts<'_>) {
    let account = facts.account;
    let served = account.served.as_ref();
    let events = served.into_iter().flat_map(|served| served.attempts());
    let mut span = tracer
        .span_builder(format!("{} {}", operation(facts), facts.model))
        .with_kind(SpanKind::Server)
        .with_start_time(account.at)
        .with_attributes(attributes(facts))
        .with_events(events.map(|attempt| event(facts, attempt)).collect())
        .start_with_context(tracer, &Context::new());
    if account.status.is_server_error() || !account.complete {
        span.set_status(Status::error(""));
    }
    span.end_with_timestamp(account.at.checked_add(account.total).unwrap_or(account.at));
}

/// What the GenAI metrics are divided by.
pub(super) fn labels(facts: &Facts<'_>) -> Vec<KeyValue> {
    let mut labels = vec![
        KeyValue::new("gen_ai.operation.name", operation(facts)),
        KeyValue::new("gen_ai.provider.name", "azure.ai.openai"),
        KeyValue::new("gen_ai.request.model", facts.model.to_owned()),
    ];
    if let Some(host) = facts.server_address() {
        labels.push(KeyValue::new("server.address", host.to_owned()));
    }
    let status = facts.account.status;
    if status.is_client_error() || status.is_server_error() {
        labels.push(KeyValue::new("error.type", status.as_str().to_owned()));
    }
    labels
}

fn attributes(facts: &Facts<'_>) -> Vec<KeyValue> {
    let account = facts.account;
    let mut attributes = labels(facts);
    attributes.extend([
        KeyValue::new("http.response.status_code", i64::from(account.status.as_u16())),
        KeyValue::new("spillover.request.id", account.id.clone()),
        KeyValue::new("spillover.client", facts.client.to_owned()),
        KeyValue::new("spillover.operation", facts.operation),
        KeyValue::new("spillover.decision", facts.decision.as_str()),
        KeyValue::new("spillover.streaming", account.streaming),
        KeyValue::new("spillover.complete", account.complete),
        KeyValue::new("spillover.to_head_ms", signed(millis(account.to_head))),
    ]);
    if let Some(backend) = facts.backend() {
        attributes.push(KeyValue::new("spillover.backend", backend.to_owned()));
    }
    if let Some(class) = &account.class {
        attributes.push(KeyValue::new("spillover.class", class.clone()));
    }
    if let Some(served) = &account.served {
        let attempts = i64::try_from(served.attempts().len()).unwrap_or(i64::MAX);
        attributes.extend([
            KeyValue::new("spillover.attempts", attempts),
            KeyValue::new("spillover.waited_ms", signed(millis(served.waited()))),
        ]);
    }
    if let Some(tokens) = account.usage {
        attributes.extend([
            KeyValue::new("gen_ai.usage.input_tokens", signed(tokens.prompt)),
            KeyValue::new("gen_ai.usage.output_tokens", signed(tokens.completion)),
            KeyValue::new("gen_ai.usage.cache_read.input_tokens", signed(tokens.cached)),
        ]);
    }
    attributes
}

fn event(facts: &Facts<'_>, attempt: &Attempt) -> Event {
    let at = facts.account.at.checked_add(attempt.at()).unwrap_or(facts.account.at);
    let mut attributes = vec![
        KeyValue::new("spillover.backend", attempt.backend().to_owned()),
        KeyValue::new("spillover.tier", facts.tier(attempt.backend())),
    ];
    if let Some(status) = attempt.status() {
        let status = i64::from(status.as_u16());
        attributes.push(KeyValue::new("http.response.status_code", status));
    }
    if let Some(wait) = attempt.hint().duration() {
        attributes.push(KeyValue::new("spillover.hint_ms", signed(millis(wait))));
    }
    Event::new("spillover.attempt", at, attributes, 0)
}

/// The well-known name of an operation, or the gateway's own.
fn operation(facts: &Facts<'_>) -> &'static str {
    match facts.operation {
        "chat.completions" | "responses" => "chat",
        "completions" => "text_completion",
        other => other,
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
