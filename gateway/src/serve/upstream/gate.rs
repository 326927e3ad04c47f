//! The gate of a model and its spill budget.

use tower_spillover::{
    Gate,
    gate::cost::TokenWeights,
    smart_fallback::{SpillBudget, WhenSpent},
};

use crate::config::{Budget, GateSettings};

pub(crate) fn gate(settings: &GateSettings) -> Gate {
    let weights = TokenWeights::new().output(settings.output_weight);
    Gate::new()
        .mode(settings.mode)
        .contention(settings.contention)
        .standing_queue_interval(settings.patience)
        .cost(weights.unstated_output(settings.unstated_output))
}

pub(crate) fn spill_budget(budget: &Budget) -> SpillBudget {
    let spent = if budget.waits_when_spent { WhenSpent::Wait } else { WhenSpent::Refuse };
    match (budget.tokens, budget.requests) {
        (Some(tokens), _) => SpillBudget::tokens(tokens, budget.window),
        (None, requests) => SpillBudget::requests(requests.unwrap_or(u32::MAX), budget.window),
    }
    .when_spent(spent)
}
