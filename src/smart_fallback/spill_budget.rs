//! Bounds what is spilled: so many requests, or tokens, in a window of time.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::clock;

/// Bounds what is spilled to Standard in a window of time, and so what it costs at most. Clones
/// are of the same budget: one may be kept to look at [what is left](Self::left).
///
/// ```
/// use std::time::Duration;
/// use tower_spillover::{SmartFallbackLayer, smart_fallback::{SpillBudget, WhenSpent}};
///
/// let hourly = SpillBudget::requests(1_000, Duration::from_secs(3_600)).when_spent(WhenSpent::Wait);
/// let layer = SmartFallbackLayer::deployments("gpt-4o-ptu", "gpt-4o")?;
/// let layer = layer.spill_budget(hourly.clone());
/// assert_eq!(hourly.left(), 1_000.0);
/// # drop(layer);
/// # Ok::<(), tower_spillover::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
pub struct SpillBudget {
    limit: f64,
    /// Weighted tokens instead of requests.
    counts_tokens: bool,
    window: Duration,
    when_spent: WhenSpent,
    spent: Arc<Mutex<Spent>>,
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
    pub fn requests(limit: u32, window: Duration) -> Self {
        Self {
            limit: f64::from(limit),
            counts_tokens: false,
            window,
            when_spent: WhenSpent::default(),
            spent: Arc::default(),
        }
    }

    /// At most so many weighted tokens, as [estimated](crate::gate::cost::EstimateCost), in each
    /// `window`. The request that crosses the limit still spills.
    pub fn tokens(limit: u64, window: Duration) -> Self {
        Self { limit: limit as f64, counts_tokens: true, ..Self::requests(0, window) }
    }

    /// What becomes of a request that would spill when the budget is spent.
    #[must_use]
    pub fn when_spent(mut self, when_spent: WhenSpent) -> Self {
        self.when_spent = when_spent;
        self
    }

    /// How much may still be spilled in the window that is open now: requests or weighted tokens,
    /// whichever it counts.
    pub fn left(&self) -> f64 {
        self.left_at(clock::now())
    }

    /// Takes a request out of the budget, whose cost is asked for only when tokens are counted.
    /// When it is spent, tells when the next window begins.
    pub(crate) fn take(
        &self,
        now: Instant,
        cost: impl FnOnce() -> f64,
    ) -> Result<(), (WhenSpent, Duration)> {
        let Self { limit, window, when_spent, .. } = *self;
        let mut spent = self.lock();
        let age = match spent.age(now, window) {
            Some(age) => age,
            None => {
                *spent = Spent { since: Some(now), amount: 0.0 };
                Duration::ZERO
            }
        };
        if spent.amount >= limit {
            return Err((when_spent, window - age));
        }
        spent.amount += if self.counts_tokens { cost() } else { 1.0 };
        Ok(())
    }

    fn left_at(&self, now: Instant) -> f64 {
        let spent = self.lock();
        let amount = spent.age(now, self.window).map_or(0.0, |_| spent.amount);
        (self.limit - amount).max(0.0)
    }

    fn lock(&self) -> MutexGuard<'_, Spent> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Spent {
    since: Option<Instant>,
    amount: f64,
}

impl Spent {
    /// Of the window, while it is open.
    fn age(&self, now: Instant, window: Duration) -> Option<Duration> {
        let age = self.since.map(|since| now.saturating_duration_since(since));
        age.filter(|&age| age < window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    #[test]
    fn a_spent_budget_tells_when_the_next_window_begins() {
        let budget = SpillBudget::requests(2, WINDOW);
        let now = clock::now();
        assert!(budget.take(now, || 0.0).is_ok());
        assert!(budget.clone().take(now, || 0.0).is_ok());
        let later = now + Duration::from_secs(10);
        assert_eq!(
            budget.take(later, || 0.0),
            Err((WhenSpent::Refuse, Duration::from_secs(50))),
            "clones share the budget"
        );
        assert_eq!((budget.left_at(later), budget.left_at(now + WINDOW)), (0.0, 2.0));
        assert!(budget.take(now + WINDOW, || 0.0).is_ok());
        assert_eq!(budget.left_at(now + WINDOW), 1.0);
    }

    #[test]
    fn tokens_are_counted_by_their_estimate() {
        let budget = SpillBudget::tokens(100, WINDOW).when_spent(WhenSpent::Wait);
        let now = clock::now();
        assert!(budget.take(now, || 99.0).is_ok());
        assert!(budget.take(now, || 500.0).is_ok(), "the one that crosses the limit still spills");
        assert_eq!(budget.take(now, || 1.0), Err((WhenSpent::Wait, WINDOW)));
    }
}
