//! The limits of a request that is refused: how long it waits, and its rank.

use std::time::{Duration, Instant};

use http::Extensions;

use super::Class;
use crate::{Deadline, MaxWait, Priority, overrides::Arrival};

/// The limits of one request, from the layer, its class and its own extensions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestLimits {
    /// When the request reached the outermost tier.
    pub(crate) arrival: Instant,
    /// The longest time that it may wait, counted from its arrival.
    pub(crate) max_wait: Duration,
    /// A second bound on the wait, whatever the reason for waiting.
    pub(crate) longest_wait: Duration,
    pub(crate) rank: u8,
    pub(crate) spills: bool,
}

impl RequestLimits {
    /// The limits of a request with these extensions, arriving now at a layer of this `max_wait` and
    /// these `classes`.
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

    /// The same limits with the wait ending now.
    pub(crate) fn ending(self, now: Instant) -> Self {
        Self { max_wait: self.elapsed(now).min(self.max_wait), ..self }
    }

    pub(crate) fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.arrival)
    }

    /// What is left of `max_wait`.
    pub(crate) fn left(&self, now: Instant) -> Duration {
        self.max_wait.saturating_sub(self.elapsed(now))
    }

    /// The instant `wait` after the arrival.
    pub(crate) fn after(&self, wait: Duration) -> Instant {
        self.arrival.checked_add(wait).unwrap_or(self.arrival + FOREVER)
    }

    /// The end of every wait, whatever the reason for waiting.
    pub(crate) fn longest(&self) -> Instant {
        self.after(self.longest_wait)
    }

    /// The latest instant at which it may be sent anywhere.
    pub(crate) fn deadline(&self) -> Instant {
        self.after(self.max_wait)
    }
}

/// Longer than any wait.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3_600);
