//! How often a backend failed in a row, and who finds out whether it is back: one atomic word.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use super::{BackendPool, Cooldowns, cooldowns::Why};
use crate::sync::AtomicU64;

/// How often a backend failed in a row, and since when a request is finding out whether it is back.
///
/// The low byte counts the failures. Above it stands when the one probe was begun, in milliseconds
/// since the epoch and one more, or zero when there is none.
#[derive(Debug)]
pub(super) struct Circuit(AtomicU64);

/// A backend that failed last may be asked by one request at a time: this one. Dropped before it
/// is told what became of it, it leaves that to the next.
#[derive(Debug)]
pub(crate) struct Probe {
    pool: BackendPool,
    index: usize,
    claim: u64,
}

/// Another request is finding out already.
#[derive(Debug)]
pub(crate) struct Taken;

impl Circuit {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Whether a request is finding out whether the backend is back.
    pub(super) fn is_probed(&self, millis: u64) -> bool {
        is_probed(self.0.load(Ordering::Relaxed), millis)
    }

    fn is_probed_by(&self, claim: u64) -> bool {
        self.0.load(Ordering::Relaxed) == claim
    }

    /// How often the backend failed in a row, up to 255 times.
    fn failures(&self) -> u32 {
        u32::try_from(self.0.load(Ordering::Relaxed) & COUNT).expect("a byte")
    }

    /// Claims the probe of a backend whose rest is over; `None` when it needs none.
    pub(super) fn claim(&self, millis: u64) -> Result<Option<u64>, Taken> {
        let known = self.0.load(Ordering::Relaxed);
        if known & COUNT == 0 {
            return Ok(None);
        }
        if is_probed(known, millis) {
            return Err(Taken);
        }
        let claim = (millis + 1) << COUNT_BITS | known & COUNT;
        // Acquires what the last one to fail wrote before: the rest that it began.
        let claimed = self.0.compare_exchange(known, claim, Ordering::Acquire, Ordering::Relaxed);
        claimed.map(|_| Some(claim)).map_err(|_| Taken)
    }

    /// Ends the probe of `claim`, if it is still under way: the backend is back, or is still to be
    /// asked.
    pub(super) fn end(&self, claim: u64, is_back: bool) {
        let after = if is_back { 0 } else { claim & COUNT };
        _ = self.0.compare_exchange(claim, after, Ordering::Release, Ordering::Relaxed);
    }

    /// Counts a failure, of the probe of `claim` or of any other request, after `rest` was told how
    /// many there are in a row with it.
    ///
    /// While a probe is under way only its own counts: another request was sent before, and is of
    /// the outage that the probe is to find the end of.
    pub(super) fn fail(&self, claim: Option<u64>, millis: u64, rest: impl FnOnce(u32)) {
        let known = self.0.load(Ordering::Relaxed);
        if claim != Some(known) && is_probed(known, millis) {
            return;
        }
        let failures = (known & COUNT).saturating_add(1).min(COUNT);
        rest(u32::try_from(failures).expect("a byte"));
        // Whoever changed it meanwhile counted the same outage, or saw its end. The rest is released
        // to whoever claims the probe.
        _ = self.0.compare_exchange(known, failures, Ordering::Release, Ordering::Relaxed);
    }
}

impl Probe {
    /// Asks to go to a backend that is open; `None` when it did not fail last.
    pub(crate) fn begin(
        pool: &BackendPool,
        index: usize,
        now: Instant,
    ) -> Result<Option<Self>, Taken> {
        let claim = pool.cooldowns_ref().enter(index, now)?;
        Ok(claim.map(|claim| Self { pool: pool.clone(), index, claim }))
    }

    /// The backend failed again, and rests for as long as `rest` gives for that many failures in a
    /// row.
    pub(crate) fn failed(self, now: Instant, rest: impl Fn(u32) -> Duration) {
        self.pool.cooldowns_ref().fail_probe(self.index, self.claim, now, rest);
    }

    /// The backend answered.
    pub(crate) fn succeeded(self) {
        self.pool.cooldowns_ref().leave(self.index, self.claim, true);
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.pool.cooldowns_ref().leave(self.index, self.claim, false);
    }
}

fn is_probed(word: u64, millis: u64) -> bool {
    let begun = word >> COUNT_BITS;
    begun != 0 && millis < begun.saturating_add(LONGEST_PROBE_MS)
}

const COUNT_BITS: u32 = 8;
const COUNT: u64 = (1 << COUNT_BITS) - 1;

/// A request that hangs for so long is no longer waited for. Heads of long completions come later,
/// but those of a backend that failed just before are seldom worth it.
const LONGEST_PROBE_MS: u64 = 60_000;

/// What a backend under probe is taken to go on resting for.
pub(super) const PROBE_LASTS: Duration = Duration::from_secs(1);

impl Cooldowns {
    pub(super) fn failures(&self, index: usize) -> u32 {
        self.circuit(index).failures()
    }

    /// Asks to go to a backend that is open. A claim is to be given back by [`leave`](Self::leave).
    pub(super) fn enter(&self, index: usize, now: Instant) -> Result<Option<u64>, Taken> {
        let Some(circuit) = self.circuit_of_rested(index) else { return Ok(None) };
        let claim = circuit.claim(self.millis(now))?;
        if let Some(claim) = claim
            && self.is_resting(index, now)
        {
            // It failed again between the two looks.
            circuit.end(claim, false);
            return Err(Taken);
        }
        Ok(claim)
    }

    /// Gives a claim back.
    pub(super) fn leave(&self, index: usize, claim: u64, is_back: bool) {
        self.circuit(index).end(claim, is_back);
    }

    /// The backend failed, and rests for as long as `rest` gives for that many failures in a row.
    ///
    /// Requests that were under way together when it went down fail together: while it rests for
    /// the first of them, the others are no further failure, even if it rests for longer because it
    /// refused another.
    pub(crate) fn fail(&self, index: usize, now: Instant, rest: impl Fn(u32) -> Duration) {
        let is_counted = self.failures(index) > 0 && self.is_resting(index, now);
        if !is_counted && !self.is_failing(index, now) {
            self.count(index, None, now, rest);
        }
    }

    /// The probe of `claim` failed, which counts though it rests for what it refused another.
    pub(super) fn fail_probe(
        &self,
        index: usize,
        claim: u64,
        now: Instant,
        rest: impl Fn(u32) -> Duration,
    ) {
        if self.circuit(index).is_probed_by(claim) {
            self.count(index, Some(claim), now, rest);
        } else {
            // It hung for so long that others went on without it.
            self.fail(index, now, rest);
        }
    }

    fn count(
        &self,
        index: usize,
        claim: Option<u64>,
        now: Instant,
        rest: impl Fn(u32) -> Duration,
    ) {
        self.circuit(index).fail(claim, self.millis(now), |failures| {
            self.rest_for(index, now, rest(failures), Why::Failed);
        });
    }
}

#[cfg(all(test, not(spillover_loom)))]
mod tests {
    use super::*;
    use crate::clock;

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
        assert_eq!(cooldowns.soonest(now).left, PROBE_LASTS);
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
    use crate::sync::clock;

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
