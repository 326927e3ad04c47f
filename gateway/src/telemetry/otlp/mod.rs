//! OpenTelemetry: spans and metrics of every request, in batches to a collector.

mod call;
mod client;
mod gauges;
mod instruments;
mod request;

use std::{
    fmt,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use http::HeaderMap;
use opentelemetry::{
    KeyValue,
    metrics::{Meter, MeterProvider},
    trace::TracerProvider,
};
use opentelemetry_otlp::{
    MetricExporter, Protocol, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::{
    Resource,
    metrics::SdkMeterProvider,
    trace::{SdkTracer, SdkTracerProvider},
};

use self::{client::Exporting, instruments::Instruments};
use super::{labels::Labels, trace::Trace};
use crate::{http_client::BoxError, snapshot::Snapshot};

/// Sends spans and metrics, on its own threads.
pub(crate) struct Export {
    traces: SdkTracerProvider,
    tracer: SdkTracer,
    metrics: SdkMeterProvider,
    meter: Meter,
    instruments: Instruments,
}

impl Export {
    /// Exports to the collector at `endpoint`, the base of `/v1/traces` and `/v1/metrics`.
    pub(crate) fn new(endpoint: &str, service_name: &str) -> Result<Self, BoxError> {
        let base = endpoint.trim_end_matches('/');
        let (traces, metrics) = providers(base, service_name)?;
        let meter = metrics.meter("spillover");
        let instruments = Instruments::new(&meter);
        let tracer = traces.tracer("spillover");
        Ok(Self { traces, tracer, metrics, meter, instruments })
    }

    pub(crate) fn trace(&self, arrived: (SystemTime, Instant), headers: &mut HeaderMap) -> Trace {
        Trace::begin(&self.tracer, arrived, headers)
    }

    pub(crate) fn watch(
        &self,
        running: impl Fn() -> Option<Arc<Snapshot>> + Send + Sync + 'static,
    ) {
        gauges::observe(&self.meter, running);
    }

    pub(crate) fn export(&self, labels: &Labels<'_>, trace: Option<&Trace>) {
        request::end(labels, trace);
        self.instruments.record(labels);
    }

    /// Exports what is left of spans and metrics at once. Does not wait long for a collector that
    /// does not answer.
    pub(crate) fn shutdown(&self) {
        let (spans, numbers) = thread::scope(|scope| {
            let spans = scope.spawn(|| self.traces.shutdown_with_timeout(PATIENCE));
            let numbers = self.metrics.shutdown_with_timeout(PATIENCE);
            (spans.join(), numbers)
        });
        if !matches!(spans, Ok(Ok(()))) {
            tracing::warn!(target: TARGET, "the last spans were not exported");
        }
        if let Err(error) = numbers {
            tracing::warn!(target: TARGET, %error, "the last metrics were not exported");
        }
    }
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export").finish_non_exhaustive()
    }
}

fn providers(
    base: &str,
    service_name: &str,
) -> Result<(SdkTracerProvider, SdkMeterProvider), BoxError> {
    let client = Exporting::new()?;
    let spans = SpanExporter::builder()
        .with_http()
        .with_http_client(client.clone())
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{base}/v1/traces"))
        .build()?;
    let numbers = MetricExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{base}/v1/metrics"))
        .build()?;
    let resource = Resource::builder()
        .with_service_name(service_name.to_owned())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let traces = SdkTracerProvider::builder()
        .with_batch_exporter(spans)
        .with_resource(resource.clone())
        .build();
    let metrics =
        SdkMeterProvider::builder().with_periodic_exporter(numbers).with_resource(resource).build();
    Ok((traces, metrics))
}

/// For log events; part of their format, so it does not change with the module path.
const TARGET: &str = "spillover::operations::otlp";
const PATIENCE: Duration = Duration::from_secs(5);
