//! The log line of a finished request.

use tower_spillover::Served;

use crate::{
    access_record,
    telemetry::{labels::Labels, metrics::millis, trace::Trace},
};

/// One event per finished request. It contains nothing from a header, a body or a key.
pub(crate) fn write(labels: &Labels<'_>, trace: Option<&Trace>) {
    let record = labels.record;
    let (served, session) = (record.served.as_ref(), record.session.as_ref());
    tracing::info!(
        target: "spillover::request",
        message = "request",
        id = record.id.as_str(),
        client = labels.client,
        model = labels.model,
        class = record.class.as_deref(),
        operation = labels.operation,
        streaming = record.streaming,
        backend = labels.backend(),
        decision = labels.decision.as_str(),
        attempts = served.map_or(0, |served| served.attempts().len()),
        why = served.and_then(access_record::why),
        late = served.and_then(Served::late).map(access_record::late),
        sticky = served.and_then(Served::held).map(access_record::held),
        course = served.map(tracing::field::display),
        waited_ms = served.map_or(0, |served| millis(served.waited())),
        status = record.status.as_u16(),
        first_token_ms = record.first_token.map(millis),
        to_head_ms = millis(record.to_head),
        total_ms = millis(record.total),
        prompt_tokens = record.usage.map(|tokens| tokens.prompt),
        cached_tokens = record.usage.map(|tokens| tokens.cached),
        completion_tokens = record.usage.map(|tokens| tokens.completion),
        from_client_bytes = session.map(|session| session.from_client),
        from_backend_bytes = session.map(|session| session.from_backend),
        session_end = session.map(|session| session.end),
        ended = record.ended.as_str(),
        trace_id = trace.map(|trace| tracing::field::display(trace.id())),
    );
}
