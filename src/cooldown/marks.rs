//! What of a backend's traffic is refused: marks by kind and by weight.

use std::sync::{OnceLock, atomic::Ordering};

use super::{
    load::{Load, Traffic, Weight},
    slot::Until,
};
use crate::sync::AtomicU64;

/// What a refusal closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// Everything that can be closed.
    Backend,
    /// All of one kind, whatever its weight.
    Kind(Traffic),
    /// What of one kind is about as heavy as this, or heavier.
    From(Traffic, Weight),
}

/// Until when which requests are refused. Each mark holds by itself: a long one for heavy requests
/// closes no lighter ones, and a short one for light requests does not shorten it.
#[derive(Debug)]
pub(super) struct Marks {
    kinds: [OnceLock<Box<KindMarks>>; KINDS],
    /// The last instant at which any of them holds.
    latest: AtomicU64,
}

/// The marks of one kind of traffic.
#[derive(Debug)]
struct KindMarks {
    /// Whatever the weight.
    all: AtomicU64,
    /// Which of `weights` ever were marked: a bit for each.
    marked: AtomicU64,
    weights: [WeightMark; Weight::COUNT],
}

#[derive(Debug)]
struct WeightMark {
    /// Until when requests of this weight are not sent.
    until: AtomicU64,
    /// Until when the service said that it refuses them, which may be longer than is believed.
    said: AtomicU64,
}

/// What closes a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) until: Until,
    pub(super) said: Until,
    /// The lightest weight that this mark closes, unless it closes all.
    pub(super) from: Option<Weight>,
}

impl Marks {
    pub(super) fn new() -> Self {
        Self { kinds: std::array::from_fn(|_| OnceLock::new()), latest: AtomicU64::new(0) }
    }

    /// Closes a kind, or what is heavy of it, until then. A longer time that is known stays.
    pub(super) fn close(&self, traffic: Traffic, from: Option<Weight>, until: Until, said: Until) {
        let Some(kind) = self.kinds.get(traffic as usize) else { return };
        let kind = kind.get_or_init(|| Box::new(KindMarks::new()));
        match from {
            None => raise(&kind.all, until),
            Some(weight) => {
                let mark = &kind.weights[weight.index()];
                raise(&mark.until, until);
                raise(&mark.said, said);
                kind.marked.fetch_or(1 << weight.index(), Ordering::Relaxed);
            }
        }
        raise(&self.latest, until);
    }

    pub(super) fn latest(&self) -> Until {
        Until::read(&self.latest)
    }

    /// What closes this request for longest.
    pub(super) fn of(&self, load: &dyn Load) -> Mark {
        let kind = self.kinds.get(load.traffic() as usize).and_then(OnceLock::get);
        kind.map_or_else(Mark::default, |kind| kind.of(load))
    }
}

impl KindMarks {
    fn new() -> Self {
        let mark = || WeightMark { until: AtomicU64::new(0), said: AtomicU64::new(0) };
        Self {
            all: AtomicU64::new(0),
            marked: AtomicU64::new(0),
            weights: std::array::from_fn(|_| mark()),
        }
    }

    fn of(&self, load: &dyn Load) -> Mark {
        let all = Mark::of_all(Until::read(&self.all));
        let mut marked = self.marked.load(Ordering::Relaxed);
        if marked == 0 {
            return all;
        }
        let (weight, mut longest) = (load.weight(), all);
        while marked != 0 {
            let refused = Weight::at(marked.trailing_zeros() as usize);
            if refused.least_alike() > weight {
                break;
            }
            let WeightMark { until, said } = &self.weights[refused.index()];
            let until = Until::read(until);
            if until > longest.until {
                let from = Some(refused.least_alike());
                longest = Mark { until, said: Until::read(said).max(until), from };
            }
            marked &= marked - 1;
        }
        longest
    }
}

impl Mark {
    pub(super) fn of_all(until: Until) -> Self {
        Self { until, said: until, from: None }
    }
}

/// A store would take the cache line from every reader, so it is made only to change it.
pub(super) fn raise(word: &AtomicU64, until: Until) {
    if Until::read(word) < until {
        word.fetch_max(until.word(), Ordering::Relaxed);
    }
}

/// Those that are marked: all but [`Traffic::Free`].
const KINDS: usize = Traffic::Free as usize;
