//! The wait before a retry without a hint: an exponential schedule with jitter.

use std::time::Duration;

/// The waits before retries without a hint.
///
/// Wait number `n`, from 0, is `interval + (2^n - 1) * delta`, at most `longest`: the schedule of API
/// Management's `retry` policy. Its `delta` is drawn for every wait from within 20 % of the given
/// one, so that requests refused together do not return together.
///
/// Source: Microsoft Learn, "Azure API Management policy reference: retry".
///
/// ```
/// use std::time::Duration;
/// use tower_spillover::retry_after::Backoff;
///
/// let backoff = Backoff::new(Duration::from_secs(4), Duration::from_secs(2));
/// let seconds = [0, 1, 2, 3].map(|n| backoff.wait(n, u64::MAX / 2).as_secs_f64().round());
/// assert_eq!(seconds, [4.0, 6.0, 10.0, 18.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    interval: Duration,
    delta: Duration,
    longest: Duration,
}

impl Backoff {
    /// A schedule that starts with `interval` and grows by `delta`, then twice that, and so on. The
    /// longest wait defaults to 20 s, as in the reference policy; see [`longest`](Self::longest).
    pub const fn new(interval: Duration, delta: Duration) -> Self {
        Self { interval, delta, longest: Duration::from_secs(20) }
    }

    /// The longest wait.
    #[must_use]
    pub const fn longest(mut self, longest: Duration) -> Self {
        self.longest = longest;
        self
    }

    /// Wait number `n`, from 0, with jitter from `draw`, a uniform random number.
    pub fn wait(&self, n: u32, draw: u64) -> Duration {
        let steps = 1u32.checked_shl(n).map_or(u32::MAX, |power| power - 1);
        let delta = self.delta.mul_f64(0.8).saturating_add(spread(self.delta.mul_f64(0.4), draw));
        self.interval.saturating_add(delta.saturating_mul(steps)).min(self.longest)
    }
}

/// `draw` scaled to `0..width`.
pub(super) fn spread(width: Duration, draw: u64) -> Duration {
    const WHOLE: f64 = (1u64 << 53) as f64;
    width.mul_f64((draw >> 11) as f64 / WHOLE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_reference_block_waits_4_6_10_18_20_20() {
        let reference = Backoff::new(Duration::from_secs(4), Duration::from_secs(2));
        for (n, (low, high)) in
            [(4.0, 4.0), (5.6, 6.4), (8.8, 11.2), (15.2, 20.0), (20.0, 20.0)].iter().enumerate()
        {
            let n = u32::try_from(n).expect("five waits");
            let wait = |draw| reference.wait(n, draw).as_secs_f64();
            assert!((wait(0) - low).abs() < 1e-6, "wait {n} is {} at its shortest", wait(0));
            assert!((wait(u64::MAX) - high).abs() < 1e-6, "wait {n} is {}", wait(u64::MAX));
        }
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_the_longest(
            interval in 0u64..u64::MAX, delta in 0u64..1 << 40, n in any::<u32>(), draw in any::<u64>(),
        ) {
            let longest = Duration::from_secs(20);
            let backoff = Backoff::new(Duration::from_nanos(interval), Duration::from_nanos(delta));
            prop_assert!(backoff.wait(n, draw) <= longest);
        }
    }
}
