//! Until when one backend refuses, and whether it fails: both atomic words and their rules.

use std::{sync::atomic::Ordering, time::Duration};

use super::circuit::{Circuit, PROBE_LASTS, Taken};
use crate::sync::AtomicU64;

/// What is known of one backend. Instants are nanoseconds since the epoch of all slots.
///
/// Reading is one relaxed load. Nothing is published through `until` but the instant itself, so no
/// stronger ordering is needed.
#[derive(Debug)]
pub(super) struct Slot {
    /// Nanoseconds since the epoch, and below them why; zero for a backend that never rested.
    until: AtomicU64,
    circuit: Circuit,
}

/// Why a backend is cooling down. Of two cooldowns that end together, the later one here counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum CooldownReason {
    Refused = 0,
    Failed = 1,
    /// Not worth waiting for.
    Quota = 2,
}

/// When a backend reopens, and what it rests for until then: the contents of a slot's first word.
/// Zero for one that never rested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Until(u64);

impl Until {
    const fn new(nanos: u64, why: CooldownReason) -> Self {
        let longest = u64::MAX >> WHY_BITS;
        let nanos = if nanos < longest { nanos } else { longest };
        Self(nanos << WHY_BITS | why as u64)
    }

    /// For a backend that is open at `now`.
    pub(super) const fn open(now: u64) -> Self {
        Self(now << WHY_BITS)
    }

    pub(super) const fn nanos(self) -> u64 {
        self.0 >> WHY_BITS
    }

    pub(super) const fn why(self) -> CooldownReason {
        match self.0 & WHY {
            0 => CooldownReason::Refused,
            1 => CooldownReason::Failed,
            _ => CooldownReason::Quota,
        }
    }
}

impl Slot {
    pub(super) fn new() -> Self {
        Self { until: AtomicU64::new(0), circuit: Circuit::new() }
    }

    /// Whether it never rested, which needs no clock to know.
    #[inline]
    pub(super) fn is_untouched(&self) -> bool {
        self.until() == Until::default()
    }

    /// Whether the backend is open; `now` is asked for only when it ever rested.
    #[inline]
    pub(super) fn is_open(&self, now: impl FnOnce() -> u64) -> bool {
        let until = self.until();
        until == Until::default() || self.reopens_by(until, now()).is_none()
    }

    pub(super) fn until(&self) -> Until {
        Until(self.until.load(Ordering::Relaxed))
    }

    #[inline(never)]
    pub(super) fn remaining(&self, now: u64) -> Option<Duration> {
        self.reopens(now).map(|until| Duration::from_nanos(until.nanos() - now))
    }

    /// When the backend is open, and what it rests for; `None` when it is.
    pub(super) fn reopens(&self, now: u64) -> Option<Until> {
        self.reopens_by(self.until(), now)
    }

    /// [`reopens`](Self::reopens), of which the first word was read.
    #[inline]
    fn reopens_by(&self, until: Until, now: u64) -> Option<Until> {
        if until.nanos() > now {
            return Some(until);
        }
        let is_probed = until != Until::default() && self.circuit.is_probed(millis(now));
        is_probed.then(|| Until::new(now + to_nanos(PROBE_LASTS), CooldownReason::Failed))
    }

    /// The backend rests until then, unless a longer rest is already known.
    pub(super) fn cool_down_until(&self, nanos: u64, why: CooldownReason) {
        let Until(until) = Until::new(nanos, why);
        // A store would take the cache line from every reader, so it is made only to change it.
        if self.until.load(Ordering::Relaxed) < until {
            self.until.fetch_max(until, Ordering::Relaxed);
        }
    }

    /// Whether the backend rests, probed or not.
    pub(super) fn is_cooling_down(&self, now: u64) -> bool {
        self.until().nanos() > now
    }

    /// Whether the backend rests since it failed.
    pub(super) fn is_failing(&self, now: u64) -> bool {
        let until = self.until();
        until.why() == CooldownReason::Failed && until.nanos() > now
    }

    /// Whether a request is finding out whether the backend is back.
    pub(super) fn is_probed(&self, now: u64) -> bool {
        self.circuit.is_probed(millis(now))
    }

    pub(super) fn failures(&self) -> u32 {
        self.circuit.failures()
    }

    /// Claims the probe of a backend that is open; `None` when it needs none. A claim is to be given
    /// back by [`leave`](Self::leave).
    pub(super) fn enter(&self, now: u64) -> Result<Option<u64>, Taken> {
        let claim = self.circuit.claim(millis(now))?;
        if let Some(claim) = claim
            && self.is_cooling_down(now)
        {
            // It failed again between the two looks.
            self.circuit.end(claim, false);
            return Err(Taken);
        }
        Ok(claim)
    }

    /// Gives a claim back.
    pub(super) fn leave(&self, claim: u64, is_back: bool) {
        self.circuit.end(claim, is_back);
    }

    /// The backend failed, and rests for as long as `rest` gives for that many failures in a row.
    ///
    /// Requests that were under way together when it went down fail together: while it rests for
    /// the first of them, the others are no further failure, even if it rests for longer because it
    /// refused another.
    pub(super) fn fail(&self, now: u64, rest: impl Fn(u32) -> Duration) {
        let is_counted = self.failures() > 0 && self.is_cooling_down(now);
        if !is_counted && !self.is_failing(now) {
            self.count(None, now, rest);
        }
    }

    /// The probe of `claim` failed, which counts though it rests for what it refused another.
    pub(super) fn fail_probe(&self, claim: u64, now: u64, rest: impl Fn(u32) -> Duration) {
        if self.circuit.is_probed_by(claim) {
            self.count(Some(claim), now, rest);
        } else {
            // It hung for so long that others went on without it.
            self.fail(now, rest);
        }
    }

    fn count(&self, claim: Option<u64>, now: u64, rest: impl Fn(u32) -> Duration) {
        self.circuit.fail(claim, millis(now), |failures| {
            self.cool_down_until(
                now.saturating_add(to_nanos(rest(failures))),
                CooldownReason::Failed,
            );
        });
    }
}

/// 584 years fit, and 146 beside the reason.
pub(super) fn to_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn millis(nanos: u64) -> u64 {
    nanos / NANOS_IN_MS
}

const WHY_BITS: u32 = 2;
const WHY: u64 = (1 << WHY_BITS) - 1;
const NANOS_IN_MS: u64 = 1_000_000;

#[cfg(all(test, not(spillover_loom)))]
mod tests {
    use super::*;
    use crate::{clock, cooldown::Cooldowns};

    const SECOND: Duration = Duration::from_secs(1);

    fn doubling(failures: u32) -> Duration {
        SECOND * 2u32.pow(failures - 1)
    }

    #[test]
    fn failures_in_a_row_make_longer_rests_and_a_success_forgets_them() {
        let epoch = clock::now();
        let cooldowns = Cooldowns::new(1, epoch);
        let mut now = epoch;
        assert_eq!(cooldowns.failures(0), 0);
        for seconds in [1, 2, 4] {
            cooldowns.fail(0, now, doubling);
            assert_eq!(cooldowns.remaining(0, now), Some(seconds * SECOND));
            now += seconds * SECOND;
        }
        let claim = cooldowns.enter(0, now).expect("nobody asks").expect("it failed last");
        assert_eq!(cooldowns.failures(0), 3, "it is not back yet");
        cooldowns.leave(0, claim, true);
        assert_eq!(cooldowns.failures(0), 0);
        assert!(matches!(cooldowns.enter(0, now), Ok(None)), "no probe is needed");
        cooldowns.fail(0, now, doubling);
        assert_eq!(cooldowns.remaining(0, now), Some(SECOND));
    }

    #[test]
    fn requests_that_fail_together_are_one_failure() {
        let now = clock::now();
        let cooldowns = Cooldowns::new(1, now);
        (0..100).for_each(|_| cooldowns.fail(0, now, doubling));
        assert_eq!(cooldowns.remaining(0, now), Some(SECOND));
    }

    #[test]
    fn failures_beside_a_refusal_are_one_while_it_lasts() {
        let epoch = clock::now();
        let cooldowns = Cooldowns::new(1, epoch);
        cooldowns.rest(0, epoch, 3 * SECOND);
        (0..10).for_each(|_| cooldowns.fail(0, epoch, doubling));
        assert_eq!(cooldowns.failures(0), 1);
        cooldowns.fail(0, epoch + 3 * SECOND, doubling);
        assert_eq!(cooldowns.failures(0), 2, "it was open again");
    }

    #[test]
    fn while_a_probe_is_under_way_only_its_own_failure_counts() {
        let epoch = clock::now();
        let (cooldowns, now) = (Cooldowns::new(1, epoch), epoch + SECOND);
        cooldowns.fail(0, epoch, doubling);
        let claim = cooldowns.enter(0, now).expect("nobody asks").expect("it failed last");
        cooldowns.fail(0, now, doubling);
        assert_eq!(cooldowns.failures(0), 1, "another was sent before");
        cooldowns.fail_probe(0, claim, now, doubling);
        assert_eq!((cooldowns.failures(0), cooldowns.remaining(0, now)), (2, Some(2 * SECOND)));
        let (claim, hung) = (claim, now + 2 * SECOND);
        assert!(matches!(cooldowns.enter(0, hung), Ok(Some(_))));
        cooldowns.fail_probe(0, claim, hung, doubling);
        assert_eq!(cooldowns.failures(0), 2, "that was the probe before");
        let later = hung + 61 * SECOND;
        let another = cooldowns.enter(0, later).expect("one that hangs").expect("it failed last");
        cooldowns.fail_probe(0, another, later, doubling);
        cooldowns.fail_probe(0, claim, later, doubling);
        assert_eq!(cooldowns.failures(0), 3, "while it rests");
    }

    #[test]
    fn one_request_at_a_time_finds_out_whether_it_is_back() {
        let epoch = clock::now();
        let (cooldowns, now) = (Cooldowns::new(1, epoch), epoch + SECOND);
        cooldowns.fail(0, epoch, doubling);
        let claim = cooldowns.enter(0, now).expect("nobody asks").expect("it failed last");
        assert!(!cooldowns.is_open(0, now) && cooldowns.enter(0, now).is_err());
        assert_eq!(cooldowns.next_open(now).left, PROBE_LASTS);
        cooldowns.leave(0, claim, false);
        assert!(cooldowns.is_open(0, now), "it left that to the next");
        assert!(matches!(cooldowns.enter(0, now), Ok(Some(_))));
        assert!(cooldowns.is_open(0, now + 61 * SECOND), "one that hangs is not waited for");
    }

    #[test]
    fn a_refusal_alone_needs_no_probe() {
        let epoch = clock::now();
        let cooldowns = Cooldowns::new(1, epoch);
        cooldowns.rest(0, epoch, SECOND);
        assert!(matches!(cooldowns.enter(0, epoch + SECOND), Ok(None)));
    }
}

/// Run like the model of the gate: `cargo test --lib loom_` with `--cfg spillover_loom`.
#[cfg(all(test, spillover_loom))]
mod loom_model {
    use std::sync::Arc;

    use loom::thread;

    use super::*;
    use crate::{cooldown::Cooldowns, sync::clock};

    #[test]
    fn of_two_requests_one_finds_out_and_none_does_so_while_it_rests() {
        loom::model(|| {
            let epoch = clock::now();
            let (second, now) = (Duration::from_secs(1), epoch + Duration::from_secs(1));
            let cooldowns = Arc::new(Cooldowns::new(1, epoch));
            cooldowns.fail(0, epoch, |_| second);
            let claim = cooldowns.enter(0, now).unwrap().expect("it failed last");
            let failing = {
                let cooldowns = Arc::clone(&cooldowns);
                thread::spawn(move || {
                    cooldowns.fail_probe(0, claim, now, |failures| {
                        assert_eq!(failures, 2);
                        second
                    });
                    cooldowns.leave(0, claim, false);
                })
            };
            assert!(cooldowns.enter(0, now).is_err(), "it is probed, then it rests");
            failing.join().unwrap();
            let entering = [(); 2].map(|()| {
                let cooldowns = Arc::clone(&cooldowns);
                thread::spawn(move || cooldowns.enter(0, now + second).is_ok())
            });
            let entered = entering.map(|thread| thread.join().unwrap());
            assert_eq!(entered.iter().filter(|&&entered| entered).count(), 1);
        });
    }
}
