//! Bounds what is spilled: so many requests, or tokens, in a window of time.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Bounds what is spilled to Standard in a window of time, and so what it costs at most.
///
/// ```
/// use std::time::Duration;
/// use tower_spillover::{SmartFallbackLayer, gate::{SpillBudget, WhenSpent}};
///
/// let hourly = SpillBudget::requests(1_000, Duration::from_secs(3_600)).when_spent(WhenSpent::Wait);
/// let layer = SmartFallbackLayer::deployments("gpt-4o-ptu", "gpt-4o")?.spill_budget(hourly);
/// # drop(layer);
/// # Ok::<(), tower_spillover::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SpillBudget {
    limit: f64,
    unit: Unit,
    window: Duration,
    when_spent: WhenSpent,
}

#[derive(Clone, Copy, Debug)]
enum Unit {
    Request,
    Token,
}

/// What becomes of a request that would spill when the budget is spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenSpent {
    /// The caller gets the primary's refusal, with its hint.
    #[default]
    Refuse,
    /// It waits for the primary beyond its `max_wait`, until it is served there or the next window
    /// begins, though not past its [`Deadline`](crate::Deadline).
    Wait,
}

impl SpillBudget {
    /// At most so many requests in each `window`.
    pub const fn requests(limit: u32, window: Duration) -> Self {
        let limit = limit as f64;
        Self { limit, unit: Unit::Request, window, when_spent: WhenSpent::Refuse }
    }

    /// At most so many weighted tokens, as [estimated](super::cost::EstimateCost), in each
    /// `window`. The request that crosses the limit still spills.
    pub const fn tokens(limit: u64, window: Duration) -> Self {
        let limit = limit as f64;
        Self { limit, unit: Unit::Token, window, when_spent: WhenSpent::Refuse }
    }

    /// What becomes of a request that would spill when the budget is spent.
    #[must_use]
    pub const fn when_spent(mut self, when_spent: WhenSpent) -> Self {
        self.when_spent = when_spent;
        self
    }
}

/// A budget and what is left of it; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Purse {
    budget: SpillBudget,
    spent: Arc<Mutex<Spent>>,
}

#[derive(Debug, Default)]
struct Spent {
    since: Option<Instant>,
    amount: f64,
}

impl Purse {
    pub(crate) fn new(budget: SpillBudget) -> Self {
        Self { budget, spent: Arc::default() }
    }

    /// Takes a request out of the budget, whose cost is asked for only when tokens are counted.
    /// When it is spent, tells when the next window begins.
    pub(crate) fn take(
        &self,
        now: Instant,
        cost: impl FnOnce() -> f64,
    ) -> Result<(), (WhenSpent, Duration)> {
        let SpillBudget { limit, unit, window, when_spent } = self.budget;
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let age = spent.since.map(|since| now.saturating_duration_since(since));
        let age = match age.filter(|&age| age < window) {
            Some(age) => age,
            None => {
                *spent = Spent { since: Some(now), amount: 0.0 };
                Duration::ZERO
            }
        };
        if spent.amount >= limit {
            return Err((when_spent, window - age));
        }
        spent.amount += match unit {
            Unit::Request => 1.0,
            Unit::Token => cost(),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    #[test]
    fn a_spent_budget_tells_when_the_next_window_begins() {
        let purse = Purse::new(SpillBudget::requests(2, WINDOW));
        let now = crate::resend::clock::now();
        assert!(purse.take(now, || 0.0).is_ok());
        assert!(purse.clone().take(now, || 0.0).is_ok());
        let later = now + Duration::from_secs(10);
        assert_eq!(
            purse.take(later, || 0.0),
            Err((WhenSpent::Refuse, Duration::from_secs(50))),
            "clones share the budget"
        );
        assert!(purse.take(now + WINDOW, || 0.0).is_ok());
    }

    #[test]
    fn tokens_are_counted_by_their_estimate() {
        let purse = Purse::new(SpillBudget::tokens(100, WINDOW).when_spent(WhenSpent::Wait));
        let now = crate::resend::clock::now();
        assert!(purse.take(now, || 99.0).is_ok());
        assert!(purse.take(now, || 500.0).is_ok(), "the one that crosses the limit still spills");
        assert_eq!(purse.take(now, || 1.0), Err((WhenSpent::Wait, WINDOW)));
    }
}
