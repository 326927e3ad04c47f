//! Request classes and the spill budget.

use std::time::Duration;

use tower_spillover::smart_fallback::{Class, SpillBudget, WhenSpent};

/// A class of requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RequestClass {
    /// Its name.
    pub name: &'static str,
    /// The share of requests in this class, 0 to 1; the shares of all classes add up to 1.
    pub share: f64,
    /// Waiting requests of a lower rank go first.
    pub rank: u8,
    /// The longest that its requests may wait.
    pub max_wait: Duration,
}

/// Limits spilling per window, for policies that have a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Weighted tokens.
    pub tokens: u64,
    /// The window's length.
    pub window: Duration,
    /// When the budget is spent: `true` lets requests wait for the PTU, `false` refuses them.
    pub waits: bool,
}

impl RequestClass {
    pub(super) fn class(&self) -> Class {
        Class::new(self.name).rank(self.rank).max_wait(self.max_wait)
    }
}

impl Budget {
    pub(super) fn limit(&self) -> SpillBudget {
        let when_spent = if self.waits { WhenSpent::Wait } else { WhenSpent::Refuse };
        SpillBudget::tokens(self.tokens, self.window).when_spent(when_spent)
    }
}
