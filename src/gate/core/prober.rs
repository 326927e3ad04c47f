//! When the PTU is asked: by the model, or to find out whether the model is right.

use super::time::{MILLISECOND, NEVER, Nanos, SECOND, from_seconds, seconds};

/// Decides when the next attempt is made, so that the PTU is never open for half a second while somebody
/// waits for it.
///
/// A refusal gives the level exactly, and is back within one round trip; an answer takes as long
/// as it takes to generate. So silence for a little longer than a round trip is as good as an
/// answer: the level was below the limit.
///
/// Until a refusal's hint is over, the PTU is known to be closed. From then on only the model says so,
/// and a model that is too high would never be found out, since nobody is refused who comes too late. So
/// a little later an attempt is made *early*, before its time by the model. If it is refused, the level
/// is known again. Silence shows that the model is too high: it is corrected, and further early attempts
/// follow faster and faster, until one is refused. So there is about one refusal in each third of a
/// second, whatever the PTU's size, as the price of knowing.
///
/// Where others fill the same PTU, early attempts find little, and are rare.
///
/// While the rate is not known, there is no model between two hints, and an attempt is made
/// whenever the one before it has been silent.
#[derive(Clone, Debug)]
pub(super) struct Prober {
    last_sent: Nanos,
    /// From when on silence counts: since the last attempt, unless its outcome is known.
    silent_since: Nanos,
    /// The last attempt before its time since the last refusal.
    early_at: Option<Nanos>,
    /// How many attempts silence is waited for at a time.
    window: u32,
    /// The first attempt since the last refusal.
    first_sent: Option<Nanos>,
    /// When the last refusal was decided, and when it was known here.
    refused_at: Nanos,
    told_at: Nanos,
    /// Until when the PTU is known to refuse.
    closed_until: Nanos,
    /// Whether the last refusal was as the model had it.
    is_explained: bool,
    /// The smoothed error of the model, in seconds of drain in a second.
    error: f64,
    /// How long a request took to drain at the last refusal, in seconds. Arrivals that move it later change
    /// no time that somebody sleeps for.
    fill: f64,
    /// Until when answers of requests that went past the gate may lower the level unseen.
    settled_at: Nanos,
}

/// What the times of attempts depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// When an attempt arrives just as the level falls below the limit.
    pub(super) sendable_at: Nanos,
    /// Whether that is modelled, or known from hints alone.
    pub(super) is_modelled: bool,
    /// How long silence has to last.
    pub(super) silence: Nanos,
    /// The network's round trip.
    pub(super) round_trip: Nanos,
    /// Whether others fill the same PTU, and are given way.
    pub(super) yields: bool,
}

/// A refusal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) now: Nanos,
    /// When it was decided.
    pub(super) decided: Nanos,
    /// Until when the PTU refuses by its hint, if that is believed.
    pub(super) closed_until: Nanos,
    /// By how much the model was wrong, in seconds; `None` where there was none.
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
            told_at: NEVER,
            closed_until: NEVER,
            is_explained: false,
            error: INITIAL_ERROR,
            fill: 0.0,
            settled_at: NEVER,
        }
    }

    /// When the next attempt is to be made.
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
                self.window = if pace.round_trip > FAR_NS {
                    (2 * self.window).min(MAX_FAR_WINDOW)
                } else {
                    (self.window + 1).min(MAX_WINDOW)
                };
            }
            Some(_) => {}
            None if now < pace.sendable_at => self.early_at = Some(now),
            None if !pace.is_modelled
                && self.first_sent.is_some()
                && now >= self.silent_since + gap =>
            {
                self.window = (self.window + 1).min(MAX_FAR_WINDOW);
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
    pub(super) fn on_refused(&mut self, told: &Told) {
        let hint = seconds(told.closed_until - told.decided);
        let is_explained = |error| error <= EXPLAINED_SHARE * hint + EXPLAINED_S;
        self.is_explained = told.error.is_some_and(is_explained);
        if let Some(error) = told.error {
            let time = seconds(told.decided.saturating_sub(self.refused_at)).max(MIN_ERROR_TIME_S);
            self.error += ERROR_WEIGHT * ((error / time).min(1.0) - self.error);
        }
        (self.closed_until, self.fill) = (told.closed_until, told.fill);
        (self.refused_at, self.told_at) = (told.decided, told.now);
        (self.first_sent, self.window, self.early_at) = (None, 1, None);
    }

    /// The outcome of the attempt of `sent_at` is known, and was no refusal: nobody need wait for it.
    pub(super) fn on_known(&mut self, sent_at: Nanos) {
        if self.silent_since == sent_at {
            self.silent_since = NEVER;
        }
    }

    /// The attempt of `sent_at`, which arrived at `arrived`, was admitted: the PTU does not refuse, whatever
    /// the last hint said.
    pub(super) fn on_admitted(&mut self, sent_at: Nanos, arrived: Nanos) {
        if self.is_news(sent_at) {
            self.closed_until = self.closed_until.min(arrived);
        }
    }

    /// The attempt of `sent_at` came to nothing, and says nothing.
    pub(super) fn on_cancelled(&mut self, sent_at: Nanos) {
        self.on_known(sent_at);
        self.first_sent = self.first_sent.filter(|first| *first != sent_at);
        self.early_at = self.early_at.filter(|early| *early != sent_at);
    }

    /// After a quiet time, the PTU refuses a request that was sent at `sent_at`. Answers take so many
    /// seconds.
    pub(super) fn on_first_refusal(&mut self, sent_at: Nanos, answers_take: f64) {
        let settling = MIN_SETTLING_S.max(SETTLING_ANSWERS * answers_take);
        self.settled_at = sent_at.saturating_add(from_seconds(settling));
    }

    /// An attempt that nothing was known of turns out to be refused.
    pub(super) const fn on_untracked_refusal(&mut self) {
        self.first_sent = None;
    }

    /// The level is lower than modelled by so much time.
    pub(super) const fn on_lowered(&mut self, by: Nanos) {
        self.closed_until = self.closed_until.saturating_sub(by);
    }

    /// Whether an attempt of `sent_at` was made after the last refusal was known.
    pub(super) const fn is_news(&self, sent_at: Nanos) -> bool {
        sent_at >= self.told_at
    }

    /// Until when the PTU is known to refuse.
    pub(super) const fn closed_until(&self) -> Nanos {
        self.closed_until
    }

    pub(super) const fn refused_at(&self) -> Nanos {
        self.refused_at
    }

    pub(super) const fn told_at(&self) -> Nanos {
        self.told_at
    }

    /// Whether the PTU was not asked for so long that a request may ask it by the way, though it
    /// will not wait.
    pub(super) fn is_due_anyway(&self, now: Nanos) -> bool {
        now.saturating_sub(self.refused_at.max(self.last_sent)) >= UNASKED_NS
    }

    /// When an attempt is made early.
    fn check_at(&self, pace: &Pace) -> Nanos {
        if pace.yields {
            return self.closed_until.saturating_add(YIELDING_CHECK_NS);
        }
        let open = (CHECK_FILLS * self.fill).clamp(MIN_CHECK_S, MAX_CHECK_S);
        let open = open.min((CHECK_AND_TRIP_S - seconds(pace.round_trip)).max(MIN_FAR_CHECK_S));
        let check = self.closed_until.saturating_add(from_seconds(open));
        if self.is_sure() { check } else { check.min(self.refused_at + UNSURE_CHECK_NS) }
    }

    /// Whether the last refusal was as the model had it.
    pub(super) const fn is_explained(&self) -> bool {
        self.is_explained
    }

    /// Whether the hint of the last refusal is all that there is to know until it is over.
    fn is_sure(&self) -> bool {
        self.is_explained && self.error <= MAX_SURE_ERROR && self.refused_at >= self.settled_at
    }
}

// What halving and doubling these does is in the table of the module `core`.

/// How long after a hint an early attempt is made: in times to drain a request, and in seconds.
pub(super) const CHECK_FILLS: f64 = 10.0;
pub(super) const MIN_CHECK_S: f64 = 0.1;
pub(super) const MAX_CHECK_S: f64 = 0.3;
/// Over a far network it is made sooner, since its silence takes longer to tell.
pub(super) const CHECK_AND_TRIP_S: f64 = 0.35;
pub(super) const MIN_FAR_CHECK_S: f64 = 0.05;
/// How long after a refusal it is made in any case, unless the model had known of that refusal.
pub(super) const UNSURE_CHECK_NS: Nanos = 400 * MILLISECOND;
/// How long after a hint it is made where others fill the same PTU.
pub(super) const YIELDING_CHECK_NS: Nanos = 2_500 * MILLISECOND;
/// After how long a request asks that will not wait.
pub(super) const UNASKED_NS: Nanos = 900 * MILLISECOND;
/// A refusal is explained by a model that was wrong by less than this share of its hint, and seconds.
pub(super) const EXPLAINED_SHARE: f64 = 0.1;
pub(super) const EXPLAINED_S: f64 = 0.05;
/// The largest smoothed error of a model that explains anything.
pub(super) const MAX_SURE_ERROR: f64 = 0.5;
/// Weight of a new error, the shortest time in seconds that it is divided by, and the first one.
pub(super) const ERROR_WEIGHT: f64 = 0.1;
pub(super) const MIN_ERROR_TIME_S: f64 = 0.2;
pub(super) const INITIAL_ERROR: f64 = 0.1;
/// How long unseen answers lower the level: in seconds at least, and in times that an answer takes.
pub(super) const MIN_SETTLING_S: f64 = 3.0;
pub(super) const SETTLING_ANSWERS: f64 = 2.0;
/// A network whose round trip is longer is far: silence comes so late that attempts are doubled.
pub(super) const FAR_NS: Nanos = SECOND / 10;
/// The most attempts in the time of one silence: near, and where more could not be taken back.
pub(super) const MAX_WINDOW: u32 = 1_000;
pub(super) const MAX_FAR_WINDOW: u32 = 64;

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
            yields: false,
        }
    }

    /// Refused at 0, by a hint as the model had it.
    fn refused(hint: Nanos) -> Prober {
        let mut prober = Prober::new();
        prober.on_refused(&told(15 * MS, 0, hint, Some(0.0)));
        prober
    }

    fn told(now: Nanos, decided: Nanos, hint: Nanos, error: Option<f64>) -> Told {
        Told { now, decided, closed_until: decided + hint, error, fill: 0.1 }
    }

    #[test]
    fn a_hint_is_waited_for_and_the_model_for_a_third_of_a_second_more() {
        assert_eq!(refused(40 * MS).next_attempt_at(&pace()), 340 * MS);
        let soon = Pace { sendable_at: 60 * MS, ..pace() };
        assert_eq!(refused(40 * MS).next_attempt_at(&soon), 60 * MS, "by the model");
        assert_eq!(refused(2_000 * MS).next_attempt_at(&pace()), 2_300 * MS);
    }

    #[test]
    fn a_large_ptu_is_checked_sooner_and_a_far_one_too() {
        let mut large = Prober::new();
        large.on_refused(&Told { fill: 0.006, ..told(15 * MS, 0, 4 * MS, Some(0.0)) });
        assert_eq!(large.next_attempt_at(&pace()), 104 * MS);
        let far = Pace { round_trip: 300 * MS, silence: 450 * MS, ..pace() };
        assert_eq!(refused(40 * MS).next_attempt_at(&far), 90 * MS);
    }

    #[test]
    fn what_the_model_did_not_expect_is_asked_again_before_its_hint_is_over() {
        let mut prober = refused(40 * MS);
        prober.on_refused(&told(115 * MS, 100 * MS, 2_900 * MS, Some(1.0)));
        assert_eq!(prober.next_attempt_at(&pace()), 500 * MS);
    }

    #[test]
    fn after_a_quiet_time_every_hint_is_asked_again_until_unseen_answers_are_over() {
        let mut prober = Prober::new();
        prober.on_first_refusal(-10 * MS, 1.0);
        let told = |at| told(at, at, 2_000 * MS, Some(0.0));
        prober.on_refused(&told(0));
        assert_eq!(prober.next_attempt_at(&pace()), 400 * MS);
        prober.on_refused(&told(2_995 * MS));
        assert_eq!(prober.next_attempt_at(&pace()), 5_295 * MS);
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
        prober.on_refused(&told(now, now, 20 * MS, None));
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
    fn who_yields_seldom_looks_for_capacity() {
        let beside_others = Pace { yields: true, ..pace() };
        assert_eq!(refused(40 * MS).next_attempt_at(&beside_others), 2_540 * MS);
    }

    #[test]
    fn a_request_asks_by_the_way_when_nobody_did_for_nearly_a_second() {
        let mut prober = refused(5_000 * MS);
        assert!(!prober.is_due_anyway(899 * MS) && prober.is_due_anyway(900 * MS));
        prober.on_sent(900 * MS, &pace());
        assert!(!prober.is_due_anyway(1_700 * MS));
    }
}
