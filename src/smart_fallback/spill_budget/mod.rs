//! Bounds what is spilled: so many requests, or tokens, in a window of time.

mod charge;
mod spent;
mod waiter;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

pub(super) use self::{charge::Charge, waiter::BudgetWaiter};
use self::{spent::Spent, waiter::Waiting};
use crate::{clock, gate::Weight};

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
///
/// # What is charged
///
/// A request is charged once, when it is spilled, to the window that is open then, however often Standard
/// is asked. A request that Standard does not serve in the end gives its charge back: one that is refused,
/// fails, is given up, or is served by the primary after all. What a request uses or gives back after its
/// window has closed changes nothing in the next one.
///
/// A budget of [tokens](Self::tokens) is charged with the estimate while the request is
/// [under way](Self::under_way), and with the `usage` of the answer from then on.
#[derive(Clone, Debug)]
pub struct SpillBudget {
    limit: f64,
    /// Weighted tokens instead of requests.
    counts_tokens: bool,
    window: Duration,
    when_spent: WhenSpent,
    account: Arc<Mutex<Account>>,
}

#[derive(Debug, Default)]
struct Account {
    spent: Spent,
    /// The requests that wait for it to have something left.
    waiting: Waiting,
}

/// What becomes of a request that would spill when the budget is spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenSpent {
    /// It waits for the primary if that can serve it within its `max_wait`, as far as the gate predicts.
    /// Otherwise the caller gets the primary's refusal at once, with the time until the primary would serve
    /// it or the next window begins, whichever is sooner.
    #[default]
    Refuse,
    /// It waits for the primary beyond its `max_wait`, in its place, until it is served there or the budget
    /// has something left, though not past its [`Deadline`](crate::Deadline).
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
            account: Arc::default(),
        }
    }

    /// At most so many weighted tokens in each `window`. The request that crosses the limit still
    /// spills.
    ///
    /// A request that is under way counts by its [estimate](crate::gate::cost::EstimateCost::estimate),
    /// which has all the output that it may generate, so that no number of requests at once exceeds
    /// the limit. One that was answered counts by its `usage`, cached tokens of the prompt in full: Standard
    /// bills those, too, at a discount that differs by model.
    ///
    /// An answer may end without a `usage`, as a stream does that was not asked for one or that the caller
    /// drops. It counts as the part of its estimate that answers with a `usage` have used of theirs, or
    /// all of it before there are any: callers state the same `max_tokens` whether they stream or not.
    ///
    /// The `usage` is read by a pool ([`RegionRotateLayer`](crate::RegionRotateLayer)) in the fallback
    /// tier. With a fallback without pools, no answer has one.
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
        let (now, account) = (clock::now(), self.lock());
        match account.spent.left_of_window(now, self.window) {
            Some(_) => (self.limit - account.spent.total()).max(0.0),
            None => self.limit,
        }
    }

    /// How much of what is not left is of requests under way in the window that is open now. They may
    /// give it back.
    pub fn under_way(&self) -> f64 {
        let (now, account) = (clock::now(), self.lock());
        let left = account.spent.left_of_window(now, self.window);
        left.map_or(0.0, |_| account.spent.under_way())
    }

    /// Charges a request, which is weighed only when tokens are counted. When the budget is spent, says
    /// how long it is until the next window begins.
    pub(super) fn charge(
        &self,
        now: Instant,
        weigh: impl FnOnce() -> Weight,
    ) -> Result<Charge, (WhenSpent, Duration)> {
        let weight = self.counts_tokens.then(weigh);
        let mut account = self.lock();
        if let Some(left) = self.spent_for(&account, now) {
            return Err((self.when_spent, left));
        }
        account.spent.begin_window(now, self.window);
        let estimate = weight.as_ref().map_or(ONE_REQUEST, |weight| weight.cost);
        let window = account.spent.charge(estimate);
        drop(account);
        Ok(Charge::new(self.clone(), window, weight))
    }

    /// What would become of a request that spilled now, and how long it is until the next window begins, if
    /// the budget is spent.
    pub(super) fn refuses(&self, now: Instant) -> Option<(WhenSpent, Duration)> {
        let left = self.spent_for(&self.lock(), now);
        left.map(|left| (self.when_spent, left))
    }

    /// Waits, not before `from` and not beyond `until`, for the budget to have something left: when
    /// requests under way give it back, or in the next window.
    pub(super) fn wait(&self, from: Instant, until: Instant) -> BudgetWaiter {
        BudgetWaiter::new(self.clone(), from, until)
    }

    /// Changes what is spent, then wakes the request that waits for what is left.
    fn update(&self, change: impl FnOnce(&mut Spent)) {
        let mut account = self.lock();
        change(&mut account.spent);
        let first = account.waiting.first().filter(|_| account.spent.total() < self.limit);
        drop(account);
        if let Some(first) = first {
            first.wake();
        }
    }

    /// How long it is until the next window begins, if nothing is left in the one that is open.
    fn spent_for(&self, account: &Account, now: Instant) -> Option<Duration> {
        match account.spent.left_of_window(now, self.window) {
            Some(left) => (account.spent.total() >= self.limit).then_some(left),
            None => (self.limit <= 0.0).then_some(self.window),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const ONE_REQUEST: f64 = 1.0;

#[cfg(test)]
mod tests;
