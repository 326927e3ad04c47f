//! The one request at a time that finds out whether a failed backend is back.

use std::time::{Duration, Instant};

use super::BackendPool;
use crate::cooldown::Taken;

/// A backend that failed last may be asked by one request at a time: this one. Dropped before it
/// learns what became of it, it leaves that to the next.
#[derive(Debug)]
pub(crate) struct Probe {
    pool: BackendPool,
    index: usize,
    claim: u64,
}

impl Probe {
    /// Asks to go to a backend that is open; `None` when it did not fail last.
    pub(crate) fn begin(
        pool: &BackendPool,
        index: usize,
        now: Instant,
    ) -> Result<Option<Self>, Taken> {
        let claim = pool.shared.cooldowns.enter(index, now)?;
        Ok(claim.map(|claim| Self { pool: pool.clone(), index, claim }))
    }

    /// The backend failed again, and rests for as long as `rest` gives for that many failures in a
    /// row.
    pub(crate) fn failed(self, now: Instant, rest: impl Fn(u32) -> Duration) {
        self.pool.shared.cooldowns.fail_probe(self.index, self.claim, now, rest);
    }

    /// The backend answered.
    pub(crate) fn succeeded(self) {
        self.pool.shared.cooldowns.leave(self.index, self.claim, true);
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.pool.shared.cooldowns.leave(self.index, self.claim, false);
    }
}
