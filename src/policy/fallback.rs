//! Waits for the primary tier, or spills: the decision of `SmartFallbackLayer`.

use std::time::Duration;

use super::assumed_wait;
use crate::classify::Hint;

/// Decides what happens to a request that the primary tier refuses, or is known to refuse.
///
/// A custom policy takes a few lines. Whatever it decides, the layer never waits past the request's
/// `max_wait`, and sends a body that cannot be replayed only once.
///
/// ```
/// use tower_spillover::policy::{FallbackFacts, Next, FallbackPolicy, WaitThenSpill};
///
/// /// Gives the primary tier two chances, whatever time is left.
/// #[derive(Clone, Debug)]
/// struct TwoChances;
///
/// impl FallbackPolicy for TwoChances {
///     fn next(&self, facts: &FallbackFacts) -> Next {
///         if facts.refusals < 2 { WaitThenSpill.next(facts) } else { Next::Spill }
///     }
/// }
/// ```
pub trait FallbackPolicy: Send + Sync + 'static {
    /// The next step of a request with these `facts`.
    fn next(&self, facts: &FallbackFacts) -> Next;
}

/// The state of one request when the primary tier refuses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FallbackFacts {
    /// How much longer the primary tier refuses.
    pub hint: Hint,
    /// The time since the request arrived.
    pub elapsed: Duration,
    /// The longest time that this request may wait, counted from its arrival: the layer's `max_wait`,
    /// or its override, capped by the request's deadline.
    pub max_wait: Duration,
    /// How many attempts of this request the primary tier refused. Zero for a request that arrived
    /// while the tier was known to be closed.
    pub refusals: u32,
    /// A number drawn from all there are, to keep requests apart that were refused together. Drawn where
    /// the hint gives no time, and zero otherwise.
    pub draw: u64,
}

impl FallbackFacts {
    /// The facts of one request.
    pub const fn new(hint: Hint, elapsed: Duration, max_wait: Duration, refusals: u32) -> Self {
        Self { hint, elapsed, max_wait, refusals, draw: 0 }
    }

    /// The same, with a number that was drawn.
    #[must_use]
    pub const fn drawing(mut self, draw: u64) -> Self {
        self.draw = draw;
        self
    }
}

/// The next step of a refused request. Deliberately exhaustive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Next {
    /// Wait this long, then try the primary tier again. Zero means immediately for the first retry of
    /// a request, and one millisecond for later ones.
    Wait(Duration),
    /// Send it to the fallback tier now.
    Spill,
    /// Return the refusal to the caller.
    Return,
}

/// Waits while `elapsed + hint <= max_wait`, and spills otherwise: the rule of the reference script,
/// which still makes a wait that fits exactly.
///
/// A hint of zero, or none, means that the tier refuses for an unknown time. The wait is then assumed
/// to be 100 ms after the first refusal, doubling up to 8 s, where the script would spin or crash; the
/// [draw](FallbackFacts::draw) adds up to half of it. A hint too long to believe spills immediately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WaitThenSpill;

impl FallbackPolicy for WaitThenSpill {
    fn next(&self, facts: &FallbackFacts) -> Next {
        let Some(wait) = assumed_wait(facts.hint, facts.refusals, facts.draw) else {
            return Next::Spill;
        };
        if facts.elapsed.saturating_add(wait) > facts.max_wait {
            Next::Spill
        } else {
            Next::Wait(wait)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX_WAIT: Duration = Duration::from_secs(4);

    fn next(hint: Hint, elapsed_ms: u64, refusals: u32) -> Next {
        let elapsed = Duration::from_millis(elapsed_ms);
        WaitThenSpill.next(&FallbackFacts::new(hint, elapsed, MAX_WAIT, refusals))
    }

    #[test]
    fn a_wait_that_ends_exactly_at_max_wait_is_made() {
        let hint = Hint::After(Duration::from_millis(1_000));
        assert_eq!(next(hint, 3_000, 1), Next::Wait(Duration::from_millis(1_000)));
        assert_eq!(next(hint, 3_001, 1), Next::Spill);
    }

    #[test]
    fn refusals_without_a_time_are_asked_again_less_and_less_often() {
        let waits = [1, 2, 3, 6].map(|refusals| next(Hint::Zero, 0, refusals));
        let expected = [100, 200, 400, 3_200];
        assert_eq!(waits, expected.map(|ms| Next::Wait(Duration::from_millis(ms))));
        assert_eq!(next(Hint::Zero, 0, 7), Next::Spill, "6.4 s are more than there are");
        assert_eq!(next(Hint::None, 0, 2), next(Hint::Zero, 0, 2));
    }

    #[test]
    fn a_hint_beyond_belief_spills_at_once() {
        assert_eq!(next(Hint::TooLong, 0, 1), Next::Spill);
    }

    proptest! {
        #[test]
        fn never_waits_past_max_wait(
            hint in prop_oneof![
                Just(Hint::None),
                Just(Hint::Zero),
                Just(Hint::TooLong),
                any::<Duration>().prop_map(Hint::After),
            ],
            elapsed in any::<Duration>(),
            max_wait in any::<Duration>(),
            refusals in any::<u32>(),
            draw in any::<u64>(),
        ) {
            let facts = FallbackFacts::new(hint, elapsed, max_wait, refusals).drawing(draw);
            if let Next::Wait(wait) = WaitThenSpill.next(&facts) {
                prop_assert!(elapsed + wait <= max_wait);
            }
        }
    }
}
