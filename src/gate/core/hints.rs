//! What the hints of refusals are worth: which are believed, probed, or no hints at all.

use super::time::{MILLISECOND, NEVER, Nanos, seconds};

/// Which hints are believed.
///
/// A hint is evidence. One that fits the model, or is not much longer than a request takes to drain, is
/// believed. A longer one is *doubted*: the PTU is asked again when the model expects it to reopen, and
/// then at growing intervals. A second refusal whose hint leads to the same instant confirms the first;
/// an admission before that instant refutes it. Once long hints have been confirmed several times for
/// each one that was refuted, they are believed at once.
///
/// A hint that is the same each time counts nothing down: it measures nothing, and is none.
#[derive(Clone, Debug)]
pub(super) struct Hints {
    last: Nanos,
    /// The smoothed share of hints that were the same as the one before.
    repeats: f64,
    doubt: Option<Doubt>,
    /// How many long hints were confirmed, and how many refuted; old ones fade.
    confirmed: f64,
    refuted: f64,
    /// The longest hint of late that was confirmed, in seconds.
    longest: f64,
}

/// A hint that is neither believed nor refuted yet.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    /// When it was given.
    at: Nanos,
    /// When it says that the PTU reopens.
    reopens: Nanos,
    hint: Nanos,
    /// How long it was expected to stay closed instead, in seconds.
    expected: f64,
}

/// A hint, and what was expected instead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    /// When the PTU decided.
    pub(super) decided: Nanos,
    pub(super) hint: Nanos,
    /// When it reopens by that, with all that was sent since.
    pub(super) reopens: Nanos,
    /// How long the model expected it to stay closed, in seconds.
    pub(super) expected: f64,
    /// How long a request takes to drain before its answer corrects it, in seconds.
    pub(super) fill: f64,
}

impl Hints {
    pub(super) const fn new() -> Self {
        Self { last: NEVER, repeats: 0.0, doubt: None, confirmed: 0.5, refuted: 0.5, longest: 0.0 }
    }

    /// Notes a hint that came after the last one was known.
    pub(super) fn on_hint(&mut self, hint: Nanos) {
        let repeats = hint > MIN_REPEATED_NS && hint.saturating_sub(self.last).abs() <= MILLISECOND;
        self.repeats += REPEATS_WEIGHT * (f64::from(u8::from(repeats)) - self.repeats);
        self.last = hint;
    }

    /// Whether hints are always the same.
    pub(super) fn are_constant(&self) -> bool {
        self.repeats >= MIN_CONSTANT_SHARE
    }

    /// The hint that they all are.
    pub(super) fn constant(&self) -> Option<Nanos> {
        self.are_constant().then_some(self.last)
    }

    /// Whether `claim` is believed. One that is not is doubted from now on.
    pub(super) fn believe(&mut self, claim: &Claim) -> bool {
        let usual = DOUBT_FACTOR * (claim.expected + claim.fill);
        if seconds(claim.hint) <= usual.max(MIN_DOUBTED_S) {
            self.doubt = None;
            return true;
        }
        let are_credible = self.refuted < MAX_REFUTED_RATIO * self.confirmed;
        if are_credible && seconds(claim.hint) <= CREDIBLE_FACTOR * self.longest {
            self.doubt = None;
            return true;
        }
        if let Some(doubt) = self.doubt {
            let apart = seconds(claim.decided - doubt.at);
            let off = seconds((claim.reopens - doubt.reopens).abs());
            let blur = claim.fill.min(MAX_BLUR_S);
            if off <= MAX_DRIFT * apart + blur {
                // Two hints that are the same are also that close, if they are given one after the other.
                if apart < MIN_CONFIRMATION_S.max(2.0 * blur) {
                    return false;
                }
                self.doubt = None;
                self.confirmed += 1.0;
                self.longest =
                    (LONGEST_DECAY * self.longest).max(seconds(doubt.reopens - doubt.at));
                self.fade();
                return true;
            }
        }
        self.doubt = Some(Doubt {
            at: claim.decided,
            reopens: claim.reopens,
            hint: claim.hint,
            expected: claim.expected + claim.fill,
        });
        false
    }

    /// An attempt was admitted by `now`.
    pub(super) fn on_admitted(&mut self, now: Nanos) {
        if let Some(doubt) = self.doubt.take() {
            if doubt.reopens > now + MIN_REFUTED_NS {
                self.refuted += 1.0;
            }
            self.fade();
        }
    }

    /// The hint that is neither believed nor refuted, and the time in seconds that was expected instead.
    pub(super) fn doubted(&self) -> Option<(Nanos, f64)> {
        self.doubt.map(|doubt| (doubt.hint, doubt.expected))
    }

    pub(super) const fn on_idle(&mut self) {
        self.doubt = None;
    }

    fn fade(&mut self) {
        if self.confirmed + self.refuted > MAX_REMEMBERED {
            self.confirmed *= FADING;
            self.refuted *= FADING;
        }
    }
}

// What halving and doubling these does is in the table of the module `core`.

/// Shorter hints repeat by chance: they are whole milliseconds.
const MIN_REPEATED_NS: Nanos = 20 * MILLISECOND;
/// Weight of a new hint in the share of those that repeat, and the share from which on they are constant.
const REPEATS_WEIGHT: f64 = 0.2;
const MIN_CONSTANT_SHARE: f64 = 0.5;
/// A hint is doubted above so many times the time that was expected and a request more.
const DOUBT_FACTOR: f64 = 3.0;
/// The shortest hint, in seconds, that is doubted: waiting for it in vain costs little.
const MIN_DOUBTED_S: f64 = 0.3;
/// Long hints are believed at once while fewer than one in so many was refuted.
const MAX_REFUTED_RATIO: f64 = 0.2;
/// Up to so many times the longest that was confirmed, of which so much is kept at each confirmation.
const CREDIBLE_FACTOR: f64 = 1.5;
const LONGEST_DECAY: f64 = 0.95;
/// By how much of the time between them two hints may differ that lead to the same instant.
const MAX_DRIFT: f64 = 0.25;
/// By how much more, in seconds, at most: one request of another process.
const MAX_BLUR_S: f64 = 0.2;
/// How far apart, in seconds, two hints have to be that confirm one another.
const MIN_CONFIRMATION_S: f64 = 0.15;
/// An admission so long before a hint's end refutes it.
const MIN_REFUTED_NS: Nanos = 50 * MILLISECOND;
/// So many long hints are remembered, and what is kept of each count when there are more.
const MAX_REMEMBERED: f64 = 20.0;
const FADING: f64 = 0.9;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = MILLISECOND;

    fn claim(at_ms: Nanos, hint_ms: Nanos) -> Claim {
        Claim {
            decided: at_ms * MS,
            hint: hint_ms * MS,
            reopens: (at_ms + hint_ms) * MS,
            expected: 0.05,
            fill: 0.1,
        }
    }

    #[test]
    fn a_hint_about_as_long_as_expected_is_believed() {
        assert!(Hints::new().believe(&claim(0, 300)));
        assert!(Hints::new().believe(&claim(0, 450)), "three times as long");
        assert!(!Hints::new().believe(&claim(0, 460)));
    }

    #[test]
    fn a_long_hint_is_confirmed_by_one_that_counts_down() {
        let mut hints = Hints::new();
        assert!(!hints.believe(&claim(0, 5_000)));
        assert!(!hints.believe(&claim(100, 4_900)), "too soon to tell");
        assert!(hints.believe(&claim(300, 4_700)));
        assert_eq!(hints.doubted(), None);
    }

    #[test]
    fn a_hint_that_counts_nothing_down_is_never_confirmed() {
        let mut hints = Hints::new();
        for at in [0, 100, 300, 700, 1_100, 1_500] {
            assert!(!hints.believe(&claim(at, 5_000)), "at {at} ms");
        }
    }

    #[test]
    fn long_hints_are_believed_at_once_when_they_were_confirmed_often_enough() {
        let mut hints = Hints::new();
        for round in 0..3 {
            assert!(!hints.believe(&claim(round * 10_000, 5_000)), "round {round}");
            assert!(hints.believe(&claim(round * 10_000 + 400, 4_600)));
        }
        assert!(hints.believe(&claim(90_000, 7_400)));
        assert!(!hints.believe(&claim(99_000, 7_600)), "none was that long");
    }

    #[test]
    fn an_admission_before_the_end_refutes_a_hint() {
        let mut hints = Hints::new();
        for round in 0..2 {
            assert!(!hints.believe(&claim(round * 10_000, 5_000)));
            assert!(hints.believe(&claim(round * 10_000 + 400, 4_600)));
        }
        assert!(!hints.believe(&claim(50_000, 9_000)));
        hints.on_admitted(50_100 * MS);
        assert_eq!(hints.doubted(), None);
        assert!(!hints.believe(&claim(60_000, 5_000)), "one in three was false");
    }

    #[test]
    fn no_hint_is_too_long() {
        let mut hints = Hints::new();
        (0..3).for_each(|_| hints.on_hint(Nanos::MAX));
        hints.on_hint(0);
        let endless = Claim { reopens: Nanos::MAX, ..claim(0, Nanos::MAX / MS) };
        assert!(!hints.believe(&endless));
        assert!(!hints.believe(&claim(200, 600)));
        assert!(!hints.believe(&endless));
    }

    #[test]
    fn hints_that_are_always_the_same_are_constant_and_others_are_not() {
        let mut hints = Hints::new();
        (0..6).for_each(|_| hints.on_hint(1_000 * MS));
        assert!(hints.are_constant());
        (0..6).for_each(|index| hints.on_hint((40 + 7 * index) * MS));
        assert!(!hints.are_constant());
        (0..60).for_each(|_| hints.on_hint(2 * MS));
        assert!(!hints.are_constant(), "on a large PTU all are a few milliseconds");
    }
}
