//! The leaky bucket of a provisioned (PTU) deployment, as Azure documents it.

use std::time::Duration;

use crate::ask::TokenCost;

/// The capacity of a provisioned deployment: its drain rate and its depth.
///
/// The model follows the Azure page "Provisioned throughput": a request adds an estimate of its
/// cost on arrival (prompt tokens minus cached ones, plus weighted `max_tokens`), its completion
/// corrects the estimate, the level drains continuously, and a request that finds the level at or
/// above 100 % is refused with the time until it falls below.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ptu {
    rate: f64,
    bucket_seconds: f64,
    output_weight: f64,
    too_large: Option<(f64, Duration)>,
}

impl Ptu {
    /// A deployment that drains `tokens_per_second` weighted tokens per second (0.001 to 100
    /// million; values outside are clamped, and NaN becomes the minimum).
    pub const fn new(tokens_per_second: f64) -> Self {
        Self {
            rate: within(tokens_per_second, 1e-3, 1e8),
            bucket_seconds: 10.0,
            output_weight: 3.0,
            too_large: None,
        }
    }

    /// The depth of the bucket in seconds of its drain rate (0.001 to 86,400).
    ///
    /// Defaults to 10. Azure does not publish the depth; with ten seconds, refusals after a burst
    /// last tens of milliseconds, as operators report.
    #[must_use]
    pub const fn bucket_seconds(mut self, seconds: f64) -> Self {
        self.bucket_seconds = within(seconds, 1e-3, 86_400.0);
        self
    }

    /// The weight of an output token relative to an input token (0 to 1,000).
    ///
    /// Defaults to 3: a PTU of gpt-4o serves 2,500 input or 833 output tokens a minute.
    #[must_use]
    pub const fn output_weight(mut self, weight: f64) -> Self {
        self.output_weight = within(weight, 0.0, 1_000.0);
        self
    }

    /// Refuses each request whose estimated cost exceeds `tokens`, whatever the level, with this
    /// hint. Off by default.
    #[must_use]
    pub const fn refuses_above(mut self, tokens: u64, hint: Duration) -> Self {
        self.too_large = Some((tokens as f64, hint));
        self
    }

    /// The level, in tokens, at which requests are refused: drain rate times depth.
    pub const fn capacity(&self) -> f64 {
        self.rate * self.bucket_seconds
    }

    /// The cost of a request with `cost`'s prompt and `output` generated tokens.
    pub(crate) fn cost(&self, cost: &TokenCost, output: u64) -> f64 {
        cost.prompt.saturating_sub(cost.cached) as f64 + self.output_weight * output as f64
    }
}

/// The bucket itself. It stores its level as the instant at which it will be empty, in whole
/// nanoseconds, so that it needs no updates over time and the hints are exact.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    ptu: Ptu,
    depth: Duration,
    dry_at: Duration,
}

impl Bucket {
    pub(crate) fn new(ptu: Ptu) -> Self {
        Self { ptu, depth: Duration::from_secs_f64(ptu.bucket_seconds), dry_at: Duration::ZERO }
    }

    pub(crate) fn ptu(&self) -> &Ptu {
        &self.ptu
    }

    /// Adds `tokens`, or returns in whole milliseconds when the level will be below 100 %.
    pub(crate) fn admit(&mut self, now: Duration, tokens: f64) -> Result<(), Duration> {
        if let Some((_, hint)) = self.ptu.too_large.filter(|(limit, _)| tokens > *limit) {
            return Err(hint);
        }
        if let Some(over) = self.backlog(now).checked_sub(self.depth) {
            // When exactly the overshoot has drained, the level is not yet *below* 100 %, hence
            // floor plus one, not ceiling.
            let millis = over.as_millis().saturating_add(1);
            return Err(Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX)));
        }
        self.add(now, tokens);
        Ok(())
    }

    /// Adds `tokens` to the level unconditionally; the level never falls below zero.
    pub(crate) fn add(&mut self, now: Duration, tokens: f64) {
        let time = Duration::from_secs_f64((tokens.abs() / self.ptu.rate).min(MAX_FILL_S));
        let dry_at = self.dry_at.max(now);
        self.dry_at = if tokens < 0.0 {
            dry_at.saturating_sub(time).max(now)
        } else {
            dry_at.saturating_add(time)
        };
    }

    /// The level in tokens.
    pub(crate) fn level(&self, now: Duration) -> f64 {
        self.backlog(now).as_secs_f64() * self.ptu.rate
    }

    /// The level as a share of the capacity; requests are refused from 1.0 on.
    pub(crate) fn utilization(&self, now: Duration) -> f64 {
        self.backlog(now).as_secs_f64() / self.ptu.bucket_seconds
    }

    /// Changes the capacity from now on; the level in tokens stays.
    pub(crate) fn resize(&mut self, now: Duration, ptu: Ptu) {
        let level = self.level(now);
        *self = Self { dry_at: now, ..Self::new(ptu) };
        self.add(now, level);
    }

    /// How long the level stays at or above the limit, assuming no changes.
    pub(crate) fn closed_for(&self, now: Duration) -> Duration {
        // A level of exactly 100 % is refused.
        let over = self.backlog(now).checked_sub(self.depth);
        over.map_or(Duration::ZERO, |over| over + Duration::from_nanos(1))
    }

    fn backlog(&self, now: Duration) -> Duration {
        self.dry_at.saturating_sub(now)
    }
}

const fn within(value: f64, low: f64, high: f64) -> f64 {
    if value >= low { value.min(high) } else { low }
}

/// One year, in seconds: the longest time for which a single request may fill the bucket.
const MAX_FILL_S: f64 = 31_536_000.0;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const T0: Duration = Duration::from_secs(5);

    fn bucket(rate: f64, seconds: f64) -> Bucket {
        Bucket::new(Ptu::new(rate).bucket_seconds(seconds))
    }

    #[test]
    fn the_last_request_below_the_limit_may_overshoot_it() {
        let mut bucket = bucket(1_000.0, 3.0);
        assert_eq!(bucket.admit(T0, 2_999.0), Ok(()));
        assert_eq!(bucket.admit(T0, 5_000.0), Ok(()));
        assert_eq!(bucket.level(T0), 7_999.0);
        assert_eq!(bucket.admit(T0, 1.0), Err(Duration::from_millis(5_000)));
    }

    #[test]
    fn exactly_full_is_refused_for_a_millisecond() {
        let mut bucket = bucket(1_000.0, 3.0);
        assert_eq!(bucket.admit(T0, 3_000.0), Ok(()));
        assert_eq!(bucket.utilization(T0), 1.0);
        assert_eq!(bucket.admit(T0, 1.0), Err(Duration::from_millis(1)));
        assert_eq!(bucket.closed_for(T0), Duration::from_nanos(1));
        assert_eq!(bucket.closed_for(T0 + Duration::from_nanos(1)), Duration::ZERO);
        assert_eq!(bucket.admit(T0 + Duration::from_nanos(1), 1.0), Ok(()));
    }

    #[test]
    fn what_is_too_large_for_a_ptu_is_refused_at_any_level_and_adds_nothing() {
        let day = Duration::from_secs(86_400);
        let mut bucket = Bucket::new(Ptu::new(1_000.0).refuses_above(500, day));
        assert_eq!(bucket.admit(T0, 500.5), Err(day));
        assert_eq!(bucket.level(T0), 0.0);
        assert_eq!(bucket.admit(T0, 500.0), Ok(()));
    }

    #[test]
    fn another_capacity_leaves_the_level_in_tokens() {
        let mut bucket = bucket(1_000.0, 3.0);
        bucket.add(T0, 4_000.0);
        assert_eq!(bucket.closed_for(T0), Duration::from_nanos(1_000_000_001));
        bucket.resize(T0, Ptu::new(500.0).bucket_seconds(3.0));
        assert_eq!(bucket.level(T0), 4_000.0);
        assert_eq!(
            bucket.closed_for(T0),
            Duration::from_nanos(5_000_000_001),
            "(4000 - 1500) / 500"
        );
        bucket.resize(T0, Ptu::new(2_000.0).bucket_seconds(3.0));
        assert_eq!(bucket.admit(T0, 1.0), Ok(()));
    }

    #[test]
    fn a_correction_below_nothing_leaves_nothing() {
        let mut bucket = bucket(1_000.0, 3.0);
        bucket.add(T0, 500.0);
        bucket.add(T0 + Duration::from_millis(400), -300.0);
        assert_eq!(bucket.level(T0 + Duration::from_millis(400)), 0.0);
        bucket.add(T0 + Duration::from_millis(400), 70.0);
        assert_eq!(bucket.level(T0 + Duration::from_millis(400)), 70.0);
    }

    #[test]
    fn absurd_sizes_are_moved_into_range() {
        assert_eq!(Ptu::new(f64::NAN), Ptu::new(1e-3));
        assert_eq!(Ptu::new(f64::INFINITY), Ptu::new(1e8));
        let mut bucket = Bucket::new(Ptu::new(-1.0).bucket_seconds(0.0).output_weight(f64::MAX));
        bucket.add(T0, f64::INFINITY);
        bucket.add(T0, f64::NEG_INFINITY);
        bucket.add(Duration::MAX, f64::MAX);
        assert!(bucket.level(T0).is_finite());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Admit(f64),
        Correct(f64),
        Pass(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0.0..50_000.0).prop_map(Step::Admit),
            (-50_000.0..50_000.0).prop_map(Step::Correct),
            (0_u64..20_000_000_000).prop_map(Step::Pass),
        ];
        prop::collection::vec(step, 1..60)
    }

    proptest! {
        #[test]
        fn the_level_is_never_negative_and_the_hint_is_exact(
            rate in 0.5..100_000.0,
            seconds in 0.01..60.0,
            steps in steps(),
        ) {
            let mut bucket = bucket(rate, seconds);
            let mut now = T0;
            for step in steps {
                match step {
                    Step::Pass(nanos) => now += Duration::from_nanos(nanos),
                    Step::Correct(tokens) => bucket.add(now, tokens),
                    Step::Admit(tokens) => {
                        if let Err(wait) = bucket.admit(now, tokens) {
                            prop_assert!(wait >= Duration::from_millis(1));
                            let early = now + wait - Duration::from_millis(1);
                            prop_assert!(bucket.clone().admit(early, tokens).is_err());
                            prop_assert!(bucket.clone().admit(now + wait, tokens).is_ok());
                        }
                    }
                }
                prop_assert!(bucket.level(now) >= 0.0);
                prop_assert!(bucket.utilization(now).is_finite());
            }
        }
    }
}
