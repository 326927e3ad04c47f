//! One backend's cooldowns and failures: its atomic words, and the rules that tie them together.

use std::{
    sync::{OnceLock, atomic::Ordering},
    time::Duration,
};

use super::{
    circuit::{Circuit, Failure, MAX_PROBE_MS, Seen, Taken},
    load::{Load, Traffic},
    marks::{Closed, LoadMark, Marks, raise},
};
use crate::sync::AtomicU64;

/// The state of one backend. Instants are nanoseconds since the epoch of all slots.
///
/// Reading a backend with nothing noted is one relaxed load of `noted`. No word publishes anything
/// but its own contents, so no stronger ordering is needed.
#[derive(Debug)]
pub(super) struct Slot {
    /// From this instant on, the backend has neither a cooldown nor a failure on record. It only
    /// grows, and only after the words that it covers were written; zero if the backend never refused
    /// or failed.
    noted: AtomicU64,
    /// Until when it refuses anything, with the reason in the low bits; zero if it never did.
    latest: AtomicU64,
    /// Until when it refuses everything.
    until: AtomicU64,
    /// Until when it refuses some kinds of traffic.
    marks: OnceLock<Box<Marks>>,
    circuit: Circuit,
}

/// Why a backend is cooling down. If two cooldowns end together, the later variant wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum CooldownReason {
    /// It refused, and the length of the cooldown is an assumption.
    Assumed = 0,
    /// It refused for the length of the cooldown.
    Refused = 1,
    /// Not worth waiting for.
    Quota = 2,
}

impl CooldownReason {
    /// The reason with this number; an assumption, if another process knows more of them.
    pub(crate) const fn of_code(code: u8) -> Self {
        match code {
            1 => Self::Refused,
            2 => Self::Quota,
            _ => Self::Assumed,
        }
    }
}

/// When a backend reopens, and the reason for its cooldown: the contents of one atomic word. Zero if
/// it never cooled down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Until(u64);

impl Until {
    pub(super) const MAX: Self = Self(u64::MAX);

    pub(super) const fn new(nanos: u64, why: CooldownReason) -> Self {
        let longest = u64::MAX >> WHY_BITS;
        let nanos = if nanos < longest { nanos } else { longest };
        Self(nanos << WHY_BITS | why as u64)
    }

    pub(super) fn read(word: &AtomicU64) -> Self {
        Self(word.load(Ordering::Relaxed))
    }

    pub(super) const fn word(self) -> u64 {
        self.0
    }

    pub(super) const fn nanos(self) -> u64 {
        self.0 >> WHY_BITS
    }

    pub(super) const fn why(self) -> CooldownReason {
        match self.0 & WHY_MASK {
            0 => CooldownReason::Assumed,
            1 => CooldownReason::Refused,
            _ => CooldownReason::Quota,
        }
    }
}

impl Slot {
    pub(super) fn new() -> Self {
        Self {
            noted: AtomicU64::new(0),
            latest: AtomicU64::new(0),
            until: AtomicU64::new(0),
            marks: OnceLock::new(),
            circuit: Circuit::new(),
        }
    }

    /// Whether it never refused or failed, which needs no clock.
    #[inline]
    pub(super) fn is_untouched(&self) -> bool {
        self.noted.load(Ordering::Relaxed) == 0
    }

    /// Whether the backend neither refuses `load` nor is deferred. Calls `now` only if it ever
    /// refused or failed.
    #[inline]
    pub(super) fn is_open(&self, now: impl FnOnce() -> u64, load: &dyn Load) -> bool {
        self.is_untouched() || !self.is_apart(now(), load)
    }

    #[inline(never)]
    fn is_apart(&self, now: u64, load: &dyn Load) -> bool {
        self.is_noted(now) && (self.is_worse(now, load) || self.circuit.is_deferred(millis(now)))
    }

    /// Whether another backend suits `load` better: this one refuses it or, if the load is never
    /// refused, refuses anything.
    fn is_worse(&self, now: u64, load: &dyn Load) -> bool {
        self.refuses_any(now)
            && match load.traffic() {
                Traffic::Free => true,
                traffic => self.refuses_kind(now, traffic, load),
            }
    }

    /// Whether a cooldown or a failure is on record.
    pub(super) fn is_noted(&self, now: u64) -> bool {
        self.noted.load(Ordering::Relaxed) > now
    }

    fn note_until(&self, nanos: u64) {
        // A store would invalidate the cache line of every reader, so store only changes.
        if self.noted.load(Ordering::Relaxed) < nanos {
            self.noted.fetch_max(nanos, Ordering::Relaxed);
        }
    }

    /// Whether the backend refuses `load`.
    pub(super) fn refuses(&self, now: u64, load: &dyn Load) -> bool {
        self.refuses_any(now)
            && match load.traffic() {
                Traffic::Free => false,
                traffic => self.refuses_kind(now, traffic, load),
            }
    }

    /// Whether it refuses anything.
    fn refuses_any(&self, now: u64) -> bool {
        Until::read(&self.latest).nanos() > now
    }

    fn refuses_kind(&self, now: u64, traffic: Traffic, load: &dyn Load) -> bool {
        Until::read(&self.until).nanos() > now
            || self.marks.get().is_some_and(|marks| marks.refuse(now, traffic, load))
    }

    /// What closes `load`, which is of this kind.
    pub(super) fn mark(&self, traffic: Traffic, load: &dyn Load) -> LoadMark {
        if traffic == Traffic::Free {
            return LoadMark::default();
        }
        let whole = LoadMark::of_all(Until::read(&self.until));
        let part = self.marks.get().map_or_else(LoadMark::default, |marks| marks.of(traffic, load));
        if part.until > whole.until { part } else { whole }
    }

    /// Until when it refuses every request of this kind, whatever its weight.
    pub(super) fn kind_closed(&self, traffic: Traffic) -> Until {
        Until::read(&self.until).max(self.closed(traffic))
    }

    /// How much longer it refuses anything.
    #[inline(never)]
    pub(super) fn remaining(&self, now: u64) -> Option<Duration> {
        let left = Until::read(&self.latest).nanos().checked_sub(now).filter(|&left| left > 0);
        left.map(Duration::from_nanos)
    }

    /// Closes what a refusal is about until then, unless a longer cooldown is known. `said` is the
    /// hint of the service, which may be longer than what is believed.
    pub(super) fn close(&self, closed: Closed, until: Until, said: Until) {
        let marks = || self.marks.get_or_init(Box::default);
        match closed {
            Closed::Backend => raise(&self.until, until),
            Closed::Kind(traffic) => marks().close(traffic, None, until, until),
            Closed::From(traffic, weight) => marks().close(traffic, Some(weight), until, said),
        }
        raise(&self.latest, until);
        self.note_until(until.nanos());
    }

    /// Until when the whole kind is closed.
    pub(super) fn closed(&self, traffic: Traffic) -> Until {
        let word = self.marks.get().and_then(|marks| marks.of_kind(traffic));
        word.map_or_else(Until::default, Until::read)
    }

    /// The backend served a request of this kind, sent while the kind was known as closed until
    /// `seen`: the kind is open, unless another refusal arrived meanwhile.
    pub(super) fn reopen(&self, traffic: Traffic, seen: Until) {
        let Some(marks) = self.marks.get() else { return };
        let Some(word) = marks.of_kind(traffic) else { return };
        let swap = |word: &AtomicU64, to: Until| {
            word.compare_exchange(seen.word(), to.word(), Ordering::Relaxed, Ordering::Relaxed)
        };
        if swap(word, Until::default()).is_ok() {
            // A refusal that arrives at this instant may be lost, which costs one more refusal.
            _ = swap(&self.latest, Until::read(&self.until).max(marks.latest()));
        }
    }

    /// How much longer the backend is deferred, that is, called only after the others.
    pub(super) fn deferred(&self, now: u64) -> Option<Duration> {
        let until = self.circuit.deferred_until(millis(now)).saturating_mul(NANOS_IN_MS);
        (self.is_noted(now) && until > now).then(|| Duration::from_nanos(until - now))
    }

    pub(super) fn failures(&self, now: u64) -> u32 {
        if self.is_noted(now) { self.circuit.failures() } else { 0 }
    }

    /// Begins an attempt; `None` if its outcome changes nothing. A deferred backend is called only as
    /// the `last_resort`.
    pub(super) fn enter(&self, now: u64, last_resort: bool) -> Result<Option<Seen>, Taken> {
        if !self.is_noted(now) {
            return Ok(None);
        }
        let seen = self.circuit.enter(millis(now), last_resort)?;
        if seen.is_probe() {
            let longest = now.saturating_add(MAX_PROBE_MS * NANOS_IN_MS);
            self.note_until(longest.saturating_add(REMEMBERED_NANOS));
        }
        Ok(Some(seen))
    }

    /// The attempt proved nothing.
    pub(super) fn leave(&self, seen: Seen) {
        self.circuit.leave(seen);
    }

    pub(super) fn answered(&self, seen: Seen, now: u64) {
        self.circuit.answered(seen, millis(now));
    }

    /// A connection to the backend stands.
    pub(super) fn connected(&self, seen: Seen) {
        self.circuit.connected(seen);
    }

    /// An attempt failed. If that shows that the backend is failing, it is deferred for `rest`, given
    /// the number of times in a row.
    pub(super) fn fail(
        &self,
        seen: Seen,
        failure: Failure,
        now: u64,
        rest: impl FnOnce(u32) -> Duration,
    ) {
        if !self.is_noted(now) {
            self.circuit.reset();
        }
        let deferred = self.circuit.fail(seen, failure, millis(now), rest);
        let until = deferred.map_or(now, |until| until.saturating_mul(NANOS_IN_MS).max(now));
        self.note_until(until.saturating_add(REMEMBERED_NANOS));
    }
}

/// Saturates after 584 years, or 146 next to the reason.
pub(super) fn to_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn millis(nanos: u64) -> u64 {
    nanos / NANOS_IN_MS
}

const WHY_BITS: u32 = 2;
const WHY_MASK: u64 = (1 << WHY_BITS) - 1;
const NANOS_IN_MS: u64 = 1_000_000;

/// How long failures are remembered after the last one, or after the backend was deferred. A backend
/// without attempts for that long counts as healthy.
const REMEMBERED_NANOS: u64 = 60_000 * NANOS_IN_MS;

#[cfg(all(test, not(spillover_loom)))]
mod tests {
    use super::*;
    use crate::{
        clock,
        cooldown::{Cooldowns, Weight},
    };

    const SECOND: Duration = Duration::from_secs(1);
    const ANY: (Traffic, Weight) = (Traffic::Tokens, Weight::HEAVIEST);

    fn doubling(times: u32) -> Duration {
        SECOND * 2u32.pow(times - 1)
    }

    fn fail(cooldowns: &Cooldowns, seen: Option<Seen>, now: std::time::Instant) {
        cooldowns.fail(0, seen, Failure::Answer, now, doubling);
    }

    /// A backend that is known to fail.
    fn failing(now: std::time::Instant) -> Cooldowns {
        let cooldowns = Cooldowns::new(1, now);
        (0..5).for_each(|_| fail(&cooldowns, None, now));
        cooldowns
    }

    fn probe(cooldowns: &Cooldowns, now: std::time::Instant) -> Option<Seen> {
        let seen = cooldowns
            .enter(0, now, false)
            .expect("no other request probes")
            .expect("it failed last");
        assert!(seen.is_probe());
        Some(seen)
    }

    #[test]
    fn a_backend_that_fails_is_deferred_ever_longer_and_never_refuses() {
        let mut now = clock::now();
        let cooldowns = failing(now);
        for (times, seconds) in [(1, 1), (2, 2), (3, 4)] {
            assert_eq!(cooldowns.failures(0, now), times);
            assert_eq!(cooldowns.deferred(0, now), Some(seconds * SECOND));
            assert!(!cooldowns.is_open(0, now, &ANY) && !cooldowns.refuses(0, now, &ANY));
            now += seconds * SECOND;
            assert!(cooldowns.is_open(0, now, &ANY));
            fail(&cooldowns, probe(&cooldowns, now), now);
        }
        now += 8 * SECOND;
        let seen = probe(&cooldowns, now);
        assert_eq!(cooldowns.failures(0, now), 4, "it is not back yet");
        cooldowns.answered(0, seen.unwrap(), now);
        assert_eq!(cooldowns.failures(0, now), 0);
        fail(&cooldowns, Some(Seen::WELL), now);
        assert!(cooldowns.is_open(0, now, &ANY), "the failures before are forgotten");
    }

    #[test]
    fn requests_that_were_under_way_when_it_went_down_are_of_one_outage() {
        let now = clock::now();
        let cooldowns = failing(now);
        (0..100).for_each(|_| fail(&cooldowns, None, now));
        (0..100).for_each(|_| fail(&cooldowns, Some(Seen::WELL), now + 2 * SECOND));
        assert_eq!(cooldowns.failures(0, now), 1);
    }

    #[test]
    fn a_rest_for_a_refusal_and_failures_are_apart() {
        let now = clock::now();
        let cooldowns = failing(now);
        cooldowns.rest(0, now, 3 * SECOND);
        assert_eq!(cooldowns.remaining(0, now), Some(3 * SECOND));
        assert_eq!(cooldowns.deferred(0, now), Some(SECOND));
        assert_eq!(cooldowns.next_open(0..1, now, &ANY).left, 3 * SECOND);
    }

    #[test]
    fn while_a_probe_is_under_way_only_its_own_failure_counts() {
        let epoch = clock::now();
        let (cooldowns, now) = (failing(epoch), epoch + SECOND);
        let claim = probe(&cooldowns, now);
        fail(&cooldowns, None, now);
        let beside = cooldowns.enter(0, now, true).expect("the last resort");
        fail(&cooldowns, beside, now);
        assert_eq!(cooldowns.failures(0, now), 1);
        fail(&cooldowns, claim, now);
        assert_eq!((cooldowns.failures(0, now), cooldowns.deferred(0, now)), (2, Some(2 * SECOND)));
        let hung = now + 2 * SECOND;
        let next = probe(&cooldowns, hung);
        fail(&cooldowns, claim, hung);
        assert_eq!(cooldowns.failures(0, hung), 2, "that was the probe before");
        let later = hung + 61 * SECOND;
        let another = probe(&cooldowns, later);
        fail(&cooldowns, another, later);
        fail(&cooldowns, next, later);
        assert_eq!(cooldowns.failures(0, later), 3);
    }

    #[test]
    fn one_request_at_a_time_finds_out_whether_it_is_back() {
        let epoch = clock::now();
        let (cooldowns, now) = (failing(epoch), epoch + SECOND);
        let claim = probe(&cooldowns, now);
        assert!(!cooldowns.is_open(0, now, &ANY) && cooldowns.enter(0, now, false).is_err());
        cooldowns.leave(0, claim.unwrap());
        assert!(cooldowns.is_open(0, now, &ANY), "it left that to the next");
        probe(&cooldowns, now);
        assert!(cooldowns.is_open(0, now + 60 * SECOND, &ANY), "one that hangs is not waited for");
    }

    #[test]
    fn where_nothing_else_is_open_any_answer_ends_the_outage() {
        let now = clock::now();
        let cooldowns = failing(now);
        let seen = cooldowns.enter(0, now, true).unwrap().unwrap();
        assert!(!seen.is_probe());
        cooldowns.answered(0, seen, now);
        assert!(cooldowns.is_open(0, now, &ANY));
    }

    #[test]
    fn a_connection_ends_the_outage_of_a_backend_that_could_not_be_reached_and_no_other() {
        for failure in [Failure::Connect, Failure::Answer] {
            let epoch = clock::now();
            let (cooldowns, now) = (Cooldowns::new(1, epoch), epoch + SECOND);
            (0..5).for_each(|_| cooldowns.fail(0, None, failure, epoch, doubling));
            let seen = probe(&cooldowns, now).unwrap();
            cooldowns.connected(0, seen);
            assert_eq!(cooldowns.is_open(0, now, &ANY), failure == Failure::Connect);
            cooldowns.leave(0, seen);
            assert!(cooldowns.is_open(0, now, &ANY));
        }
    }

    #[test]
    fn a_state_unused_for_a_minute_is_forgotten() {
        let epoch = clock::now();
        let (cooldowns, now) = (failing(epoch), epoch + 61 * SECOND);
        assert_eq!(cooldowns.failures(0, now), 0);
        assert!(matches!(cooldowns.enter(0, now, false), Ok(None)));
        fail(&cooldowns, None, now);
        assert!(cooldowns.is_open(0, now, &ANY), "one failure of five");
    }

    #[test]
    fn a_refusal_alone_needs_no_probe() {
        let now = clock::now();
        let cooldowns = Cooldowns::new(1, now);
        cooldowns.rest(0, now, SECOND);
        assert!(matches!(cooldowns.enter(0, now, true), Ok(Some(Seen::WELL))));
        assert!(matches!(cooldowns.enter(0, now + SECOND, false), Ok(None)));
    }
}

/// Run like the gate's model: `.ci/run loom`.
#[cfg(all(test, spillover_loom))]
mod loom_model {
    use std::sync::Arc;

    use loom::thread;

    use super::*;
    use crate::{cooldown::Cooldowns, sync::clock};

    #[test]
    fn of_two_requests_one_finds_out_and_none_does_so_while_it_is_deferred() {
        loom::model(|| {
            let epoch = clock::now();
            let (second, now) = (Duration::from_secs(1), epoch + Duration::from_secs(1));
            let cooldowns = Arc::new(Cooldowns::new(1, epoch));
            cooldowns.fail(0, None, Failure::Token, epoch, |_| second);
            let claim = cooldowns.enter(0, now, false).unwrap().expect("it failed last");
            let failing = {
                let cooldowns = Arc::clone(&cooldowns);
                thread::spawn(move || {
                    cooldowns.fail(0, Some(claim), Failure::Answer, now, |times| {
                        assert_eq!(times, 2);
                        second
                    });
                    cooldowns.leave(0, claim);
                })
            };
            assert!(cooldowns.enter(0, now, false).is_err(), "it is probed, then it is deferred");
            failing.join().unwrap();
            let entering = [(); 2].map(|()| {
                let cooldowns = Arc::clone(&cooldowns);
                thread::spawn(move || cooldowns.enter(0, now + second, false).is_ok())
            });
            let entered = entering.map(|thread| thread.join().unwrap());
            assert_eq!(entered.iter().filter(|&&entered| entered).count(), 1);
        });
    }
}
