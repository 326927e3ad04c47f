//! Logging: the subscriber, its filter, and its format.

mod json;
pub(super) mod keyless;
mod logfmt;
pub(super) mod panics;
pub(super) mod request_line;
pub(super) mod writer;

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::FilterFn,
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
};

use self::{json::Json, logfmt::Logfmt, writer::Lines};
use super::error::TelemetryError;
use crate::config::TelemetrySettings;

/// Makes this process log to standard error, unless it already logs.
pub(crate) fn install(telemetry: &TelemetrySettings) -> Result<Lines, TelemetryError> {
    let lines = Lines::new();
    let subscriber = subscriber(telemetry, lines.clone())?;
    // A process has one subscriber; it stays when a configuration is reloaded.
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        lines.start().map_err(|error| TelemetryError::new("log", error))?;
    }
    Ok(lines)
}

/// A subscriber that writes events that pass the filter to `writer`.
pub(crate) fn subscriber<W>(
    telemetry: &TelemetrySettings,
    writer: W,
) -> Result<Box<dyn Subscriber + Send + Sync>, TelemetryError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(&telemetry.log)
        .map_err(|error| TelemetryError::new("log", error))?
        .and_then(fmt_layer(telemetry.json, writer).with_filter(FilterFn::new(is_fit_to_print)));
    Ok(Box::new(Registry::default().with(filter)))
}

fn fmt_layer<W>(is_json: bool, writer: W) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = fmt::layer().with_writer(writer).with_ansi(false);
    if is_json { layer.event_format(Json).boxed() } else { layer.event_format(Logfmt).boxed() }
}

/// At TRACE, libraries print what they read from the network, including keys.
fn is_fit_to_print(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("spillover") || *metadata.level() <= Level::DEBUG
}
