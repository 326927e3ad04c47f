//! Which blocks of 64 backends refuse a whole kind of traffic, so that a search skips them.

use std::{ops::Range, sync::atomic::Ordering};

use super::{
    load::Traffic,
    marks::{KINDS, raise},
    slot::{CooldownReason, Slot, Until},
};
use crate::sync::{AtomicU64, fence};

/// When the first backend of each block reopens, for each kind of traffic.
///
/// A search for an open backend of a thousand reads one word for each 64 of them while those are
/// closed. A word is computed when it is first needed, and forgotten when a cooldown of its block
/// changes. Only searches that found no open backend at random read it.
#[derive(Debug)]
pub(super) struct ClosedBlocks(Box<[Block]>);

#[derive(Debug)]
struct Block {
    /// How often a cooldown of its backends has changed.
    changes: AtomicU64,
    /// Until when all of its backends refuse the whole kind. Zero, or past, if that is unknown.
    closed: [AtomicU64; KINDS],
    /// Until when any of them refuses heavy requests of any kind for longer than light ones.
    heavy: AtomicU64,
}

impl ClosedBlocks {
    /// The blocks of this many backends, all unknown.
    pub(super) fn new(len: usize) -> Self {
        let block = || Block {
            changes: AtomicU64::new(0),
            closed: std::array::from_fn(|_| AtomicU64::new(0)),
            heavy: AtomicU64::new(0),
        };
        Self((0..len.div_ceil(BLOCK)).map(|_| block()).collect())
    }

    /// When the first backend of the block of `index` reopens for this kind of traffic; `None` if one
    /// may be open, or is closed only for heavy requests.
    #[inline]
    pub(super) fn closed(
        &self,
        slots: &[Slot],
        index: usize,
        now: u64,
        traffic: Traffic,
    ) -> Option<Until> {
        let word = self.0[index / BLOCK].closed.get(traffic as usize)?;
        let until = Until::read(word);
        if until.nanos() > now { Some(until) } else { self.find(slots, index, now, traffic) }
    }

    /// The same if the instant is the same for requests of every weight, and worth waiting for.
    pub(super) fn reopens(
        &self,
        slots: &[Slot],
        index: usize,
        now: u64,
        traffic: Traffic,
    ) -> Option<Until> {
        if Until::read(&self.0[index / BLOCK].heavy).nanos() > now {
            return None;
        }
        let until = self.closed(slots, index, now, traffic)?;
        (until.why() != CooldownReason::Quota).then_some(until)
    }

    /// The parts of `backends` in each block.
    pub(super) fn of(backends: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let blocks = backends.start / BLOCK..backends.end.div_ceil(BLOCK);
        blocks.map(move |block| {
            let (start, end) = (block * BLOCK, (block + 1) * BLOCK);
            start.max(backends.start)..end.min(backends.end)
        })
    }

    #[inline(never)]
    fn find(&self, slots: &[Slot], index: usize, now: u64, traffic: Traffic) -> Option<Until> {
        let block = &self.0[index / BLOCK];
        let before = block.changes.load(Ordering::Acquire);
        let mut soonest = Until::MAX;
        let start = index / BLOCK * BLOCK;
        for slot in &slots[start..slots.len().min(start + BLOCK)] {
            let until = slot.kind_closed(traffic);
            if until.nanos() <= now {
                return None;
            }
            soonest = soonest.min(until);
        }
        let word = &block.closed[traffic as usize];
        word.store(soonest.word(), Ordering::Relaxed);
        // Either this sees the change of another thread, or that thread forgets the word just stored.
        fence(Ordering::SeqCst);
        if block.changes.load(Ordering::Relaxed) != before {
            word.store(0, Ordering::Relaxed);
        }
        Some(soonest)
    }

    /// The cooldown of a backend has changed. `heavy`: until when it refuses heavy requests only.
    pub(super) fn forget(&self, index: usize, heavy: Option<Until>) {
        let block = &self.0[index / BLOCK];
        if let Some(until) = heavy {
            raise(&block.heavy, until);
        }
        block.changes.fetch_add(1, Ordering::Release);
        fence(Ordering::SeqCst);
        for word in &block.closed {
            if word.load(Ordering::Relaxed) != 0 {
                word.store(0, Ordering::Relaxed);
            }
        }
    }
}

/// As many as one bit of a word each, so that a thousand backends are 16 blocks.
const BLOCK: usize = 64;

#[cfg(all(test, not(spillover_loom)))]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        clock,
        cooldown::{Closed, Cooldowns, Load, Weight},
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn any_load() -> impl Strategy<Value = (Traffic, Weight)> {
        let traffic = prop::sample::select(vec![Traffic::Tokens, Traffic::Flex, Traffic::Free]);
        (traffic, prop::sample::select(vec![100.0, 10_000.0]).prop_map(Weight::of))
    }

    /// A step in the life of a pool of 130 backends, in three blocks.
    #[derive(Clone, Debug)]
    enum Step {
        Close(Range<usize>, (Traffic, Weight), bool, (u8, u8), CooldownReason),
        Reopen(Range<usize>, Traffic),
        Pass(u8),
    }

    fn any_step() -> impl Strategy<Value = Step> {
        let range = || {
            prop_oneof![
                Just(0..64),
                Just(64..128),
                Just(0..130),
                (0..130_usize).prop_map(|i| i..i + 1)
            ]
        };
        let why = prop::sample::select(vec![
            CooldownReason::Assumed,
            CooldownReason::Refused,
            CooldownReason::Quota,
        ]);
        prop_oneof![
            4 => (range(), any_load(), any::<bool>(), (1..9_u8, 0..9_u8), why)
                .prop_map(|(range, load, is_heavy, times, why)| {
                    Step::Close(range, load, is_heavy, times, why)
                }),
            1 => (range(), any_load()).prop_map(|(range, load)| Step::Reopen(range, load.0)),
            2 => (0..5_u8).prop_map(Step::Pass),
        ]
    }

    fn take(cooldowns: &Cooldowns, now: &mut Instant, step: Step) {
        match step {
            Step::Close(range, (traffic, weight), is_heavy, (rest, more), why) => {
                let closed = match traffic {
                    Traffic::Free => Closed::Backend,
                    _ if is_heavy => Closed::From(traffic, weight),
                    _ => Closed::Kind(traffic),
                };
                let rest = SECOND * u32::from(rest);
                for index in range {
                    let times = (rest, rest + SECOND * u32::from(more));
                    cooldowns.close(index, closed, *now, times, why);
                }
            }
            Step::Reopen(range, traffic) => range.for_each(|index| {
                cooldowns.reopen(index, traffic, cooldowns.closed(index, traffic));
            }),
            Step::Pass(seconds) => *now += SECOND * u32::from(seconds),
        }
    }

    proptest! {
        #[test]
        fn a_search_by_blocks_finds_what_one_by_one_is_found(
            steps in prop::collection::vec((any_step(), any_load()), 1..40),
        ) {
            let mut now = clock::now();
            let cooldowns = Cooldowns::new(130, now);
            for (step, load) in steps {
                take(&cooldowns, &mut now, step);
                let open = cooldowns.open_at(now, &load);
                let one_by_one: Vec<_> = (3..129).filter(|&index| open(index)).collect();
                let perhaps = cooldowns.perhaps_open(3..129, now, &load);
                let by_blocks: Vec<_> = perhaps.filter(|&index| open(index)).collect();
                prop_assert_eq!(by_blocks, one_by_one);
                let accepts = |index: &usize| !cooldowns.refuses(*index, now, &load);
                let one_by_one: Vec<_> = (0..130).filter(accepts).collect();
                let perhaps = cooldowns.perhaps_open(0..130, now, &load);
                let by_blocks: Vec<_> = perhaps.filter(accepts).collect();
                prop_assert_eq!(by_blocks, one_by_one);
                prop_assert_eq!(
                    cooldowns.next_open_of_all(now, &load),
                    cooldowns.next_open(0..130, now, &load)
                );
            }
        }
    }

    #[test]
    fn a_closed_pool_is_found_closed_at_once_until_a_backend_reopens() {
        let now = clock::now();
        let cooldowns = Cooldowns::new(130, now);
        let load = (Traffic::Tokens, Weight::HEAVIEST);
        let is_closed = |now| cooldowns.perhaps_open(0..130, now, &load).next().is_none();
        for index in 0..130 {
            assert!(!is_closed(now), "{index} is open");
            let times = (SECOND, SECOND);
            let closed = Closed::Kind(load.traffic());
            cooldowns.close(index, closed, now, times, CooldownReason::Refused);
        }
        assert!(is_closed(now) && !is_closed(now + SECOND));
        cooldowns.reopen(70, Traffic::Tokens, cooldowns.closed(70, Traffic::Tokens));
        assert!(!is_closed(now));
    }
}

/// Run like the gate's model: `.ci/run loom`.
#[cfg(all(test, spillover_loom))]
mod loom_model {
    use std::{sync::Arc, time::Duration};

    use loom::thread;

    use crate::{
        cooldown::{Closed, CooldownReason, Cooldowns, Traffic, Weight},
        sync::clock,
    };

    #[test]
    fn a_backend_that_reopens_is_not_hidden_by_a_search_at_that_time() {
        loom::model(|| {
            let (now, load) = (clock::now(), (Traffic::Tokens, Weight::HEAVIEST));
            let cooldowns = Arc::new(Cooldowns::new(1, now));
            let times = (Duration::from_secs(1), Duration::from_secs(1));
            let closed = Closed::Kind(Traffic::Tokens);
            cooldowns.close(0, closed, now, times, CooldownReason::Refused);
            let reopening = {
                let cooldowns = Arc::clone(&cooldowns);
                thread::spawn(move || {
                    let seen = cooldowns.closed(0, Traffic::Tokens);
                    cooldowns.reopen(0, Traffic::Tokens, seen);
                })
            };
            let is_closed =
                |cooldowns: &Cooldowns| cooldowns.perhaps_open(0..1, now, &load).next().is_none();
            is_closed(&cooldowns);
            reopening.join().unwrap();
            assert!(!is_closed(&cooldowns));
        });
    }
}
