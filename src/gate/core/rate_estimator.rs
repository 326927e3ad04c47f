//! The estimator of the PTU's drain rate, and how far it can be trusted.

/// The learned drain rate of a PTU, in weighted tokens per second.
///
/// A refusal is a measurement: its hint says how far the bucket is above the limit. Two of them,
/// with the cost admitted in between, give the rate at which the bucket drained meanwhile,
/// `cost / (time + hint2 - hint1)`, exactly, as long as it did not run dry. When other processes
/// fill the same PTU, what is measured is the share that they leave, and it scatters. The mean
/// deviation of the samples decides whether the estimate [is trusted](Self::is_trusted).
///
/// An estimate that is too low would never be noticed, since a gate that paces itself too slowly
/// is not refused. So between refusals the rate drifts up until one comes: slowly while samples
/// agree, faster while they scatter.
#[derive(Clone, Debug)]
pub(super) struct DrainRate {
    /// The smoothed samples; zero before the first.
    estimate: f64,
    /// The factor by which the rate has drifted above the estimate since the last refusal.
    drift: f64,
    /// The smoothed relative error of the samples.
    deviation: f64,
    samples: u32,
    last_sample: Option<Sample>,
    /// Until when the drift is worked out, in seconds.
    drifted_until: f64,
    /// Until when refusals are not measured, in seconds: the level falls faster than by draining.
    settled_at: f64,
}

/// How far a rate can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// The samples agree.
    Trusted,
    /// There are too few samples to say.
    TooFew,
    /// The samples contradict each other: other processes fill the same PTU.
    Contradicted,
}

/// What was known at a refusal. Times are in seconds.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: f64,
    hint: f64,
    admitted: f64,
}

impl DrainRate {
    pub(super) const fn new() -> Self {
        Self {
            estimate: 0.0,
            drift: 1.0,
            deviation: INITIAL_DEVIATION,
            samples: 0,
            last_sample: None,
            drifted_until: 0.0,
            settled_at: 0.0,
        }
    }

    /// The rate to model the level with; zero while none is known.
    pub(super) fn rate(&self) -> f64 {
        self.estimate * self.drift
    }

    /// Whether the samples agree well enough to model the level with the rate.
    pub(super) fn is_trusted(&self) -> bool {
        self.trust() == Trust::Trusted
    }

    pub(super) fn trust(&self) -> Trust {
        if self.estimate > 0.0 && self.deviation <= MAX_TRUSTED_DEVIATION {
            Trust::Trusted
        } else if self.samples < MIN_SAMPLES_TO_DISTRUST {
            Trust::TooFew
        } else {
            Trust::Contradicted
        }
    }

    /// A refusal was decided at `at` (seconds) with `hint` (seconds), after `admitted` weighted
    /// tokens in all.
    pub(super) fn on_refused(&mut self, at: f64, hint: f64, admitted: f64) {
        let here = Sample { at, hint, admitted };
        self.drift = 1.0;
        self.drifted_until = at;
        if self.estimate > 0.0 && at < self.settled_at {
            return;
        }
        let Some(last) = self.last_sample else {
            self.last_sample = Some(here);
            return;
        };
        let (cost, time) = (admitted - last.admitted, at - last.at);
        // The very first sample is taken early: any rate is better than none.
        let is_due = time >= RATE_SAMPLE_WINDOW_S || (self.estimate == 0.0 && cost > 0.0);
        if !is_due {
            return;
        }
        self.last_sample = Some(here);
        let drained_for = time + hint - last.hint;
        if cost > 0.0 && drained_for > MIN_DRAIN_S {
            self.add(cost / drained_for);
        }
    }

    /// The bucket may have run dry: the next refusal cannot be compared with the last one.
    pub(super) const fn on_ran_dry(&mut self) {
        self.last_sample = None;
    }

    /// After a quiet time, the PTU refuses a request that was sent at `at` (seconds). What it
    /// admitted before went past the gate: those answers turn out shorter than Azure estimated, and
    /// lower the level as they end.
    pub(super) const fn on_first_refusal(&mut self, at: f64) {
        self.settled_at = at + SETTLING_S;
    }

    /// Lets the rate drift up to `now` (seconds). `mean_cost` is that of a request.
    pub(super) fn advance(&mut self, now: f64, mean_cost: f64) {
        let time = (now - self.drifted_until).clamp(0.0, MAX_DRIFT_STEP_S);
        self.drifted_until = now;
        if self.estimate > 0.0 {
            let pace = if self.samples < FEW_SAMPLES {
                FEW_SAMPLES_DRIFT_PACE
            } else {
                (self.deviation / FULL_DRIFT_DEVIATION).powi(2).clamp(MIN_DRIFT_PACE, 1.0)
            };
            // A process with a small share of the PTU sends rarely, and would drift for minutes.
            let rise = DRIFT_PER_S + DRIFT_PER_REQUEST * mean_cost / self.rate();
            self.drift = (self.drift * (1.0 + rise * pace * time)).min(MAX_DRIFT);
        }
    }

    fn add(&mut self, sample: f64) {
        if self.estimate == 0.0 {
            self.estimate = sample;
            return;
        }
        let sample = sample.min(MAX_SAMPLE_RATIO * self.estimate);
        let error = (sample / self.estimate - 1.0).abs().min(MAX_SAMPLE_ERROR);
        self.deviation += DEVIATION_WEIGHT * (error - self.deviation);
        self.samples += 1;
        // The first few weigh alike; one that contradicts the estimate weighs more.
        let weight = MIN_SAMPLE_WEIGHT.max(1.0 / f64::from(self.samples + 1));
        let is_contradiction = error > CONTRADICTION_ERROR;
        let weight = if is_contradiction { weight.max(CONTRADICTION_WEIGHT) } else { weight };
        self.estimate += weight * (sample - self.estimate);
    }
}

// What halving and doubling these does is in the table of the module `core`.

/// Seconds between two refusals that are compared. Shorter ones measure the noise of one request.
const RATE_SAMPLE_WINDOW_S: f64 = 0.5;
/// The shortest drain, in seconds, that a sample is made from.
const MIN_DRAIN_S: f64 = 0.05;
/// Cap on one sample relative to the estimate: hints are short, so a small error in one is a large
/// error in the rate.
const MAX_SAMPLE_RATIO: f64 = 1.5;
/// Weight of a new sample in the estimate once there are several.
const MIN_SAMPLE_WEIGHT: f64 = 0.15;
/// The relative error above which a sample contradicts the estimate, and its weight then.
const CONTRADICTION_ERROR: f64 = 0.5;
const CONTRADICTION_WEIGHT: f64 = 0.5;
/// The deviation before anything is measured: not trusted until a few samples agree.
const INITIAL_DEVIATION: f64 = 0.4;
/// A process alone on its PTU measures within 5 to 20 %, one of four within 30 to 40 %.
const MAX_TRUSTED_DEVIATION: f64 = 0.25;
/// Weight of a new sample's error in the deviation, and the largest error that is counted.
const DEVIATION_WEIGHT: f64 = 0.25;
const MAX_SAMPLE_ERROR: f64 = 1.0;
/// Samples until it is settled that they contradict each other.
const MIN_SAMPLES_TO_DISTRUST: u32 = 12;
/// Seconds after a quiet time in which nothing is measured.
const SETTLING_S: f64 = 3.0;
/// The relative rise of the rate in each second without a refusal, at full pace.
const DRIFT_PER_S: f64 = 0.02;
/// The relative rise, at full pace, in the time in which a request of mean cost drains.
const DRIFT_PER_REQUEST: f64 = 0.15;
/// The deviation at which the rate drifts at full pace.
const FULL_DRIFT_DEVIATION: f64 = 0.15;
/// The slowest pace, however well samples agree.
const MIN_DRIFT_PACE: f64 = 0.05;
/// With fewer samples than these the estimate is a guess, and drifts at this pace.
const FEW_SAMPLES: u32 = 3;
const FEW_SAMPLES_DRIFT_PACE: f64 = 4.0;
/// Seconds that one step of the drift covers at most.
const MAX_DRIFT_STEP_S: f64 = 1.0;
/// The largest drift.
const MAX_DRIFT: f64 = 64.0;

#[cfg(test)]
mod tests {
    use super::*;

    /// A bucket that drains 100 a second, refusing with its exact overshoot.
    fn refuse_every_second(rate: &mut DrainRate, seconds: u32, cost: impl Fn(u32) -> f64) {
        let (mut level, mut admitted) = (10.0, 0.0);
        for second in 0..seconds {
            rate.on_refused(f64::from(second), level / 100.0, admitted);
            admitted += cost(second);
            level += cost(second) - 100.0;
        }
    }

    #[test]
    fn two_refusals_give_the_exact_rate() {
        let mut rate = DrainRate::new();
        refuse_every_second(&mut rate, 2, |_| 130.0);
        assert!((rate.rate() - 100.0).abs() < 1e-9, "{}", rate.rate());
        assert!(!rate.is_trusted(), "one measurement proves nothing");
    }

    #[test]
    fn measurements_that_agree_are_trusted_and_those_that_scatter_are_not() {
        let mut alone = DrainRate::new();
        refuse_every_second(&mut alone, 8, |second| if second % 2 == 0 { 120.0 } else { 85.0 });
        assert!(alone.is_trusted());
        let mut crowded = DrainRate::new();
        for (second, share) in [0.0, 20.0, 90.0, 10.0, 60.0, 5.0, 80.0, 15.0].iter().enumerate() {
            let admitted = f64::from(u32::try_from(second).unwrap()) * 40.0 + share;
            crowded.on_refused(second as f64, 0.1, admitted);
        }
        assert!(!crowded.is_trusted());
    }

    #[test]
    fn the_rate_drifts_up_until_the_next_refusal() {
        let mut rate = DrainRate::new();
        refuse_every_second(&mut rate, 8, |_| 100.0);
        let measured = rate.rate();
        for tenth in 0..100 {
            rate.advance(8.0 + f64::from(tenth) / 10.0, 10.0);
        }
        assert!(rate.rate() > measured && rate.rate() < 1.1 * measured);
        rate.on_refused(18.0, 0.0, 1_800.0);
        assert!(rate.rate() < 1.02 * measured);
    }

    #[test]
    fn a_level_that_falls_by_itself_after_a_quiet_time_is_not_measured() {
        let mut rate = DrainRate::new();
        refuse_every_second(&mut rate, 8, |_| 100.0);
        let measured = rate.rate();
        rate.on_ran_dry();
        rate.on_first_refusal(60.0);
        rate.on_refused(60.0, 0.9, 1_000.0);
        rate.on_refused(61.0, 0.1, 1_100.0);
        assert_eq!(rate.rate(), measured);
        rate.on_refused(63.0, 0.1, 1_300.0);
        rate.on_refused(64.0, 0.1, 1_400.0);
        assert!((rate.rate() / measured - 1.0).abs() < 0.1);
    }

    #[test]
    fn one_measurement_far_above_the_others_moves_the_rate_little() {
        let mut rate = DrainRate::new();
        refuse_every_second(&mut rate, 8, |_| 100.0);
        let measured = rate.rate();
        rate.on_refused(8.0, 0.1, 2_000.0);
        assert!(rate.rate() < 1.5 * measured, "{}", rate.rate());
    }

    #[test]
    fn a_bucket_that_ran_dry_is_not_measured() {
        let mut rate = DrainRate::new();
        rate.on_refused(0.0, 0.1, 0.0);
        rate.on_ran_dry();
        rate.on_refused(60.0, 0.1, 100.0);
        assert_eq!(rate.rate(), 0.0);
    }
}
