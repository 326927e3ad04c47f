//! `/metrics`: what was counted, and what pools and gates say at this moment.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::text,
    metrics::{family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};

use super::Metrics;
use crate::{snapshot::Snapshot, telemetry::gauges::GAUGES};

type GaugeLabels = Vec<(&'static str, String)>;
type Real = Gauge<f64, AtomicU64>;

/// Everything, in the OpenMetrics text format.
pub(crate) fn text(metrics: &Metrics, running: &Snapshot) -> String {
    let mut text = String::new();
    let written = text::encode_registry(&mut text, &metrics.registry)
        .and_then(|()| text::encode_registry(&mut text, &looked_at(running)))
        .and_then(|()| text::encode_eof(&mut text));
    written.expect("a string takes everything");
    text
}

/// Gauges that are made for one answer.
fn looked_at(running: &Snapshot) -> Registry {
    let mut registry = Registry::with_prefix("spillover");
    for gauge in &GAUGES {
        let family: Family<GaugeLabels, Real> = Family::default();
        for model in running.models.values() {
            (gauge.read)(model, &mut |more, number| {
                let model = ("model", model.name.clone());
                let more = more.iter().map(|&(name, value)| (name, value.to_owned()));
                let labels: GaugeLabels = std::iter::once(model).chain(more).collect();
                family.get_or_create(&labels).set(number);
            });
        }
        let name = gauge.name.replace('.', "_");
        if gauge.unit == "s" {
            registry.register_with_unit(name, gauge.help, Unit::Seconds, family);
        } else {
            registry.register(name, gauge.help, family);
        }
    }
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    registry.register("build", "The gateway", Info::new(version));
    registry
}
