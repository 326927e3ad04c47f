//! When the next attempt is made: by the model, or to check the model.

use super::time::{MILLISECOND, NEVER, Nanos, from_seconds, seconds};

/// Decides when the next attempt is made, so that the PTU is never open for half a second while
/// requests wait for it.
///
/// A refusal gives the level exactly, and is back within one round trip; an answer takes as long as
/// it takes to generate. So silence for a little longer than a round trip is as good as an answer:
/// the level was below the limit.
///
/// The hint of a refusal says when the level falls below the limit by draining. It does not include
/// what answers give back when they end, and where callers state a large `max_tokens`, that is most of
/// the level. A model that is too high would never show, since a request that is sent too late is not
/// refused. So a third of a second after a refusal, or a little after its hint if that is sooner, an
/// *early* attempt is made, ahead of the model. If it is refused, the level is known again. Silence
/// shows that the model is too high: it is corrected, and further early attempts follow faster and
/// faster, until one is refused. The price of that knowledge is about one refusal in each third of a
/// second, whatever the size of the PTU.
///
/// A request that would not wait is no reason to check a hint that the model expected: it makes an
/// attempt only if none was made for most of a second.
///
/// When others fill the same PTU, early attempts are the rarer, the less they find.
///
/// While the rate is unknown, there is no model between two hints, and an attempt is made whenever
/// the previous one has been silent.
#[derive(Clone, Debug)]
pub(super) struct Prober {
    last_sent: Nanos,
    /// Start of the silence that counts: the last attempt, unless its outcome is known.
    silent_since: Nanos,
    /// The last early attempt since the last refusal.
    early_at: Option<Nanos>,
    /// How many attempts are made in the time of one silence.
    window: u32,
    /// The first attempt since the last refusal.
    first_sent: Option<Nanos>,
    /// When the last refusal was decided, and when it became known here.
    refused_at: Nanos,
    refusal_known_at: Nanos,
    /// Until when the PTU is known to refuse.
    closed_until: Nanos,
    /// Whether the model had predicted the last refusal.
    is_explained: bool,
    /// How long a request took to drain at the last refusal, in seconds. Not updated by arrivals, so
    /// that they do not change a time that a waiter already sleeps for.
    fill: f64,
}

/// The inputs that attempt times depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// When to send an attempt so that it arrives just as the level falls below the limit.
    pub(super) sendable_at: Nanos,
    /// Whether that is modelled; otherwise it is known from hints alone.
    pub(super) is_modelled: bool,
    /// How long silence must last.
    pub(super) silence: Nanos,
    /// The network's round trip.
    pub(super) round_trip: Nanos,
    /// How long after a hint to make an early attempt if others fill the same PTU, and this gate
    /// yields to them.
    pub(super) yielding_check: Option<Nanos>,
}

/// A refusal, as the prober sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct PtuRefusal {
    pub(super) now: Nanos,
    /// When it was decided.
    pub(super) decided: Nanos,
    /// Until when the PTU refuses according to its hint, if that is believed.
    pub(super) closed_until: Nanos,
    /// The error of the model in seconds; `None` if there was no model.
    pub(super) error: Option<f64>,
    /// How long a request takes to drain, in seconds.
    pub(super) fill: f64,
}

impl Prober {
    pub(super) const fn new() -> Self {
        Self {
            last_sent: NEVER,
            silent_since: NEVER,
            early_at: None,
            window: 1,
            first_sent: None,
            refused_at: NEVER,
            refusal_known_at: NEVER,
            closed_until: NEVER,
            is_explained: false,
            fill: 0.0,
        }
    }

    /// When to make the next attempt.
    pub(super) fn next_attempt_at(&self, pace: &Pace) -> Nanos {
        let gap = pace.silence / Nanos::from(self.window);
        let early = self.early_at.map_or_else(|| self.check_at(pace), |at| at + gap);
        let in_time = if pace.is_modelled || self.first_sent.is_none() {
            pace.sendable_at
        } else {
            pace.sendable_at.max(self.silent_since + gap)
        };
        in_time.min(early)
    }

    /// An attempt is made. Returns whether silence has shown that the level was below the limit.
    pub(super) fn on_sent(&mut self, now: Nanos, pace: &Pace) -> bool {
        let gap = pace.silence / Nanos::from(self.window);
        let mut is_below = false;
        match self.early_at {
            Some(at) if now >= at + gap => {
                is_below = true;
                self.early_at = Some(now);
                self.window = (self.window + 1).min(MAX_WINDOW);
            }
            Some(_) => {}
            None if now < pace.sendable_at => self.early_at = Some(now),
            None if !pace.is_modelled
                && self.first_sent.is_some()
                && now >= self.silent_since + gap =>
            {
                self.window = (self.window + 1).min(MAX_UNMODELLED_WINDOW);
            }
            None => {}
        }
        self.first_sent.get_or_insert(now);
        (self.last_sent, self.silent_since) = (now, now);
        is_below
    }

    /// The first attempt since the last refusal, if it has been silent for long enough by `now`.
    pub(super) fn silent_attempt(&self, now: Nanos, silence: Nanos) -> Option<Nanos> {
        self.first_sent.filter(|sent_at| now >= sent_at + silence)
    }

    /// An attempt was refused: the level is known again.
    pub(super) fn on_refused(&mut self, refusal: &PtuRefusal) {
        let hint = seconds(refusal.closed_until - refusal.decided);
        let is_explained = |error| error <= EXPLAINED_SHARE * hint + EXPLAINED_S;
        self.is_explained = refusal.error.is_some_and(is_explained);
        (self.closed_until, self.fill) = (refusal.closed_until, refusal.fill);
        (self.refused_at, self.refusal_known_at) = (refusal.decided, refusal.now);
        (self.first_sent, self.window, self.early_at) = (None, 1, None);
    }

    /// The outcome of the attempt sent at `sent_at` is known, and was not a refusal: its silence no
    /// longer matters.
    pub(super) fn on_known(&mut self, sent_at: Nanos) {
        if self.silent_since == sent_at {
            self.silent_since = NEVER;
        }
    }

    /// The attempt sent at `sent_at`, which arrived at `arrived`, was admitted: the PTU does not
    /// refuse, whatever the last hint said.
    pub(super) fn on_admitted(&mut self, sent_at: Nanos, arrived: Nanos) {
        if self.is_news(sent_at) {
            self.closed_until = self.closed_until.min(arrived);
        }
    }

    /// The attempt sent at `sent_at` was cancelled, and proves nothing.
    pub(super) fn on_cancelled(&mut self, sent_at: Nanos) {
        self.on_known(sent_at);
        self.first_sent = self.first_sent.filter(|first| *first != sent_at);
        self.early_at = self.early_at.filter(|early| *early != sent_at);
    }

    /// Another gate knows at `now` that the PTU refuses until `closed_until`.
    pub(super) const fn seed(&mut self, now: Nanos, closed_until: Nanos) {
        self.closed_until = closed_until;
        (self.refused_at, self.refusal_known_at) = (now, now);
        (self.first_sent, self.window, self.early_at) = (None, 1, None);
    }

    /// An attempt that was not tracked turns out to be refused.
    pub(super) const fn on_untracked_refusal(&mut self) {
        self.first_sent = None;
    }

    /// The level is lower than modelled, by this much time to drain.
    pub(super) const fn on_lowered(&mut self, by: Nanos) {
        self.closed_until = self.closed_until.saturating_sub(by);
    }

    /// Whether the attempt sent at `sent_at` is the first since the last refusal.
    pub(super) fn is_first(&self, sent_at: Nanos) -> bool {
        self.first_sent == Some(sent_at)
    }

    /// Whether an attempt sent at `sent_at` was made after the last refusal became known.
    pub(super) const fn is_news(&self, sent_at: Nanos) -> bool {
        sent_at >= self.refusal_known_at
    }

    /// Until when the PTU is known to refuse.
    pub(super) const fn closed_until(&self) -> Nanos {
        self.closed_until
    }

    pub(super) const fn refused_at(&self) -> Nanos {
        self.refused_at
    }

    pub(super) const fn refusal_known_at(&self) -> Nanos {
        self.refusal_known_at
    }

    /// Whether the PTU has gone without an attempt for so long that a request that will not wait may
    /// make one.
    pub(super) fn is_due_anyway(&self, now: Nanos) -> bool {
        now.saturating_sub(self.refused_at.max(self.last_sent)) >= BYPASS_AFTER_NS
    }

    /// When the early attempt was sent whose outcome is awaited before any further one.
    pub(super) fn checked_at(&self) -> Option<Nanos> {
        self.early_at.filter(|_| self.window == 1)
    }

    /// When to make an early attempt.
    fn check_at(&self, pace: &Pace) -> Nanos {
        if let Some(check) = pace.yielding_check {
            return self.closed_until.saturating_add(check);
        }
        let open = (CHECK_FILLS * self.fill).clamp(MIN_CHECK_S, MAX_CHECK_S);
        let open = open.min(CHECK_AND_TRIP_S - seconds(pace.round_trip));
        let check = self.closed_until.saturating_add(from_seconds(open));
        check.min(self.refused_at.saturating_add(MAX_HINT_UNCHECKED_NS))
    }

    /// Whether the model had predicted the last refusal.
    pub(super) const fn is_explained(&self) -> bool {
        self.is_explained
    }
}

// The table in `core/mod.rs` shows the effect of halving and doubling these.

/// How long after a hint an early attempt is made: in times to drain a request, and in seconds.
pub(super) const CHECK_FILLS: f64 = 10.0;
pub(super) const MIN_CHECK_S: f64 = 0.1;
pub(super) const MAX_CHECK_S: f64 = 0.3;
/// Over a distant network it is made sooner, since its silence takes longer to prove anything.
pub(super) const CHECK_AND_TRIP_S: f64 = 0.35;
/// Its latest time after a refusal, however long the hint: an answer that ends gives back what the
/// service had charged for it in advance, and no hint includes that. With half a round trip it leaves
/// a tenth of a second of the half second that the PTU may be open.
pub(super) const MAX_HINT_UNCHECKED_NS: Nanos = 360 * MILLISECOND;
/// How long the PTU goes without an attempt before a request that will not wait makes one.
pub(super) const BYPASS_AFTER_NS: Nanos = 900 * MILLISECOND;
/// The model predicted a refusal if it was wrong by less than this share of the hint, plus these
/// seconds.
pub(super) const EXPLAINED_SHARE: f64 = 0.1;
pub(super) const EXPLAINED_S: f64 = 0.05;
/// Most attempts in the time of one silence: with a model, and without.
pub(super) const MAX_WINDOW: u32 = 1_000;
pub(super) const MAX_UNMODELLED_WINDOW: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = MILLISECOND;
    const FAR_FUTURE: Nanos = 1_000_000 * MS;

    fn pace() -> Pace {
        Pace {
            sendable_at: FAR_FUTURE,
            is_modelled: true,
            silence: 45 * MS,
            round_trip: 30 * MS,
            yielding_check: None,
        }
    }

    /// Refused at 0 with a hint that the model had predicted.
    fn refused(hint: Nanos) -> Prober {
        let mut prober = Prober::new();
        prober.on_refused(&refusal(15 * MS, 0, hint, Some(0.0)));
        prober
    }

    fn refusal(now: Nanos, decided: Nanos, hint: Nanos, error: Option<f64>) -> PtuRefusal {
        PtuRefusal { now, decided, closed_until: decided + hint, error, fill: 0.1 }
    }

    #[test]
    fn a_short_hint_is_waited_for_and_the_model_for_a_third_of_a_second_more() {
        assert_eq!(refused(40 * MS).next_attempt_at(&pace()), 340 * MS);
        let soon = Pace { sendable_at: 60 * MS, ..pace() };
        assert_eq!(refused(40 * MS).next_attempt_at(&soon), 60 * MS, "by the model");
    }

    #[test]
    fn a_long_hint_is_checked_although_the_model_expects_it() {
        assert_eq!(refused(2_000 * MS).next_attempt_at(&pace()), MAX_HINT_UNCHECKED_NS);
    }

    #[test]
    fn a_large_ptu_is_checked_sooner_and_a_far_one_too() {
        let mut large = Prober::new();
        large.on_refused(&PtuRefusal { fill: 0.006, ..refusal(15 * MS, 0, 4 * MS, Some(0.0)) });
        assert_eq!(large.next_attempt_at(&pace()), 104 * MS);
        let far = Pace { round_trip: 100 * MS, silence: 150 * MS, ..pace() };
        assert!((refused(40 * MS).next_attempt_at(&far) - 290 * MS).abs() < MS);
    }

    #[test]
    fn silence_after_an_early_attempt_says_that_the_level_is_below_the_limit() {
        let mut prober = refused(40 * MS);
        assert!(!prober.on_sent(340 * MS, &pace()), "nothing is known yet");
        assert_eq!(prober.next_attempt_at(&pace()), 385 * MS);
        let due = Pace { sendable_at: 350 * MS, ..pace() };
        assert!(!prober.on_sent(350 * MS, &due), "another one, in its time, says nothing");
        assert!(prober.on_sent(385 * MS, &pace()));
    }

    #[test]
    fn early_attempts_follow_faster_and_faster_until_one_is_refused() {
        let mut prober = refused(40 * MS);
        let (mut now, mut sent) = (340 * MS, 0);
        while now < 640 * MS {
            prober.on_sent(now, &pace());
            sent += 1;
            now = prober.next_attempt_at(&pace());
        }
        assert!(sent > 50, "{sent}");
        prober.on_refused(&refusal(now, now, 20 * MS, None));
        assert_eq!(prober.next_attempt_at(&pace()), now + 320 * MS);
    }

    #[test]
    fn without_a_model_each_silence_lets_one_more_go() {
        let open = Pace { sendable_at: 0, is_modelled: false, ..pace() };
        let mut prober = refused(0);
        assert_eq!(prober.next_attempt_at(&open), 0);
        prober.on_sent(0, &open);
        assert_eq!(prober.next_attempt_at(&open), 45 * MS);
        prober.on_sent(45 * MS, &open);
        assert_eq!(prober.next_attempt_at(&open), 45 * MS + 45 * MS / 2, "and the next one sooner");
    }

    #[test]
    fn an_attempt_whose_outcome_is_known_is_not_waited_for() {
        let open = Pace { sendable_at: 0, is_modelled: false, ..pace() };
        let mut prober = refused(0);
        prober.on_sent(0, &open);
        prober.on_known(0);
        assert_eq!(prober.next_attempt_at(&open), 0, "it was admitted");
        prober.on_sent(10 * MS, &open);
        prober.on_cancelled(10 * MS);
        assert_eq!(prober.next_attempt_at(&open), 0, "it was lost");
        let mut checking = refused(40 * MS);
        checking.on_sent(340 * MS, &pace());
        checking.on_cancelled(340 * MS);
        assert_eq!(checking.next_attempt_at(&pace()), 340 * MS, "it checked nothing");
        assert_eq!(checking.silent_attempt(1_000 * MS, 45 * MS), None);
    }

    #[test]
    fn a_gate_that_yields_looks_for_capacity_a_while_after_the_hint() {
        let beside_others = Pace { yielding_check: Some(2_500 * MS), ..pace() };
        assert_eq!(refused(40 * MS).next_attempt_at(&beside_others), 2_540 * MS);
    }

    #[test]
    fn a_request_that_will_not_wait_probes_after_nearly_a_second_without_attempts() {
        let mut prober = refused(5_000 * MS);
        assert!(!prober.is_due_anyway(899 * MS) && prober.is_due_anyway(900 * MS));
        prober.on_sent(900 * MS, &pace());
        assert!(!prober.is_due_anyway(1_700 * MS));
    }
}
