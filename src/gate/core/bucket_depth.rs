//! How deep the bucket of a PTU is, learned from refusals that tell their utilisation.

/// The depth of the bucket in seconds of its drain.
///
/// A PTU's answers carry `azure-openai-deployment-utilization`, the level as a share of the limit.
/// A refusal tells the same in time, so the two together give the depth, and from then on every
/// answer tells the level. Azure does not say how the share is measured, and it is rounded. So it
/// is believed only where a few refusals agree on the depth.
#[derive(Clone, Debug)]
pub(super) struct Depth {
    /// Of recent refusals: the sum of their hints in seconds, and of how far above 1 they were.
    hints: f64,
    shares: f64,
    /// The smoothed relative error of what the depth foretells of a hint.
    error: f64,
}

impl Depth {
    pub(super) const fn new() -> Self {
        Self { hints: 0.0, shares: 0.0, error: 0.0 }
    }

    /// A refusal at a level of `share` said that it lasts for `hint` seconds.
    pub(super) fn refused(&mut self, share: f64, hint: f64) {
        let over = share - 1.0;
        if over.is_nan() || over <= 0.0 || hint <= 0.0 {
            return;
        }
        if let Some(depth) = self.estimate() {
            let off = ((hint - over * depth).abs() - ROUNDING * depth).max(0.0);
            self.error += 0.2 * ((off / hint).min(1.0) - self.error);
        }
        self.hints = KEPT * self.hints + hint;
        self.shares = KEPT * self.shares + over;
    }

    /// The depth, if refusals agree on it.
    pub(super) fn seconds(&self) -> Option<f64> {
        self.estimate().filter(|_| self.error < TRUSTED)
    }

    fn estimate(&self) -> Option<f64> {
        (self.shares >= ENOUGH).then(|| self.hints / self.shares)
    }
}

/// What of the past is kept at each refusal.
const KEPT: f64 = 0.98;
/// The sum of shares above 1 that outweighs their rounding.
const ENOUGH: f64 = 0.02;
/// Shares are rounded to a tenth of a percent, in all examples known.
const ROUNDING: f64 = 0.001;
const TRUSTED: f64 = 0.25;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_that_agree_tell_the_depth() {
        let mut depth = Depth::new();
        for over in [0.012, 0.004, 0.03, 0.001, 0.2] {
            depth.refused(1.0 + over, over * 10.0);
        }
        assert!((depth.seconds().unwrap() - 10.0).abs() < 1e-6);
    }

    #[test]
    fn a_few_rounded_shares_tell_nothing_yet() {
        let mut depth = Depth::new();
        depth.refused(1.002, 0.025);
        assert_eq!(depth.seconds(), None);
    }

    #[test]
    fn shares_that_have_nothing_to_do_with_the_hints_are_not_believed() {
        let mut depth = Depth::new();
        for round in 0..50 {
            depth.refused(if round % 2 == 0 { 1.5 } else { 1.01 }, 0.3);
        }
        assert_eq!(depth.seconds(), None);
    }

    #[test]
    fn a_refusal_below_the_limit_is_no_measure() {
        let mut depth = Depth::new();
        for share in [0.5, 1.0, f64::NAN] {
            depth.refused(share, 10.0);
        }
        assert_eq!(depth.seconds(), None);
    }
}
