//! The rule of a budget in a store. `redis/take.lua` is the same rule; all times are in microseconds.

use std::time::Duration;

use super::{Allowance, Taken};

/// One budget, as a store keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoredBudget {
    /// When the window was opened, which also identifies it.
    opened: u64,
    used: u64,
}

impl StoredBudget {
    /// Takes `amount` at `now`, if something is left.
    pub(crate) fn take(&mut self, now: u64, from: Allowance, amount: u64) -> Taken {
        let window = micros(from.window).max(1);
        // A clock that was set back must not keep a window open for longer than it lasts.
        let is_open = self.opened <= now && now - self.opened < window;
        if !is_open || self.opened == 0 {
            if from.limit == 0 {
                return Taken::Spent { opens_in: from.window };
            }
            *self = Self { opened: now.max(1), used: 0 };
        }
        let closes_in = Duration::from_micros(self.opened + window - now.max(self.opened));
        if self.used >= from.limit {
            return Taken::Spent { opens_in: closes_in };
        }
        self.used = self.used.saturating_add(amount).min(MAX_WHOLE);
        let left = from.limit.saturating_sub(self.used);
        Taken::Granted { window: self.opened, left, closes_in }
    }

    /// Changes what was used in `window`, if that is the current one.
    pub(crate) fn correct(&mut self, window: u64, change: i64) {
        if window == self.opened {
            self.used = self.used.saturating_add_signed(change).min(MAX_WHOLE);
        }
    }
}

pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).min(MAX_MICROS)
}

/// The largest whole number that the doubles of a script have exactly.
pub(crate) const MAX_WHOLE: u64 = (1 << 53) - 1;

/// A year in microseconds, so that sums stay exact in the doubles of a script.
const MAX_MICROS: u64 = 365 * 24 * 3_600 * 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Allowance = Allowance { limit: 10, window: Duration::from_secs(60) };
    const START: u64 = 1_000_000;
    const SECOND: u64 = 1_000_000;

    #[test]
    fn a_window_opens_with_the_first_taking_and_closes_after_its_time() {
        let mut budget = StoredBudget::default();
        let closes_in = Duration::from_secs(60);
        let granted = Taken::Granted { window: START, left: 4, closes_in };
        assert_eq!(budget.take(START, RULE, 6), granted);
        let crossing = budget.take(START + SECOND, RULE, 60);
        let closes_in = Duration::from_secs(59);
        let granted = Taken::Granted { window: START, left: 0, closes_in };
        assert_eq!(crossing, granted, "the one that crosses the limit still gets all");
        let spent = budget.take(START + 59 * SECOND, RULE, 1);
        assert_eq!(spent, Taken::Spent { opens_in: Duration::from_secs(1) });
        let next = budget.take(START + 60 * SECOND, RULE, 1);
        assert!(matches!(next, Taken::Granted { left: 9, .. }), "{next:?}");
    }

    #[test]
    fn what_is_returned_can_be_taken_again_but_not_in_the_next_window() {
        let mut budget = StoredBudget::default();
        budget.take(START, RULE, 10);
        budget.correct(START, -3);
        assert!(matches!(budget.take(START, RULE, 1), Taken::Granted { left: 2, .. }));
        let later = START + 60 * SECOND;
        budget.take(later, RULE, 5);
        budget.correct(START, -5);
        assert!(matches!(budget.take(later, RULE, 1), Taken::Granted { left: 4, .. }));
    }

    #[test]
    fn a_budget_of_nothing_is_always_spent_and_no_amount_overflows() {
        let nothing = Allowance { limit: 0, ..RULE };
        let spent = StoredBudget::default().take(START, nothing, 1);
        assert_eq!(spent, Taken::Spent { opens_in: RULE.window });
        let mut budget = StoredBudget::default();
        budget.take(START, Allowance { limit: u64::MAX, ..RULE }, u64::MAX - 1);
        budget.take(START, Allowance { limit: u64::MAX, ..RULE }, u64::MAX);
        budget.correct(START, i64::MIN);
        budget.correct(START, i64::MIN);
        budget.correct(START, i64::MIN);
        assert_eq!(budget.used, 0);
    }

    #[test]
    fn a_clock_that_is_set_back_closes_the_window() {
        let mut budget = StoredBudget::default();
        budget.take(START + 3_600 * SECOND, RULE, 10);
        let taken = budget.take(START, RULE, 1);
        assert!(matches!(taken, Taken::Granted { window: START, left: 9, .. }), "{taken:?}");
    }
}
