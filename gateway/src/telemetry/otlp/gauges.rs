//! The state of pools, gates and the fleet, read whenever metrics are exported.

use std::sync::Arc;

use opentelemetry::{KeyValue, metrics::Meter};

use crate::{fleet::RunningFleet, snapshot::Snapshot, telemetry::gauges::GAUGES};

/// Makes `meter` observe the result of `running`, as long as there is one.
pub(crate) fn observe(
    meter: &Meter,
    running: impl Fn() -> Option<Arc<Snapshot>> + Send + Sync + 'static,
) {
    let running = Arc::new(running);
    observe_fleet(meter, &running);
    for gauge in &GAUGES {
        let running = Arc::clone(&running);
        // The meter keeps the instrument.
        let _ = meter
            .f64_observable_gauge(format!("spillover.{}", gauge.name))
            .with_description(gauge.help)
            .with_unit(gauge.unit)
            .with_callback(move |observer| {
                let Some(running) = running() else { return };
                for model in running.models.values() {
                    (gauge.read)(model, &mut |more, number| {
                        let more = more.iter().map(|&(name, value)| {
                            KeyValue::new(format!("spillover.{name}"), value.to_owned())
                        });
                        let name = KeyValue::new("gen_ai.request.model", model.name.clone());
                        let labels: Vec<_> = std::iter::once(name).chain(more).collect();
                        observer.observe(number, &labels);
                    });
                }
            })
            .build();
    }
}

fn observe_fleet(
    meter: &Meter,
    running: &Arc<impl Fn() -> Option<Arc<Snapshot>> + Send + Sync + 'static>,
) {
    let read = |what: fn(&RunningFleet) -> u64| {
        let running = Arc::clone(running);
        move || Some(what(running()?.fleet.as_ref()?))
    };
    let up = read(|running| u64::from(running.fleet.is_up()));
    let replicas = read(|running| u64::from(running.fleet.replicas()));
    let _ = meter
        .u64_observable_gauge("spillover.fleet.up")
        .with_description("1 while the fleet's store answers")
        .with_callback(move |observer| up().iter().for_each(|it| observer.observe(*it, &[])))
        .build();
    let _ = meter
        .u64_observable_gauge("spillover.fleet.replicas")
        .with_description("Replicas in the fleet, as last counted")
        .with_unit("{replica}")
        .with_callback(move |observer| replicas().iter().for_each(|it| observer.observe(*it, &[])))
        .build();
    let running = Arc::clone(running);
    let _ = meter
        .u64_observable_counter("spillover.fleet.calls")
        .with_description("Calls to the fleet's store, by operation and outcome")
        .with_unit("{call}")
        .with_callback(move |observer| {
            let running = running();
            let fleet = running.as_ref().and_then(|running| running.fleet.as_ref());
            for of in fleet.into_iter().flat_map(|it| it.fleet.stats().operations) {
                for (outcome, count) in of.outcomes() {
                    let labels = [
                        KeyValue::new("spillover.op", of.operation.name()),
                        KeyValue::new("spillover.outcome", outcome),
                    ];
                    observer.observe(count, &labels);
                }
            }
        })
        .build();
}
