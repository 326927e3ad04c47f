//! Which of a backend's traffic is refused: marks by kind and by weight.

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
    /// All traffic of one kind, whatever its weight.
    Kind(Traffic),
    /// Requests of one kind that are about this heavy, or heavier.
    From(Traffic, Weight),
}

impl Closed {
    /// A number for other processes.
    pub(crate) const fn code(self) -> u32 {
        match self {
            Self::Backend => 0,
            Self::Kind(traffic) => traffic as u32 + 1,
            Self::From(traffic, weight) => {
                (traffic as u32 + 1) | (weight.index() as u32 + 1) << WEIGHT_SHIFT
            }
        }
    }

    /// What has this number, if anything.
    pub(crate) fn of_code(code: u32) -> Option<Self> {
        let (kind, weight) = (code & ((1 << WEIGHT_SHIFT) - 1), (code >> WEIGHT_SHIFT) as usize);
        let traffic = (kind as usize).checked_sub(1).and_then(|index| Traffic::ALL.get(index));
        match (traffic, weight) {
            (None, _) => (code == 0).then_some(Self::Backend),
            (Some(&traffic), 0) => Some(Self::Kind(traffic)),
            (Some(&traffic), 1..=Weight::COUNT) => {
                Some(Self::From(traffic, Weight::at(weight - 1)))
            }
            _ => None,
        }
    }
}

/// Above the kinds of traffic.
const WEIGHT_SHIFT: u32 = 8;

/// Until when which requests are refused. Each mark holds by itself: a long one for heavy requests
/// closes no lighter ones, and a short one for light requests does not shorten it.
#[derive(Debug, Default)]
pub(super) struct Marks([OnceLock<Box<KindMarks>>; KINDS]);

/// The marks of one kind of traffic.
#[derive(Debug)]
struct KindMarks {
    /// For every weight.
    all: AtomicU64,
    /// Which of `weights` were ever marked, one bit each.
    marked: AtomicU64,
    weights: [WeightMark; Weight::COUNT],
}

#[derive(Debug)]
struct WeightMark {
    /// Until when requests of this weight are not sent.
    until: AtomicU64,
    /// The service's own hint, which may be longer than what is believed.
    said: AtomicU64,
}

/// The mark that closes a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LoadMark {
    pub(super) until: Until,
    pub(super) said: Until,
    /// The lightest weight that this mark closes, unless it closes all.
    pub(super) from: Option<Weight>,
}

impl Marks {
    /// Closes a kind, or its heavy requests, until then. A longer mark that is known stays.
    pub(super) fn close(&self, traffic: Traffic, from: Option<Weight>, until: Until, said: Until) {
        let Some(kind) = self.0.get(traffic as usize) else { return };
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
    }

    /// Until when the whole kind is closed.
    pub(super) fn of_kind(&self, traffic: Traffic) -> Option<&AtomicU64> {
        self.0.get(traffic as usize).and_then(OnceLock::get).map(|kind| &kind.all)
    }

    /// Until when anything is closed.
    pub(super) fn latest(&self) -> Until {
        let kinds = self.0.iter().filter_map(OnceLock::get);
        let words = kinds.flat_map(|kind| {
            std::iter::once(&kind.all).chain(kind.weights.iter().map(|weight| &weight.until))
        });
        words.map(Until::read).max().unwrap_or_default()
    }

    /// Whether any mark closes `load`, which is of this kind.
    pub(super) fn refuse(&self, now: u64, traffic: Traffic, load: &dyn Load) -> bool {
        let kind = self.0.get(traffic as usize).and_then(OnceLock::get);
        kind.is_some_and(|kind| {
            Until::read(&kind.all).nanos() > now
                || kind.marked.load(Ordering::Relaxed) != 0 && kind.of(load).until.nanos() > now
        })
    }

    /// The longest mark that closes this request, which is of this kind.
    pub(super) fn of(&self, traffic: Traffic, load: &dyn Load) -> LoadMark {
        let kind = self.0.get(traffic as usize).and_then(OnceLock::get);
        kind.map_or_else(LoadMark::default, |kind| kind.of(load))
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

    fn of(&self, load: &dyn Load) -> LoadMark {
        let all = LoadMark::of_all(Until::read(&self.all));
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
                longest = LoadMark { until, said: Until::read(said).max(until), from };
            }
            marked &= marked - 1;
        }
        longest
    }
}

impl LoadMark {
    pub(super) fn of_all(until: Until) -> Self {
        Self { until, said: until, from: None }
    }
}

/// A store would invalidate the cache line of every reader, so store only changes.
pub(super) fn raise(word: &AtomicU64, until: Until) {
    if Until::read(word) < until {
        word.fetch_max(until.word(), Ordering::Relaxed);
    }
}

/// Kinds that can be marked: all but [`Traffic::Free`].
pub(super) const KINDS: usize = Traffic::Free as usize;

#[cfg(all(test, not(spillover_loom)))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        clock,
        cooldown::{CooldownReason, Cooldowns},
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn tokens(tokens: f64) -> (Traffic, Weight) {
        (Traffic::Tokens, Weight::of(tokens))
    }

    #[test]
    fn a_kind_is_closed_alone_and_the_backend_with_all_but_what_is_free() {
        let now = clock::now();
        let cooldowns = Cooldowns::new(1, now);
        let close =
            |closed| cooldowns.close(0, closed, now, (SECOND, SECOND), CooldownReason::Refused);
        close(Closed::Kind(Traffic::Flex));
        for (traffic, is_closed) in [(Traffic::Flex, true), (Traffic::Tokens, false)] {
            assert_eq!(cooldowns.refuses(0, now, &(traffic, Weight::HEAVIEST)), is_closed);
        }
        let read = (Traffic::Free, Weight::of(0.0));
        assert!(!cooldowns.is_open(0, now, &read), "another is better");
        close(Closed::Backend);
        assert!(cooldowns.refuses(0, now, &(Traffic::Video, Weight::of(0.0))));
        assert!(!cooldowns.refuses(0, now, &read));
        assert!(cooldowns.is_open(0, now + SECOND, &tokens(1e6)));
    }

    #[test]
    fn each_mark_keeps_its_time_and_its_word_and_the_longest_that_is_about_it_closes_a_request() {
        let now = clock::now();
        let cooldowns = Cooldowns::new(1, now);
        for (weight, rest, said) in [(90_000.0, 60, 86_400), (9_000.0, 2, 2), (90_000.0, 30, 30)] {
            let closed = Closed::From(Traffic::Tokens, Weight::of(weight));
            let times = (rest * SECOND, said * SECOND);
            cooldowns.close(0, closed, now, times, CooldownReason::Refused);
        }
        for (weight, left, said, from) in [
            (1_000.0, 0, 0, false),
            (8_000.0, 2, 2, true),
            (40_000.0, 2, 2, true),
            (80_000.0, 60, 86_400, true),
        ] {
            let next = cooldowns.next_open(0..1, now, &tokens(weight));
            assert_eq!((next.left, next.said), (left * SECOND, said * SECOND), "{weight}");
            assert_eq!(next.from.is_some(), from);
        }
        assert!(cooldowns.is_open(0, now + 2 * SECOND, &tokens(40_000.0)));
        assert_eq!(cooldowns.remaining(0, now), Some(60 * SECOND));
    }

    #[test]
    fn what_is_closed_has_a_number_that_other_processes_read() {
        let kinds = Traffic::ALL.map(Closed::Kind);
        let weights = (0..Weight::COUNT).flat_map(|weight| {
            Traffic::ALL.map(|traffic| Closed::From(traffic, Weight::at(weight)))
        });
        for closed in [Closed::Backend].into_iter().chain(kinds).chain(weights) {
            assert_eq!(Closed::of_code(closed.code()), Some(closed));
        }
        for code in [10, 255, 256, 1 | 65 << 8, u32::MAX] {
            assert_eq!(Closed::of_code(code), None, "{code}");
        }
        // The numbers are stored: they must not change with the order of the kinds.
        assert_eq!(Closed::Kind(Traffic::Tokens).code(), 1);
        assert_eq!(Closed::Kind(Traffic::Free).code(), 9);
    }
}
