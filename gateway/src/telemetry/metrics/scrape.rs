//! `/metrics`: the counters, and the current state of pools and gates.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::text,
    metrics::{family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use super::{Metrics, fleet, negotiate::Format, plain_text};
use crate::{snapshot::Snapshot, telemetry::gauges::GAUGES};

type GaugeLabels = Vec<(&'static str, String)>;
type Real = Gauge<f64, AtomicU64>;

/// All metrics, in one of the text formats.
pub(crate) fn text(metrics: &Metrics, running: &Snapshot, format: Format) -> String {
    let mut text = String::new();
    let written = text::encode_registry(&mut text, &metrics.registry)
        .and_then(|()| text::encode_registry(&mut text, &looked_at(running)))
        .and_then(|()| text::encode_eof(&mut text));
    written.expect("a string takes everything");
    match format {
        Format::Text => plain_text::of(&text),
        Format::OpenMetrics | Format::OpenMetricsDraft => text,
    }
}

/// Gauges created for a single answer.
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
        match gauge.unit {
            "s" => registry.register_with_unit(name, gauge.help, Unit::Seconds, family),
            _ if gauge.is_ratio() => {
                registry.register_with_unit(name, gauge.help, Unit::Other("ratio".into()), family);
            }
            _ => registry.register(name, gauge.help, family),
        }
    }
    if let Some(running) = &running.fleet {
        fleet::register(&mut registry, running);
    }
    // OpenMetrics' info type does not exist in the older format: both accept a gauge.
    let build: Family<GaugeLabels, Real> = Family::default();
    build.get_or_create(&vec![("version", env!("CARGO_PKG_VERSION").to_owned())]).set(1.0);
    registry.register("build_info", "1, with the version of the gateway", build);
    registry
}
