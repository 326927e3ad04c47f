//! Probes whether the PTU has capacity when the model cannot tell.

use super::{
    rate_estimator::Trust,
    time::{MILLISECOND, Nanos},
};

/// Decides when to send a probe: an attempt whose outcome cannot be predicted.
///
/// A refusal gives the level exactly, and is back within one round trip; an answer takes as long
/// as it takes to generate. So silence for a little longer than a round trip is as good as an
/// answer: the level is below the limit. While the model is not trusted, one attempt is made, and
/// silence after it lets the next one go: sooner each time while there are too few samples, until
/// one is refused, and at an even pace when other processes fill the same PTU, so that a request
/// that is refused goes again before another one is sent.
///
/// A trusted model drifts from the truth as well: answers turn out shorter than was estimated, some
/// of them before the gate was busy and could see them. Nothing would show that, since a gate whose
/// model is too high meets no refusals. So the model is checked by a probe now and then, more often
/// after a quiet time, at the price of one refusal.
#[derive(Clone, Debug)]
pub(super) struct Prober {
    /// How many attempts may be under way while the model is not trusted.
    window: u32,
    under_way: u32,
    last_sent: Nanos,
    /// Attempts since the last refusal.
    unrefused: u32,
    /// After how many of them a trusted model is checked.
    check_after: u32,
}

impl Prober {
    pub(super) const fn new() -> Self {
        Self {
            window: 1,
            under_way: 0,
            last_sent: Nanos::MIN / 2,
            unrefused: 0,
            check_after: MIN_ATTEMPTS_PER_CHECK,
        }
    }

    /// When the next attempt is to be made, if a request sent at `sendable_at` is expected to be
    /// admitted.
    pub(super) fn next_attempt_at(
        &self,
        sendable_at: Nanos,
        trust: Trust,
        round_trip: Nanos,
    ) -> Nanos {
        let silence = (round_trip * PROBE_SILENCE_HALF_TRIPS / 2).max(MIN_PROBE_SILENCE_NS);
        let sooner = self.last_sent + silence / Nanos::from(self.window);
        match trust {
            Trust::Trusted if self.is_checking() => sendable_at.min(sooner),
            Trust::Trusted => sendable_at,
            _ if self.under_way < self.window => sendable_at,
            Trust::TooFew => sendable_at.max(sooner),
            Trust::Contradicted => {
                sendable_at.max(self.last_sent + SHARED_PTU_SILENCE_FACTOR * silence)
            }
        }
    }

    /// An attempt is made. Returns whether silence has shown that the level was below the limit.
    pub(super) fn on_sent(&mut self, now: Nanos, trust: Trust) -> bool {
        let is_trusted = trust == Trust::Trusted;
        let is_first = self.unrefused == self.check_after;
        let is_below = is_trusted && self.is_checking() && !is_first;
        // What was sent before the last refusal was not silent after it.
        let is_silent =
            trust == Trust::TooFew && self.unrefused > 0 && self.under_way >= self.window;
        if is_trusted && is_first {
            self.window = 1;
        } else if is_below || is_silent {
            self.window = self.window.saturating_add(1);
        }
        self.under_way += 1;
        self.unrefused = self.unrefused.saturating_add(1);
        self.last_sent = now;
        is_below
    }

    /// An attempt was made while nothing was known of the PTU, and is refused.
    pub(super) fn on_untracked_refusal(&mut self) {
        self.under_way += 1;
        self.unrefused = 0;
        self.check_after = MIN_ATTEMPTS_PER_CHECK;
    }

    /// The answer of an attempt is here, or will never be.
    pub(super) fn on_ended(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// An attempt was admitted while the level was expected below the limit: one more at once.
    pub(super) fn on_admitted(&mut self) {
        self.window = self.window.saturating_add(1);
    }

    /// An attempt was refused: the level is known again.
    pub(super) fn on_refused(&mut self) {
        if self.is_checking() {
            self.check_after =
                (self.check_after * CHECK_INTERVAL_GROWTH).min(MAX_ATTEMPTS_PER_CHECK);
        }
        self.unrefused = 0;
        self.window = 1;
    }

    /// Whether a trusted model is being checked, and may be wrong.
    pub(super) const fn is_checking(&self) -> bool {
        self.unrefused >= self.check_after
    }
}

// What halving and doubling these does is in the table of the module `core`.

/// Attempts without a refusal until the model is checked: after a quiet time, and in the long run.
const MIN_ATTEMPTS_PER_CHECK: u32 = 8;
const MAX_ATTEMPTS_PER_CHECK: u32 = 64;
/// How much later the next check is after each one that was refused.
const CHECK_INTERVAL_GROWTH: u32 = 2;
/// How long silence has to last to count as an admission, in half round trips.
const PROBE_SILENCE_HALF_TRIPS: Nanos = 3;
/// The shortest silence that counts: a refusal may be slow for once.
const MIN_PROBE_SILENCE_NS: Nanos = 20 * MILLISECOND;
/// How much longer silence has to last where others fill the same PTU: an answer usually comes
/// first.
const SHARED_PTU_SILENCE_FACTOR: Nanos = 10;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = MILLISECOND;
    const TRIP: Nanos = 30 * MS;

    #[test]
    fn one_attempt_at_a_time_until_it_is_answered_or_silent_for_long_enough() {
        let mut prober = Prober::new();
        assert_eq!(prober.next_attempt_at(5 * MS, Trust::TooFew, TRIP), 5 * MS);
        prober.on_sent(5 * MS, Trust::TooFew);
        assert_eq!(
            prober.next_attempt_at(5 * MS, Trust::TooFew, TRIP),
            50 * MS,
            "one and a half round trips later"
        );
        prober.on_ended();
        assert_eq!(prober.next_attempt_at(5 * MS, Trust::TooFew, TRIP), 5 * MS, "answered");
    }

    #[test]
    fn attempts_follow_each_other_faster_until_one_is_refused() {
        let mut prober = Prober::new();
        let (mut now, mut sent) = (0, 0);
        while now < 300 * MS {
            prober.on_sent(now, Trust::TooFew);
            sent += 1;
            now = prober.next_attempt_at(0, Trust::TooFew, TRIP);
        }
        assert!(sent > 50, "{sent}");
        prober.on_refused();
        prober.on_sent(now, Trust::TooFew);
        assert_eq!(prober.next_attempt_at(0, Trust::TooFew, TRIP), now + 45 * MS);
    }

    #[test]
    fn where_others_fill_the_ptu_the_pace_stays_even() {
        let mut prober = Prober::new();
        let mut now = 0;
        for _ in 0..10 {
            prober.on_sent(now, Trust::Contradicted);
            assert_eq!(prober.next_attempt_at(0, Trust::Contradicted, TRIP), now + 450 * MS);
            now += 450 * MS;
        }
    }

    #[test]
    fn a_trusted_model_is_checked_now_and_then_and_less_often_the_better_it_is() {
        let mut prober = Prober::new();
        let far = 1_000_000 * MS;
        for after in [8, 16, 32, 64, 64] {
            for attempt in 0..after {
                assert_eq!(prober.next_attempt_at(far, Trust::Trusted, TRIP), far, "paced");
                assert!(!prober.on_sent(attempt, Trust::Trusted));
            }
            assert!(
                prober.next_attempt_at(far, Trust::Trusted, TRIP) < far,
                "checked after {after}"
            );
            prober.on_sent(after, Trust::Trusted);
            prober.on_refused();
        }
        for attempt in 0..65 {
            prober.on_sent(attempt, Trust::Trusted);
        }
        prober.on_untracked_refusal();
        prober.on_refused();
        for attempt in 0..8 {
            assert_eq!(prober.next_attempt_at(far, Trust::Trusted, TRIP), far, "paced");
            prober.on_sent(attempt, Trust::Trusted);
        }
        assert!(
            prober.next_attempt_at(far, Trust::Trusted, TRIP) < far,
            "soon again after a quiet time"
        );
    }

    #[test]
    fn a_refusal_when_a_check_was_due_is_one() {
        let mut prober = Prober::new();
        let send = |prober: &mut Prober, attempts: Nanos| {
            for attempt in 0..attempts {
                prober.on_sent(attempt, Trust::Trusted);
            }
            prober.is_checking()
        };
        assert!(send(&mut prober, 8));
        prober.on_refused();
        assert!(!send(&mut prober, 15));
        prober.on_refused();
        assert!(send(&mut prober, 16), "an early one is no check");
    }

    #[test]
    fn silence_after_a_check_says_that_the_level_is_below_the_limit() {
        let mut prober = Prober::new();
        for attempt in 0..8 {
            assert!(!prober.on_sent(attempt, Trust::Trusted));
        }
        assert!(!prober.on_sent(8, Trust::Trusted), "nothing is known yet");
        assert!(prober.on_sent(9 + 45 * MS, Trust::Trusted));
    }
}
