//! What a request may do while the primary refuses: how long it waits, who goes before it.

use std::time::{Duration, Instant};

use http::Extensions;

use super::layer::FallbackConfig;
use crate::{Deadline, MaxWait, Priority, overrides::Arrival};

/// The limits of one request: the layer's, its class's and its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestLimits {
    /// When the request reached the outermost tier.
    pub(super) arrival: Instant,
    /// The longest that it may wait, counted from its arrival.
    pub(super) max_wait: Duration,
    /// Nor may it wait longer than this, whatever the reason.
    pub(super) longest_wait: Duration,
    pub(super) rank: u8,
    pub(super) spills: bool,
}

impl RequestLimits {
    /// The limits of a request with these extensions, which reaches this tier now.
    pub(super) fn new(config: &FallbackConfig, overrides: &Extensions, now: Instant) -> Self {
        let arrival = overrides.get().map_or(now, |&Arrival(arrival)| arrival);
        let class = overrides.get::<Priority>().and_then(|priority| {
            config.classes.iter().find(|class| *class.name == *priority.as_str())
        });
        let longest_wait = overrides.get().map_or(Duration::MAX, |&Deadline(deadline)| {
            deadline.saturating_duration_since(arrival)
        });
        let max_wait = match overrides.get() {
            Some(&MaxWait(max_wait)) => max_wait,
            None => class.and_then(|class| class.max_wait).unwrap_or(config.max_wait),
        };
        Self {
            arrival,
            max_wait: max_wait.min(longest_wait),
            longest_wait,
            rank: class.map_or(0, |class| class.rank),
            spills: class.is_none_or(|class| class.spills),
        }
    }

    pub(super) fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.arrival)
    }

    /// The instant that is so long after the arrival.
    pub(super) fn after(&self, wait: Duration) -> Instant {
        self.arrival.checked_add(wait).unwrap_or(self.arrival + FOREVER)
    }

    /// The latest instant at which it may be sent anywhere.
    pub(super) fn deadline(&self) -> Instant {
        self.after(self.max_wait)
    }
}

/// Longer than anything waits.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3_600);
