//! What the gateway reports of itself: metrics, a status document, logs, traces, and OTLP.

mod clock;
mod error;
mod gauges;
mod labels;
mod logs;
mod metrics;
mod otlp;
mod status;
mod trace;

#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use http::HeaderMap;

use self::{
    clock::now,
    error::TelemetryError,
    labels::Labels,
    logs::{keyless::KeylessLines, writer::Lines},
    metrics::{Metrics, scrape},
    otlp::Export,
};
pub(crate) use self::{
    logs::panics::log as log_panics,
    trace::{Call, Trace},
};
use crate::{access_record::AccessRecord, config::TelemetrySettings, snapshot::Snapshot};

/// The content type of [`Telemetry::metrics`]: OpenMetrics, which Prometheus reads.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Counts, logs and exports; clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Telemetry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    metrics: Metrics,
    export: Option<Export>,
    lines: Lines,
    keyless: KeylessLines,
    started: Instant,
}

impl Telemetry {
    /// Starts to log to standard error, unless this process logs already, and to export.
    ///
    /// # Errors
    ///
    /// When the filter, or the address of the collector, cannot be used.
    pub(crate) fn new(telemetry: &TelemetrySettings) -> Result<Self, TelemetryError> {
        let lines = logs::install(telemetry)?;
        let export = telemetry.otlp.as_deref();
        let export = export.map(|to| Export::new(to, &telemetry.service_name)).transpose();
        let export = export.map_err(|error| TelemetryError::new("otlp", error))?;
        let (metrics, started) = (Metrics::new(lines.dropped()), now());
        let keyless = KeylessLines::new(started);
        let inner = Inner { metrics, export, lines, keyless, started };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Exports what the pools and gates of `running` say, from time to time.
    pub(crate) fn watch(
        &self,
        running: impl Fn() -> Option<Arc<Snapshot>> + Send + Sync + 'static,
    ) {
        if let Some(export) = &self.inner.export {
            export.watch(running);
        }
    }

    /// Counts a request as under way until it is [`finished`](Self::finished).
    pub(crate) fn arrived(&self) {
        self.inner.metrics.in_flight.inc();
    }

    /// Begins to trace a request where traces are exported: continues the trace in its
    /// caller's `headers`, or begins one. Otherwise `headers` stay as they are.
    pub(crate) fn trace(
        &self,
        at: SystemTime,
        started: Instant,
        headers: &mut HeaderMap,
    ) -> Option<Trace> {
        let export = self.inner.export.as_ref()?;
        Some(export.trace((at, started), headers))
    }

    /// Counts, logs and exports a request. To be called once for each that arrived.
    pub(crate) fn finished(
        &self,
        record: &AccessRecord,
        trace: Option<&Trace>,
        running: &Snapshot,
    ) {
        self.inner.metrics.in_flight.dec();
        let labels = Labels::of(record, running);
        self.inner.metrics.count(&labels);
        let now = record.started + record.total;
        self.inner.keyless.tell(now);
        if !record.client.is_empty() || self.inner.keyless.take(now) {
            logs::request_line::write(&labels, trace);
        }
        if let Some(export) = &self.inner.export {
            export.export(&labels, trace);
        }
    }

    /// All metrics, as [`CONTENT_TYPE`] says.
    pub(crate) fn metrics(&self, running: &Snapshot) -> String {
        scrape::text(&self.inner.metrics, running)
    }

    /// What is known of every model, backend and client; no keys.
    pub(crate) fn status(&self, running: &Snapshot) -> serde_json::Value {
        let uptime = now().saturating_duration_since(self.inner.started);
        status::document(&self.inner.metrics, running, uptime)
    }

    /// Sends what was not exported yet. Blocks for a few seconds at most, so an async caller does
    /// it with `spawn_blocking`.
    pub(crate) fn shutdown(self) {
        if let Some(export) = &self.inner.export {
            export.shutdown();
        }
    }

    /// Returns when all lines are written, or half a second later.
    pub(crate) fn flush_log(&self) {
        self.inner.lines.flush();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.lines.flush();
    }
}
