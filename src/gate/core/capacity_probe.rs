//! Feels for the rim of the bucket where the reckoning does not tell where it is.

use super::{rate_estimator::Trust, time::Nanos};

/// When an attempt is worth making whose fate is not known.
///
/// A refusal tells the level exactly, and is back within one round trip; an answer takes as long
/// as it takes to generate. So silence for a little longer than a round trip is as good as an
/// answer: the level is below the rim. While the reckoning is not trusted, one attempt is made, and
/// silence after it lets the next one go: sooner each time while too little is known, until one is
/// refused, and at an even pace when other processes fill the same PTU, so that a request that is
/// refused goes again before another one is sent.
///
/// A reckoning that is trusted drifts all the same: answers turn out shorter than was estimated,
/// some of them before the gate was busy and could see them. Nothing would tell, since a gate that
/// takes the level for higher than it is meets no refusals. So every now and then, more often after
/// a quiet time, the rim is felt for in the same way, which costs one refusal.
#[derive(Clone, Debug)]
pub(super) struct Feeler {
    /// How many attempts may be under way while the reckoning is not trusted.
    window: u32,
    under_way: u32,
    last_sent: Nanos,
    /// Attempts since the last refusal.
    unchecked: u32,
    /// After how many of them a trusted reckoning is checked.
    check_after: u32,
}

impl Feeler {
    pub(super) const fn new() -> Self {
        Self {
            window: 1,
            under_way: 0,
            last_sent: Nanos::MIN / 2,
            unchecked: 0,
            check_after: FEWEST,
        }
    }

    /// When the next attempt is to be made, if the level is reckoned to pass the rim at `clear`.
    pub(super) fn due(&self, clear: Nanos, trust: Trust, round_trip: Nanos) -> Nanos {
        let patience = (round_trip + round_trip / 2).max(SHORTEST);
        let sooner = self.last_sent + patience / Nanos::from(self.window);
        match trust {
            Trust::Full if self.is_checking() => clear.min(sooner),
            Trust::Full => clear,
            _ if self.under_way < self.window => clear,
            Trust::Open => clear.max(sooner),
            Trust::None => clear.max(self.last_sent + LONGER * patience),
        }
    }

    /// An attempt is made. Returns whether silence has shown that the level was below the rim.
    pub(super) fn sent(&mut self, now: Nanos, trust: Trust) -> bool {
        let is_first = self.unchecked == self.check_after;
        let is_open = trust == Trust::Full && self.is_checking() && !is_first;
        // What was sent before the last refusal was not silent after it.
        let is_silent = trust == Trust::Open && self.unchecked > 0 && self.under_way >= self.window;
        if trust == Trust::Full && is_first {
            self.window = 1;
        } else if is_open || is_silent {
            self.window = self.window.saturating_add(1);
        }
        self.under_way += 1;
        self.unchecked = self.unchecked.saturating_add(1);
        self.last_sent = now;
        is_open
    }

    /// An attempt was made while nothing was known of the PTU.
    pub(super) fn untracked(&mut self) {
        self.under_way += 1;
        self.unchecked = 0;
        self.check_after = FEWEST;
    }

    /// The answer of an attempt is here, or will never be.
    pub(super) fn ended(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// An attempt was admitted while the level was reckoned to be below the rim: one more at once.
    pub(super) fn admitted(&mut self) {
        self.window = self.window.saturating_add(1);
    }

    /// An attempt was refused: the level is known again.
    pub(super) fn refused(&mut self) {
        if self.is_checking() {
            self.check_after = (self.check_after * 2).min(MOST);
        }
        self.unchecked = 0;
        self.window = 1;
    }

    /// Whether a trusted reckoning is being checked, and may be wrong.
    pub(super) const fn is_checking(&self) -> bool {
        self.unchecked >= self.check_after
    }
}

/// Attempts until the reckoning is checked after a quiet time, and in the long run.
const FEWEST: u32 = 8;
const MOST: u32 = 64;
/// How much longer silence has to last where others fill the same PTU: an answer usually comes first.
const LONGER: Nanos = 10;
/// The shortest silence that says something: a refusal may be slow for once.
const SHORTEST: Nanos = 20_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;
    const TRIP: Nanos = 30 * MS;

    #[test]
    fn one_attempt_at_a_time_until_it_is_answered_or_silent_for_long_enough() {
        let mut feeler = Feeler::new();
        assert_eq!(feeler.due(5 * MS, Trust::Open, TRIP), 5 * MS);
        feeler.sent(5 * MS, Trust::Open);
        assert_eq!(
            feeler.due(5 * MS, Trust::Open, TRIP),
            50 * MS,
            "one and a half round trips later"
        );
        feeler.ended();
        assert_eq!(feeler.due(5 * MS, Trust::Open, TRIP), 5 * MS, "answered");
    }

    #[test]
    fn attempts_follow_each_other_faster_until_one_is_refused() {
        let mut feeler = Feeler::new();
        let (mut now, mut sent) = (0, 0);
        while now < 300 * MS {
            feeler.sent(now, Trust::Open);
            sent += 1;
            now = feeler.due(0, Trust::Open, TRIP);
        }
        assert!(sent > 50, "{sent}");
        feeler.refused();
        feeler.sent(now, Trust::Open);
        assert_eq!(feeler.due(0, Trust::Open, TRIP), now + 45 * MS);
    }

    #[test]
    fn where_others_fill_the_ptu_the_pace_stays_even() {
        let mut feeler = Feeler::new();
        let mut now = 0;
        for _ in 0..10 {
            feeler.sent(now, Trust::None);
            assert_eq!(feeler.due(0, Trust::None, TRIP), now + 450 * MS);
            now += 450 * MS;
        }
    }

    #[test]
    fn a_trusted_reckoning_is_checked_now_and_then_and_less_often_the_better_it_is() {
        let mut feeler = Feeler::new();
        let far = 1_000_000 * MS;
        for after in [8, 16, 32, 64, 64] {
            for attempt in 0..after {
                assert_eq!(feeler.due(far, Trust::Full, TRIP), far, "paced");
                assert!(!feeler.sent(attempt, Trust::Full));
            }
            assert!(feeler.due(far, Trust::Full, TRIP) < far, "checked after {after}");
            feeler.sent(after, Trust::Full);
            feeler.refused();
        }
        for attempt in 0..65 {
            feeler.sent(attempt, Trust::Full);
        }
        feeler.untracked();
        feeler.refused();
        for attempt in 0..8 {
            assert_eq!(feeler.due(far, Trust::Full, TRIP), far, "paced");
            feeler.sent(attempt, Trust::Full);
        }
        assert!(feeler.due(far, Trust::Full, TRIP) < far, "soon again after a quiet time");
    }

    #[test]
    fn a_refusal_when_a_check_was_due_is_one() {
        let mut feeler = Feeler::new();
        let send = |feeler: &mut Feeler, attempts: Nanos| {
            for attempt in 0..attempts {
                feeler.sent(attempt, Trust::Full);
            }
            feeler.is_checking()
        };
        assert!(send(&mut feeler, 8));
        feeler.refused();
        assert!(!send(&mut feeler, 15));
        feeler.refused();
        assert!(send(&mut feeler, 16), "an early one is no check");
    }

    #[test]
    fn silence_after_a_check_says_that_the_level_is_below_the_rim() {
        let mut feeler = Feeler::new();
        for attempt in 0..8 {
            assert!(!feeler.sent(attempt, Trust::Full));
        }
        assert!(!feeler.sent(8, Trust::Full), "nothing is known yet");
        assert!(feeler.sent(9 + 45 * MS, Trust::Full));
    }
}
