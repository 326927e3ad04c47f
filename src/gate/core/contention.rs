//! Whether others fill the same PTU, and how this gate behaves beside them.

use super::time::{MILLISECOND, Nanos, from_seconds, seconds};

/// How a gate behaves where others, other processes or other applications, fill the same PTU.
///
/// It tells that by attempts which arrive when the PTU should have reopened, with nothing sent in
/// between, and are refused: somebody else was sooner. Alone on a PTU, both do the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Contention {
    /// Draws lots for the next openings, the more of them the more often it lost, and seldom looks for
    /// capacity that nobody announced.
    ///
    /// The default, since others on a PTU are mostly replicas that do the same: with 4 and 16 processes it
    /// makes two thirds and a third of the attempts of [`Compete`](Self::Compete), and what spills does so
    /// at once. Other applications are left what they take.
    #[default]
    Yield,
    /// Asks at every opening, and before it is expected where others have just been sooner.
    ///
    /// Right beside applications that fill the PTU in bursts, or that ask again and again by the reference
    /// rule: against them only attempts win, and by yielding the gate spills more than without it.
    Compete,
}

/// What attempts at openings say about others on the same PTU.
#[derive(Clone, Debug)]
pub(super) struct Rivals {
    rule: Contention,
    /// The smoothed share of openings that somebody else took.
    lost: f64,
    /// The smoothed length of hints, in seconds: about half the time between two openings.
    hint: f64,
    /// When the PTU reopens by the last hint, if nothing that was sent can have closed it again.
    opens_at: Option<Nanos>,
}

impl Rivals {
    pub(super) const fn new(rule: Contention) -> Self {
        Self { rule, lost: 0.0, hint: INITIAL_HINT_S, opens_at: None }
    }

    /// An attempt that arrived at `arrived` was refused for `excess` more, the only one since the last
    /// refusal.
    pub(super) fn on_refused_alone(&mut self, arrived: Nanos, excess: Nanos, error: Nanos) {
        if self.opens_at.is_some_and(|at| arrived + MILLISECOND >= at) {
            self.note(excess > error);
        }
    }

    /// An attempt since the last refusal was admitted.
    pub(super) fn on_admitted(&mut self) {
        self.note(false);
    }

    /// The last refusal led to an opening, unless something was sent that it does not know of.
    pub(super) fn on_hint(&mut self, hint: Nanos, opens_at: Option<Nanos>) {
        self.hint += HINT_WEIGHT * (seconds(hint).min(MAX_HINT_S) - self.hint);
        self.opens_at = opens_at;
    }

    /// What the level does until the opening is not known any more: there was no hint, or an answer ended
    /// and the service corrected its estimate by nobody knows how much.
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

    /// Whether it gives way to them.
    pub(super) fn are_yielded_to(&self) -> bool {
        self.rule == Contention::Yield && self.are_there()
    }

    /// The share of its cost by which an attempt puts the next one off. The measured rate is what others
    /// left to a gate that asked for no more than that: one that keeps to it is left less and less.
    pub(super) fn pace(&self) -> f64 {
        match self.rule {
            _ if !self.are_there() => 1.0,
            Contention::Yield => YIELDING_PACE,
            Contention::Compete => COMPETING_PACE,
        }
    }

    /// The share of a predicted wait that counts.
    pub(super) fn hope(&self) -> f64 {
        match self.rule {
            Contention::Yield => 1.0,
            Contention::Compete => 1.0 - MAX_HOPE * self.lost,
        }
    }

    /// For how long openings are left to others after so many refusals in a row, by a `draw` from 0 to
    /// 1: binary exponential backoff, as on a shared cable (IEEE 802.3), with openings for slots.
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

// What halving and doubling these does is in the table of the module `core`.

/// Weight of a new attempt in the share of openings that others took.
const LOST_WEIGHT: f64 = 0.05;
/// Others are there when they took more than this share. Alone, it is zero but for errors.
const MIN_LOST_SHARE: f64 = 0.15;
/// The share of its cost by which an attempt puts off the next one beside others.
const YIELDING_PACE: f64 = 0.6;
const COMPETING_PACE: f64 = 0.2;
/// By which share a predicted wait may turn out shorter for one that competes, where others take every
/// opening: they leave more as soon as they have less to ask for.
const MAX_HOPE: f64 = 0.6;
/// Weight of a new hint, its longest length in seconds, and the length before the first one.
const HINT_WEIGHT: f64 = 0.05;
const MAX_HINT_S: f64 = 1.0;
const INITIAL_HINT_S: f64 = 0.05;
/// How often the number of openings to draw from is doubled.
const MAX_DOUBLINGS: u32 = 4;
/// The longest time, in seconds, for which openings are left to others.
const MAX_PASSED_OVER_S: f64 = 0.45;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = MILLISECOND;

    #[test]
    fn it_takes_several_lost_openings_to_tell_that_others_are_there() {
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
    fn only_who_came_in_time_can_have_lost() {
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
        assert_eq!((rivals.pace(), rivals.hope()), (1.0, 1.0), "it is alone");
        rivals.lost = 0.5;
        assert_eq!((rivals.pace(), rivals.hope()), (COMPETING_PACE, 0.7));
        rivals.rule = Contention::Yield;
        assert_eq!((rivals.pace(), rivals.hope()), (YIELDING_PACE, 1.0));
    }

    #[test]
    fn who_competes_passes_nothing_over_and_yields_to_nobody() {
        let mut rivals = Rivals::new(Contention::Compete);
        rivals.on_hint(40 * MS, Some(40 * MS));
        (0..9).for_each(|_| rivals.on_refused_alone(40 * MS, 30 * MS, 8 * MS));
        assert_eq!(rivals.passed_over(9, 1.0), 0);
        assert!(rivals.are_there() && !rivals.are_yielded_to());
    }
}
