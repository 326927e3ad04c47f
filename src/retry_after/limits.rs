//! Whether a refused request is sent again to the same service, and after how long. Pure.

use std::time::Duration;

use super::{Backoff, RetryBudget, backoff::spread};
use crate::classify::Hint;

#[derive(Clone, Debug)]
pub(super) struct RetryLimits {
    pub(super) max_retries: u32,
    pub(super) max_wait: Duration,
    pub(super) longest_wait: Duration,
    pub(super) backoff: Backoff,
    pub(super) first_at_once: bool,
    pub(super) jitter: f64,
    pub(super) budget: Option<RetryBudget>,
}

/// A retry withdrawn from a budget, which returns to it unless it is spent.
pub(super) struct Withdrawn(Option<RetryBudget>);

impl RetryLimits {
    /// How long to wait before retry number `retries`, from 0, of a request that may wait `left`
    /// longer in all; `None` for no retry.
    pub(super) fn wait(
        &self,
        retries: u32,
        left: Duration,
        hint: Hint,
        draw: u64,
    ) -> Option<Duration> {
        if retries >= self.max_retries {
            return None;
        }
        let shortest = match hint {
            Hint::TooLong => return None,
            Hint::After(wait) if wait > self.longest_wait => return None,
            Hint::After(wait) => wait,
            Hint::Zero | Hint::None if self.first_at_once && retries == 0 => Duration::ZERO,
            // Zero does not count as a hint: obeying it would be a busy loop.
            Hint::Zero | Hint::None => {
                let n = retries - u32::from(self.first_at_once);
                self.backoff.wait(n, draw).min(self.longest_wait)
            }
        };
        let left = left.checked_sub(shortest)?;
        // A wait that just fits is still made, with less jitter.
        Some(shortest + spread(shortest.mul_f64(self.jitter.min(1.0)), draw).min(left))
    }

    pub(super) fn deposit(&self) {
        if let Some(budget) = &self.budget {
            budget.deposit();
        }
    }

    /// Withdraws a retry from the budget; `None` if that is empty.
    pub(super) fn withdraw(&self) -> Option<Withdrawn> {
        match &self.budget {
            Some(budget) => budget.withdraw().then(|| Withdrawn(Some(budget.clone()))),
            None => Some(Withdrawn(None)),
        }
    }
}

impl Withdrawn {
    /// The retry is made.
    pub(super) fn spend(&mut self) {
        self.0 = None;
    }
}

impl Drop for Withdrawn {
    fn drop(&mut self) {
        if let Some(budget) = &self.0 {
            budget.give_back();
        }
    }
}

impl Default for RetryLimits {
    fn default() -> Self {
        Self {
            max_retries: 5,
            max_wait: Duration::from_secs(60),
            longest_wait: Duration::from_secs(120),
            backoff: Backoff::new(Duration::from_millis(500), Duration::from_millis(500))
                .longest(Duration::from_secs(8)),
            first_at_once: false,
            jitter: 0.1,
            budget: Some(RetryBudget::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn after(ms: u64) -> Hint {
        Hint::After(Duration::from_millis(ms))
    }

    #[test]
    fn a_hint_is_never_undercut_and_exceeded_by_a_tenth_at_most() {
        let limits = RetryLimits::default();
        assert_eq!(limits.wait(0, MINUTE, after(1_000), 0), Some(Duration::from_millis(1_000)));
        let latest = limits.wait(0, MINUTE, after(1_000), u64::MAX).expect("a wait");
        assert!(latest > Duration::from_millis(1_099) && latest < Duration::from_millis(1_101));
    }

    #[test]
    fn a_hint_beyond_the_longest_wait_is_refused_and_not_shortened() {
        let limits = RetryLimits::default();
        assert!(limits.wait(0, Duration::MAX, after(120_000), 0).is_some());
        assert_eq!(limits.wait(0, Duration::MAX, after(120_001), 0), None);
        assert_eq!(limits.wait(0, Duration::MAX, Hint::TooLong, 0), None);
    }

    #[test]
    fn a_wait_that_fits_exactly_is_made_without_jitter() {
        let (limits, left) = (RetryLimits::default(), Duration::from_secs(1));
        assert_eq!(limits.wait(0, left, after(1_000), u64::MAX), Some(left));
        assert_eq!(limits.wait(0, left, after(1_001), 0), None);
    }

    #[test]
    fn the_reference_block_starts_at_once_and_then_follows_its_schedule() {
        let limits = crate::RetryAfterPolicy::api_management().limits;
        let mean = u64::MAX / 2;
        let waits: Vec<_> = (0..7)
            .map(|n| limits.wait(n, MINUTE, Hint::None, mean).expect("30 retries").as_secs_f64())
            .map(f64::round)
            .collect();
        assert_eq!(waits, [0.0, 4.0, 6.0, 10.0, 18.0, 20.0, 20.0]);
        assert!(limits.wait(29, MINUTE, Hint::None, mean).is_some());
        assert_eq!(limits.wait(30, MINUTE, Hint::None, mean), None);
    }

    #[test]
    fn the_script_waits_exactly_the_hint_while_the_sum_is_at_most_four_seconds() {
        let limits = crate::RetryAfterPolicy::smart_retry().limits;
        let left = limits.max_wait - Duration::from_millis(3_957);
        let exact = Some(Duration::from_millis(43));
        assert_eq!(limits.wait(1_000, left, after(43), u64::MAX), exact);
        assert_eq!(limits.wait(1_000, left, after(44), u64::MAX), None);
        assert!(limits.wait(0, MINUTE, Hint::Zero, 0).is_some_and(|wait| !wait.is_zero()));
    }

    proptest! {
        #[test]
        fn no_wait_is_early_or_ends_after_max_wait(
            retries in 0u32..6,
            left in 0u64..100_000_000,
            hint in prop_oneof![
                Just(Hint::None), Just(Hint::Zero), (1u64..200_000_000).prop_map(|micros| {
                    Hint::After(Duration::from_micros(micros))
                }),
            ],
            draw in any::<u64>(),
        ) {
            let left = Duration::from_micros(left);
            if let Some(wait) = RetryLimits::default().wait(retries, left, hint, draw) {
                prop_assert!(wait <= left);
                prop_assert!(wait >= hint.duration().unwrap_or_default());
            }
        }
    }
}
