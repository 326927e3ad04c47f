//! Limits retries to a share of successes, without a clock or a lock.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// A stock of retries that successes refill: the retry throttling of gRPC.
///
/// It starts full. A retry takes one from it, a success puts a fraction of one back, and while it is
/// empty nothing is retried. So it rides out a short burst of refusals, while in a long one retries
/// add at most that fraction to the load. Clones share the stock.
///
/// While the stock is full, the usual case, a success costs one atomic load and writes nothing.
///
/// Source: gRPC proposal A6, "Throttling Retry Attempts and Hedged RPCs".
#[derive(Clone)]
pub struct RetryBudget {
    /// In thousandths of a retry, like the other fields.
    left: Arc<AtomicU64>,
    capacity: u64,
    per_success: u64,
}

const RETRY: u64 = 1_000;

impl RetryBudget {
    /// A stock of `capacity` retries, refilled by `per_success` for each success; 0.2 adds one retry
    /// per five successes. A negative number counts as zero.
    pub fn new(capacity: u32, per_success: f64) -> Self {
        let capacity = u64::from(capacity) * RETRY;
        let per_success = (per_success * RETRY as f64) as u64; // saturates, and NaN is 0
        Self { left: Arc::new(AtomicU64::new(capacity)), capacity, per_success }
    }

    /// Adds the share of one success. While the stock is full this is one load.
    #[inline]
    pub(crate) fn deposit(&self) {
        if self.left.load(Ordering::Relaxed) < self.capacity {
            self.refill(self.per_success);
        }
    }

    /// Returns a retry that was not made.
    pub(crate) fn give_back(&self) {
        self.refill(RETRY);
    }

    #[cold]
    fn refill(&self, amount: u64) {
        let Self { left, capacity, .. } = self;
        let mut known = left.load(Ordering::Relaxed);
        while known < *capacity {
            let refilled = known.saturating_add(amount).min(*capacity);
            match left.compare_exchange_weak(known, refilled, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(changed) => known = changed,
            }
        }
    }

    /// Takes one retry; returns whether there was one.
    pub(crate) fn withdraw(&self) -> bool {
        let take = |left: u64| left.checked_sub(RETRY);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

/// Generous: 500 retries, and one more per five successes.
impl Default for RetryBudget {
    fn default() -> Self {
        Self::new(500, 0.2)
    }
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = self.left.load(Ordering::Relaxed) / RETRY;
        f.debug_struct("RetryBudget").field("left", &left).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_budget_permits_nothing_until_successes_refill_it() {
        let budget = RetryBudget::new(2, 0.5);
        assert_eq!([(); 3].map(|()| budget.withdraw()), [true, true, false]);
        budget.deposit();
        assert!(!budget.withdraw(), "half a retry is none");
        budget.deposit();
        assert!(budget.clone().withdraw(), "clones share the stock");
        assert!(!budget.withdraw());
    }

    #[test]
    fn successes_do_not_fill_it_beyond_its_capacity() {
        let budget = RetryBudget::new(1, 10.0);
        (0..100).for_each(|_| budget.deposit());
        assert_eq!([(); 2].map(|()| budget.withdraw()), [true, false]);
    }

    #[test]
    fn nonsense_refills_nothing() {
        for per_success in [-1.0, f64::NAN, f64::NEG_INFINITY] {
            let budget = RetryBudget::new(1, per_success);
            assert!(budget.withdraw());
            budget.deposit();
            assert!(!budget.withdraw());
        }
    }
}
