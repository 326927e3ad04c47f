//! Retries backends that could not be connected to, after a short pause.

use std::time::{Duration, Instant};

use http::Extensions;

use super::Session;
use crate::{
    clock,
    events::{Event, Source},
    served::Why,
    wait::RequestLimits,
};

impl Session {
    /// Whether there are unreachable backends to retry.
    pub(in crate::region_rotate) fn has_unreached(&self) -> bool {
        self.cold.as_ref().is_some_and(|cold| !cold.unreached.is_empty())
    }

    /// Until when the request pauses before it retries the unreachable backends: twice as long each
    /// time, within the limits of the layer and the request. `None` if there is none to retry, or one
    /// is known to have been down for longer than a restart takes.
    pub(in crate::region_rotate) fn pause(
        &mut self,
        now: Instant,
        overrides: &Extensions,
    ) -> Option<Instant> {
        let patience = self.config.connect_patience;
        if patience.is_zero() || !self.may_attempt(self.served.attempts().len()) {
            return None;
        }
        let pool = &self.config.pool;
        let cold = self.cold.as_mut()?;
        cold.unreached.retain(|&backend| pool.was_found_failing(backend, now) <= 1);
        if cold.unreached.is_empty() {
            return None;
        }
        let limits = RequestLimits::new(Duration::MAX, &[], overrides, self.arrival);
        let until = now + FIRST_PAUSE.saturating_mul(1 << cold.pauses.min(16));
        if until > self.arrival + patience || until > limits.deadline() {
            return None;
        }
        if !self.config.move_on.withdraw() {
            return None;
        }
        cold.pauses += 1;
        cold.unreached.drain(..).for_each(|backend| self.tried.remove(backend));
        self.since = now;
        self.config.events.emit(Source::RegionRotate, Event::Waits(Why::Unreachable));
        Some(until)
    }

    /// The request continues after a pause, at the returned instant.
    pub(in crate::region_rotate) fn resume(&mut self) -> Instant {
        let now = clock::now();
        let waited = now.saturating_duration_since(self.since);
        self.served.add_wait(waited, Some(Why::Unreachable));
        now
    }
}

/// A restarting server is back after a few pauses, one that only dropped a connection after the
/// first.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
