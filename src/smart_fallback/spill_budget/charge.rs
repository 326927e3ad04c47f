//! The charge of one request to a budget, from its spill to the end of its answer.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{ONE_REQUEST, Spent, SpillBudget, estimate, shared::whole};
use crate::{azure::Usage, body::UsageSink, gate::WeighedCost};

/// The charge of a request that spills. Dropped before the fallback has [served](Self::served) it, it
/// is returned.
#[derive(Debug)]
pub(in crate::smart_fallback) struct Charge(Arc<Entry>);

/// Lives as long as the final cost of the request may still become known.
struct Entry {
    budget: SpillBudget,
    window: u64,
    /// The estimate, if tokens are counted.
    weight: Option<WeighedCost>,
    /// What the fleet's store granted, if it was asked.
    taken: Option<TakenShare>,
    /// Whether the fallback's answer is on its way to the caller.
    is_served: AtomicBool,
    /// Whether the account has the actual use instead of the estimate. Changed only under the
    /// budget's lock.
    is_settled: AtomicBool,
}

/// What the fleet's store granted a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct TakenShare {
    /// The store's window.
    pub(super) window: u64,
    pub(super) amount: u64,
}

impl Charge {
    pub(super) fn new(
        budget: SpillBudget,
        window: u64,
        weight: Option<WeighedCost>,
        taken: Option<TakenShare>,
    ) -> Self {
        let (is_served, is_settled) = (AtomicBool::new(false), AtomicBool::new(false));
        Self(Arc::new(Entry { budget, window, weight, taken, is_served, is_settled }))
    }

    /// The sink for the usage of the answer, if tokens are charged.
    pub(in crate::smart_fallback) fn sink(&self) -> Option<Arc<impl UsageSink + use<>>> {
        self.0.weight.is_some().then(|| Arc::clone(&self.0))
    }

    /// The fallback serves the request.
    pub(in crate::smart_fallback) fn served(self) {
        self.0.is_served.store(true, Ordering::Relaxed);
        if self.0.weight.is_none() {
            self.0.settle(|_| ONE_REQUEST);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if !self.0.is_served() {
            self.0.settle(|_| 0.0);
        }
    }
}

impl Entry {
    fn estimate(&self) -> f64 {
        estimate(self.weight.as_ref())
    }

    /// Replaces the estimate by what was `used`, unless the request is settled.
    fn settle(&self, used: impl FnOnce(&Spent) -> f64) {
        let used = self.budget.update(|spent| {
            (!self.is_settled.swap(true, Ordering::Relaxed)).then(|| {
                let used = used(spent);
                spent.settle(self.window, self.estimate(), used);
                used
            })
        });
        if let Some(used) = used {
            self.correct(used, self.taken.map_or(0, |taken| taken.amount));
        }
    }

    /// Reports to the fleet's store, if it granted the charge, that `used` replaces `charged`.
    fn correct(&self, used: f64, charged: u64) {
        let (Some(taken), Some(fleet)) = (self.taken, &self.budget.fleet) else { return };
        let change = i128::from(whole(used)) - i128::from(charged);
        if change != 0 {
            let change = change.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
            fleet.caller.correct(&fleet.name, taken.window, change);
        }
    }

    fn settle_without_usage(&self) {
        self.settle(|spent| spent.without_usage(self.estimate()));
    }

    fn is_served(&self) -> bool {
        self.is_served.load(Ordering::Relaxed)
    }
}

impl UsageSink for Entry {
    fn ended(&self, usage: Option<Usage>) {
        let (Some(usage), Some(weight)) = (usage, &self.weight) else {
            // An attempt without an answer has no usage either.
            if self.is_served() {
                self.settle_without_usage();
            }
            return;
        };
        // Standard also bills cached tokens.
        let used = weight.actual(&Usage { cached: 0, ..usage });
        let was_settled = self.budget.update(|spent| {
            let was_settled = self.is_settled.swap(true, Ordering::Relaxed);
            if was_settled {
                // An answer that is refused after it used something is followed by another.
                spent.add(self.window, used);
            } else {
                spent.settle(self.window, weight.cost, used);
                spent.learn(weight.cost, used);
            }
            was_settled
        });
        let charged = self.taken.filter(|_| !was_settled).map_or(0, |taken| taken.amount);
        self.correct(used, charged);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        // A fallback without pools calls no sink.
        if self.is_served() {
            self.settle_without_usage();
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("window", &self.window).finish_non_exhaustive()
    }
}
