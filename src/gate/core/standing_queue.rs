//! A CoDel-like controller: cuts the allowed wait while a queue stands.

use std::time::Duration;

/// How much of its `max_wait` a request may use, from 0 to 1.
///
/// A queue that forms in a burst empties when the burst ends, and the requests in it fill capacity
/// that would have gone to waste. A queue that does not empty saves nothing: as many requests
/// spill as without it, and all the others wait besides. So when a queue has kept most of the
/// allowed wait for the [interval](crate::Gate::standing_queue_interval), the allowed wait is halved, and halved
/// again every few seconds while the queue stands. It is restored in full as soon as the PTU has
/// capacity to spare. The idea is that of CoDel (RFC 8289), applied to the choice between waiting
/// and paying.
#[derive(Clone, Debug)]
pub(super) struct StandingQueue {
    /// Seconds that a queue may stand before the first cut; `None` never cuts.
    interval: Option<f64>,
    /// The share of a request's time that it may wait.
    share: f64,
    /// Whether most of the allowed wait was needed at the last arrival.
    is_long: bool,
    /// When the share is cut while the queue is long, or relaxed while it is short, in seconds.
    change_at: f64,
}

impl StandingQueue {
    pub(super) fn new(interval: Option<Duration>) -> Self {
        let interval = interval.map(|interval| interval.as_secs_f64());
        Self { interval, share: 1.0, is_long: false, change_at: 0.0 }
    }

    /// The longest wait that is worth beginning when `budget` seconds are left.
    pub(super) fn allowed_wait(&self, budget: f64) -> f64 {
        budget.min((budget * self.share).max(MIN_ALLOWED_WAIT_S))
    }

    /// A request arrives at `now` (seconds) and would have to wait for `wait` of `budget` seconds,
    /// behind so many other `requests`.
    pub(super) fn on_arrival(&mut self, now: f64, wait: f64, budget: f64, requests: f64) {
        let Some(interval) = self.interval else { return };
        // Ignore short queues: even at 120 % load a queue of ten drains in time in one case out
        // of six.
        let is_ignored = self.share >= 1.0 && requests <= MAX_IGNORED_REQUESTS;
        let is_long = !is_ignored && wait > budget * self.share * LONG_WAIT_SHARE;
        if is_long != self.is_long {
            self.is_long = is_long;
            self.change_at = now + if is_long { interval } else { RELAX_INTERVAL_S };
        } else if now >= self.change_at {
            (self.share, self.change_at) = if is_long {
                ((self.share * CUT_FACTOR).max(MIN_SHARE), now + CUT_INTERVAL_S)
            } else {
                ((self.share * RELAX_FACTOR).min(1.0), now + RELAX_INTERVAL_S)
            };
        }
    }

    /// The PTU has capacity to spare: the queue has emptied.
    pub(super) const fn on_empty(&mut self) {
        self.share = 1.0;
        self.is_long = false;
        self.change_at = 0.0;
    }
}

// What halving and doubling these does is in the table of the module `core`.

/// Seconds of waiting that are always allowed: a few requests' worth of a busy PTU.
const MIN_ALLOWED_WAIT_S: f64 = 0.1;
/// The smallest share that cuts lead to.
const MIN_SHARE: f64 = 0.02;
/// A queue of so many requests is not long, however long they wait.
const MAX_IGNORED_REQUESTS: f64 = 6.0;
/// A wait above this share of the allowed one is long.
const LONG_WAIT_SHARE: f64 = 0.5;
/// What a cut leaves of the share, and the seconds between two cuts.
const CUT_FACTOR: f64 = 0.5;
const CUT_INTERVAL_S: f64 = 3.0;
/// What the share grows by after so many seconds of a short queue.
const RELAX_FACTOR: f64 = 1.25;
const RELAX_INTERVAL_S: f64 = 20.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(interval: Option<u64>, seconds: u32, wait: f64) -> StandingQueue {
        let mut standing = StandingQueue::new(interval.map(Duration::from_secs));
        for second in 0..seconds {
            standing.on_arrival(f64::from(second), wait, 4.0, 100.0);
        }
        standing
    }

    #[test]
    fn a_burst_shorter_than_the_interval_may_wait_in_full() {
        assert_eq!(observed(Some(20), 20, 3.9).allowed_wait(4.0), 4.0);
    }

    #[test]
    fn a_queue_that_stands_is_cut_again_and_again() {
        assert_eq!(observed(Some(20), 22, 3.9).allowed_wait(4.0), 2.0);
        assert_eq!(observed(Some(20), 60, 3.9).allowed_wait(4.0), MIN_ALLOWED_WAIT_S);
    }

    #[test]
    fn a_queue_that_emptied_may_wait_in_full_again() {
        let mut standing = observed(Some(20), 60, 3.9);
        standing.on_empty();
        assert_eq!(standing.allowed_wait(4.0), 4.0);
    }

    #[test]
    fn without_an_interval_nothing_is_cut() {
        assert_eq!(observed(None, 600, 3.9).allowed_wait(4.0), 4.0);
    }
}
