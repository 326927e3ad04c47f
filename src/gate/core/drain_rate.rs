//! The drain rate of the PTU, measured between refusals.

/// The learned drain rate of a PTU, in weighted tokens per second.
///
/// A refusal reports that the level is above the limit, and by how much: its hint, in seconds of
/// drain. Two refusals, with the cost admitted in between, give the rate at which the bucket drained
/// meanwhile, `cost / (time + hint2 - hint1)`. That is exact as long as the bucket did not run dry.
/// Without hints the excess is taken as zero, an error of about one request at either end.
///
/// The rate is a quotient of sums over the last [`RATE_SAMPLE_WINDOW_S`] seconds of drain, not a mean
/// of quotients: an error at the end of one interval recurs with the opposite sign at the start of
/// the next. So estimates that are ten times too high, other processes on the same PTU, and guessed
/// hints only add noise at the ends. When others fill the same PTU, it is the share that they leave.
#[derive(Clone, Debug)]
pub(super) struct DrainRate {
    /// Zero before the first interval.
    rate: f64,
    cost: f64,
    time: f64,
    last: Option<Sample>,
    /// Refusals before this time, in seconds, are not measured: more than draining lowers the level.
    settled_at: f64,
    /// Whether the whole estimate was measured before `settled_at`.
    is_provisional: bool,
}

/// A sample taken at a refusal. Times are in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) at: f64,
    /// How far the level was above the limit, as far as that is known.
    pub(super) excess: f64,
    /// Total cost admitted before it.
    pub(super) admitted: f64,
}

impl DrainRate {
    pub(super) const fn new() -> Self {
        Self { rate: 0.0, cost: 0.0, time: 0.0, last: None, settled_at: 0.0, is_provisional: true }
    }

    /// Zero while it is unknown.
    pub(super) const fn get(&self) -> f64 {
        self.rate
    }

    pub(super) fn is_known(&self) -> bool {
        self.rate > 0.0
    }

    /// Whether it was measured without the disturbance of unseen answers.
    pub(super) fn is_settled(&self) -> bool {
        self.is_known() && !self.is_provisional
    }

    pub(super) fn on_refused(&mut self, here: Sample) {
        let is_settling = here.at < self.settled_at;
        if is_settling && !self.is_provisional {
            return;
        }
        let Some(last) = self.last else {
            self.last = Some(here);
            return;
        };
        let (cost, time) = (here.admitted - last.admitted, here.at - last.at);
        let drained = time + here.excess - last.excess;
        // The very first interval may be short: any rate is better than none.
        let is_first = self.time == 0.0 && cost > 0.0;
        if (time < MIN_INTERVAL_S && !is_first) || drained < MIN_DRAIN_S {
            return;
        }
        self.last = Some(here);
        if self.is_provisional && !is_settling {
            (self.cost, self.time, self.is_provisional) = (0.0, 0.0, false);
        }
        let kept = (-drained / RATE_SAMPLE_WINDOW_S).exp();
        self.cost = kept * self.cost + cost;
        self.time = kept * self.time + drained;
        if self.cost > 0.0 {
            self.rate = self.cost / self.time;
        }
    }

    /// Another gate measured `rate`. It counts for half of the window.
    pub(super) const fn seed(&mut self, rate: f64) {
        self.time = RATE_SAMPLE_WINDOW_S / 2.0;
        (self.rate, self.cost) = (rate, rate * self.time);
        self.is_provisional = false;
    }

    /// The bucket may have run dry: the next refusal cannot be compared with the last one.
    pub(super) const fn on_ran_dry(&mut self) {
        self.last = None;
    }

    /// After a quiet time, the PTU refused a request that was sent at `at` (seconds). The requests
    /// admitted before it bypassed the gate: their answers turn out shorter than Azure estimated, and
    /// lower the level as they end.
    pub(super) const fn on_first_refusal(&mut self, at: f64) {
        self.settled_at = at + SETTLING_S;
    }
}

// The table in `core/mod.rs` shows the effect of halving and doubling these.

/// Seconds of drain that the sums remember.
const RATE_SAMPLE_WINDOW_S: f64 = 10.0;
/// The shortest interval between two compared refusals, in seconds. Shorter ones only add work.
const MIN_INTERVAL_S: f64 = 0.5;
/// The shortest drain that is measured, in seconds.
const MIN_DRAIN_S: f64 = 0.05;
/// Seconds after a quiet time in which a measurement counts only if there is no better one.
const SETTLING_S: f64 = 3.0;

#[cfg(test)]
mod tests {
    use super::*;

    /// A bucket that drains 100 a second, refusing with its exact excess each second.
    fn refuse_every_second(rate: &mut DrainRate, from: u32, to: u32, cost: impl Fn(u32) -> f64) {
        let (mut level, mut admitted) = (10.0, 0.0);
        for second in from..to {
            rate.on_refused(Sample { at: f64::from(second), excess: level / 100.0, admitted });
            admitted += cost(second);
            level += cost(second) - 100.0;
        }
    }

    #[test]
    fn two_refusals_give_the_exact_rate() {
        let mut rate = DrainRate::new();
        refuse_every_second(&mut rate, 0, 2, |_| 130.0);
        assert!((rate.get() - 100.0).abs() < 1e-9, "{}", rate.get());
    }

    #[test]
    fn what_is_wrong_at_one_end_is_made_good_at_the_next() {
        let mut rate = DrainRate::new();
        // Four times what drains, all of it given back a second later.
        for second in 0..21_u32 {
            let here = f64::from(second);
            let in_flight = if second % 2 == 0 { 0.0 } else { 400.0 };
            rate.on_refused(Sample { at: here, excess: 0.0, admitted: 100.0 * here + in_flight });
        }
        assert!((rate.get() - 100.0).abs() < 40.0, "{}", rate.get());
    }

    #[test]
    fn without_hints_the_excess_is_an_error_at_the_ends_alone() {
        let mut rate = DrainRate::new();
        for second in 0..30_u32 {
            let admitted = f64::from(second) * 100.0;
            rate.on_refused(Sample { at: f64::from(second), excess: 0.0, admitted });
        }
        assert!((rate.get() - 100.0).abs() < 1e-9, "{}", rate.get());
    }

    #[test]
    fn a_ptu_of_half_the_size_is_known_within_its_memory() {
        let mut rate = DrainRate::new();
        refuse_every_second(&mut rate, 0, 30, |_| 100.0);
        let mut admitted = 3_000.0;
        for second in 30..50_u32 {
            rate.on_refused(Sample { at: f64::from(second), excess: 0.1, admitted });
            admitted += 50.0;
        }
        assert!((50.0..60.0).contains(&rate.get()), "{}", rate.get());
    }

    #[test]
    fn what_is_measured_too_early_is_replaced_and_never_added() {
        let mut rate = DrainRate::new();
        rate.on_first_refusal(0.0);
        // Unseen answers end and lower the level: it seems to drain at 300 a second.
        for second in 0..3_u32 {
            let admitted = f64::from(second) * 300.0;
            rate.on_refused(Sample { at: f64::from(second), excess: 0.1, admitted });
        }
        assert!((rate.get() - 300.0).abs() < 1.0 && !rate.is_settled(), "better than nothing");
        for second in 3..6_u32 {
            let admitted = 900.0 + f64::from(second - 3) * 100.0;
            rate.on_refused(Sample { at: f64::from(second), excess: 0.1, admitted });
        }
        assert!(rate.is_settled() && rate.get() < 180.0, "{}", rate.get());
        rate.on_first_refusal(10.0);
        let settled = rate.get();
        rate.on_refused(Sample { at: 11.0, excess: 0.1, admitted: 9_000.0 });
        assert_eq!(rate.get(), settled, "known already");
    }

    #[test]
    fn nothing_is_compared_across_a_dry_spell() {
        let mut rate = DrainRate::new();
        refuse_every_second(&mut rate, 0, 8, |_| 100.0);
        let measured = rate.get();
        rate.on_ran_dry();
        rate.on_refused(Sample { at: 500.0, excess: 0.1, admitted: 800.0 });
        assert_eq!(rate.get(), measured);
    }
}
