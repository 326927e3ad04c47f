//! What requests cost: estimated, and actual.

/// Smoothed costs of requests.
#[derive(Clone, Debug)]
pub(super) struct Costs {
    /// The mean estimate.
    mean: f64,
    /// Decaying sums over answers: estimated and actual cost.
    estimated: f64,
    actual: f64,
    /// The same of their number, of the squared estimate, and of the product of both.
    answers: f64,
    squared: f64,
    product: f64,
    /// The estimated cost of attempts whose answers have not ended.
    in_flight: f64,
    /// Time from sending an attempt to the end of its answer, in seconds.
    duration: f64,
}

impl Costs {
    pub(super) const fn new() -> Self {
        Self {
            mean: 0.0,
            estimated: 0.0,
            actual: 0.0,
            answers: 0.0,
            squared: 0.0,
            product: 0.0,
            in_flight: 0.0,
            duration: 0.0,
        }
    }

    /// A request of `cost` arrives, whether or not it will be sent.
    pub(super) fn on_arrival(&mut self, cost: f64) {
        let is_first = self.mean == 0.0;
        self.mean += if is_first { cost } else { MEAN_WEIGHT * (cost - self.mean) };
    }

    pub(super) fn on_sent(&mut self, cost: f64) {
        self.in_flight += cost;
    }

    /// An attempt was refused or cancelled.
    pub(super) fn on_gone(&mut self, cost: f64) {
        self.in_flight = (self.in_flight - cost).max(0.0);
    }

    /// An answer ended, `after` seconds after its attempt was sent.
    pub(super) fn on_ended(&mut self, cost: f64, after: f64) {
        self.on_gone(cost);
        self.duration +=
            if self.duration == 0.0 { after } else { DURATION_WEIGHT * (after - self.duration) };
    }

    pub(super) fn on_usage(&mut self, cost: f64, actual: f64) {
        self.estimated = SUM_DECAY * self.estimated + cost;
        self.actual = SUM_DECAY * self.actual + actual;
        self.answers = SUM_DECAY * self.answers + 1.0;
        self.squared = SUM_DECAY * self.squared + cost * cost;
        self.product = SUM_DECAY * self.product + cost * actual;
    }

    /// How much a request with this estimate is worth waiting for, beside one of the mean: its cost in
    /// the end, which a spill would be charged for, over the square root of its estimate, by which it
    /// keeps others out until its answer ends.
    pub(super) fn worth(&self, cost: f64) -> f64 {
        let size = if self.mean > 0.0 { cost / self.mean } else { 1.0 };
        let size = size.max(MIN_RELATIVE_COST);
        self.relative_cost(cost, size) / size.sqrt()
    }

    /// What a request with this estimate will cost in the end, as a multiple of the mean: a line fitted
    /// to the last answers by least squares. Where callers state a `max_tokens` that has little to do
    /// with their answers, a large estimate does not mean a large cost. Before enough is known, it is
    /// the estimate's `size`.
    fn relative_cost(&self, cost: f64, size: f64) -> f64 {
        let spread = self.answers * self.squared - self.estimated * self.estimated;
        if spread <= MIN_SPREAD * self.estimated * self.estimated {
            return size;
        }
        let common = self.answers * self.product - self.estimated * self.actual;
        let slope = (common / spread).max(0.0);
        let base = (self.actual - slope * self.estimated) / self.answers;
        let mean = base + slope * self.mean;
        if mean > 0.0 { ((base + slope * cost) / mean).max(MIN_RELATIVE_COST) } else { size }
    }

    /// The mean estimate; zero before the first request.
    pub(super) const fn mean(&self) -> f64 {
        self.mean
    }

    /// Actual cost as a share of the estimate.
    pub(super) fn ratio(&self) -> f64 {
        if self.estimated > 0.0 { self.actual / self.estimated } else { 1.0 }
    }

    #[cfg(test)]
    pub(super) const fn in_flight(&self) -> f64 {
        self.in_flight
    }

    /// How long the next in line waits, in seconds, when the level is above the limit for `closed`
    /// seconds and a cost of `queued` is ahead of it, at a known `rate`.
    ///
    /// A queue first drains by its estimates. What answers cost less than estimated is given back
    /// when they end: for attempts in flight, evenly over the time that an answer takes; for queued
    /// requests, only after that time.
    pub(super) fn wait_behind(&self, closed: f64, queued: f64, rate: f64) -> f64 {
        let (closed, queued) = (closed.max(0.0), queued / rate);
        let (ratio, duration) = (self.ratio(), self.duration);
        if duration <= 0.0 {
            return closed + ratio * queued;
        }
        let given_back = ((1.0 - ratio) * self.in_flight / rate).max(0.0);
        let sooner = (closed + queued) / (1.0 + given_back / duration);
        if sooner <= duration {
            return sooner;
        }
        // By then everything in flight has been given back, and so has the part of the queue that was
        // sent longer than an answer ago: wait = closed - given_back + queued * (ratio + (1 - ratio)
        // * duration / wait).
        let (b, c) = (closed - given_back + ratio * queued, (1.0 - ratio) * duration * queued);
        (0.5 * (b + (b * b + 4.0 * c).max(0.0).sqrt())).max(0.0)
    }
}

// The table in `core/mod.rs` shows the effect of halving and doubling these.

/// Weight of a new request in the mean estimate.
const MEAN_WEIGHT: f64 = 0.05;
/// Share of the sums kept at each answer: about the last fifty count.
const SUM_DECAY: f64 = 0.98;
/// The smallest variance of estimates, as a share of their squared mean, at which their relation to
/// actual costs can be measured.
const MIN_SPREAD: f64 = 1e-4;
/// Smaller costs count as this one, as a multiple of the mean.
const MIN_RELATIVE_COST: f64 = 0.01;
/// Weight of a new answer in the mean duration of answers.
const DURATION_WEIGHT: f64 = 0.05;

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(estimate: f64, actual: f64, seconds: f64) -> Costs {
        let mut costs = Costs::new();
        for _ in 0..200 {
            costs.on_sent(estimate);
            costs.on_ended(estimate, seconds);
            costs.on_usage(estimate, actual);
        }
        costs
    }

    #[test]
    fn the_ratio_is_that_of_the_sums_and_no_mean_of_ratios() {
        let mut costs = Costs::new();
        for _ in 0..200 {
            costs.on_usage(1_000.0, 1_000.0);
            costs.on_usage(10.0, 0.0);
        }
        assert!((costs.ratio() - 0.99).abs() < 0.005, "{}", costs.ratio());
    }

    #[test]
    fn exact_estimates_are_worth_the_root_of_their_size() {
        let mut costs = Costs::new();
        assert_eq!(costs.worth(500.0), 1.0, "nothing is known");
        costs.on_arrival(100.0);
        assert_eq!((costs.worth(400.0), costs.worth(25.0)), (2.0, 0.5), "no answer ended yet");
        for cost in [50.0, 100.0, 150.0].repeat(20) {
            costs.on_usage(cost, cost);
        }
        assert!((costs.worth(400.0) - 2.0).abs() < 1e-9 && (costs.worth(25.0) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_caller_that_states_more_for_the_same_answer_is_worth_less() {
        let mut costs = Costs::new();
        for estimate in [1_000.0, 9_000.0].repeat(100) {
            costs.on_arrival(estimate);
            costs.on_usage(estimate, 1_000.0);
        }
        let (exact, large) = (costs.worth(1_000.0), costs.worth(9_000.0));
        assert!((exact / large - 3.0).abs() < 0.01, "{exact} {large}");
    }

    #[test]
    fn a_constant_part_of_all_estimates_hides_no_difference() {
        let mut costs = Costs::new();
        for actual in [100.0, 900.0].repeat(100) {
            costs.on_arrival(12_000.0 + actual);
            costs.on_usage(12_000.0 + actual, actual);
        }
        let ratio = costs.worth(12_900.0) / costs.worth(12_100.0);
        assert!((8.0..9.0).contains(&ratio), "{ratio} instead of 9 over the root of 1.07");
    }

    #[test]
    fn answers_that_say_nothing_of_estimates_leave_their_size() {
        let costs = answers(100.0, 10.0, 1.0);
        assert_eq!(costs.worth(7.0), 1.0, "no arrival was counted");
        let mut costs = answers(100.0, 10.0, 1.0);
        costs.on_arrival(100.0);
        assert_eq!(costs.worth(400.0), 2.0, "all estimates were equal");
    }

    #[test]
    fn exact_estimates_drain_one_after_the_other() {
        let costs = answers(100.0, 100.0, 1.0);
        assert!((costs.wait_behind(0.5, 1_000.0, 100.0) - 10.5).abs() < 1e-9);
    }

    #[test]
    fn before_any_answer_nothing_is_given_back() {
        assert_eq!(Costs::new().wait_behind(0.5, 1_000.0, 100.0), 10.5);
    }

    #[test]
    fn what_answers_give_back_shortens_the_wait() {
        let mut costs = answers(1_000.0, 100.0, 2.0);
        let alone = costs.wait_behind(1.0, 0.0, 1_000.0);
        costs.on_sent(4_000.0);
        let others_end = costs.wait_behind(1.0, 0.0, 1_000.0);
        // 3.6 s are given back over two seconds.
        assert!(
            (alone - 1.0).abs() < 1e-9 && (others_end - 1.0 / 2.8).abs() < 0.01,
            "{others_end}"
        );
    }

    #[test]
    fn a_long_queue_drains_at_what_it_costs_in_the_end() {
        let costs = answers(1_000.0, 100.0, 1.0);
        let wait = costs.wait_behind(0.0, 1_000_000.0, 1_000.0);
        assert!((100.0..110.0).contains(&wait), "{wait} for 1,000 s of estimates");
        let short = costs.wait_behind(0.0, 800.0, 1_000.0);
        assert!((short - 0.8).abs() < 1e-9, "nothing is given back so soon: {short}");
    }

    #[test]
    fn both_formulas_agree_at_their_boundary() {
        let mut costs = answers(1_000.0, 300.0, 2.0);
        costs.on_sent(1_000.0);
        // At 2.7 s of queue the wait is as long as an answer takes.
        let (below, above) =
            (costs.wait_behind(0.0, 2_699.9, 1_000.0), costs.wait_behind(0.0, 2_700.1, 1_000.0));
        assert!((above - below).abs() < 0.001 && (below - 2.0).abs() < 0.01, "{below} {above}");
    }
}
