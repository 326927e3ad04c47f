//! `/metrics`: what was counted, and what pools and gates say at this moment.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::text,
    metrics::{family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};

use super::{
    facts::{PTU, STANDARD},
    metrics::{BackendLabels, Metrics, ModelLabels},
};
use crate::running::{Running, RunningModel};

type Real = Gauge<f64, AtomicU64>;

/// Gauges that are made for one answer.
#[derive(Default)]
struct Gauges {
    level: Family<ModelLabels, Real>,
    rate: Family<ModelLabels, Real>,
    waiting: Family<ModelLabels, Gauge>,
    pacing: Family<ModelLabels, Gauge>,
    cooldown: Family<BackendLabels, Real>,
}

/// Everything, in the OpenMetrics text format.
pub(super) fn text(metrics: &Metrics, running: &Running) -> String {
    let gauges = Gauges::default();
    for model in running.models.values() {
        gauges.look_at(model);
    }
    let mut text = String::new();
    let written = text::encode_registry(&mut text, &metrics.registry)
        .and_then(|()| text::encode_registry(&mut text, &gauges.registry()))
        .and_then(|()| text::encode_eof(&mut text));
    written.expect("a string takes everything");
    text
}

impl Gauges {
    fn look_at(&self, model: &RunningModel) {
        let name = || model.name.as_str().into();
        if let Some(gate) = &model.gate {
            let labels = ModelLabels { model: name() };
            if let Some(level) = gate.level() {
                self.level.get_or_create(&labels).set(level);
            }
            if let Some(rate) = gate.rate() {
                self.rate.get_or_create(&labels).set(rate);
            }
            let waiting = i64::try_from(gate.waiting()).unwrap_or(i64::MAX);
            self.waiting.get_or_create(&labels).set(waiting);
            self.pacing.get_or_create(&labels).set(i64::from(gate.is_pacing()));
        }
        for (tier, pool) in [(PTU, &model.ptu), (STANDARD, &model.standard)] {
            for (backend, resting) in pool.iter().flat_map(|pool| pool.cooldowns()) {
                let labels = BackendLabels { model: name(), tier, backend: backend.into() };
                let seconds = resting.unwrap_or_default().as_secs_f64();
                self.cooldown.get_or_create(&labels).set(seconds);
            }
        }
    }

    fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("spillover");
        let help = "Weighted tokens above the PTU's limit; absent while it has room";
        registry.register("gate_level", help, self.level.clone());
        let help = "Weighted tokens that the PTU drains in a second; absent until learned";
        registry.register("gate_rate", help, self.rate.clone());
        registry.register("gate_waiting", "Requests in the queue", self.waiting.clone());
        let help = "1 while requests are paced by the learned rate";
        registry.register("gate_pacing", help, self.pacing.clone());
        let help = "How much longer a backend is not asked; 0 while it is open";
        let cooldown = self.cooldown.clone();
        registry.register_with_unit("backend_cooldown", help, Unit::Seconds, cooldown);
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "The gateway", Info::new(version));
        registry
    }
}
