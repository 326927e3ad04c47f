//! Telemetry: metrics, a status document, logs, traces, and OTLP.

mod clock;
mod error;
mod gauges;
mod labels;
mod logs;
mod metrics;
mod otlp;
mod recent_requests;
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
    metrics::{Metrics, minute::SAMPLE_INTERVAL, scrape},
    otlp::Export,
    recent_requests::RecentRequests,
};
pub(crate) use self::{
    logs::panics::log as log_panics,
    metrics::negotiate::Format,
    trace::{Call, Trace},
};
use crate::{access_record::AccessRecord, config::TelemetrySettings, snapshot::Snapshot};

/// Counts, logs and exports; clones share their state.
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
    recent: RecentRequests,
    started: Instant,
}

impl Telemetry {
    /// Starts logging to standard error, unless this process already logs, and exporting.
    ///
    /// # Errors
    ///
    /// If the filter or the collector's address is invalid.
    pub(crate) fn new(telemetry: &TelemetrySettings) -> Result<Self, TelemetryError> {
        let lines = logs::install(telemetry)?;
        let export = telemetry.otlp.as_deref();
        let export = export.map(|to| Export::new(to, &telemetry.service_name)).transpose();
        let export = export.map_err(|error| TelemetryError::new("otlp", error))?;
        let (metrics, started) = (Metrics::new(lines.dropped()), now());
        let keyless = KeylessLines::new(started);
        let recent = RecentRequests::new(telemetry.recent_requests);
        let inner = Inner { metrics, export, lines, keyless, recent, started };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Exports the state of `running`'s pools and gates periodically.
    pub(crate) fn watch(
        &self,
        running: impl Fn() -> Option<Arc<Snapshot>> + Send + Sync + 'static,
    ) {
        if let Some(export) = &self.inner.export {
            export.watch(running);
        }
    }

    /// Counts a request as in flight until it is [`finished`](Self::finished).
    pub(crate) fn arrived(&self) {
        self.inner.metrics.in_flight.inc();
    }

    /// Starts a trace of a request, if traces are exported: continues the trace in its caller's
    /// `headers`, or begins one. Otherwise leaves `headers` unchanged.
    pub(crate) fn trace(
        &self,
        at: SystemTime,
        started: Instant,
        headers: &mut HeaderMap,
    ) -> Option<Trace> {
        let export = self.inner.export.as_ref()?;
        Some(export.trace((at, started), headers))
    }

    /// Counts, logs, exports and keeps a request. Called once for each that arrived.
    pub(crate) fn finished(&self, record: AccessRecord, trace: Option<&Trace>, running: &Snapshot) {
        self.inner.metrics.in_flight.dec();
        let labels = Labels::of(&record, running);
        self.inner.metrics.count(&labels);
        labels.note_utilization();
        let now = record.started + record.total;
        self.inner.keyless.tell(now);
        // Requests without a known client could be a flood that evicts all others.
        let is_kept = !record.client.is_empty() || self.inner.keyless.take(now);
        if is_kept {
            logs::request_line::write(&labels, trace);
        }
        if let Some(export) = &self.inner.export {
            export.export(&labels, trace);
        }
        let decision = labels.decision;
        if is_kept {
            self.inner.recent.push(record, decision, trace.map(Trace::id));
        }
    }

    /// Samples the counters every second, for the rates of the last minute, until dropped.
    pub(crate) async fn sample(&self) {
        let mut ticks = tokio::time::interval(SAMPLE_INTERVAL);
        loop {
            self.inner.metrics.minute.sample(now());
            ticks.tick().await;
        }
    }

    /// All metrics.
    pub(crate) fn metrics(&self, running: &Snapshot, format: Format) -> String {
        scrape::text(&self.inner.metrics, running, format)
    }

    /// The last requests that match the `query`, without their bodies.
    ///
    /// # Errors
    ///
    /// What is wrong with the query.
    pub(crate) fn recent_requests(
        &self,
        query: &str,
        running: &Snapshot,
    ) -> Result<serde_json::Value, String> {
        self.inner.recent.document(query, running)
    }

    /// The state of every model, backend and client, without keys.
    pub(crate) fn status(&self, running: &Snapshot) -> serde_json::Value {
        let uptime = now().saturating_duration_since(self.inner.started);
        status::document(&self.inner.metrics, running, now(), uptime)
    }

    /// Exports what is left. Blocks for a few seconds at most, so async callers use
    /// `spawn_blocking`.
    pub(crate) fn shutdown(self) {
        if let Some(export) = &self.inner.export {
            export.shutdown();
        }
    }

    /// Returns when all lines are written, or after half a second.
    pub(crate) fn flush_log(&self) {
        self.inner.lines.flush();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.lines.flush();
    }
}
