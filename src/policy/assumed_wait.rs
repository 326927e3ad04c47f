//! How long a refusal is taken to last that does not say for how long.

use std::time::Duration;

use crate::classify::Hint;

/// How long a refusal with `hint` lasts, the one of this number in a row, from 1; `None` when longer than
/// anyone would wait.
///
/// A hint of zero, or none, says that the service refuses but not for how long: it is asked again after
/// [100 ms](FIRST), then twice as long each time, up to [8 s](LONGEST), and up to half as long again, by
/// the `draw`, so that requests which were refused together do not come back together. Within the 4 s
/// that a request waits by default that is at most five more attempts; a fixed wait short enough for a
/// PTU would be a dozen.
pub(crate) fn assumed_wait(hint: Hint, refusals: u32, draw: u64) -> Option<Duration> {
    match hint {
        Hint::After(wait) => Some(wait),
        Hint::None | Hint::Zero => {
            let doublings = refusals.clamp(1, MOST_DOUBLINGS + 1) - 1;
            let wait = FIRST.saturating_mul(1 << doublings).min(LONGEST);
            Some(wait + (wait / 2).mul_f64(draw as f64 / DRAWS))
        }
        Hint::TooLong => None,
    }
}

/// A bucket that was full a tenth of a second ago is not empty yet: little of a PTU goes unused, and a
/// refusal that comes back at once makes no busy loop.
const FIRST: Duration = Duration::from_millis(100);
/// What OpenAI's clients wait at most by themselves.
const LONGEST: Duration = Duration::from_secs(8);
/// More would be longer than the longest.
const MOST_DOUBLINGS: u32 = 7;
/// How many draws there are.
const DRAWS: f64 = 18_446_744_073_709_551_616.0;

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
