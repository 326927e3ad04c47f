//! Whether the store is called, decided by how its last calls ended.

use std::time::Duration;

/// Without reading a clock: times are since an arbitrary start.
#[derive(Debug)]
pub(super) struct Breaker {
    is_up: bool,
    /// By the number of the server: one that hangs must not hide behind the others of its cluster.
    timeouts_in_a_row: Vec<u32>,
    /// When it last went up.
    up_at: Duration,
    /// How often in a row it went down soon after it went up.
    short_ups: u32,
    /// Whether its connection broke when it last went down.
    was_cut: bool,
}

impl Breaker {
    /// Down, until the first connection works.
    pub(super) const fn new() -> Self {
        Self {
            is_up: false,
            timeouts_in_a_row: Vec::new(),
            up_at: Duration::ZERO,
            short_ups: 0,
            was_cut: false,
        }
    }

    pub(super) const fn is_up(&self) -> bool {
        self.is_up
    }

    /// The store was reached, and its script wrote something.
    pub(super) fn on_connected(&mut self, now: Duration) {
        (self.is_up, self.up_at) = (true, now);
        self.timeouts_in_a_row.clear();
    }

    pub(super) fn on_answer(&mut self, server: usize) {
        if let Some(timeouts) = self.timeouts_in_a_row.get_mut(server) {
            *timeouts = 0;
        }
    }

    /// A call to `server` took too long. Returns whether the store is down by that: a single one may
    /// be a packet that was lost.
    pub(super) fn on_timeout(&mut self, now: Duration, server: usize) -> bool {
        if self.timeouts_in_a_row.len() <= server {
            self.timeouts_in_a_row.resize(server + 1, 0);
        }
        self.timeouts_in_a_row[server] += 1;
        self.timeouts_in_a_row[server] >= TIMEOUTS_UNTIL_DOWN && self.on_error(now, false)
    }

    /// A call failed, because the connection broke if `is_cut`. Returns whether the store is down by
    /// that, which it is not if it was before.
    pub(super) fn on_error(&mut self, now: Duration, is_cut: bool) -> bool {
        if !self.is_up {
            return false;
        }
        let is_short = now.saturating_sub(self.up_at) < SHORT_UP;
        self.short_ups = if is_short { self.short_ups + 1 } else { 0 };
        (self.is_up, self.was_cut) = (false, is_cut);
        true
    }

    /// The delay before attempt number `attempt`, from 0, to reach a store that is down. `share` is a
    /// random number from 0 to 1: the processes of a fleet must not connect together.
    pub(super) fn delay(&self, attempt: u32, share: f64) -> Duration {
        let delay = RECONNECT_DELAYS[(attempt as usize).min(RECONNECT_DELAYS.len() - 1)];
        // A store that connects, and fails each time it is used, is called less often.
        let most = if self.was_cut { MAX_DOUBLINGS_AFTER_CUTS } else { MAX_DOUBLINGS };
        let doublings = self.short_ups.saturating_sub(TOLERATED_SHORT_UPS).min(most);
        (delay * (1 << doublings)).mul_f64(1.0 + JITTER * (2.0 * share - 1.0))
    }
}

const TIMEOUTS_UNTIL_DOWN: u32 = 3;
/// A store that returns is used again within half a second.
const RECONNECT_DELAYS: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(200), Duration::from_millis(250)];
const JITTER: f64 = 0.2;
const SHORT_UP: Duration = Duration::from_secs(5);
const TOLERATED_SHORT_UPS: u32 = 8;
/// The first delay becomes 0.2 s, so that a store whose connections are cut again and again is still used
/// within half a second after each cut; one that is away is tried twice a second. An attempt costs the
/// store a handshake and a few scripts.
const MAX_DOUBLINGS_AFTER_CUTS: u32 = 1;
/// 250 ms become 8 s. Some script does not work, or the store is too busy: another connection does not
/// help, and each one is a line in the log.
const MAX_DOUBLINGS: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn up() -> Breaker {
        let mut breaker = Breaker::new();
        assert!(!breaker.is_up());
        breaker.on_connected(s(1));
        breaker
    }

    #[test]
    fn three_timeouts_in_a_row_open_it_and_an_answer_between_them_does_not() {
        let mut breaker = up();
        for _ in 0..9 {
            assert!(!breaker.on_timeout(s(100), 0) && !breaker.on_timeout(s(100), 0));
            breaker.on_answer(0);
        }
        assert!(!breaker.on_timeout(s(100), 0) && !breaker.on_timeout(s(100), 0));
        assert!(breaker.is_up());
        assert!(breaker.on_timeout(s(100), 0));
        assert!(!breaker.is_up());
        assert!(!breaker.on_timeout(s(100), 0), "it is down already");
    }

    #[test]
    fn answers_of_other_servers_of_a_cluster_do_not_hide_one_that_hangs() {
        let mut breaker = up();
        for _ in 0..2 {
            assert!(!breaker.on_timeout(s(100), 2) && !breaker.on_timeout(s(100), 0));
            breaker.on_answer(0);
            breaker.on_answer(1);
        }
        assert!(breaker.on_timeout(s(100), 2));
        breaker.on_connected(s(101));
        assert!(!breaker.on_timeout(s(102), 2), "another connection");
    }

    #[test]
    fn one_error_opens_it() {
        let mut breaker = up();
        assert!(breaker.on_error(s(100), true));
        assert!(!breaker.is_up() && !breaker.on_error(s(100), true));
        breaker.on_connected(s(101));
        assert!(breaker.is_up());
    }

    #[test]
    fn it_looks_four_times_a_second_unless_the_store_fails_again_and_again() {
        let mut breaker = up();
        breaker.on_error(s(100), true);
        let delays = |breaker: &Breaker| [0, 1, 2, 9].map(|it| breaker.delay(it, 0.5).as_millis());
        assert_eq!(delays(&breaker), [100, 200, 250, 250]);
        assert_eq!(breaker.delay(2, 0.0), Duration::from_millis(200));
        assert_eq!(breaker.delay(2, 1.0), Duration::from_millis(300));
        for _ in 0..30 {
            breaker.on_connected(s(200));
            breaker.on_error(s(201), true);
        }
        assert_eq!(delays(&breaker), [200, 400, 500, 500], "connections are cut");
        breaker.on_connected(s(200));
        breaker.on_error(s(201), false);
        assert_eq!(delays(&breaker), [3_200, 6_400, 8_000, 8_000], "a script fails");
        breaker.on_connected(s(300));
        breaker.on_error(s(310), false);
        assert_eq!(delays(&breaker), [100, 200, 250, 250]);
    }
}
