//! The charges to a budget in one window: estimates of requests in flight, and actual use of finished
//! ones.

use std::time::{Duration, Instant};

/// The account of the current window, or of the last one.
#[derive(Debug, Default)]
pub(super) struct Spent {
    since: Option<Instant>,
    /// The number of windows so far, which identifies the window of a request that ends later.
    window: u64,
    /// The window of the fleet's store that it is, if that opened it.
    stored: Option<u64>,
    /// The sum of the estimates of requests in flight, and their number.
    under_way: f64,
    requests: u64,
    used: f64,
    /// Decaying sums over answers: estimated, and actually used.
    estimated_of_known: f64,
    used_of_known: f64,
}

impl Spent {
    /// The remaining time of the window that is open at `now`, if any.
    pub(super) fn left_of_window(&self, now: Instant, window: Duration) -> Option<Duration> {
        let age = now.saturating_duration_since(self.since?);
        window.checked_sub(age).filter(|left| !left.is_zero())
    }

    /// Starts a new window if none is open.
    pub(super) fn begin_window(&mut self, now: Instant, window: Duration) {
        if self.left_of_window(now, window).is_none() {
            self.open(now, None);
        }
    }

    /// Enters the window of the fleet's store that has this `age`, unless it is the current one.
    pub(super) fn enter_window(&mut self, now: Instant, age: Duration, stored: u64) {
        if self.stored != Some(stored) {
            self.open(now.checked_sub(age).unwrap_or(now), Some(stored));
        }
    }

    fn open(&mut self, since: Instant, stored: Option<u64>) {
        (self.since, self.stored) = (Some(since), stored);
        self.window += 1;
        (self.under_way, self.requests, self.used) = (0.0, 0, 0.0);
    }

    /// The total charged to the window.
    pub(super) fn total(&self) -> f64 {
        self.under_way + self.used
    }

    /// The part of that charged by requests in flight.
    pub(super) const fn under_way(&self) -> f64 {
        self.under_way
    }

    /// A request with this estimate starts. Returns the window that it is charged to.
    pub(super) fn charge(&mut self, estimate: f64) -> u64 {
        self.under_way += estimate;
        self.requests += 1;
        self.window
    }

    /// A request that was charged to `window` has ended, having `used` this much.
    pub(super) fn settle(&mut self, window: u64, estimate: f64, used: f64) {
        if window != self.window {
            return;
        }
        self.requests = self.requests.saturating_sub(1);
        // Sums of floats drift; without requests the sum is zero.
        self.under_way =
            if self.requests == 0 { 0.0 } else { (self.under_way - estimate).max(0.0) };
        self.used += used;
    }

    /// A request that was charged to `window`, and has ended, `used` more.
    pub(super) fn add(&mut self, window: u64, used: f64) {
        if window == self.window {
            self.used += used;
        }
    }

    /// An answer with this `estimate` `used` this much.
    pub(super) fn learn(&mut self, estimate: f64, used: f64) {
        self.estimated_of_known = self.estimated_of_known * SUM_DECAY_PER_ANSWER + estimate;
        self.used_of_known = self.used_of_known * SUM_DECAY_PER_ANSWER + used;
    }

    /// The assumed use of an answer with this estimate that reports none.
    pub(super) fn without_usage(&self, estimate: f64) -> f64 {
        match self.estimated_of_known > 0.0 {
            true => estimate * self.used_of_known / self.estimated_of_known,
            false => estimate,
        }
    }
}

/// About the last hundred answers count: callers set `max_tokens` by habit, and habits change.
const SUM_DECAY_PER_ANSWER: f64 = 0.99;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    const WINDOW: Duration = Duration::from_secs(60);

    #[test]
    fn an_answer_without_usage_counts_as_the_part_that_others_used() {
        let mut spent = Spent::default();
        assert_eq!(spent.without_usage(1_000.0), 1_000.0, "nothing is known yet");
        (0..10).for_each(|_| spent.learn(1_000.0, 200.0));
        assert!((spent.without_usage(500.0) - 100.0).abs() < 1e-9);
        (0..1_000).for_each(|_| spent.learn(1_000.0, 400.0));
        assert!((spent.without_usage(500.0) - 200.0).abs() < 0.1, "callers changed their habit");
        (0..10).for_each(|_| spent.learn(0.0, 0.0));
        assert!(spent.without_usage(500.0).is_finite());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Charge(u32),
        /// A request in flight, of any window, ends having used this much.
        Settle(prop::sample::Index, u32),
        Pass(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0_u32..10_000).prop_map(Step::Charge),
            3 => (any::<prop::sample::Index>(), 0_u32..20_000)
                .prop_map(|(which, used)| Step::Settle(which, used)),
            1 => (0_u32..40_000).prop_map(Step::Pass),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

        #[test]
        fn what_is_charged_is_what_is_under_way_and_what_was_used(
            steps in prop::collection::vec(step(), 0..60),
        ) {
            let (mut spent, mut now) = (Spent::default(), clock::now());
            let mut begun = None;
            // The window, and its charge.
            let mut under_way: Vec<(Instant, u64, f64)> = Vec::new();
            let mut used: Vec<(Instant, f64)> = Vec::new();
            for step in steps {
                match step {
                    Step::Charge(estimate) => {
                        let is_open = begun.is_some_and(|at| now - at < WINDOW);
                        let at = if is_open { begun.unwrap_or(now) } else { now };
                        begun = Some(at);
                        spent.begin_window(now, WINDOW);
                        let left = WINDOW - (now - at);
                        prop_assert_eq!(spent.left_of_window(now, WINDOW), Some(left));
                        let window = spent.charge(f64::from(estimate));
                        under_way.push((at, window, f64::from(estimate)));
                    }
                    Step::Settle(which, amount) if !under_way.is_empty() => {
                        let (at, window, estimate) =
                            under_way.swap_remove(which.index(under_way.len()));
                        spent.settle(window, estimate, f64::from(amount));
                        used.push((at, f64::from(amount)));
                    }
                    Step::Settle(..) => {}
                    Step::Pass(ms) => now += Duration::from_millis(u64::from(ms)),
                }
                let of_window = |at: &Instant| Some(*at) == begun;
                let open: f64 =
                    under_way.iter().filter(|it| of_window(&it.0)).map(|it| it.2).sum();
                let done: f64 = used.iter().filter(|it| of_window(&it.0)).map(|it| it.1).sum();
                // Whole numbers are summed exactly.
                prop_assert_eq!((spent.under_way(), spent.total()), (open, open + done));
                prop_assert!(spent.under_way() >= 0.0);
                prop_assert_eq!(
                    spent.left_of_window(now, WINDOW).is_some(),
                    begun.is_some_and(|at| now - at < WINDOW)
                );
            }
        }
    }
}
