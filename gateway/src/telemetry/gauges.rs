//! Gauges of gates, budgets and pools, read when they are scraped or exported.

use tower_spillover::gate::{Contention, Mode};

use super::{
    clock::now,
    labels::{PTU, STANDARD},
};
use crate::snapshot::RunningModel;

/// A number that is only read. In `/metrics`, underscores replace the dots of the name.
pub(crate) struct Gauge {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    /// In UCUM notation.
    pub(crate) unit: &'static str,
    /// Reads a model's values: labels in addition to the model's name, and the number.
    pub(crate) read: fn(&RunningModel, &mut Record<'_>),
}

impl Gauge {
    /// Whether it is a share, which `/metrics` calls a ratio.
    pub(crate) fn is_ratio(&self) -> bool {
        self.name.ends_with("utilization")
    }
}

pub(crate) type Record<'s> = dyn FnMut(&[(&'static str, &str)], f64) + 's;

/// The label of a gate's mode.
pub(crate) const fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Adaptive => "adaptive",
        Mode::Shared => "shared",
        Mode::Plain => "plain",
        _ => "other",
    }
}

/// The label of a gate's behaviour on a shared PTU.
pub(crate) const fn contention(contention: Contention) -> &'static str {
    match contention {
        Contention::Yield => "yield",
        Contention::Compete => "compete",
        _ => "other",
    }
}

fn cooldown(model: &RunningModel, record: &mut Record<'_>) {
    for (tier, pool) in [(PTU, &model.ptu), (STANDARD, &model.standard)] {
        for (backend, resting) in pool.iter().flat_map(|pool| pool.cooldowns()) {
            let left = resting.unwrap_or_default().as_secs_f64();
            record(&[("tier", tier), ("backend", backend)], left);
        }
    }
}

fn misconfigured(model: &RunningModel, record: &mut Record<'_>) {
    for (tier, pool) in [(PTU, &model.ptu), (STANDARD, &model.standard)] {
        for (backend, status) in pool.iter().flat_map(|pool| pool.misconfigured()) {
            if let Some(status) = status {
                let labels = [("tier", tier), ("backend", backend), ("status", status.as_str())];
                record(&labels, 1.0);
            }
        }
    }
}

fn utilization(model: &RunningModel, record: &mut Record<'_>) {
    for (backend, share) in model.utilizations.current(now()) {
        record(&[("tier", PTU), ("backend", backend)], share);
    }
}

pub(crate) const GAUGES: [Gauge; 13] = [
    Gauge {
        name: "backend.utilization",
        help: "How full the PTU was by its last answer of the last minute, 1 at its limit; absent \
               where no answer said it",
        unit: "1",
        read: utilization,
    },
    Gauge {
        name: "gate.utilization",
        help: "How full the PTU is by the gate's estimate, 1 at its limit; absent until refusals \
               have shown how deep its bucket is, and while it has had room for long",
        unit: "1",
        read: |model, record| {
            if let Some(share) = model.gate.as_ref().and_then(|gate| gate.utilization()) {
                record(&[], share);
            }
        },
    },
    Gauge {
        name: "gate.level",
        help: "Weighted tokens that the PTU is above its limit, negative below it; absent until the \
               PTU refuses, and while it has had room for long",
        unit: "{token}",
        read: |model, record| {
            if let Some(level) = model.gate.as_ref().and_then(|gate| gate.level()) {
                record(&[], level);
            }
        },
    },
    Gauge {
        name: "gate.rate",
        help: "Weighted tokens that the PTU drains per second; absent until learned",
        unit: "{token}/s",
        read: |model, record| {
            if let Some(rate) = model.gate.as_ref().and_then(|gate| gate.rate()) {
                record(&[], rate);
            }
        },
    },
    Gauge {
        name: "gate.waiting",
        help: "Requests waiting for the PTU",
        unit: "{request}",
        read: |model, record| {
            if let Some(gate) = &model.gate {
                record(&[], gate.waiting() as f64);
            }
        },
    },
    Gauge {
        name: "standard.waiting",
        help: "Requests waiting for a Standard backend to reopen",
        unit: "{request}",
        read: |model, record| {
            if model.standard.is_some() {
                record(&[], model.standard_queue.waiting() as f64);
            }
        },
    },
    Gauge {
        name: "gate.pacing",
        help: "1 while requests are paced by the learned rate",
        unit: "1",
        read: |model, record| {
            if let Some(gate) = &model.gate {
                record(&[], f64::from(u8::from(gate.is_pacing())));
            }
        },
    },
    Gauge {
        name: "gate.state",
        help: "1 for the basis of the gate's decisions; absent in modes without an estimate",
        unit: "1",
        read: |model, record| {
            if let Some(state) = model.gate.as_ref().and_then(|gate| gate.state()) {
                record(&[("state", state.knowledge().as_str())], 1.0);
            }
        },
    },
    Gauge {
        name: "gate.mode",
        help: "1 for the gate's mode",
        unit: "1",
        read: |model, record| {
            if let Some(gate) = &model.gate {
                record(&[("mode", mode(gate.get_mode()))], 1.0);
            }
        },
    },
    Gauge {
        name: "spill_budget.left",
        help: "Requests or weighted tokens that may still be spilled in this window",
        unit: "1",
        read: |model, record| {
            if let Some(budget) = &model.spill_budget {
                record(&[], budget.left());
            }
        },
    },
    Gauge {
        name: "spill_budget.under_way",
        help: "The estimated spill of requests in flight, part of which they may return",
        unit: "1",
        read: |model, record| {
            if let Some(budget) = &model.spill_budget {
                record(&[], budget.under_way());
            }
        },
    },
    Gauge {
        name: "backend.cooldown",
        help: "Remaining cooldown of a backend; 0 while it is open",
        unit: "s",
        read: cooldown,
    },
    Gauge {
        name: "backend.misconfigured",
        help: "1 while a backend rejects its credential or lacks the deployment; absent otherwise",
        unit: "1",
        read: misconfigured,
    },
];
