//! An attempt at a backend that failed lately, whose outcome shows whether it still does.

use std::time::{Duration, Instant};

use super::{Cooldowns, Failure, Seen, Taken};

/// An attempt at a backend that failed lately, with a handle to that backend's state. Only one
/// request at a time probes a failing backend; dropped before its outcome is known, the attempt
/// leaves the probe to the next.
#[derive(Debug)]
pub(crate) struct Watch<C: AsRef<Cooldowns>> {
    cooldowns: C,
    index: usize,
    seen: Seen,
}

impl<C: AsRef<Cooldowns> + Clone> Watch<C> {
    /// Begins an attempt; `None` if the backend did not fail lately. A deferred backend is called
    /// only as the `last_resort`.
    #[inline]
    pub(crate) fn begin(
        cooldowns: &C,
        index: usize,
        now: Instant,
        last_resort: bool,
    ) -> Result<Option<Self>, Taken> {
        let seen = cooldowns.as_ref().enter(index, now, last_resort)?;
        Ok(seen.map(|seen| Self { cooldowns: cooldowns.clone(), index, seen }))
    }

    /// An attempt at a backend that had no failure on record when it began.
    pub(crate) fn of_one_that_was_well(cooldowns: &C, index: usize) -> Self {
        Self { cooldowns: cooldowns.clone(), index, seen: Seen::WELL }
    }

    pub(crate) const fn handle(&self) -> &C {
        &self.cooldowns
    }

    /// Called once a connection stands, if none could be made before.
    pub(crate) fn on_connect(&self) -> Option<impl Fn() + use<C>> {
        let Self { cooldowns, index, seen } = self;
        let (cooldowns, index, seen) = (cooldowns.clone(), *index, *seen);
        seen.is_unreachable().then_some(move || cooldowns.as_ref().connected(index, seen))
    }

    /// The backend answered.
    pub(crate) fn answered(self, now: Instant) {
        self.cooldowns.as_ref().answered(self.index, self.seen, now);
    }

    /// The attempt failed. If that shows that the backend is failing, it is deferred for `rest`,
    /// given the number of times in a row.
    pub(crate) fn failed(self, failure: Failure, now: Instant, rest: impl FnOnce(u32) -> Duration) {
        self.cooldowns.as_ref().fail(self.index, Some(self.seen), failure, now, rest);
    }
}

impl<C: AsRef<Cooldowns>> Drop for Watch<C> {
    fn drop(&mut self) {
        self.cooldowns.as_ref().leave(self.index, self.seen);
    }
}
