//! Whether others fill the same PTU, and how this gate behaves beside them.

use super::time::{MILLISECOND, Nanos, from_seconds, seconds};

/// How a gate behaves when others, processes or applications, fill the same PTU.
///
/// It detects them by attempts that arrive when the PTU should have reopened, with nothing sent in
/// between, and are refused: another client was faster. Alone on a PTU, both variants behave the
/// same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Contention {
    /// Draws lots to sit out openings, more of them the more openings it lost, and looks for capacity
    /// beyond what hints announce the less often, the less it finds.
    ///
    /// The default, since others on a PTU are mostly replicas that do the same. With 4 and 16
    /// processes it makes two thirds and one third of the attempts of [`Compete`](Self::Compete), and
    /// requests that spill do so immediately. Other applications keep what they take.
    #[default]
    Yield,
    /// Makes an attempt at every opening, and before the expected opening when others have just been
    /// faster.
    ///
    /// Use it beside applications that fill the PTU in bursts, or that retry by the rule of the
    /// reference script: only attempts win against those, and a gate that yields to them spills more
    /// than no gate.
    Compete,
}

/// What attempts at openings reveal about others on the same PTU.
#[derive(Clone, Debug)]
pub(super) struct Rivals {
    rule: Contention,
    /// The smoothed share of openings that others took.
    lost: f64,
    /// The smoothed length of hints, in seconds: about half the time between two openings.
    hint: f64,
    /// When the PTU reopens by the last hint, unless something sent since may have closed it again.
    opens_at: Option<Nanos>,
    /// How long after a hint to look for capacity that others left.
    check: Nanos,
}

impl Rivals {
    pub(super) const fn new(rule: Contention) -> Self {
        Self { rule, lost: 0.0, hint: INITIAL_HINT_S, opens_at: None, check: MIN_YIELDING_CHECK_NS }
    }

    /// An attempt that arrived at `arrived`, the only one since the last refusal, was refused for
    /// another `excess`.
    pub(super) fn on_refused_alone(&mut self, arrived: Nanos, excess: Nanos, error: Nanos) {
        if self.opens_at.is_some_and(|at| arrived + MILLISECOND >= at) {
            self.note(excess > error);
        }
    }

    /// An attempt since the last refusal was admitted.
    pub(super) fn on_admitted(&mut self) {
        self.note(false);
    }

    /// The last refusal announced an opening, unless something was sent that it does not account for.
    pub(super) fn on_hint(&mut self, hint: Nanos, opens_at: Option<Nanos>) {
        self.hint += HINT_WEIGHT * (seconds(hint).min(MAX_HINT_S) - self.hint);
        self.opens_at = opens_at;
    }

    /// The level until the opening has become unpredictable: there was no hint, or an answer ended
    /// and the service corrected its estimate by an unknown amount.
    pub(super) const fn on_unknown(&mut self) {
        self.opens_at = None;
    }

    /// Whether others fill the same PTU.
    pub(super) fn are_there(&self) -> bool {
        self.lost > MIN_LOST_SHARE
    }

    /// The share of the last openings that others took.
    pub(super) const fn lost_share(&self) -> f64 {
        self.lost
    }

    /// Whether this gate yields to them.
    pub(super) fn are_yielded_to(&self) -> bool {
        self.rule == Contention::Yield && self.are_there()
    }

    /// How long after a hint this gate makes an early attempt, if it yields.
    pub(super) fn yielding_check(&self) -> Option<Nanos> {
        self.are_yielded_to().then_some(self.check)
    }

    /// An early attempt `found` capacity, or was refused.
    ///
    /// Replicas that yield leave next to nothing after a hint, so the next attempts come later. Another
    /// application that drops what is refused, or sends nothing for a while, leaves the PTU open until
    /// this gate looks, so the next ones come sooner.
    pub(super) fn on_checked(&mut self, found: bool) {
        if self.are_yielded_to() {
            let next = if found { self.check / 2 } else { 2 * self.check };
            self.check = next.clamp(MIN_YIELDING_CHECK_NS, MAX_YIELDING_CHECK_NS);
        }
    }

    /// The share of its cost by which an attempt postpones the next one. The measured rate is what
    /// others left to a gate that asked for no more than that; a gate that keeps to it is left less
    /// and less.
    pub(super) fn pace(&self) -> f64 {
        match self.rule {
            _ if !self.are_there() => 1.0,
            Contention::Yield => YIELDING_PACE,
            Contention::Compete => COMPETING_PACE,
        }
    }

    /// The share of a predicted wait to count on.
    pub(super) fn wait_factor(&self) -> f64 {
        match self.rule {
            Contention::Yield => 1.0,
            Contention::Compete => 1.0 - MAX_WAIT_DISCOUNT * self.lost,
        }
    }

    /// How long to leave openings to others after `refusals` in a row, by a `draw` from 0 to 1:
    /// binary exponential backoff, as on shared Ethernet (IEEE 802.3), with openings for slots.
    pub(super) fn passed_over(&self, refusals: u32, draw: f64) -> Nanos {
        if !self.are_yielded_to() || refusals < 2 {
            return 0;
        }
        let slots = f64::from(2_u32.pow((refusals - 1).min(MAX_DOUBLINGS)) - 1);
        from_seconds((draw * slots * self.hint).min(MAX_PASSED_OVER_S))
    }

    fn note(&mut self, is_lost: bool) {
        self.lost += LOST_WEIGHT * (f64::from(u8::from(is_lost)) - self.lost);
    }
}

// The table in `core/mod.rs` shows the effect of halving and doubling these.

/// Weight of a new attempt in the share of openings that others took.
const LOST_WEIGHT: f64 = 0.05;
/// The share of lost openings above which others are present. Alone, it is zero but for errors.
const MIN_LOST_SHARE: f64 = 0.15;
/// The share of its cost by which an attempt postpones the next one when others are present.
const YIELDING_PACE: f64 = 0.6;
const COMPETING_PACE: f64 = 0.2;
/// The largest discount on a predicted wait for a gate that competes, when others take every opening:
/// they leave more once they have fewer requests to send.
const MAX_WAIT_DISCOUNT: f64 = 0.6;
/// Weight of a new hint, the longest hint counted, in seconds, and the value before the first one.
const HINT_WEIGHT: f64 = 0.05;
const MAX_HINT_S: f64 = 1.0;
const INITIAL_HINT_S: f64 = 0.05;
/// The number of openings to draw from doubles at most this often.
const MAX_DOUBLINGS: u32 = 4;
/// How long after a hint to look for capacity that others left: at first and at the soonest, as when
/// alone; and at the latest.
pub(super) const MIN_YIELDING_CHECK_NS: Nanos = 300 * MILLISECOND;
const MAX_YIELDING_CHECK_NS: Nanos = 2_500 * MILLISECOND;
/// The longest time to leave openings to others, in seconds.
const MAX_PASSED_OVER_S: f64 = 0.45;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = MILLISECOND;

    #[test]
    fn it_takes_several_lost_openings_to_detect_others() {
        let mut rivals = Rivals::new(Contention::Yield);
        let lose = |rivals: &mut Rivals| {
            rivals.on_hint(40 * MS, Some(40 * MS));
            rivals.on_refused_alone(40 * MS, 30 * MS, 8 * MS);
        };
        (0..3).for_each(|_| lose(&mut rivals));
        assert!(!rivals.are_there(), "a few are lost to errors");
        (0..3).for_each(|_| lose(&mut rivals));
        assert!(rivals.are_there());
        (0..60).for_each(|_| rivals.on_admitted());
        assert!(!rivals.are_there(), "they left");
    }

    #[test]
    fn only_an_attempt_in_time_can_lose_an_opening() {
        let mut rivals = Rivals::new(Contention::Yield);
        for _ in 0..50 {
            rivals.on_hint(40 * MS, Some(40 * MS));
            rivals.on_refused_alone(30 * MS, 10 * MS, 8 * MS);
            rivals.on_refused_alone(40 * MS, 5 * MS, 8 * MS);
            rivals.on_hint(40 * MS, None);
            rivals.on_refused_alone(90 * MS, 30 * MS, 8 * MS);
            rivals.on_unknown();
            rivals.on_refused_alone(90 * MS, 30 * MS, 8 * MS);
        }
        assert!(!rivals.are_there(), "too soon, by too little, or with others of its own");
    }

    #[test]
    fn it_looks_for_capacity_the_more_often_the_more_it_finds() {
        let mut rivals = Rivals::new(Contention::Yield);
        (0..5).for_each(|_| rivals.on_checked(false));
        assert_eq!(rivals.yielding_check(), None, "it is alone");
        rivals.lost = 0.5;
        assert_eq!(
            rivals.yielding_check(),
            Some(MIN_YIELDING_CHECK_NS),
            "what it did alone says nothing"
        );
        rivals.on_checked(false);
        assert_eq!(rivals.yielding_check(), Some(600 * MS));
        (0..9).for_each(|_| rivals.on_checked(false));
        assert_eq!(rivals.yielding_check(), Some(MAX_YIELDING_CHECK_NS));
        rivals.on_checked(true);
        assert_eq!(rivals.yielding_check(), Some(MAX_YIELDING_CHECK_NS / 2));
        (0..9).for_each(|_| rivals.on_checked(true));
        assert_eq!(rivals.yielding_check(), Some(MIN_YIELDING_CHECK_NS));
        rivals.rule = Contention::Compete;
        assert_eq!(rivals.yielding_check(), None);
    }

    #[test]
    fn the_more_often_it_lost_the_more_openings_are_drawn_from() {
        let mut rivals = Rivals::new(Contention::Yield);
        assert_eq!(rivals.passed_over(9, 1.0), 0, "it is alone");
        rivals.lost = 0.5;
        let longest = |refusals| seconds(rivals.passed_over(refusals, 1.0));
        assert_eq!([0, 1].map(longest), [0.0, 0.0], "the first opening is everybody's");
        assert_eq!([2, 3, 4].map(longest), [0.05, 0.15, 0.35]);
        assert_eq!(longest(40), MAX_PASSED_OVER_S);
        assert_eq!(rivals.passed_over(9, 0.0), 0, "a lot may be the next one");
    }

    #[test]
    fn the_more_openings_others_took_the_less_of_a_wait_one_that_competes_counts_on() {
        let mut rivals = Rivals::new(Contention::Compete);
        assert_eq!((rivals.pace(), rivals.wait_factor()), (1.0, 1.0), "it is alone");
        rivals.lost = 0.5;
        assert_eq!((rivals.pace(), rivals.wait_factor()), (COMPETING_PACE, 0.7));
        rivals.rule = Contention::Yield;
        assert_eq!((rivals.pace(), rivals.wait_factor()), (YIELDING_PACE, 1.0));
    }

    #[test]
    fn a_gate_that_competes_skips_no_opening_and_never_yields() {
        let mut rivals = Rivals::new(Contention::Compete);
        rivals.on_hint(40 * MS, Some(40 * MS));
        (0..9).for_each(|_| rivals.on_refused_alone(40 * MS, 30 * MS, 8 * MS));
        assert_eq!(rivals.passed_over(9, 1.0), 0);
        assert!(rivals.are_there() && !rivals.are_yielded_to());
    }
}
