//! Waits for the primary tier, or spills: the decision of `SmartFallbackLayer`.

use std::time::Duration;

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
}

impl FallbackFacts {
    /// The facts of one request.
    pub const fn new(hint: Hint, elapsed: Duration, max_wait: Duration, refusals: u32) -> Self {
        Self { hint, elapsed, max_wait, refusals }
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
/// to be 5 ms after the first refusal, doubling up to 640 ms, where the script would spin or crash. A
/// hint too long to believe spills immediately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WaitThenSpill;

impl FallbackPolicy for WaitThenSpill {
    fn next(&self, facts: &FallbackFacts) -> Next {
        let Some(wait) = assumed_wait(facts.hint, facts.refusals) else { return Next::Spill };
        if facts.elapsed.saturating_add(wait) > facts.max_wait {
            Next::Spill
        } else {
            Next::Wait(wait)
        }
    }
}

/// How long a refusal with `hint` is assumed to last; `None` if longer than any caller would wait.
pub(crate) fn assumed_wait(hint: Hint, refusals: u32) -> Option<Duration> {
    match hint {
        Hint::After(wait) => Some(wait),
        Hint::None | Hint::Zero => Some(FIRST_ASSUMED_WAIT * 2u32.pow(refusals.clamp(1, 8) - 1)),
        Hint::TooLong => None,
    }
}

/// Long enough that immediate refusals do not make a busy loop, short enough that little of a PTU's
/// capacity goes unused.
const FIRST_ASSUMED_WAIT: Duration = Duration::from_millis(5);

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
        let waits = [1, 2, 3, 8, 9, u32::MAX].map(|refusals| next(Hint::Zero, 0, refusals));
        assert_eq!(
            waits,
            [5, 10, 20, 640, 640, 640].map(|ms| Next::Wait(Duration::from_millis(ms)))
        );
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
        ) {
            let facts = FallbackFacts::new(hint, elapsed, max_wait, refusals);
            if let Next::Wait(wait) = WaitThenSpill.next(&facts) {
                prop_assert!(elapsed + wait <= max_wait);
            }
        }
    }
}
