//! Consecutive failures of a backend and its recovery probe, packed into one atomic word.

use std::{sync::atomic::Ordering, time::Duration};

use crate::sync::AtomicU64;

/// How often a backend failed in a row, and since when a request is finding out whether it is back.
///
/// The low byte counts the failures. Above it stands when the one probe was begun, in milliseconds
/// since the epoch and one more, or zero when there is none.
#[derive(Debug)]
pub(super) struct Circuit(AtomicU64);

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

    pub(super) fn is_probed_by(&self, claim: u64) -> bool {
        self.0.load(Ordering::Relaxed) == claim
    }

    /// How often the backend failed in a row, up to 255 times.
    pub(super) fn failures(&self) -> u32 {
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

    /// Counts a failure, of the probe of `claim` or of any other request. Calls `rest` before, with
    /// how many failures in a row that makes.
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
        // If the exchange fails, another request recorded this outage or a recovery. `Release`
        // publishes the cooldown to the next probe.
        _ = self.0.compare_exchange(known, failures, Ordering::Release, Ordering::Relaxed);
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
