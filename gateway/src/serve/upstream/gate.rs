//! The gate of a model and its spill budget.

use tower_spillover::{
    Gate,
    gate::cost::TokenWeights,
    smart_fallback::{SpillBudget, WhenSpent},
};

use crate::config::{Backend, Budget, GateSettings, Model};

pub(crate) fn gate(settings: &GateSettings) -> Gate {
    let weights = TokenWeights::new().output(settings.output_weight);
    Gate::new()
        .mode(settings.mode)
        .contention(settings.contention)
        .standing_queue_interval(settings.patience)
        .cost(weights.unstated_output(settings.unstated_output))
}

/// The name of a PTU in a fleet: the deployments of its tier, and the unit of their costs. Models with
/// the same ones share a gate.
pub(crate) fn ptu(name: &str, model: &Model) -> String {
    let deployment = |backend: &Backend| {
        let name = backend.deployment.as_deref().unwrap_or(name);
        format!("{} {name}", backend.endpoint.trim_end_matches('/').to_ascii_lowercase())
    };
    let mut names: Vec<_> = model.ptu.iter().map(deployment).collect();
    names.sort();
    format!("{} {}", names.join(" "), model.gate.output_weight)
}

pub(crate) fn spill_budget(budget: &Budget) -> SpillBudget {
    let spent = if budget.waits_when_spent { WhenSpent::Wait } else { WhenSpent::Refuse };
    match (budget.tokens, budget.requests) {
        (Some(tokens), _) => SpillBudget::tokens(tokens, budget.window),
        (None, requests) => SpillBudget::requests(requests.unwrap_or(u32::MAX), budget.window),
    }
    .when_spent(spent)
}
