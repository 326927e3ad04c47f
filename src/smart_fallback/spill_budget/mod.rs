//! Limits spilling to a number of requests, or tokens, per window of time.

mod charge;
mod shared;
mod spent;
mod waiter;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

pub(super) use self::{
    charge::Charge,
    shared::{ChargeRequest, Payment},
    waiter::BudgetWaiter,
};
use self::{
    shared::{FleetBudget, LastAnswers},
    spent::Spent,
    waiter::BudgetQueue,
};
use crate::{clock, fleet::Fleet, gate::WeighedCost};

/// Limits what is spilled to Standard in a window of time, and so its cost. Clones share the budget;
/// keep one to observe [what is left](Self::left).
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
/// A request is charged once, when it spills, to the window that is open then, however often Standard
/// is called. If Standard does not serve it in the end, its charge is returned: if it is refused,
/// fails, is cancelled, or is served by the primary after all. What a request uses or returns after
/// its window has closed does not affect the next one.
///
/// A budget of [tokens](Self::tokens) is charged with the estimate while the request is [in
/// flight](Self::under_way), and with the `usage` of the answer from then on.
#[derive(Clone, Debug)]
pub struct SpillBudget {
    limit: f64,
    /// Counts weighted tokens instead of requests.
    counts_tokens: bool,
    window: Duration,
    when_spent: WhenSpent,
    /// If processes share it.
    fleet: Option<FleetBudget>,
    account: Arc<Mutex<Account>>,
}

#[derive(Debug, Default)]
struct Account {
    spent: Spent,
    last_answers: LastAnswers,
    /// The requests that wait until something is left.
    waiting: BudgetQueue,
}

/// What happens to a request that would spill when the budget is spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenSpent {
    /// It waits for the primary if the gate predicts that it is served within its `max_wait`.
    /// Otherwise the caller gets the primary's refusal immediately, with the time until the primary
    /// would serve it or the next window starts, whichever is earlier.
    #[default]
    Refuse,
    /// It waits for the primary beyond its `max_wait`, at its position, until it is served there or
    /// the budget has something left, but not past its [`Deadline`](crate::Deadline).
    Wait,
}

impl SpillBudget {
    /// At most `limit` requests per `window`.
    pub fn requests(limit: u32, window: Duration) -> Self {
        Self {
            limit: f64::from(limit),
            counts_tokens: false,
            window,
            when_spent: WhenSpent::default(),
            fleet: None,
            account: Arc::default(),
        }
    }

    /// At most `limit` weighted tokens per `window`. The request that crosses the limit still spills.
    ///
    /// A request in flight counts with its [estimate](crate::gate::cost::EstimateCost::estimate),
    /// which includes all the output that it may generate, so that no number of concurrent requests
    /// exceeds the limit. An answered one counts with its `usage`, including cached tokens of the
    /// prompt in full: Standard bills those, too, at a discount that differs by model.
    ///
    /// An answer may end without a `usage`, as a stream does that did not request one, or that the
    /// caller drops. It counts as the share of its estimate that answers with a `usage` have used, or
    /// all of it before there are any: callers set the same `max_tokens` whether they stream or not.
    ///
    /// A pool ([`RegionRotateLayer`](crate::RegionRotateLayer)) in the fallback tier reads the
    /// `usage`. With a fallback without pools, no answer has one.
    pub fn tokens(limit: u64, window: Duration) -> Self {
        Self { limit: limit as f64, counts_tokens: true, ..Self::requests(0, window) }
    }

    /// What happens to a request that would spill when the budget is spent.
    #[must_use]
    pub fn when_spent(mut self, when_spent: WhenSpent) -> Self {
        self.when_spent = when_spent;
        self
    }

    /// Shares the budget with the processes of `fleet` that use one of the same name, `of`: all of
    /// them together spill at most the limit in a window. The name is usually the model's.
    ///
    /// Each spill is charged in the fleet's [`Store`](crate::fleet::Store) and waits for its answer,
    /// at most for the fleet's [`timeout`](Fleet::timeout). Without an answer, the process decides
    /// alone: it may spill its share of what was left at the last answer in this window, or of the
    /// limit, rounded down. A budget of requests and one of tokens are different budgets, whatever
    /// their name.
    #[must_use]
    pub fn fleet(mut self, fleet: &Fleet, of: &str) -> Self {
        let unit = if self.counts_tokens { "tokens" } else { "requests" };
        self.fleet = Some(FleetBudget::new(fleet.caller(), &format!("{unit} {of}")));
        self
    }

    /// What may still be spilled in the current window: requests or weighted tokens, whichever it
    /// counts. If processes share the budget, this is what was left for all of them at the last
    /// answer of the store.
    pub fn left(&self) -> f64 {
        let (now, account) = (clock::now(), self.lock());
        if let Some(left) = account.last_answers.left(now, account.spent.total()) {
            return left;
        }
        match account.spent.left_of_window(now, self.window) {
            Some(_) => (self.limit - account.spent.total()).max(0.0),
            None => self.limit,
        }
    }

    /// The part of the charges in the current window that belongs to requests in flight, which may
    /// return it.
    pub fn under_way(&self) -> f64 {
        let (now, account) = (clock::now(), self.lock());
        let left = account.spent.left_of_window(now, self.window);
        left.map_or(0.0, |_| account.spent.under_way())
    }

    /// Charges a request, which is weighed only if tokens are counted, without asking the fleet. If
    /// the budget is spent, returns the time until the next window starts.
    fn charge(
        &self,
        now: Instant,
        weigh: impl FnOnce() -> WeighedCost,
    ) -> Result<Charge, (WhenSpent, Duration)> {
        self.charge_weighed(now, self.counts_tokens.then(weigh))
    }

    fn charge_weighed(
        &self,
        now: Instant,
        weight: Option<WeighedCost>,
    ) -> Result<Charge, (WhenSpent, Duration)> {
        let mut account = self.lock();
        if let Some(left) = self.spent_alone_for(&account, now) {
            return Err((self.when_spent, left));
        }
        account.spent.begin_window(now, self.window);
        let window = account.spent.charge(estimate(weight.as_ref()));
        drop(account);
        Ok(Charge::new(self.clone(), window, weight, None))
    }

    /// Whether requests wait for it beyond their `max_wait`.
    pub(super) fn is_waited_for(&self) -> bool {
        self.when_spent == WhenSpent::Wait
    }

    /// What would happen to a request that spills now, and the time until the next window starts, if
    /// the budget is spent.
    pub(super) fn refuses(&self, now: Instant) -> Option<(WhenSpent, Duration)> {
        let left = self.spent_for(&self.lock(), now);
        left.map(|left| (self.when_spent, left))
    }

    /// Waits, from `from` until `until` at most, until the budget has something left: when requests
    /// in flight return it, or in the next window.
    pub(super) fn wait(&self, from: Instant, until: Instant) -> BudgetWaiter {
        BudgetWaiter::new(self.clone(), from, until)
    }

    /// Changes what is spent, then wakes the request that waits for it.
    fn update<T>(&self, change: impl FnOnce(&mut Spent) -> T) -> T {
        let mut account = self.lock();
        let before = account.spent.total();
        let result = change(&mut account.spent);
        if account.spent.total() < before {
            account.last_answers.on_returned();
        }
        let has_left = match self.asks_fleet() {
            true => account.last_answers.spent_for(clock::now()).is_none(),
            false => account.spent.total() < self.limit_alone(&account, clock::now),
        };
        let first = account.waiting.first().filter(|_| has_left);
        drop(account);
        if let Some(first) = first {
            first.wake();
        }
        result
    }

    /// The time until the next window starts, if nothing is left in the current one, as far as this
    /// process knows.
    fn spent_for(&self, account: &Account, now: Instant) -> Option<Duration> {
        match self.asks_fleet() {
            true => account.last_answers.spent_for(now),
            false => self.spent_alone_for(account, now),
        }
    }

    /// The same, if the fleet is not asked.
    fn spent_alone_for(&self, account: &Account, now: Instant) -> Option<Duration> {
        let limit = self.limit_alone(account, || now);
        match account.spent.left_of_window(now, self.window) {
            Some(left) => (account.spent.total() >= limit).then_some(left),
            None => (limit <= 0.0).then_some(self.window),
        }
    }

    /// What this process may be charged if the fleet is not asked.
    fn limit_alone(&self, account: &Account, now: impl FnOnce() -> Instant) -> f64 {
        match &self.fleet {
            Some(fleet) => fleet.limit_alone(self.limit, &account.last_answers, now()),
            None => self.limit,
        }
    }

    fn asks_fleet(&self) -> bool {
        self.fleet.as_ref().is_some_and(|fleet| fleet.caller.is_up())
    }

    fn lock(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a request is charged while it is in flight.
fn estimate(weight: Option<&WeighedCost>) -> f64 {
    weight.map_or(ONE_REQUEST, |weight| weight.cost)
}

const ONE_REQUEST: f64 = 1.0;

#[cfg(test)]
mod tests;
