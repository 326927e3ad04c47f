//! Decides when a backend counts as failing: failures and answers within an interval.

use std::sync::atomic::Ordering;

use super::circuit::Failure;
use crate::sync::AtomicU64;

/// Failures and answers of a backend since a first failure, in one word: the start of the interval in
/// the upper bits, then the answers, then the points of the failures.
///
/// A backend counts as failing at [`POINTS`], provided that its failures weigh at least as much as
/// the answers beside them: half of the requests, or a third if no connection can be made. Envoy's
/// outlier detection requires five failures in a row. With answers in between, a backend that fails
/// one request in a hundred reaches that in proportion to the load, and one that fails nine in ten
/// hardly ever does.
#[derive(Debug)]
pub(super) struct FailureCount(AtomicU64);

impl FailureCount {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Counts a failure, and returns whether the backend now counts as failing.
    ///
    /// When the interval is over, the count restarts, unless there was no answer at all, so that a
    /// backend with few requests that always fails is detected too.
    pub(super) fn fail(&self, failure: Failure, now: u64) -> bool {
        let points = if failure == Failure::Connect { 2 } else { 1 };
        let after = |word: u64| {
            let is_over = word == 0 || (is_over(word, now) && word & ANSWERS_MASK != 0);
            let word = if is_over { now << SINCE_SHIFT } else { word };
            word & !MAX_POINTS | (word & MAX_POINTS).saturating_add(points).min(MAX_POINTS)
        };
        let before =
            self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |it| Some(after(it)));
        let word = after(before.unwrap_or_else(|word| word));
        let (points, answers) = (word & MAX_POINTS, (word & ANSWERS_MASK) >> ANSWERS_SHIFT);
        points >= POINTS && points >= answers
    }

    /// Counts an answer, if this interval has a failure.
    pub(super) fn succeed(&self, now: u64) {
        let after = |word: u64| {
            let is_counted = word != 0
                && word & ANSWERS_MASK != ANSWERS_MASK
                && !is_over_after_answer(word, now);
            is_counted.then(|| word + (1 << ANSWERS_SHIFT))
        };
        _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after);
    }

    pub(super) fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

fn is_over(word: u64, now: u64) -> bool {
    now.saturating_sub(word >> SINCE_SHIFT) >= INTERVAL_MS
}

/// Answers beyond the one that ends an overdue interval change nothing.
fn is_over_after_answer(word: u64, now: u64) -> bool {
    word & ANSWERS_MASK != 0 && is_over(word, now)
}

/// Points at which a backend may count as failing: this many failed requests at one point each.
const POINTS: u64 = 5;
const INTERVAL_MS: u64 = 10_000;

const MAX_POINTS: u64 = (1 << 10) - 1;
const ANSWERS_SHIFT: u32 = 10;
const ANSWERS_MASK: u64 = ((1 << 14) - 1) << ANSWERS_SHIFT;
const SINCE_SHIFT: u32 = 24;

#[cfg(all(test, not(spillover_loom)))]
mod tests {
    use super::*;

    fn failing(
        count: &FailureCount,
        failure: Failure,
        at: impl IntoIterator<Item = u64>,
    ) -> Vec<u64> {
        at.into_iter().filter(|&now| count.fail(failure, now)).collect()
    }

    #[test]
    fn five_failures_in_a_row_are_an_outage_however_seldom_it_is_asked() {
        let count = FailureCount::new();
        assert_eq!(failing(&count, Failure::Answer, [1, 2, 3, 4, 5]), [5]);
        count.clear();
        let seldom = (0..5).map(|n| n * 20_000);
        assert_eq!(failing(&count, Failure::Answer, seldom), [80_000]);
    }

    #[test]
    fn three_connections_that_fail_are_an_outage() {
        assert_eq!(failing(&FailureCount::new(), Failure::Connect, [1, 2, 3]), [3]);
    }

    #[test]
    fn failures_among_more_answers_are_no_outage() {
        for failure in [Failure::Answer, Failure::Connect] {
            let count = FailureCount::new();
            for now in 0..100_000 {
                match now % 100 {
                    0 => assert!(!count.fail(failure, now), "{now}"),
                    _ => count.succeed(now),
                }
            }
        }
    }

    #[test]
    fn a_backend_that_fails_every_other_request_is_found() {
        let count = FailureCount::new();
        let outage = (0..20).find(|&now| {
            count.succeed(now);
            count.fail(Failure::Answer, now)
        });
        assert_eq!(outage, Some(4), "the answer before the first failure does not count");
    }

    #[test]
    fn answers_of_the_interval_before_excuse_no_failure() {
        let count = FailureCount::new();
        count.fail(Failure::Answer, 1);
        (0..20_000).for_each(|_| count.succeed(2));
        assert_eq!(
            failing(&count, Failure::Answer, 10_001..10_010),
            [10_005, 10_006, 10_007, 10_008, 10_009]
        );
    }
}
