//! Measures how long the PTU stands open while a request waits for it, updated at every event.

use std::time::Duration;

/// Measures how long the PTU stays below its limit while any request waits: a request that has
/// arrived, and has neither an attempt in flight nor an answer.
///
/// Between two events the level falls at a constant rate and no request arrives or leaves, so the
/// state at the first event determines everything until the second.
#[derive(Clone, Debug)]
pub(super) struct OpenWatch {
    limit: Duration,
    /// Since when the PTU is open while a request waits; in the future while it is still closed.
    since: Option<Duration>,
    /// Whether the current period has already been counted as a violation.
    is_counted: bool,
    pub(super) longest: Duration,
    /// When the longest period began.
    pub(super) longest_at: Duration,
    /// The number of periods longer than the limit.
    pub(super) violations: usize,
}

impl OpenWatch {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            since: None,
            is_counted: false,
            longest: Duration::ZERO,
            longest_at: Duration::ZERO,
            violations: 0,
        }
    }

    /// Records the state after an event at `now`.
    pub(super) fn observe(&mut self, now: Duration, any_request_waits: bool, closed_for: Duration) {
        if let Some(since) = self.since
            && let Some(open) = now.checked_sub(since)
        {
            if open > self.longest {
                (self.longest, self.longest_at) = (open, since);
            }
            if open > self.limit && !self.is_counted {
                self.violations += 1;
                self.is_counted = true;
            }
        }
        let goes_on = self.since.filter(|since| *since <= now && closed_for.is_zero());
        self.since = any_request_waits.then(|| goes_on.unwrap_or(now + closed_for));
        self.is_counted &= goes_on.is_some() && any_request_waits;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn time_counts_from_the_opening_until_nobody_waits() {
        let mut watch = OpenWatch::new(ms(500));
        watch.observe(ms(1_000), true, ms(300));
        watch.observe(ms(1_200), true, ms(100));
        watch.observe(ms(1_700), true, ms(0));
        assert_eq!((watch.longest, watch.violations), (ms(400), 0));
        watch.observe(ms(1_900), false, ms(0));
        assert_eq!((watch.longest, watch.longest_at, watch.violations), (ms(600), ms(1_300), 1));
        watch.observe(ms(9_000), true, ms(0));
        watch.observe(ms(9_100), false, ms(0));
        assert_eq!((watch.longest, watch.violations), (ms(600), 1), "no request waited until 9 s");
    }

    #[test]
    fn an_admission_that_fills_it_begins_a_new_count() {
        let mut watch = OpenWatch::new(ms(500));
        watch.observe(ms(0), true, ms(0));
        watch.observe(ms(400), true, ms(50));
        watch.observe(ms(900), true, ms(0));
        assert_eq!((watch.longest, watch.violations), (ms(450), 0));
        watch.observe(ms(1_000), true, ms(0));
        watch.observe(ms(2_000), true, ms(0));
        assert_eq!(watch.violations, 1, "one stretch counts once");
    }

    #[test]
    fn who_arrives_and_is_sent_at_once_does_not_wait() {
        let mut watch = OpenWatch::new(ms(500));
        for at in [0, 1_000, 2_000] {
            watch.observe(ms(at), true, ms(0));
            watch.observe(ms(at), false, ms(0));
        }
        assert_eq!((watch.longest, watch.violations), (ms(0), 0));
    }
}
