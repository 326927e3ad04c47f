//! The assumed length of a refusal that has no hint.

use std::time::Duration;

use crate::classify::Hint;

/// How long a refusal with `hint` lasts, if it is number `refusals` in a row, from 1; `None` if that
/// is longer than any caller would wait.
///
/// A hint of zero, or none, means that the service refuses for an unknown time. The next attempt is
/// made after [100 ms](FIRST_WAIT), then after twice as long each time, up to [8 s](MAX_WAIT), plus up to
/// half of that by the `draw`, so that requests that were refused together do not return together.
/// Within the default wait of 4 s that is at most five more attempts; a fixed wait short enough for a
/// PTU would make a dozen.
pub(crate) fn assumed_wait(hint: Hint, refusals: u32, draw: u64) -> Option<Duration> {
    match hint {
        Hint::After(wait) => Some(wait),
        Hint::None | Hint::Zero => {
            let doublings = refusals.clamp(1, MAX_DOUBLINGS + 1) - 1;
            let wait = FIRST_WAIT.saturating_mul(1 << doublings).min(MAX_WAIT);
            Some(wait + (wait / 2).mul_f64(draw as f64 / DRAW_COUNT))
        }
        Hint::TooLong => None,
    }
}

/// A bucket that was full a tenth of a second ago is not empty yet, so little of a PTU goes unused,
/// and immediate refusals do not make a busy loop.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest backoff of OpenAI's clients.
const MAX_WAIT: Duration = Duration::from_secs(8);
/// More would exceed the longest wait.
const MAX_DOUBLINGS: u32 = 7;
/// The number of different draws.
const DRAW_COUNT: f64 = 18_446_744_073_709_551_616.0;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_refusal_without_a_time_is_waited_for_twice_as_long_as_the_one_before() {
        for hint in [Hint::None, Hint::Zero] {
            let wait = |refusals| assumed_wait(hint, refusals, 0).map(|wait| wait.as_millis());
            let waits = [0, 1, 2, 3, 6, 7, 8, 9, u32::MAX].map(wait);
            let expected = [100, 100, 200, 400, 3_200, 6_400, 8_000, 8_000, 8_000];
            assert_eq!(waits, expected.map(Some));
        }
    }

    #[test]
    fn a_time_that_is_said_is_kept_and_one_beyond_belief_is_none() {
        let said = Duration::from_millis(43);
        assert_eq!(assumed_wait(Hint::After(said), 9, u64::MAX), Some(said));
        assert_eq!(assumed_wait(Hint::TooLong, 1, 0), None);
    }

    proptest! {
        #[test]
        fn a_draw_adds_up_to_half_and_takes_nothing_away(refusals in any::<u32>(), draw in any::<u64>()) {
            let least = assumed_wait(Hint::None, refusals, 0).expect("a wait");
            let wait = assumed_wait(Hint::None, refusals, draw).expect("a wait");
            prop_assert!((least..=least.mul_f64(1.5)).contains(&wait), "{:?} {:?}", least, wait);
        }
    }
}
