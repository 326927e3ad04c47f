//! Classes of requests, and what may be spilled.

use std::time::Duration;

use tower_spillover::smart_fallback::{Class, SpillBudget, WhenSpent};

/// A class of requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RequestClass {
    /// Its name.
    pub name: &'static str,
    /// The share of the requests that are of it, 0 to 1; the shares of all classes make up 1.
    pub share: f64,
    /// Waiting requests of a lower rank go first.
    pub rank: u8,
    /// The longest that its requests may wait.
    pub max_wait: Duration,
}

/// What may be spilled in a window of time, by policies that have a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Weighted tokens.
    pub tokens: u64,
    /// In so long.
    pub window: Duration,
    /// Whether requests wait for the PTU when it is spent, instead of being refused.
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
