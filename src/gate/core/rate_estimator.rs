//! The learned drain rate of a PTU, and how far it can be trusted.

/// The learned drain rate of a PTU, in weighted tokens per second.
///
/// A refusal is a measurement: its hint says how far the bucket is above its rim. Two of them,
/// with the cost admitted in between, give the rate at which the bucket drained meanwhile,
/// `cost / (time + hint2 - hint1)`, exactly, as long as it did not run dry. When other processes
/// fill the same PTU, what is measured is the share that they leave, and it scatters. That scatter
/// is what [`is_trusted`](Self::is_trusted) goes by.
///
/// An estimate that is too low would never be noticed, since a gate that paces itself too slowly
/// is not refused. So between refusals the rate creeps up until one comes: slowly while the
/// measurements agree, faster while they scatter.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    /// The smoothed measurements; zero before the first.
    base: f64,
    /// How far the rate has crept above them since the last refusal.
    creep: f64,
    /// The smoothed relative error of the measurements.
    scatter: f64,
    measured: u32,
    mark: Option<Mark>,
    crept_at: f64,
    /// Until when the bucket drains faster than its rate, for all that is known.
    unsettled: f64,
}

/// How far a rate can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// Measurements agree.
    Full,
    /// There are too few to tell.
    Open,
    /// They contradict each other: other processes fill the same PTU.
    None,
}

/// What was known at a refusal.
#[derive(Clone, Copy, Debug)]
struct Mark {
    at: f64,
    hint: f64,
    admitted: f64,
}

impl Meter {
    pub(super) const fn new() -> Self {
        Self {
            base: 0.0,
            creep: 1.0,
            scatter: UNKNOWN,
            measured: 0,
            mark: None,
            crept_at: 0.0,
            unsettled: 0.0,
        }
    }

    /// The rate to reckon with; zero while none is known.
    pub(super) fn rate(&self) -> f64 {
        self.base * self.creep
    }

    /// Whether the measurements agree well enough to reckon with the rate at all.
    pub(super) fn is_trusted(&self) -> bool {
        self.trust() == Trust::Full
    }

    /// How far the rate can be trusted.
    pub(super) fn trust(&self) -> Trust {
        if self.base > 0.0 && self.scatter <= TRUSTED {
            Trust::Full
        } else if self.measured < FEW {
            Trust::Open
        } else {
            Trust::None
        }
    }

    /// A refusal decided at `at` (seconds) with `hint` (seconds), after `admitted` weighted tokens
    /// in all.
    pub(super) fn refused(&mut self, at: f64, hint: f64, admitted: f64) {
        let here = Mark { at, hint, admitted };
        self.creep = 1.0;
        self.crept_at = at;
        if self.base > 0.0 && at < self.unsettled {
            return;
        }
        let Some(last) = self.mark else {
            self.mark = Some(here);
            return;
        };
        let (cost, time) = (admitted - last.admitted, at - last.at);
        // The very first measurement is taken early: any rate is better than none.
        let is_due = time >= WINDOW || (self.base == 0.0 && cost > 0.0);
        if !is_due {
            return;
        }
        self.mark = Some(here);
        let drained_for = time + hint - last.hint;
        if cost > 0.0 && drained_for > SHORTEST {
            self.measure(cost / drained_for);
        }
    }

    /// The bucket may have run dry: what comes next is not comparable with what was.
    pub(super) const fn forget_mark(&mut self) {
        self.mark = None;
    }

    /// After a quiet time, the PTU refuses for the first time at `at`. What it admitted before was
    /// not seen; its answers turn out shorter than was estimated, and lower the level as they end.
    pub(super) const fn woke(&mut self, at: f64) {
        self.unsettled = at + SETTLING;
    }

    /// Lets the rate creep up to `now`. `mean` is the mean cost of a request.
    pub(super) fn creep(&mut self, now: f64, mean: f64) {
        let time = (now - self.crept_at).clamp(0.0, 1.0);
        self.crept_at = now;
        if self.base > 0.0 {
            let pace = if self.measured < 3 {
                4.0
            } else {
                (self.scatter / LIVELY).powi(2).clamp(0.05, 1.0)
            };
            // A process with a small share of the PTU sends rarely, and would creep for minutes.
            let rise = 0.02 + 0.15 * mean / self.rate();
            self.creep = (self.creep * (1.0 + rise * pace * time)).min(64.0);
        }
    }

    fn measure(&mut self, rate: f64) {
        if self.base == 0.0 {
            self.base = rate;
            return;
        }
        let rate = rate.min(MOST * self.base);
        let error = (rate / self.base - 1.0).abs().min(1.0);
        self.scatter += 0.25 * (error - self.scatter);
        self.measured += 1;
        // The first few weigh alike; a measurement that contradicts the estimate weighs half.
        let weight = 0.15_f64.max(1.0 / f64::from(self.measured + 1));
        let weight = if error > 0.5 { weight.max(0.5) } else { weight };
        self.base += weight * (rate - self.base);
    }
}

/// Seconds between two refusals that are compared. Shorter ones measure the noise of one request.
const WINDOW: f64 = 0.5;
/// The shortest drain, in seconds, that a rate is made from.
const SHORTEST: f64 = 0.05;
/// The scatter before anything is measured: not trusted until a few measurements agree.
const UNKNOWN: f64 = 0.4;
/// A process alone on its PTU measures within 5 to 20 %, one of four within 30 to 40 %.
const TRUSTED: f64 = 0.25;
/// Seconds after a quiet time in which nothing is measured.
const SETTLING: f64 = 3.0;
/// How many times the estimate one measurement may be: hints are short, and a little less of one
/// looks like a much higher rate.
const MOST: f64 = 1.5;
/// Measurements until it is settled whether they agree.
const FEW: u32 = 12;
/// The scatter at which the rate creeps at full pace.
const LIVELY: f64 = 0.15;

#[cfg(test)]
mod tests {
    use super::*;

    /// A bucket that drains 100 a second, refusing with its exact overshoot.
    fn refuse_every_second(meter: &mut Meter, seconds: u32, cost: impl Fn(u32) -> f64) {
        let (mut level, mut admitted) = (10.0, 0.0);
        for second in 0..seconds {
            meter.refused(f64::from(second), level / 100.0, admitted);
            admitted += cost(second);
            level += cost(second) - 100.0;
        }
    }

    #[test]
    fn two_refusals_give_the_exact_rate() {
        let mut meter = Meter::new();
        refuse_every_second(&mut meter, 2, |_| 130.0);
        assert!((meter.rate() - 100.0).abs() < 1e-9, "{}", meter.rate());
        assert!(!meter.is_trusted(), "one measurement proves nothing");
    }

    #[test]
    fn measurements_that_agree_are_trusted_and_those_that_scatter_are_not() {
        let mut alone = Meter::new();
        refuse_every_second(&mut alone, 8, |second| if second % 2 == 0 { 120.0 } else { 85.0 });
        assert!(alone.is_trusted());
        let mut crowded = Meter::new();
        for (second, share) in [0.0, 20.0, 90.0, 10.0, 60.0, 5.0, 80.0, 15.0].iter().enumerate() {
            let admitted = f64::from(u32::try_from(second).unwrap()) * 40.0 + share;
            crowded.refused(second as f64, 0.1, admitted);
        }
        assert!(!crowded.is_trusted());
    }

    #[test]
    fn the_rate_creeps_up_until_the_next_refusal() {
        let mut meter = Meter::new();
        refuse_every_second(&mut meter, 8, |_| 100.0);
        let measured = meter.rate();
        for tenth in 0..100 {
            meter.creep(8.0 + f64::from(tenth) / 10.0, 10.0);
        }
        assert!(meter.rate() > measured && meter.rate() < 1.1 * measured);
        meter.refused(18.0, 0.0, 1_800.0);
        assert!(meter.rate() < 1.02 * measured);
    }

    #[test]
    fn a_level_that_falls_by_itself_after_a_quiet_time_is_not_measured() {
        let mut meter = Meter::new();
        refuse_every_second(&mut meter, 8, |_| 100.0);
        let measured = meter.rate();
        meter.forget_mark();
        meter.woke(60.0);
        meter.refused(60.0, 0.9, 1_000.0);
        meter.refused(61.0, 0.1, 1_100.0);
        assert_eq!(meter.rate(), measured);
        meter.refused(63.0, 0.1, 1_300.0);
        meter.refused(64.0, 0.1, 1_400.0);
        assert!((meter.rate() / measured - 1.0).abs() < 0.1);
    }

    #[test]
    fn one_measurement_far_above_the_others_moves_the_rate_little() {
        let mut meter = Meter::new();
        refuse_every_second(&mut meter, 8, |_| 100.0);
        let measured = meter.rate();
        meter.refused(8.0, 0.1, 2_000.0);
        assert!(meter.rate() < 1.5 * measured, "{}", meter.rate());
    }

    #[test]
    fn a_bucket_that_ran_dry_is_not_measured() {
        let mut meter = Meter::new();
        meter.refused(0.0, 0.1, 0.0);
        meter.forget_mark();
        meter.refused(60.0, 0.1, 100.0);
        assert_eq!(meter.rate(), 0.0);
    }
}
