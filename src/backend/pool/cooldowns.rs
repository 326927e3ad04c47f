//! Until when each backend is known to refuse: one atomic word each, shared by all clones.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use crate::sync::AtomicU64;

/// Until when each of a few backends is known to refuse.
///
/// Reading is one relaxed load. Nothing is published through these words but the instants
/// themselves, so no stronger ordering is needed.
#[derive(Debug)]
pub(crate) struct Cooldowns {
    /// What the words count from; they could not hold an `Instant`.
    epoch: Instant,
    /// Nanoseconds since `epoch`; zero for a backend that never refused.
    until: Box<[AtomicU64]>,
}

impl Cooldowns {
    /// None of `len` backends is known to refuse. No time before `epoch` can be told.
    pub(crate) fn new(len: usize, epoch: Instant) -> Self {
        Self { epoch, until: (0..len).map(|_| AtomicU64::new(0)).collect() }
    }

    pub(crate) fn is_open(&self, index: usize, now: Instant) -> bool {
        self.remaining(index, now).is_none()
    }

    /// How long the backend will go on refusing; `None` when it is open.
    pub(crate) fn remaining(&self, index: usize, now: Instant) -> Option<Duration> {
        let until = self.until[index].load(Ordering::Relaxed);
        if until == 0 {
            return None; // The usual case needs no arithmetic.
        }
        let left = until.saturating_sub(self.nanos(now));
        (left > 0).then(|| Duration::from_nanos(left))
    }

    /// The backend rests for `rest`. A longer rest that is already known stays: two requests that
    /// were refused together may report in either order.
    pub(crate) fn rest(&self, index: usize, now: Instant, rest: Duration) {
        let until = self.nanos(now).saturating_add(to_nanos(rest));
        let word = &self.until[index];
        // A store would take the cache line from every reader, so it is made only to change it.
        if word.load(Ordering::Relaxed) < until {
            word.fetch_max(until, Ordering::Relaxed);
        }
    }

    /// How long until the first of the backends is open; zero when one is.
    pub(crate) fn soonest(&self, now: Instant) -> Duration {
        let earliest = self.until.iter().map(|word| word.load(Ordering::Relaxed)).min();
        Duration::from_nanos(earliest.unwrap_or(0).saturating_sub(self.nanos(now)))
    }

    /// The one of `indices` that reopens first.
    pub(crate) fn first_to_open(&self, indices: impl Iterator<Item = usize>) -> Option<usize> {
        indices.min_by_key(|&index| self.until[index].load(Ordering::Relaxed))
    }

    fn nanos(&self, now: Instant) -> u64 {
        to_nanos(now.saturating_duration_since(self.epoch))
    }
}

/// 584 years fit.
fn to_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

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
        assert_eq!(cooldowns.soonest(now), Duration::ZERO);
        cooldowns.rest(2, now, 4 * SECOND);
        assert_eq!(cooldowns.soonest(now), 3 * SECOND);
        assert_eq!(cooldowns.soonest(now + 2 * SECOND), SECOND);
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
