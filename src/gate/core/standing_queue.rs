//! A CoDel-like controller: cuts the allowed wait while a queue stands.

use std::time::Duration;

/// How much of its `max_wait` a request may use.
///
/// A queue that forms in a burst drains when the burst ends, and its requests fill capacity that
/// would have gone to waste. A queue that does not drain saves nothing: as many requests spill as
/// without it, and all the others wait besides. So when the predicted wait has not been below a small
/// target for the [interval](crate::Gate::standing_queue_interval), the allowed wait is halved, and
/// halved again every few seconds while the queue stands. It grows back slowly while the queue keeps
/// draining, and faster while the PTU has spare capacity. The idea is CoDel's (RFC 8289), applied to
/// the choice between waiting and paying.
///
/// Target and interval grow with `max_wait`: a caller that allows half a minute rides out longer
/// bursts.
///
/// Spilling saves time per request but costs money per token. So behind a queue, a request that costs
/// less than the mean may wait for a smaller share of its time. A service charges the estimate until
/// the answer ends, so one whose caller states more than it uses keeps others out, and may wait for
/// less, too.
#[derive(Clone, Debug)]
pub(super) struct StandingQueue {
    /// Seconds that a queue may stand before the first cut; `None` never cuts.
    interval: Option<f64>,
    /// The share of its time that a request may wait.
    share: f64,
    /// When the predicted wait was last below the target, in seconds.
    emptied_at: f64,
    /// The earliest next change of the share, in seconds.
    change_at: f64,
    /// Since when the PTU has had spare capacity, in seconds.
    idle_since: Option<f64>,
}

/// An arriving request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Newcomer {
    /// Seconds that it may wait.
    pub(super) budget: f64,
    /// How much it is worth waiting for, beside one of the mean.
    pub(super) worth: f64,
    /// Whether other requests are ahead of it.
    pub(super) is_behind: bool,
}

impl StandingQueue {
    pub(super) fn new(interval: Option<Duration>) -> Self {
        Self {
            interval: interval.map(|interval| interval.as_secs_f64()),
            share: 1.0,
            emptied_at: 0.0,
            change_at: 0.0,
            idle_since: Some(0.0),
        }
    }

    /// The longest wait worth starting, in seconds.
    pub(super) fn allowed_wait(&self, newcomer: &Newcomer) -> f64 {
        let budget = newcomer.budget;
        if self.interval.is_none() || !newcomer.is_behind {
            return budget;
        }
        let shared = budget.min((budget * self.share).max(2.0 * TARGET_S));
        (shared * newcomer.worth.max(MIN_SIZE_SHARE)).min(budget)
    }

    /// Whether a queue has stood for so long that the allowed wait is cut.
    pub(super) fn is_cut(&self) -> bool {
        self.interval.is_some() && self.share < 1.0
    }

    /// A request arrives at `now` (seconds) and would have to wait for `wait` of its `budget` seconds.
    pub(super) fn on_arrival(&mut self, now: f64, wait: f64, budget: f64) {
        let Some(interval) = self.interval else { return };
        let interval = interval.max(INTERVAL_WAITS * budget);
        if let Some(since) = self.idle_since.take() {
            self.grow(IDLE_GROWTH_PER_S.powf((now - since).min(MAX_IDLE_S)));
            self.emptied_at = now;
        }
        if wait <= TARGET_S.max(TARGET_SHARE * budget) {
            self.emptied_at = now;
            if now >= self.change_at {
                self.grow(GROWTH_PER_INTERVAL);
                self.change_at = now + interval;
            }
            return;
        }
        // After a cut, a queue that stands again is not a burst.
        let stands_for = (interval * self.share).max(CUT_INTERVAL_S);
        if now - self.emptied_at >= stands_for && now >= self.change_at {
            self.share = (self.share * CUT_FACTOR).max(MIN_SHARE);
            self.change_at = now + CUT_INTERVAL_S;
        }
    }

    /// The PTU has spare capacity from `now` (seconds) on.
    pub(super) const fn on_idle(&mut self, now: f64) {
        if self.idle_since.is_none() {
            self.idle_since = Some(now);
        }
    }

    fn grow(&mut self, factor: f64) {
        self.share = (self.share * factor).min(1.0);
    }
}

// The table in `core/mod.rs` shows the effect of halving and doubling these.

/// A predicted wait, in seconds and as a share of the allowed time, below which the queue counts as
/// empty. Twice the seconds are always allowed.
const TARGET_S: f64 = 0.1;
const TARGET_SHARE: f64 = 0.025;
/// The shortest interval before a cut, as a multiple of the allowed time.
const INTERVAL_WAITS: f64 = 15.0;
/// The factor of one cut, and the seconds between two cuts.
const CUT_FACTOR: f64 = 0.5;
const CUT_INTERVAL_S: f64 = 3.0;
/// The smallest share that cuts lead to.
const MIN_SHARE: f64 = 0.02;
/// The factor by which the share grows in an interval in which the queue drains.
const GROWTH_PER_INTERVAL: f64 = 1.25;
/// The factor by which it grows per second without a queue, and the most seconds counted.
const IDLE_GROWTH_PER_S: f64 = 1.15;
const MAX_IDLE_S: f64 = 1_000.0;
/// The smallest share of the allowed wait that a request keeps which is worth little.
const MIN_SIZE_SHARE: f64 = 0.05;

#[cfg(test)]
mod tests {
    use super::*;

    const MEAN: Newcomer = Newcomer { budget: 4.0, worth: 1.0, is_behind: true };

    fn observed(interval: Option<u64>, seconds: u32, wait: f64) -> StandingQueue {
        let mut standing = StandingQueue::new(interval.map(Duration::from_secs));
        for second in 0..seconds {
            standing.on_arrival(f64::from(second), wait, 4.0);
        }
        standing
    }

    #[test]
    fn a_burst_shorter_than_the_interval_may_wait_in_full() {
        assert_eq!(observed(Some(60), 60, 3.9).allowed_wait(&MEAN), 4.0);
    }

    #[test]
    fn a_queue_that_stands_is_cut_again_and_again() {
        assert_eq!(observed(Some(60), 62, 3.9).allowed_wait(&MEAN), 2.0);
        assert_eq!(observed(Some(60), 120, 3.9).allowed_wait(&MEAN), 2.0 * TARGET_S);
    }

    #[test]
    fn a_queue_that_is_cut_grows_back_slowly_and_is_cut_sooner_when_it_stands_again() {
        let mut standing = observed(Some(60), 62, 3.9);
        standing.on_arrival(62.0, 0.05, 4.0);
        assert_eq!(standing.allowed_wait(&MEAN), 2.0, "one short wait is no empty queue");
        standing.on_arrival(70.0, 0.05, 4.0);
        assert_eq!(standing.allowed_wait(&MEAN), 2.5);
        for second in 71..=130 {
            standing.on_arrival(f64::from(second), 2.4, 4.0);
        }
        assert_eq!(standing.allowed_wait(&MEAN), 1.25, "after 40 s and not after 60");
    }

    #[test]
    fn a_quiet_time_restores_it() {
        let mut standing = observed(Some(60), 62, 3.9);
        standing.on_idle(62.0);
        standing.on_idle(66.0);
        standing.on_arrival(67.0, 3.0, 4.0);
        assert_eq!(standing.allowed_wait(&MEAN), 4.0, "five seconds double it");
    }

    #[test]
    fn a_long_max_wait_rides_out_long_bursts() {
        let mut standing = StandingQueue::new(Some(Duration::from_secs(60)));
        for second in 0..440 {
            standing.on_arrival(f64::from(second), 29.0, 30.0);
        }
        assert_eq!(standing.allowed_wait(&Newcomer { budget: 30.0, ..MEAN }), 30.0);
    }

    #[test]
    fn behind_others_small_requests_wait_for_less_and_none_for_more_than_allowed() {
        let standing = observed(Some(60), 1, 0.0);
        assert_eq!(standing.allowed_wait(&Newcomer { worth: 0.5, ..MEAN }), 2.0);
        assert_eq!(standing.allowed_wait(&Newcomer { worth: 3.0, ..MEAN }), 4.0);
        let alone = Newcomer { worth: 0.0, is_behind: false, ..MEAN };
        assert_eq!(standing.allowed_wait(&alone), 4.0, "it delays no other request");
    }

    #[test]
    fn without_an_interval_nothing_is_cut() {
        let standing = observed(None, 600, 3.9);
        assert_eq!(standing.allowed_wait(&Newcomer { worth: 0.01, ..MEAN }), 4.0);
    }
}
