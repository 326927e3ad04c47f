//! What is known about the fleet and the calls to its store.

use std::fmt;

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use tower_spillover::fleet::{FleetStats, LATENCY_BOUNDS, OperationStats};

use crate::fleet::RunningFleet;

type CallLabels = [(&'static str, &'static str); 2];

/// Registers the metrics of one answer.
pub(super) fn register(registry: &mut Registry, running: &RunningFleet) {
    let gauge = |value: u32| {
        let gauge: Gauge = Gauge::default();
        gauge.set(i64::from(value));
        gauge
    };
    let up = gauge(u32::from(running.fleet.is_up()));
    registry.register("fleet_up", "1 while the fleet's store answers", up);
    let help = "Replicas in the fleet, as last counted";
    registry.register("fleet_replicas", help, gauge(running.fleet.replicas()));
    let stats = running.fleet.stats();
    let calls: Family<CallLabels, Counter> = Family::default();
    for of in &stats.operations {
        for (outcome, count) in of.outcomes() {
            let labels = [("op", of.operation.name()), ("outcome", outcome)];
            calls.get_or_create(&labels).inc_by(count);
        }
    }
    let help = "Calls to the fleet's store. Without an answer (timeout, error, skipped because the \
                store is down) the replica decided alone";
    registry.register("fleet_calls", help, calls);
    let ids: Family<[(&str, &str); 1], Counter> = Family::default();
    for (outcome, count) in [("found", stats.ids_found), ("unknown", stats.ids_unknown)] {
        ids.get_or_create(&[("outcome", outcome)]).inc_by(count);
    }
    let help = "Ids in requests that the replica did not know and the fleet's store was asked for";
    registry.register("fleet_ids", help, ids);
    let help = "How long requests waited for the fleet's store";
    registry.register_with_unit("fleet_call", help, Unit::Seconds, Latencies(stats));
}

/// A histogram that the library has counted.
struct Latencies(FleetStats);

impl EncodeMetric for Latencies {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for of in &self.0.operations {
            let labels = [("op", of.operation.name())];
            let mut of_operation = encoder.encode_family(&labels)?;
            let count = of.latencies.iter().sum();
            let sum = of.time.as_secs_f64();
            of_operation.encode_histogram::<NoLabelSet>(sum, count, &buckets(of), None)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

fn buckets(of: &OperationStats) -> Vec<(f64, u64)> {
    let bounds = LATENCY_BOUNDS.iter().map(|bound| bound.as_secs_f64()).chain([f64::MAX]);
    bounds.zip(of.latencies).collect()
}

impl fmt::Debug for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latencies").finish_non_exhaustive()
    }
}
