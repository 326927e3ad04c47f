//! Until when each of a few backends refuses, and which of them fail, shared by all clones.
//!
//! A backend that refuses is closed for a while. A backend that fails is never closed, only
//! *deferred*: called after those that do not fail. [`Slot`] holds the atomic words of one backend
//! and the rules that tie them together: until when it refuses, and its
//! [`Circuit`](circuit::Circuit), which decides from the outcomes of many requests whether it fails,
//! and lets one request at a time probe whether it has recovered. [`Cooldowns`] is a row of slots
//! with the epoch of their instants, and with what is known of [blocks](ClosedBlocks) of them.

mod blocks;
mod circuit;
mod failure_count;
mod load;
mod marks;
mod slot;
mod watch;

use std::{
    cell::LazyCell,
    num::NonZeroU32,
    ops::Range,
    time::{Duration, Instant},
};

use self::{
    blocks::ClosedBlocks,
    marks::LoadMark,
    slot::{Slot, Until, to_nanos},
};
pub(crate) use self::{
    circuit::{Failure, Seen, Taken},
    load::{Load, Traffic, Weight},
    marks::Closed,
    slot::CooldownReason,
    watch::Watch,
};

/// The cooldowns and failures of a few backends.
#[derive(Debug)]
pub(crate) struct Cooldowns {
    /// The epoch of all words, which cannot hold an `Instant`.
    epoch: Instant,
    slots: Box<[Slot]>,
    blocks: ClosedBlocks,
}

/// A snapshot of one kind's cooldown at one backend, for [`Cooldowns::reopen`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClosedUntil(Until);

/// When the first of a few backends reopens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NextOpen {
    /// The time until then; zero if one is open.
    pub(crate) left: Duration,
    /// The service's own hint, which is longer if it is not believed.
    pub(crate) said: Duration,
    /// Why that backend is cooling down.
    pub(crate) why: Option<CooldownReason>,
    /// The fewest tokens that it refuses, unless it refuses everything.
    pub(crate) from: Option<NonZeroU32>,
}

impl Cooldowns {
    /// `len` backends without cooldowns. An instant before `epoch` counts as `epoch`.
    pub(crate) fn new(len: usize, epoch: Instant) -> Self {
        let slots = (0..len).map(|_| Slot::new()).collect();
        Self { epoch, slots, blocks: ClosedBlocks::new(len) }
    }

    /// Whether the backend is open for `load`: it neither refuses it nor is deferred.
    pub(crate) fn is_open(&self, index: usize, now: Instant, load: &dyn Load) -> bool {
        self.open_at(now, load)(index)
    }

    /// Which backends are open for `load`: those that neither refuse it nor are deferred. For a load
    /// that no backend refuses, those that refuse nothing. The instant is converted once, and only if
    /// a backend has ever refused or failed.
    #[inline]
    pub(crate) fn open_at(&self, now: Instant, load: &dyn Load) -> impl Fn(usize) -> bool {
        let now = LazyCell::new(move || self.nanos(now));
        move |index| self.slots[index].is_open(|| *now, load)
    }

    /// Whether the backend refuses `load`, failing or not.
    pub(crate) fn refuses(&self, index: usize, now: Instant, load: &dyn Load) -> bool {
        self.refusing_at(now, load)(index)
    }

    /// Which backends refuse `load`; the instant is converted once.
    pub(crate) fn refusing_at(&self, now: Instant, load: &dyn Load) -> impl Fn(usize) -> bool {
        let now = LazyCell::new(move || self.nanos(now));
        move |index| {
            let slot = &self.slots[index];
            !slot.is_untouched() && slot.refuses(*now, load)
        }
    }

    /// The backends of `range` without those of blocks that are closed to all requests of the kind of
    /// `load`. Whether each of the others is open remains to be checked.
    pub(crate) fn perhaps_open(
        &self,
        range: Range<usize>,
        now: Instant,
        load: &dyn Load,
    ) -> impl Iterator<Item = usize> {
        let (now, traffic) = (self.nanos(now), load.traffic());
        let is_closed = move |block: &Range<usize>| {
            self.blocks.closed(&self.slots, block.start, now, traffic).is_some()
        };
        ClosedBlocks::of(range).filter(move |block| !is_closed(block)).flatten()
    }

    /// How much longer the backend refuses anything; `None` if it does not.
    #[inline]
    pub(crate) fn remaining(&self, index: usize, now: Instant) -> Option<Duration> {
        let slot = &self.slots[index];
        // The usual case needs no arithmetic.
        if slot.is_untouched() { None } else { slot.remaining(self.nanos(now)) }
    }

    /// Closes the whole backend for `rest`.
    pub(crate) fn rest(&self, index: usize, now: Instant, rest: Duration) {
        self.close(index, Closed::Backend, now, (rest, rest), CooldownReason::Refused);
    }

    /// Closes what a refusal is about for the first of the two times; the second is the service's own
    /// hint. A longer cooldown that is already known stays, because two requests that were refused
    /// together may report in either order.
    pub(crate) fn close(
        &self,
        index: usize,
        closed: Closed,
        now: Instant,
        (rest, said): (Duration, Duration),
        why: CooldownReason,
    ) {
        let now = self.nanos(now);
        let until = |time| Until::new(now.saturating_add(to_nanos(time)), why);
        self.slots[index].close(closed, until(rest), until(said));
        let is_heavy = matches!(closed, Closed::From(..));
        self.blocks.forget(index, is_heavy.then(|| until(rest)));
    }

    /// When the first of `indices` accepts `load` again. One whose quota is used up comes last, since
    /// it is not worth waiting for.
    pub(crate) fn next_open(
        &self,
        indices: impl Iterator<Item = usize>,
        now: Instant,
        load: &dyn Load,
    ) -> NextOpen {
        let traffic = load.traffic();
        let marks = indices.map(|index| self.slots[index].mark(traffic, load));
        Self::soonest(marks, self.nanos(now))
    }

    /// [`next_open`](Self::next_open) among all backends.
    pub(crate) fn next_open_of_all(&self, now: Instant, load: &dyn Load) -> NextOpen {
        let (nanos, traffic) = (self.nanos(now), load.traffic());
        let mut soonest = None;
        for block in ClosedBlocks::of(0..self.slots.len()) {
            match self.blocks.reopens(&self.slots, block.start, nanos, traffic) {
                Some(until) => soonest = Some(soonest.map_or(until, |known| until.min(known))),
                // One may be open, or weights or quotas matter.
                None => return self.next_open(0..self.slots.len(), now, load),
            }
        }
        Self::soonest(soonest.map(LoadMark::of_all).into_iter(), nanos)
    }

    fn soonest(marks: impl Iterator<Item = LoadMark>, now: u64) -> NextOpen {
        let is_closed = |mark: &LoadMark| mark.until.nanos() > now;
        let soonest = marks.min_by_key(|mark| match is_closed(mark) {
            true => Some((mark.until.why() == CooldownReason::Quota, mark.said)),
            false => None,
        });
        let left = |until: Until| Duration::from_nanos(until.nanos().saturating_sub(now));
        match soonest.filter(is_closed) {
            Some(LoadMark { until, said, from }) => NextOpen {
                left: left(until),
                said: left(said),
                why: Some(until.why()),
                from: from.and_then(Weight::tokens),
            },
            None => NextOpen { left: Duration::ZERO, said: Duration::ZERO, why: None, from: None },
        }
    }

    /// The first of `indices` to reopen for `load`.
    pub(crate) fn first_to_open(
        &self,
        indices: impl Iterator<Item = usize>,
        load: &dyn Load,
    ) -> Option<usize> {
        let traffic = load.traffic();
        indices.min_by_key(|&index| self.slots[index].mark(traffic, load).until)
    }

    /// Until when a whole kind of traffic is known to be refused, for [`reopen`](Self::reopen).
    pub(crate) fn closed(&self, index: usize, traffic: Traffic) -> ClosedUntil {
        ClosedUntil(self.slots[index].closed(traffic))
    }

    /// The backend served a request that was sent while `seen` was known, which disproves `seen`.
    pub(crate) fn reopen(&self, index: usize, traffic: Traffic, seen: ClosedUntil) {
        self.slots[index].reopen(traffic, seen.0);
        self.blocks.forget(index, None);
    }

    /// How much longer the backend is deferred because it fails; `None` if it is not.
    pub(crate) fn deferred(&self, index: usize, now: Instant) -> Option<Duration> {
        let slot = &self.slots[index];
        if slot.is_untouched() { None } else { slot.deferred(self.nanos(now)) }
    }

    /// Whether a failure or a refusal of the backend is on record.
    pub(crate) fn is_noted(&self, index: usize, now: Instant) -> bool {
        let slot = &self.slots[index];
        !slot.is_untouched() && slot.is_noted(self.nanos(now))
    }

    /// How many times in a row the backend was found to fail, up to 255.
    pub(crate) fn failures(&self, index: usize, now: Instant) -> u32 {
        self.slots[index].failures(self.nanos(now))
    }

    /// Begins an attempt at a backend; `None` if its outcome changes nothing. A deferred backend is
    /// called only as the `last_resort`. The outcome goes to [`answered`](Self::answered),
    /// [`fail`](Self::fail) or [`leave`](Self::leave).
    #[inline]
    pub(crate) fn enter(
        &self,
        index: usize,
        now: Instant,
        last_resort: bool,
    ) -> Result<Option<Seen>, Taken> {
        let slot = &self.slots[index];
        if slot.is_untouched() { Ok(None) } else { slot.enter(self.nanos(now), last_resort) }
    }

    /// The attempt proved nothing.
    pub(crate) fn leave(&self, index: usize, seen: Seen) {
        self.slots[index].leave(seen);
    }

    /// The backend answered the attempt.
    pub(crate) fn answered(&self, index: usize, seen: Seen, now: Instant) {
        self.slots[index].answered(seen, self.nanos(now));
    }

    /// A connection to the backend stands, but the attempt has no answer yet.
    pub(crate) fn connected(&self, index: usize, seen: Seen) {
        self.slots[index].connected(seen);
    }

    /// An attempt failed. If that shows that the backend is failing, it is deferred for `rest`, given
    /// the number of times in a row.
    ///
    /// That takes several failures: five of requests, fewer of connections, and at least as many as
    /// there are answers. A failure that may be the request's fault is reported only after another
    /// backend has answered the request.
    pub(crate) fn fail(
        &self,
        index: usize,
        seen: Option<Seen>,
        failure: Failure,
        now: Instant,
        rest: impl FnOnce(u32) -> Duration,
    ) {
        self.slots[index].fail(seen.unwrap_or(Seen::WELL), failure, self.nanos(now), rest);
    }

    fn nanos(&self, now: Instant) -> u64 {
        to_nanos(now.saturating_duration_since(self.epoch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const ANY: (Traffic, Weight) = (Traffic::Tokens, Weight::HEAVIEST);

    #[test]
    fn a_backend_rests_until_exactly_the_instant_named() {
        let (cooldowns, now) = (Cooldowns::new(2, epoch()), epoch());
        cooldowns.rest(1, now, SECOND);
        assert!(cooldowns.is_open(0, now, &ANY));
        assert!(!cooldowns.is_open(1, now, &ANY));
        assert!(!cooldowns.is_open(1, now + SECOND - Duration::from_nanos(1), &ANY));
        assert!(cooldowns.is_open(1, now + SECOND, &ANY));
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
        assert_eq!(cooldowns.next_open(0..3, now, &ANY).left, Duration::ZERO);
        cooldowns.rest(2, now, 4 * SECOND);
        assert_eq!(cooldowns.next_open(0..3, now, &ANY).left, 3 * SECOND);
        assert_eq!(cooldowns.next_open(0..3, now + 2 * SECOND, &ANY).left, SECOND);
    }

    #[test]
    fn a_quota_is_reported_only_while_nothing_else_reopens() {
        let (cooldowns, now) = (Cooldowns::new(2, epoch()), epoch());
        cooldowns.close(0, Closed::Backend, now, (2 * SECOND, 2 * SECOND), CooldownReason::Quota);
        let open = NextOpen { left: Duration::ZERO, said: Duration::ZERO, why: None, from: None };
        assert_eq!(cooldowns.next_open(0..2, now, &ANY), open, "the other one is open");
        cooldowns.rest(1, now, 3 * SECOND);
        let refused = NextOpen {
            left: 3 * SECOND,
            said: 3 * SECOND,
            why: Some(CooldownReason::Refused),
            from: None,
        };
        assert_eq!(cooldowns.next_open(0..2, now, &ANY), refused, "that one is worth waiting for");
        cooldowns.close(1, Closed::Backend, now, (4 * SECOND, 4 * SECOND), CooldownReason::Quota);
        let spent = NextOpen {
            left: 2 * SECOND,
            said: 2 * SECOND,
            why: Some(CooldownReason::Quota),
            from: None,
        };
        assert_eq!(cooldowns.next_open(0..2, now, &ANY), spent);
    }

    #[test]
    fn an_endless_rest_does_not_overflow() {
        let (cooldowns, now) = (Cooldowns::new(1, epoch()), epoch());
        cooldowns.rest(0, now + SECOND, Duration::MAX);
        assert!(!cooldowns.is_open(0, now + SECOND, &ANY));
    }

    #[expect(clippy::disallowed_methods, reason = "an instant can be had in no other way")]
    fn epoch() -> Instant {
        use std::sync::OnceLock;
        static EPOCH: OnceLock<Instant> = OnceLock::new();
        *EPOCH.get_or_init(Instant::now)
    }
}

/// Run like the gate's model: `.ci/run loom`.
#[cfg(all(test, spillover_loom))]
mod loom_model {
    use std::sync::Arc;

    use loom::thread;

    use super::*;
    use crate::sync::clock;

    #[test]
    fn the_longer_of_two_cooldowns_stays_and_never_shrinks() {
        loom::model(|| {
            let now = clock::now();
            let cooldowns = Arc::new(Cooldowns::new(1, now));
            let closing = [2, 3].map(|seconds| {
                let cooldowns = Arc::clone(&cooldowns);
                thread::spawn(move || cooldowns.rest(0, now, Duration::from_secs(seconds)))
            });
            let earlier = cooldowns.remaining(0, now);
            assert!(cooldowns.remaining(0, now) >= earlier);
            closing.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!(cooldowns.remaining(0, now), Some(Duration::from_secs(3)));
        });
    }
}
