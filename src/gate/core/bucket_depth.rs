//! The depth of the PTU's bucket, learned from refusals that report their utilisation.

/// The depth of the bucket in seconds of its drain.
///
/// A PTU's answers carry `azure-openai-deployment-utilization`, the level as a share of the limit. A
/// refusal states the same excess in time, so the two together give the depth, and from then on every
/// answer gives the level. Azure does not document how the share is measured, and rounds it. So the
/// depth is used only while a few refusals agree on it.
#[derive(Clone, Debug)]
pub(super) struct BucketDepth {
    /// Decaying sums over refusals: hints in seconds, and shares above 1.
    hints: f64,
    shares: f64,
    /// The smoothed relative error of the hint that the depth predicts.
    deviation: f64,
}

impl BucketDepth {
    pub(super) const fn new() -> Self {
        Self { hints: 0.0, shares: 0.0, deviation: 0.0 }
    }

    /// A refusal at a level of `share` had a hint of `hint` seconds.
    pub(super) fn on_refused(&mut self, share: f64, hint: f64) {
        let over = share - 1.0;
        if over.is_nan() || over <= 0.0 || hint <= 0.0 {
            return;
        }
        if let Some(depth) = self.estimate() {
            let off = ((hint - over * depth).abs() - UTILIZATION_ROUNDING * depth).max(0.0);
            self.deviation += DEVIATION_WEIGHT * ((off / hint).min(1.0) - self.deviation);
        }
        self.hints = SUM_DECAY_PER_REFUSAL * self.hints + hint;
        self.shares = SUM_DECAY_PER_REFUSAL * self.shares + over;
    }

    /// The depth, if refusals agree on it.
    pub(super) fn seconds(&self) -> Option<f64> {
        self.estimate().filter(|_| self.deviation < MAX_TRUSTED_DEVIATION)
    }

    fn estimate(&self) -> Option<f64> {
        (self.shares >= MIN_SHARE_SUM).then(|| self.hints / self.shares)
    }
}

// The table in `core/mod.rs` shows the effect of halving and doubling these.

/// Share of the sums kept at each refusal: about the last fifty count.
const SUM_DECAY_PER_REFUSAL: f64 = 0.98;
/// The smallest sum of shares above 1 that outweighs their rounding.
const MIN_SHARE_SUM: f64 = 0.02;
/// Shares are rounded to a tenth of a percent in every known example.
const UTILIZATION_ROUNDING: f64 = 0.001;
/// The deviation below which refusals agree, and the weight of a new error in it.
const MAX_TRUSTED_DEVIATION: f64 = 0.25;
const DEVIATION_WEIGHT: f64 = 0.2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_that_agree_give_the_depth() {
        let mut depth = BucketDepth::new();
        for over in [0.012, 0.004, 0.03, 0.001, 0.2] {
            depth.on_refused(1.0 + over, over * 10.0);
        }
        assert!((depth.seconds().unwrap() - 10.0).abs() < 1e-6);
    }

    #[test]
    fn a_few_rounded_shares_give_nothing_yet() {
        let mut depth = BucketDepth::new();
        depth.on_refused(1.002, 0.025);
        assert_eq!(depth.seconds(), None);
    }

    #[test]
    fn shares_that_have_nothing_to_do_with_the_hints_are_not_believed() {
        let mut depth = BucketDepth::new();
        for round in 0..50 {
            depth.on_refused(if round % 2 == 0 { 1.5 } else { 1.01 }, 0.3);
        }
        assert_eq!(depth.seconds(), None);
    }

    #[test]
    fn a_refusal_below_the_limit_is_no_measure() {
        let mut depth = BucketDepth::new();
        for share in [0.5, 1.0, f64::NAN] {
            depth.on_refused(share, 10.0);
        }
        assert_eq!(depth.seconds(), None);
    }
}
