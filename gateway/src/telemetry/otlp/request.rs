//! A request by the semantic conventions for generative AI.

use opentelemetry::{
    KeyValue,
    trace::{Span as _, Status},
};
use opentelemetry_sdk::trace::Span;
use tower_spillover::{Served, served::Attempt};

use super::call;
use crate::{
    access_record::{held, last_reason, reason},
    telemetry::{labels::Facts, metrics::millis, trace::Trace},
};

/// Ends the span of a request and those of its calls, which then tell what came of them.
///
/// The request is the logical operation, however often it was sent, as the conventions for GenAI
/// have it; its calls follow those for HTTP clients.
pub(crate) fn end(facts: &Facts<'_>) {
    let account = facts.account;
    let Some((mut span, calls)) = account.trace.as_ref().and_then(Trace::end) else { return };
    let (calls, others) = call::pair(facts, calls);
    for (number, (call, attempt)) in calls.into_iter().enumerate() {
        call::end(facts, number, call, attempt);
    }
    span.update_name(format!("{} {}", operation(facts), facts.model));
    span.set_attributes(attributes(facts));
    for attempt in others {
        add_event(&mut span, facts, attempt);
    }
    if account.status.is_server_error() || !account.complete {
        span.set_status(Status::error(""));
    }
    span.end_with_timestamp(account.at.checked_add(account.total).unwrap_or(account.at));
}

/// What the GenAI metrics are divided by.
pub(crate) fn labels(facts: &Facts<'_>) -> Vec<KeyValue> {
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
    let served = account.served.as_ref();
    if let Some(why) = served.and_then(last_reason) {
        attributes.push(KeyValue::new("spillover.reason", reason(why)));
    }
    if let Some(why) = served.and_then(Served::held) {
        attributes.push(KeyValue::new("spillover.sticky", held(why)));
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

/// An attempt that came to no call, such as for want of an access token.
fn add_event(span: &mut Span, facts: &Facts<'_>, attempt: &Attempt) {
    let at = facts.account.at.checked_add(attempt.at()).unwrap_or(facts.account.at);
    let attributes = vec![
        KeyValue::new("spillover.backend", attempt.backend().to_owned()),
        KeyValue::new("spillover.tier", facts.tier(attempt.backend())),
    ];
    span.add_event_with_timestamp("spillover.attempt", at, attributes);
}

/// The well-known name of an operation, or the gateway's own.
fn operation(facts: &Facts<'_>) -> &'static str {
    match facts.operation {
        "chat.completions" | "responses" => "chat",
        "completions" => "text_completion",
        other => other,
    }
}

pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
