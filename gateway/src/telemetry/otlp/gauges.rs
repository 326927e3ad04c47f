//! The state of pools and gates, read whenever metrics are exported.

use std::sync::Arc;

use opentelemetry::{KeyValue, metrics::Meter};

use crate::{snapshot::Snapshot, telemetry::gauges::GAUGES};

/// Makes `meter` observe the result of `running`, as long as there is one.
pub(crate) fn observe(
    meter: &Meter,
    running: impl Fn() -> Option<Arc<Snapshot>> + Send + Sync + 'static,
) {
    let running = Arc::new(running);
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
