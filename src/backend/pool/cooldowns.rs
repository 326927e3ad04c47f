//! Until when each backend is known to refuse: one atomic word each, shared by all clones.

use std::{
    cell::LazyCell,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use super::circuit::{Circuit, PROBE_LASTS};
use crate::sync::AtomicU64;

/// Until when each of a few backends is known to refuse.
///
/// Reading is one relaxed load. Nothing is published through these words but the instants
/// themselves, so no stronger ordering is needed.
#[derive(Debug)]
pub(crate) struct Cooldowns {
    /// What the words count from; they could not hold an `Instant`.
    epoch: Instant,
    slots: Box<[Slot]>,
}

#[derive(Debug)]
struct Slot {
    /// Nanoseconds since the epoch, and below them why; zero for a backend that never rested.
    until: AtomicU64,
    circuit: Circuit,
}

/// Why a backend rests. Of two rests that end together, the later one here counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Why {
    Refused = 0,
    Failed = 1,
    /// Nobody waits for it.
    Quota = 2,
}

/// When the first of a few backends is open again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reopening {
    /// How long until then; zero when one is open.
    pub(crate) left: Duration,
    /// What that one rests for.
    pub(crate) why: Option<Why>,
}

impl Why {
    const fn of(word: u64) -> Self {
        match word & WHY {
            0 => Self::Refused,
            1 => Self::Failed,
            _ => Self::Quota,
        }
    }
}

impl Cooldowns {
    /// None of `len` backends is known to refuse. No time before `epoch` can be told.
    pub(crate) fn new(len: usize, epoch: Instant) -> Self {
        let slot = |_| Slot { until: AtomicU64::new(0), circuit: Circuit::new() };
        Self { epoch, slots: (0..len).map(slot).collect() }
    }

    pub(crate) fn is_open(&self, index: usize, now: Instant) -> bool {
        self.open_at(now)(index)
    }

    /// Tells which backends are open. The instant is converted once, and for those alone that ever
    /// rested.
    #[inline]
    pub(super) fn open_at(&self, now: Instant) -> impl Fn(usize) -> bool {
        let now = LazyCell::new(move || self.nanos(now));
        move |index| {
            let slot = &self.slots[index];
            slot.until.load(Ordering::Relaxed) == 0 || slot.reopens(*now).is_none()
        }
    }

    /// How long the backend will go on refusing; `None` when it is open.
    #[inline]
    pub(crate) fn remaining(&self, index: usize, now: Instant) -> Option<Duration> {
        let slot = &self.slots[index];
        // The usual case needs no arithmetic.
        if slot.until.load(Ordering::Relaxed) == 0 { None } else { slot.remaining(self.nanos(now)) }
    }

    /// The backend rests for `rest`. A longer rest that is already known stays: two requests that
    /// were refused together may report in either order.
    pub(crate) fn rest(&self, index: usize, now: Instant, rest: Duration) {
        self.rest_for(index, now, rest, Why::Refused);
    }

    /// The backend rests for `rest`, and is known to do so for a reason.
    pub(crate) fn rest_for(&self, index: usize, now: Instant, rest: Duration, why: Why) {
        let until = self.nanos(now).saturating_add(to_nanos(rest)).min(u64::MAX >> WHY_BITS);
        let until = until << WHY_BITS | u64::from(why as u8);
        let word = &self.slots[index].until;
        // A store would take the cache line from every reader, so it is made only to change it.
        if word.load(Ordering::Relaxed) < until {
            word.fetch_max(until, Ordering::Relaxed);
        }
    }

    /// When the first of the backends is open; one whose quota is used up comes last, as nobody
    /// waits for it.
    pub(crate) fn soonest(&self, now: Instant) -> Reopening {
        self.soonest_of(0..self.slots.len(), now)
    }

    /// When the first of `indices` is open.
    pub(super) fn soonest_of(
        &self,
        indices: impl Iterator<Item = usize>,
        now: Instant,
    ) -> Reopening {
        let now = self.nanos(now);
        let until = |index: usize| self.slots[index].reopens(now).unwrap_or(now << WHY_BITS);
        let soonest = indices.map(until).min_by_key(|&until| (Why::of(until) == Why::Quota, until));
        let soonest = soonest.unwrap_or_default();
        let left = Duration::from_nanos((soonest >> WHY_BITS).saturating_sub(now));
        Reopening { left, why: (!left.is_zero()).then(|| Why::of(soonest)) }
    }

    /// The one of `indices` that reopens first, of those that refused. What failed, or is under
    /// probe, may not be there at all.
    pub(crate) fn first_to_open(
        &self,
        indices: impl Iterator<Item = usize>,
        now: Instant,
    ) -> Option<usize> {
        let is_there = |&index: &usize| {
            !self.is_failing(index, now) && !self.circuit(index).is_probed(self.millis(now))
        };
        let there = indices.filter(is_there);
        there.min_by_key(|&index| self.slots[index].until.load(Ordering::Relaxed))
    }

    pub(super) fn circuit(&self, index: usize) -> &Circuit {
        &self.slots[index].circuit
    }

    /// The circuit of a backend that ever rested.
    pub(super) fn circuit_of_rested(&self, index: usize) -> Option<&Circuit> {
        let slot = &self.slots[index];
        (slot.until.load(Ordering::Relaxed) != 0).then_some(&slot.circuit)
    }

    /// Whether the backend rests, whoever finds out whether it is back.
    pub(super) fn is_resting(&self, index: usize, now: Instant) -> bool {
        self.slots[index].until.load(Ordering::Relaxed) >> WHY_BITS > self.nanos(now)
    }

    /// Whether the backend rests since it failed.
    pub(super) fn is_failing(&self, index: usize, now: Instant) -> bool {
        let why = self.slots[index].until.load(Ordering::Relaxed) & WHY;
        why == Why::Failed as u64 && self.is_resting(index, now)
    }

    /// Milliseconds since the epoch.
    pub(super) fn millis(&self, now: Instant) -> u64 {
        self.nanos(now) / NANOS_IN_MS
    }

    fn nanos(&self, now: Instant) -> u64 {
        to_nanos(now.saturating_duration_since(self.epoch))
    }
}

impl Slot {
    #[inline(never)]
    fn remaining(&self, now: u64) -> Option<Duration> {
        self.reopens(now).map(|until| Duration::from_nanos((until >> WHY_BITS) - now))
    }

    /// When the backend is open, with the reason below as in `until`; `None` when it is.
    fn reopens(&self, now: u64) -> Option<u64> {
        let until = self.until.load(Ordering::Relaxed);
        if until >> WHY_BITS > now {
            return Some(until);
        }
        let is_probed = until != 0 && self.circuit.is_probed(now / NANOS_IN_MS);
        is_probed.then(|| (now + to_nanos(PROBE_LASTS)) << WHY_BITS | Why::Failed as u64)
    }
}

/// 584 years fit, and 146 beside the reason.
fn to_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

const WHY_BITS: u32 = 2;
const WHY: u64 = (1 << WHY_BITS) - 1;
const NANOS_IN_MS: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_backend_rests_until_exactly_the_instant_named() {
        let (cooldowns, now) = (Cooldowns::new(2, epoch()), epoch());
        cooldowns.rest(1, now, SECOND);
        assert!(cooldowns.is_open(0, now));
        assert!(!cooldowns.is_open(1, now));
        assert!(!cooldowns.is_open(1, now + SECOND - Duration::from_nanos(1)));
        assert!(cooldowns.is_open(1, now + SECOND));
        assert_eq!(cooldowns.remaining(1, now), Some(SECOND));
        assert_eq!(cooldowns.remaining(1, now + SECOND), None);
    }

    #[test]
    fn a_shorter_rest_does_not_shorten_a_longer_one() {
        let (cooldowns, now) = (Cooldowns::new(1, epoch()), epoch());
        cooldowns.rest(0, now, 2 * SECOND);
        cooldowns.rest(0, now, SECOND);
        assert_eq!(cooldowns.remaining(0, now), Some(2 * SECOND));
        cooldowns.rest(0, now, 3 * SECOND);
        assert_eq!(cooldowns.remaining(0, now), Some(3 * SECOND));
    }

    #[test]
    fn the_soonest_is_the_minimum_and_zero_while_one_is_open() {
        let (cooldowns, now) = (Cooldowns::new(3, epoch()), epoch());
        cooldowns.rest(0, now, 5 * SECOND);
        cooldowns.rest(1, now, 3 * SECOND);
        assert_eq!(cooldowns.soonest(now).left, Duration::ZERO);
        cooldowns.rest(2, now, 4 * SECOND);
        assert_eq!(cooldowns.soonest(now).left, 3 * SECOND);
        assert_eq!(cooldowns.soonest(now + 2 * SECOND).left, SECOND);
    }

    #[test]
    fn a_quota_is_told_only_while_nothing_else_reopens() {
        let (cooldowns, now) = (Cooldowns::new(2, epoch()), epoch());
        cooldowns.rest_for(0, now, 2 * SECOND, Why::Quota);
        let open = Reopening { left: Duration::ZERO, why: None };
        assert_eq!(cooldowns.soonest(now), open, "the other one is open");
        cooldowns.rest(1, now, 3 * SECOND);
        let refused = Reopening { left: 3 * SECOND, why: Some(Why::Refused) };
        assert_eq!(cooldowns.soonest(now), refused, "that one is worth waiting for");
        cooldowns.rest_for(1, now, 4 * SECOND, Why::Quota);
        let spent = Reopening { left: 2 * SECOND, why: Some(Why::Quota) };
        assert_eq!(cooldowns.soonest(now), spent);
    }

    #[test]
    fn an_endless_rest_does_not_overflow() {
        let (cooldowns, now) = (Cooldowns::new(1, epoch()), epoch());
        cooldowns.rest(0, now + SECOND, Duration::MAX);
        assert!(!cooldowns.is_open(0, now + SECOND));
    }

    #[expect(clippy::disallowed_methods, reason = "an instant can be had in no other way")]
    fn epoch() -> Instant {
        use std::sync::OnceLock;
        static EPOCH: OnceLock<Instant> = OnceLock::new();
        *EPOCH.get_or_init(Instant::now)
    }
}

/// Run like the model of the gate: `cargo test --lib loom_` with `--cfg spillover_loom`.
#[cfg(all(test, spillover_loom))]
mod loom_model {
    use std::sync::Arc;

    use loom::thread;

    use super::*;
    use crate::sync::clock;

    #[test]
    fn the_longest_of_two_rests_stays_and_nobody_sees_it_shrink() {
        loom::model(|| {
            let now = clock::now();
            let cooldowns = Arc::new(Cooldowns::new(1, now));
            let resting = [2, 3].map(|seconds| {
                let cooldowns = Arc::clone(&cooldowns);
                thread::spawn(move || cooldowns.rest(0, now, Duration::from_secs(seconds)))
            });
            let earlier = cooldowns.remaining(0, now);
            assert!(cooldowns.remaining(0, now) >= earlier);
            resting.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!(cooldowns.remaining(0, now), Some(Duration::from_secs(3)));
        });
    }
}
