//! Judges the hints of refusals: believed, probed, or treated as absent.

use super::time::{MILLISECOND, NEVER, Nanos, seconds};

/// Decides which hints to believe.
///
/// A hint is evidence. A hint that fits the model, or is not much longer than a request takes to
/// drain, is believed. A longer one is *doubted*: the gate probes when the model expects the PTU to
/// reopen, and then at growing intervals. A second refusal whose hint points to the same instant
/// confirms the first; an admission before that instant refutes it. Once enough long hints have been
/// confirmed for each refuted one, they are believed immediately.
///
/// A hint that is the same every time does not count down: it measures nothing, and is treated as
/// absent.
#[derive(Clone, Debug)]
pub(super) struct Hints {
    last: Nanos,
    /// The smoothed share of hints that repeated the previous one.
    repeats: f64,
    doubt: Option<Doubt>,
    /// How many long hints were confirmed and refuted; old ones fade.
    confirmed: f64,
    refuted: f64,
    /// The longest recent hint that was confirmed, in seconds.
    longest: f64,
}

/// A hint that is neither believed nor refuted yet.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    /// When the PTU gave it.
    at: Nanos,
    /// When the PTU reopens, according to it.
    reopens: Nanos,
    hint: Nanos,
    /// How long the model expected the PTU to stay closed instead, in seconds.
    expected: f64,
}

/// A hint, and what the model expected instead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    /// When the PTU decided to refuse.
    pub(super) decided: Nanos,
    pub(super) hint: Nanos,
    /// When the PTU reopens according to the hint, with everything sent since.
    pub(super) reopens: Nanos,
    /// How long the model expected the PTU to stay closed, in seconds.
    pub(super) expected: f64,
    /// How long a request takes to drain, in seconds, before its answer corrects the estimate.
    pub(super) fill: f64,
}

impl Hints {
    pub(super) const fn new() -> Self {
        Self { last: NEVER, repeats: 0.0, doubt: None, confirmed: 0.5, refuted: 0.5, longest: 0.0 }
    }

    /// Records a hint that came after the last one was known.
    pub(super) fn on_hint(&mut self, hint: Nanos) {
        let repeats = hint > MIN_REPEATED_NS && hint.saturating_sub(self.last).abs() <= MILLISECOND;
        self.repeats += REPEATS_WEIGHT * (f64::from(u8::from(repeats)) - self.repeats);
        self.last = hint;
    }

    /// Whether every hint is the same.
    pub(super) fn are_constant(&self) -> bool {
        self.repeats >= MIN_CONSTANT_SHARE
    }

    /// The hint that every refusal carries, if they are constant.
    pub(super) fn constant(&self) -> Option<Nanos> {
        self.are_constant().then_some(self.last)
    }

    /// Whether to believe `claim`. If not, it is doubted from now on.
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
                // Two equal hints are that close, too, if one is given right after the other.
                if apart < MIN_CONFIRMATION_S.max(2.0 * blur) {
                    return false;
                }
                self.doubt = None;
                self.confirmed += 1.0;
                self.longest =
                    (LONGEST_HINT_DECAY * self.longest).max(seconds(doubt.reopens - doubt.at));
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

    /// The doubted hint, and the time in seconds that the model expected instead.
    pub(super) fn doubted(&self) -> Option<(Nanos, f64)> {
        self.doubt.map(|doubt| (doubt.hint, doubt.expected))
    }

    pub(super) const fn on_idle(&mut self) {
        self.doubt = None;
    }

    fn fade(&mut self) {
        if self.confirmed + self.refuted > MAX_REMEMBERED {
            self.confirmed *= FADE_FACTOR;
            self.refuted *= FADE_FACTOR;
        }
    }
}

// The table in `core/mod.rs` shows the effect of halving and doubling these.

/// Shorter hints repeat by chance, since they are whole milliseconds.
const MIN_REPEATED_NS: Nanos = 20 * MILLISECOND;
/// Weight of a new hint in the share of repeats, and the share at which hints count as constant.
const REPEATS_WEIGHT: f64 = 0.2;
const MIN_CONSTANT_SHARE: f64 = 0.5;
/// A hint is doubted above this multiple of the expected time plus one request.
const DOUBT_FACTOR: f64 = 3.0;
/// The shortest hint that is doubted, in seconds: believing a shorter false one costs little.
const MIN_DOUBTED_S: f64 = 0.3;
/// Long hints are believed immediately while refuted ones are below this share of confirmed ones.
const MAX_REFUTED_RATIO: f64 = 0.2;
/// The longest believed hint as a multiple of the longest confirmed one, and the share of that kept
/// at each confirmation.
const CREDIBLE_FACTOR: f64 = 1.5;
const LONGEST_HINT_DECAY: f64 = 0.95;
/// How much two hints for the same instant may differ, as a share of the time between them.
const MAX_DRIFT: f64 = 0.25;
/// The most they may differ on top of that, in seconds: one request of another process.
const MAX_BLUR_S: f64 = 0.2;
/// The shortest time between two hints, in seconds, for one to confirm the other.
const MIN_CONFIRMATION_S: f64 = 0.15;
/// An admission at least this long before the end of a hint refutes it.
const MIN_REFUTED_NS: Nanos = 50 * MILLISECOND;
/// How many long hints are remembered, and the share of each count kept beyond that.
const MAX_REMEMBERED: f64 = 20.0;
const FADE_FACTOR: f64 = 0.9;

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
        assert!(!hints.believe(&claim(100, 4_900)), "too soon to confirm");
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
