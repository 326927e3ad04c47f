//! A budget that the processes of a fleet share.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use super::{Account, Charge, SpillBudget, WhenSpent, charge::TakenShare, estimate};
use crate::{
    clock,
    fleet::{Allowance, Call, Caller, Kind, Name, Taken},
    gate::WeighedCost,
};

/// Where a fleet keeps a budget.
#[derive(Clone)]
pub(super) struct FleetBudget {
    pub(super) caller: Arc<Caller>,
    pub(super) name: Name,
}

/// What the fleet's store answered last.
#[derive(Debug, Default)]
pub(super) struct LastAnswers {
    granted: Option<Granted>,
    spent: Option<SpentUntil>,
}

#[derive(Debug)]
struct Granted {
    closes_at: Instant,
    /// What was left for the whole fleet.
    left: f64,
    /// What this process had been charged by then.
    own: f64,
}

#[derive(Debug)]
struct SpentUntil {
    next_window: Instant,
    /// Other processes may return something before the next window.
    ask_again_at: Instant,
}

/// A request that waits for the store's answer, at most for the fleet's timeout. Dropping it returns
/// what the store grants.
pub(in crate::smart_fallback) struct ChargeRequest {
    budget: SpillBudget,
    weight: Option<WeighedCost>,
    amount: u64,
    call: Call<Taken>,
}

/// How a request is charged.
pub(in crate::smart_fallback) enum Payment {
    /// By this process alone.
    Decided(Result<Charge, (WhenSpent, Duration)>),
    /// By the fleet's store.
    Asks(Box<ChargeRequest>),
}

impl FleetBudget {
    pub(super) fn new(caller: &Arc<Caller>, of: &str) -> Self {
        Self { caller: Arc::clone(caller), name: caller.name(Kind::Budget, of) }
    }

    /// What this process may be charged in total when it cannot ask: its share of what was left at
    /// the last answer, or of the limit.
    pub(super) fn limit_alone(&self, limit: f64, last: &LastAnswers, now: Instant) -> f64 {
        let replicas = f64::from(self.caller.replicas());
        // Rounded down, or a fleet that is larger than the limit would exceed it.
        match last.granted.as_ref().filter(|granted| now < granted.closes_at) {
            Some(granted) => granted.own + (granted.left / replicas).floor(),
            None => (limit / replicas).floor(),
        }
    }
}

impl LastAnswers {
    /// The time until the next window, while the store need not be asked.
    pub(super) fn spent_for(&self, now: Instant) -> Option<Duration> {
        let spent = self.spent.as_ref().filter(|spent| now < spent.ask_again_at)?;
        Some(spent.next_window.saturating_duration_since(now))
    }

    /// When a request that waits should ask.
    pub(super) fn ask_again_at(&self) -> Option<Instant> {
        self.spent.as_ref().map(|spent| spent.ask_again_at)
    }

    /// This process returns something.
    pub(super) fn on_returned(&mut self) {
        self.spent = None;
    }

    /// What is left for the whole fleet, if its window is open.
    pub(super) fn left(&self, now: Instant, own: f64) -> Option<f64> {
        let granted = self.granted.as_ref().filter(|granted| now < granted.closes_at)?;
        if self.spent_for(now).is_some() {
            return Some(0.0);
        }
        Some((granted.left - (own - granted.own)).max(0.0))
    }

    /// Nothing is left for the fleet, of which this process has been charged `own`.
    fn on_spent(&mut self, now: Instant, opens_in: Duration, own: f64) {
        if let Some(granted) = &mut self.granted {
            // Others took the rest.
            (granted.left, granted.own) = (0.0, own);
        }
        let next_window = now + opens_in;
        let ask_again_at = next_window.min(now + RETURN_CHECK_INTERVAL);
        self.spent = Some(SpentUntil { next_window, ask_again_at });
    }
}

impl SpillBudget {
    /// Charges a request, which is weighed only if tokens are counted: asks the fleet's store, if the
    /// budget is shared and the store is up.
    pub(in crate::smart_fallback) fn pay(
        &self,
        now: Instant,
        weigh: impl FnOnce() -> WeighedCost,
    ) -> Payment {
        let Some(fleet) = &self.fleet else { return Payment::Decided(self.charge(now, weigh)) };
        let weight = self.counts_tokens.then(weigh);
        let amount = whole(estimate(weight.as_ref()));
        let rule = Allowance { limit: whole(self.limit), window: self.window };
        match fleet.caller.take(&fleet.name, rule, amount) {
            Some(call) => {
                let budget = self.clone();
                Payment::Asks(Box::new(ChargeRequest { budget, weight, amount, call }))
            }
            None => Payment::Decided(self.charge_weighed(now, weight)),
        }
    }

    /// The store granted `amount`.
    fn granted(
        &self,
        now: Instant,
        weight: Option<WeighedCost>,
        taken: (TakenShare, f64, Duration),
    ) -> Charge {
        let (taken, left, closes_in) = taken;
        let closes_in = closes_in.min(self.window);
        let mut account = self.lock();
        let Account { spent, last_answers, .. } = &mut *account;
        spent.enter_window(now, self.window.saturating_sub(closes_in), taken.window);
        let window = spent.charge(estimate(weight.as_ref()));
        let granted = Granted { closes_at: now + closes_in, left, own: spent.total() };
        *last_answers = LastAnswers { granted: Some(granted), spent: None };
        drop(account);
        Charge::new(self.clone(), window, weight, Some(taken))
    }
}

impl Future for ChargeRequest {
    type Output = Result<Charge, (WhenSpent, Duration)>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.call).poll(cx));
        let (now, weight) = (clock::now(), self.weight.take());
        let budget = &self.budget;
        Poll::Ready(match answer {
            Ok(Taken::Granted { window, left, closes_in }) => {
                let taken = TakenShare { window, amount: self.amount };
                Ok(budget.granted(now, weight, (taken, left as f64, closes_in)))
            }
            Ok(Taken::Spent { opens_in }) => {
                let opens_in = opens_in.min(budget.window);
                let mut account = budget.lock();
                let own = account.spent.total();
                account.last_answers.on_spent(now, opens_in, own);
                drop(account);
                Err((budget.when_spent, opens_in))
            }
            Err(_) => budget.charge_weighed(now, weight),
        })
    }
}

/// An amount in whole requests or tokens.
pub(super) fn whole(amount: f64) -> u64 {
    // The cast saturates.
    amount.ceil() as u64
}

/// How soon a request that waits notices what another process returned.
const RETURN_CHECK_INTERVAL: Duration = Duration::from_secs(1);

impl fmt::Debug for FleetBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FleetBudget").field(&self.name).finish()
    }
}
