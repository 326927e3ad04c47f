//! Logs: who writes them where, and the line of a finished request.

pub(super) mod json;
pub(super) mod writer;

use tower_spillover::Served;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::FilterFn,
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
};

use super::{
    OperationsError,
    labels::Facts,
    logs::{json::Json, writer::Lines},
    metrics::millis,
};
use crate::{access_record, config::Telemetry};

/// Makes this process log to standard error, unless it logs already.
pub(crate) fn install(telemetry: &Telemetry) -> Result<Lines, OperationsError> {
    let lines = Lines::new();
    let writer = lines.clone();
    let subscriber = subscriber(telemetry, move || writer.clone())?;
    // A process has one subscriber; it stays when a configuration is loaded again.
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        lines.start().map_err(|error| OperationsError::new("log", error))?;
    }
    Ok(lines)
}

/// A subscriber that writes to `writer` what the filter lets through.
pub(crate) fn subscriber<W>(
    telemetry: &Telemetry,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, OperationsError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(&telemetry.log)
        .map_err(|error| OperationsError::new("log", error))?
        .and_then(fmt_layer(telemetry.json, writer).with_filter(FilterFn::new(is_fit_to_print)));
    Ok(Box::new(Registry::default().with(filter)))
}

fn fmt_layer<W>(is_json: bool, writer: W) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = fmt::layer().with_writer(writer).with_ansi(false);
    if is_json { layer.event_format(Json).boxed() } else { layer.boxed() }
}

/// At TRACE, libraries print what they read from the wire, keys included.
fn is_fit_to_print(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("spillover") || *metadata.level() <= Level::DEBUG
}

/// One event for a finished request. Nothing in it comes from a header, a body or a key.
pub(crate) fn request(facts: &Facts<'_>) {
    let account = facts.account;
    let served = account.served.as_ref();
    tracing::info!(
        target: "spillover::request",
        id = account.id.as_str(),
        client = facts.client,
        model = facts.model,
        class = account.class.as_deref(),
        operation = facts.operation,
        streaming = account.streaming,
        backend = facts.backend(),
        decision = facts.decision.as_str(),
        attempts = served.map_or(0, |served| served.attempts().len()),
        reason = served.and_then(access_record::last_reason).map(access_record::reason),
        sticky = served.and_then(Served::held).map(access_record::held),
        course = served.map(tracing::field::display),
        waited_ms = served.map_or(0, |served| millis(served.waited())),
        status = account.status.as_u16(),
        to_head_ms = millis(account.to_head),
        total_ms = millis(account.total),
        prompt_tokens = account.usage.map(|tokens| tokens.prompt),
        cached_tokens = account.usage.map(|tokens| tokens.cached),
        completion_tokens = account.usage.map(|tokens| tokens.completion),
        complete = account.complete,
        trace_id = account.trace.as_ref().map(|trace| tracing::field::display(trace.id())),
        "request",
    );
}
