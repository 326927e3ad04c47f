//! What the gateway tells about itself: metrics, a status document, logs, and OTLP.

mod gauges;
mod labels;
mod logs;
mod metrics;
mod otlp;
mod status;
mod trace;

#[cfg(test)]
mod tests;

use std::{error::Error, fmt, sync::Arc, time::Instant};

use http::HeaderMap;

pub(crate) use self::trace::{Call, Trace};
use self::{
    labels::Facts,
    logs::writer::Lines,
    metrics::{Metrics, scrape},
    otlp::Export,
};
use crate::{access_record::Account, config::Telemetry, http_client::BoxError, snapshot::Running};

/// The content type of [`Operations::metrics`]: OpenMetrics, which Prometheus reads.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Counts, logs and exports; clones count together.
#[derive(Clone, Debug)]
pub(crate) struct Operations {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    metrics: Metrics,
    export: Option<Export>,
    lines: Lines,
    started: Instant,
}

impl Operations {
    /// Starts to log to standard error, unless this process logs already, and to export.
    ///
    /// # Errors
    ///
    /// When the filter, or the address of the collector, cannot be used.
    pub(crate) fn new(telemetry: &Telemetry) -> Result<Self, OperationsError> {
        let lines = logs::install(telemetry)?;
        let export = telemetry.otlp.as_deref();
        let export = export.map(|to| Export::new(to, &telemetry.service_name)).transpose();
        let export = export.map_err(|error| OperationsError::new("otlp", error))?;
        let inner = Inner { metrics: Metrics::new(), export, lines, started: now() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Exports what the pools and gates of `running` say, from time to time.
    pub(crate) fn watch(&self, running: impl Fn() -> Option<Arc<Running>> + Send + Sync + 'static) {
        if let Some(export) = &self.inner.export {
            export.watch(running);
        }
    }

    /// Counts a request as under way until it is [`finished`](Self::finished).
    pub(crate) fn arrived(&self) {
        self.inner.metrics.in_flight.inc();
    }

    /// Begins to trace a request where traces are exported: continues the trace of its caller, of
    /// which `headers` tell, or begins one. Otherwise `headers` stay as they are.
    pub(crate) fn trace(&self, account: &Account, headers: &mut HeaderMap) -> Option<Trace> {
        let export = self.inner.export.as_ref()?;
        Some(export.trace(account, headers))
    }

    /// Counts, logs and exports a request. To be called once for each that arrived.
    pub(crate) fn finished(&self, account: &Account, running: &Running) {
        self.inner.metrics.in_flight.dec();
        let facts = Facts::of(account, running);
        self.inner.metrics.count(&facts);
        logs::request(&facts);
        if let Some(export) = &self.inner.export {
            export.export(&facts);
        }
    }

    /// All metrics, as [`CONTENT_TYPE`] says.
    pub(crate) fn metrics(&self, running: &Running) -> String {
        scrape::text(&self.inner.metrics, running)
    }

    /// What is known of every model, backend and client; no keys.
    pub(crate) fn status(&self, running: &Running) -> serde_json::Value {
        let uptime = now().saturating_duration_since(self.inner.started);
        status::document(&self.inner.metrics, running, uptime)
    }

    /// Sends what was not exported yet. Blocks for a few seconds at most, so an async caller does
    /// it with `spawn_blocking`.
    pub(crate) fn shutdown(self) {
        if let Some(export) = &self.inner.export {
            export.shutdown();
        }
        self.inner.lines.drain();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.lines.drain();
    }
}

/// Which telemetry setting cannot be used, and why.
#[derive(Debug)]
pub(crate) struct OperationsError {
    key: &'static str,
    reason: BoxError,
}

impl OperationsError {
    fn new(key: &'static str, reason: impl Into<BoxError>) -> Self {
        Self { key, reason: reason.into() }
    }
}

impl fmt::Display for OperationsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[telemetry] {}: {}", self.key, self.reason)
    }
}

impl Error for OperationsError {}

#[expect(clippy::disallowed_methods, reason = "uptime is counted from here to here")]
fn now() -> Instant {
    Instant::now()
}
