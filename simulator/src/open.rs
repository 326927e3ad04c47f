//! Whether the PTU stands open while somebody waits for it, judged at every event.

use std::time::Duration;

/// Watches for how long at a time the PTU was below its limit while any request waited: one that has
/// arrived, has no attempt under way and no answer yet.
///
/// Between two events the level falls evenly and nobody comes or goes, so that what was told at the
/// first of them says all about the time until the second.
#[derive(Clone, Debug)]
pub(super) struct OpenWatch {
    limit: Duration,
    /// Since when it is open while somebody waits; ahead of the clock while it is still closed.
    since: Option<Duration>,
    /// Whether the time since then was found too long already.
    is_counted: bool,
    pub(super) longest: Duration,
    /// When the longest began.
    pub(super) longest_at: Duration,
    /// How many times it was longer than the limit.
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

    /// How things stand after what happened `now`.
    pub(super) fn observe(&mut self, now: Duration, somebody_waits: bool, closed_for: Duration) {
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
        self.since = somebody_waits.then(|| goes_on.unwrap_or(now + closed_for));
        self.is_counted &= goes_on.is_some() && somebody_waits;
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
        assert_eq!((watch.longest, watch.violations), (ms(600), 1), "nobody waited until 9 s");
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
