//! Whether a backend fails, and who finds out whether it is back.
//!
//! A backend that fails is *deferred*: asked after those that do not. It is never closed by that.

use std::{sync::atomic::Ordering, time::Duration};

use super::failure_count::FailureCount;
use crate::sync::AtomicU64;

/// What is known of the failures of one backend. Instants are milliseconds since the epoch.
///
/// The first word is zero while the backend is taken to be well. Otherwise its low byte counts how
/// often in a row it was found to fail; [`UNREACHABLE`] says that it could not even be connected to;
/// and above stands until when it is deferred or, with [`PROBED`], when the one probe began.
#[derive(Debug)]
pub(super) struct Circuit {
    word: AtomicU64,
    count: FailureCount,
}

/// Another request is finding out already, or it is too early for that.
#[derive(Debug)]
pub(crate) struct Taken;

/// What kind of failure a backend is charged with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection: it cannot be the request's fault, and a wait for one does not end.
    Connect,
    /// The access token for it could not be had: one is enough to know.
    Token,
    /// It is misconfigured: one is enough to know, and an answer of another kind says nothing of it.
    Configuration,
    /// Any other, which may be the request's.
    Answer,
}

/// What an attempt found of the circuit when it began, for the circuit to judge its result by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen(u64);

impl Seen {
    /// Of a backend that is taken to be well.
    pub(super) const WELL: Self = Self(0);

    /// Whether this attempt is the one that finds out whether the backend is back.
    pub(crate) const fn is_probe(self) -> bool {
        self.0 & PROBED != 0
    }

    /// Whether a connection that stands is news: there was none.
    pub(crate) const fn is_unreachable(self) -> bool {
        self.0 & UNREACHABLE != 0
    }

    const fn times(self) -> u64 {
        self.0 & TIMES
    }
}

impl Circuit {
    pub(super) fn new() -> Self {
        Self { word: AtomicU64::new(0), count: FailureCount::new() }
    }

    /// Whether the backend is to be asked after the others: it fails, or one request is finding out.
    pub(super) fn is_deferred(&self, now: u64) -> bool {
        self.deferred_until(now) > now
    }

    /// Until when the backend is asked after the others, as far as is known.
    pub(super) fn deferred_until(&self, now: u64) -> u64 {
        match self.word.load(Ordering::Relaxed) {
            word if is_probed(word, now) => now + PROBE_LASTS_MS,
            word if word & PROBED != 0 => 0,
            word => word >> INSTANT_SHIFT,
        }
    }

    /// How often in a row the backend was found to fail, up to 255 times.
    pub(super) fn failures(&self) -> u32 {
        u32::try_from(self.word.load(Ordering::Relaxed) & TIMES).expect("a byte")
    }

    /// Begins an attempt: as the probe, if the backend is deferred no longer and no other probe is under way.
    /// One that is deferred is asked only as the `last_resort`.
    pub(super) fn enter(&self, now: u64, last_resort: bool) -> Result<Seen, Taken> {
        let known = self.word.load(Ordering::Relaxed);
        if known == 0 {
            return Ok(Seen::WELL);
        }
        if !self.is_deferred(now) {
            let claim = now << INSTANT_SHIFT | PROBED | known & !STATE;
            if self.exchange(known, claim) {
                return Ok(Seen(claim));
            }
        }
        if last_resort { Ok(Seen(known & !STATE)) } else { Err(Taken) }
    }

    /// The attempt found out nothing.
    pub(super) fn leave(&self, seen: Seen) {
        if seen.is_probe() {
            // It is deferred until the instant at which the probe began: no longer.
            self.exchange(seen.0, seen.0 & !PROBED);
        }
    }

    /// The backend answered the attempt.
    pub(super) fn answered(&self, seen: Seen, now: u64) {
        match seen {
            Seen::WELL => self.count.succeed(now),
            seen => self.close(seen),
        }
    }

    /// A connection to the backend stands, and nothing but that was missing.
    pub(super) fn connected(&self, seen: Seen) {
        if seen.is_unreachable() {
            self.close(seen);
        }
    }

    /// The backend is back, unless it failed again since the attempt began.
    fn close(&self, seen: Seen) {
        let mut known = self.word.load(Ordering::Relaxed);
        while known & TIMES == seen.times() && known != 0 {
            match self.word.compare_exchange_weak(known, 0, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return self.count.clear(),
                Err(changed) => known = changed,
            }
        }
    }

    /// Counts a failure of the attempt. If that shows that the backend fails, it is deferred for as long
    /// as `rest` gives for that many times in a row, and the end of that is returned.
    ///
    /// An attempt that was under way when the backend was found to fail is of that same outage.
    pub(super) fn fail(
        &self,
        seen: Seen,
        failure: Failure,
        now: u64,
        rest: impl FnOnce(u32) -> Duration,
    ) -> Option<u64> {
        let known = self.word.load(Ordering::Relaxed);
        let is_news = match seen {
            // Whoever answers without failures in mind ends no outage, so each of these begins one.
            Seen::WELL if matches!(failure, Failure::Token | Failure::Configuration) => {
                !self.is_deferred(now)
            }
            Seen::WELL => known == 0 && self.count.fail(failure, now),
            seen if seen.is_probe() => known == seen.0,
            // Asked as the last resort, it failed for longer than it was deferred.
            seen => known & TIMES == seen.times() && !self.is_deferred(now),
        };
        if !is_news {
            return None;
        }
        let times = (known & TIMES).saturating_add(1).min(TIMES);
        let rest = rest(u32::try_from(times).expect("a byte"));
        let until = now.saturating_add(to_millis(rest)).min(u64::MAX >> INSTANT_SHIFT);
        let cause = if failure == Failure::Connect { UNREACHABLE } else { 0 };
        // If the exchange fails, another request recorded this outage or a recovery.
        self.exchange(known, until << INSTANT_SHIFT | cause | times).then_some(until)
    }

    /// Forgets all.
    pub(super) fn reset(&self) {
        self.word.store(0, Ordering::Relaxed);
        self.count.clear();
    }

    /// The words depend on nothing else, and nothing is published by them.
    fn exchange(&self, known: u64, new: u64) -> bool {
        self.word.compare_exchange(known, new, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

fn is_probed(word: u64, now: u64) -> bool {
    word & PROBED != 0 && now < (word >> INSTANT_SHIFT).saturating_add(LONGEST_PROBE_MS)
}

fn to_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

const TIMES: u64 = 0xff;
const UNREACHABLE: u64 = 1 << 8;
const PROBED: u64 = 1 << 9;
const INSTANT_SHIFT: u32 = 10;
/// All but how often and for what it fails.
const STATE: u64 = !(TIMES | UNREACHABLE);

/// A request that hangs for so long is no longer waited for. Heads of long completions come later,
/// but those of a backend that failed just before are seldom worth it.
pub(super) const LONGEST_PROBE_MS: u64 = 60_000;

/// What a backend under probe is taken to go on being deferred for.
const PROBE_LASTS_MS: u64 = 1_000;
