//! The instruments for requests that a collector receives.

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram, Meter},
};
use tower_spillover::served::Attempt;

use super::request;
use crate::{access_record::reason_of, telemetry::labels::Labels};

/// The instruments of a meter: those of the GenAI conventions, and the gateway's own.
///
/// As with the labels of `/metrics`, no attribute value comes from a client.
pub(super) struct Instruments {
    tokens: Histogram<u64>,
    duration: Histogram<f64>,
    first_token: Histogram<f64>,
    requests: Counter<u64>,
    wait: Histogram<f64>,
    attempts: Counter<u64>,
}

impl Instruments {
    pub(super) fn new(meter: &Meter) -> Self {
        let seconds = |name: &'static str, help: &'static str, edges: &[f64]| {
            let histogram = meter.f64_histogram(name).with_unit("s").with_description(help);
            histogram.with_boundaries(edges.to_vec()).build()
        };
        let counter = |name: &'static str, unit: &'static str, help: &'static str| {
            meter.u64_counter(name).with_unit(unit).with_description(help).build()
        };
        Self {
            tokens: meter
                .u64_histogram("gen_ai.client.token.usage")
                .with_unit("{token}")
                .with_description("Number of input and output tokens used")
                .with_boundaries(TOKENS.to_vec())
                .build(),
            duration: seconds(
                "gen_ai.client.operation.duration",
                "GenAI operation duration",
                &SECONDS,
            ),
            first_token: seconds(
                "spillover.time_to_first_token",
                "From a request until the model's first text, for streams",
                &SECONDS,
            ),
            requests: counter("spillover.requests", "{request}", "Finished requests"),
            wait: seconds(
                "spillover.wait.duration",
                "Time a request spent waiting for capacity",
                &SECONDS,
            ),
            attempts: counter("spillover.attempts", "{attempt}", "Attempts at backends"),
        }
    }

    /// Counts a finished request.
    pub(super) fn record(&self, labels: &Labels<'_>) {
        let record = labels.record;
        let mut attributes = request::metric_attributes(labels);
        attributes.extend(request::decision_attributes(labels));
        self.requests.add(1, &attributes);
        self.duration.record(record.total.as_secs_f64(), &attributes);
        if let Some(time) = record.first_token {
            self.first_token.record(time.as_secs_f64(), &attributes);
        }
        if let Some(served) = &record.served {
            self.wait.record(served.waited().as_secs_f64(), &attributes);
            for attempt in served.attempts() {
                self.attempts.add(1, &of_attempt(labels, attempt));
            }
        }
        if let Some(tokens) = record.usage {
            for (kind, number) in [("input", tokens.prompt), ("output", tokens.completion)] {
                attributes.push(KeyValue::new("gen_ai.token.type", kind));
                self.tokens.record(number, &attributes);
                attributes.pop();
            }
        }
    }
}

fn of_attempt(labels: &Labels<'_>, attempt: &Attempt) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("gen_ai.request.model", labels.model.to_owned()),
        KeyValue::new("spillover.backend", attempt.backend().to_owned()),
        KeyValue::new("spillover.tier", labels.tier(attempt.backend())),
    ];
    match attempt.status() {
        Some(status) => {
            let code = i64::from(status.as_u16());
            attributes.push(KeyValue::new("http.response.status_code", code));
        }
        None => attributes.push(KeyValue::new("error.type", "failed")),
    }
    if let Some(reason) = reason_of(attempt) {
        attributes.push(KeyValue::new("spillover.reason", reason));
    }
    attributes
}

/// Recommended by the semantic conventions for GenAI metrics.
const TOKENS: [f64; 14] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];
/// Recommended by the semantic conventions for GenAI metrics, extended to ten minutes, the longest
/// time for an answer.
const SECONDS: [f64; 17] = [
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84,
    327.68, 655.36,
];
