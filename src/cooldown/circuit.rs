//! Whether a backend fails, and which request probes whether it has recovered.
//!
//! A failing backend is *deferred*: called after those that do not fail. It is never closed for that.

use std::{sync::atomic::Ordering, time::Duration};

use super::failure_count::FailureCount;
use crate::sync::AtomicU64;

/// The failures of one backend, packed into two words. Instants are milliseconds since the epoch.
///
/// The first word is zero while the backend counts as healthy. Otherwise its low byte counts how many
/// times in a row it was found to fail, [`UNREACHABLE`] is set if not even a connection could be
/// made, and the upper bits hold the instant until which it is deferred or, with [`PROBED`], at which
/// the current probe began.
#[derive(Debug)]
pub(super) struct Circuit {
    word: AtomicU64,
    count: FailureCount,
}

/// Another request is probing already, or it is too early to probe.
#[derive(Debug)]
pub(crate) struct Taken;

/// The kind of a recorded failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection: never the request's fault, and waiting for one has no natural end.
    Connect,
    /// No access token could be obtained: one failure is enough.
    Token,
    /// A misconfiguration: one failure is enough, and an answer of another kind does not disprove it.
    Configuration,
    /// Any other failure, which may be the request's fault.
    Answer,
}

/// The state of the circuit when an attempt began, against which its outcome is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen(u64);

impl Seen {
    /// The backend counted as healthy.
    pub(super) const WELL: Self = Self(0);

    /// Whether this attempt is the probe for recovery.
    pub(crate) const fn is_probe(self) -> bool {
        self.0 & PROBED != 0
    }

    /// Whether a connection that stands is news, since none could be made before.
    pub(crate) const fn is_unreachable(self) -> bool {
        self.0 & UNREACHABLE != 0
    }

    const fn times(self) -> u64 {
        self.0 & TIMES_MASK
    }
}

impl Circuit {
    pub(super) fn new() -> Self {
        Self { word: AtomicU64::new(0), count: FailureCount::new() }
    }

    /// Whether the backend is deferred: it fails, or one request is probing it.
    pub(super) fn is_deferred(&self, now: u64) -> bool {
        self.deferred_until(now) > now
    }

    /// Until when the backend is deferred, as far as is known.
    pub(super) fn deferred_until(&self, now: u64) -> u64 {
        match self.word.load(Ordering::Relaxed) {
            word if is_probed(word, now) => now + PROBE_LASTS_MS,
            word if word & PROBED != 0 => 0,
            word => word >> INSTANT_SHIFT,
        }
    }

    /// How many times in a row the backend was found to fail, up to 255.
    pub(super) fn failures(&self) -> u32 {
        u32::try_from(self.word.load(Ordering::Relaxed) & TIMES_MASK).expect("a byte")
    }

    /// Begins an attempt: as the probe, if the deferral is over and no other probe is in flight. A
    /// backend that is still deferred is called only as the `last_resort`.
    pub(super) fn enter(&self, now: u64, last_resort: bool) -> Result<Seen, Taken> {
        let known = self.word.load(Ordering::Relaxed);
        if known == 0 {
            return Ok(Seen::WELL);
        }
        if !self.is_deferred(now) {
            let claim = now << INSTANT_SHIFT | PROBED | known & !STATE_MASK;
            if self.exchange(known, claim) {
                return Ok(Seen(claim));
            }
        }
        if last_resort { Ok(Seen(known & !STATE_MASK)) } else { Err(Taken) }
    }

    /// The attempt proved nothing.
    pub(super) fn leave(&self, seen: Seen) {
        if seen.is_probe() {
            // The deferral then ended when the probe began, which is in the past: the next request
            // may probe.
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

    /// A connection to the backend stands, and only that was missing.
    pub(super) fn connected(&self, seen: Seen) {
        if seen.is_unreachable() {
            self.close(seen);
        }
    }

    /// The backend has recovered, unless it failed again since the attempt began.
    fn close(&self, seen: Seen) {
        let mut known = self.word.load(Ordering::Relaxed);
        while known & TIMES_MASK == seen.times() && known != 0 {
            match self.word.compare_exchange_weak(known, 0, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return self.count.clear(),
                Err(changed) => known = changed,
            }
        }
    }

    /// Counts a failure of the attempt. If that shows that the backend is failing, it is deferred for
    /// `rest`, given the number of times in a row, and the end of that is returned.
    ///
    /// An attempt that was in flight when the backend was found to fail belongs to the same outage.
    pub(super) fn fail(
        &self,
        seen: Seen,
        failure: Failure,
        now: u64,
        rest: impl FnOnce(u32) -> Duration,
    ) -> Option<u64> {
        let known = self.word.load(Ordering::Relaxed);
        let is_news = match seen {
            // An answer without a failure on record ends no outage, so each of these begins one.
            Seen::WELL if matches!(failure, Failure::Token | Failure::Configuration) => {
                !self.is_deferred(now)
            }
            Seen::WELL => known == 0 && self.count.fail(failure, now),
            seen if seen.is_probe() => known == seen.0,
            // It was called as the last resort and failed for longer than it was deferred.
            seen => known & TIMES_MASK == seen.times() && !self.is_deferred(now),
        };
        if !is_news {
            return None;
        }
        let times = (known & TIMES_MASK).saturating_add(1).min(TIMES_MASK);
        let rest = rest(u32::try_from(times).expect("a byte"));
        let until = now.saturating_add(to_millis(rest)).min(u64::MAX >> INSTANT_SHIFT);
        let cause = if failure == Failure::Connect { UNREACHABLE } else { 0 };
        // If the exchange fails, another request recorded this outage or a recovery.
        self.exchange(known, until << INSTANT_SHIFT | cause | times).then_some(until)
    }

    pub(super) fn reset(&self) {
        self.word.store(0, Ordering::Relaxed);
        self.count.clear();
    }

    /// No other data depends on the words, so relaxed ordering is enough.
    fn exchange(&self, known: u64, new: u64) -> bool {
        self.word.compare_exchange(known, new, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

fn is_probed(word: u64, now: u64) -> bool {
    word & PROBED != 0 && now < (word >> INSTANT_SHIFT).saturating_add(MAX_PROBE_MS)
}

fn to_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

const TIMES_MASK: u64 = 0xff;
const UNREACHABLE: u64 = 1 << 8;
const PROBED: u64 = 1 << 9;
const INSTANT_SHIFT: u32 = 10;
/// Everything but the count and the kind of failure.
const STATE_MASK: u64 = !(TIMES_MASK | UNREACHABLE);

/// A probe that hangs for this long no longer blocks the next one. Heads of long completions take
/// longer, but a backend that has just failed seldom sends one.
pub(super) const MAX_PROBE_MS: u64 = 60_000;

/// How long a backend under probe is assumed to stay deferred.
const PROBE_LASTS_MS: u64 = 1_000;
