//! What a request may do while it is refused: how long it waits, who goes before it.

use std::time::{Duration, Instant};

use http::Extensions;

use super::Class;
use crate::{Deadline, MaxWait, Priority, overrides::Arrival};

/// The limits of one request: the layer's, its class's and its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestLimits {
    /// When the request reached the outermost tier.
    pub(crate) arrival: Instant,
    /// The longest that it may wait, counted from its arrival.
    pub(crate) max_wait: Duration,
    /// Nor may it wait longer than this, whatever the reason.
    pub(crate) longest_wait: Duration,
    pub(crate) rank: u8,
    pub(crate) spills: bool,
}

impl RequestLimits {
    /// The limits of a request with these extensions, which reaches a layer of this `max_wait` and
    /// these `classes` now.
    pub(crate) fn new(
        max_wait: Duration,
        classes: &[Class],
        overrides: &Extensions,
        now: Instant,
    ) -> Self {
        let arrival = overrides.get().map_or(now, |&Arrival(arrival)| arrival);
        let class = overrides
            .get::<Priority>()
            .and_then(|priority| classes.iter().find(|class| *class.name == *priority.as_str()));
        let longest_wait = overrides.get().map_or(Duration::MAX, |&Deadline(deadline)| {
            deadline.saturating_duration_since(arrival)
        });
        let max_wait = match overrides.get() {
            Some(&MaxWait(own)) => own,
            None => class.and_then(|class| class.max_wait).unwrap_or(max_wait),
        };
        Self {
            arrival,
            max_wait: max_wait.min(longest_wait),
            longest_wait,
            rank: class.map_or(0, |class| class.rank),
            spills: class.is_none_or(|class| class.spills),
        }
    }

    /// The same, for a request that does not wait any more.
    pub(crate) fn ending(self, now: Instant) -> Self {
        Self { max_wait: self.elapsed(now).min(self.max_wait), ..self }
    }

    pub(crate) fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.arrival)
    }

    /// How much of its longest wait is left.
    pub(crate) fn left(&self, now: Instant) -> Duration {
        self.max_wait.saturating_sub(self.elapsed(now))
    }

    /// The instant that is so long after the arrival.
    pub(crate) fn after(&self, wait: Duration) -> Instant {
        self.arrival.checked_add(wait).unwrap_or(self.arrival + FOREVER)
    }

    /// The latest instant at which it may be sent anywhere.
    pub(crate) fn deadline(&self) -> Instant {
        self.after(self.max_wait)
    }
}

/// Longer than anything waits.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3_600);
