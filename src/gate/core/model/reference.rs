//! A naive gate: keeps the whole history and recomputes everything from it each time.

use std::{
    cmp::Ordering::{Greater, Less},
    time::Duration,
};

use super::history::{Attempt, Event, History, Refused, Sent, SentBecause, drain_time};
use crate::gate::core::{
    Contention, Nanos, QueueKey,
    admission::{GIVE_UP_SHARE, MAX_URGENT_SHARE, MAX_WAIT_TO_ASK_NS, WAIT_SAFETY_FACTOR},
    admissions::Admissions,
    bucket::{
        FORGOTTEN_AFTER_NS, GUESS_FILLS, IDLE_AFTER_NS, MAX_GUESS_DOUBLINGS, MAX_GUESS_S,
        MIN_NEWS_NS, UNKNOWN_FILL_S,
    },
    contention::Rivals,
    costs::Costs,
    drain_rate::{self, DrainRate},
    hints::{Claim, Hints},
    nanos,
    queue::MAX_QUEUE_WALKED,
    round_trip::RoundTrip,
    seconds,
    standing_queue::{Newcomer, StandingQueue},
    time::{MILLISECOND, NEVER, from_seconds},
};

/// The behaviour of [`Core`](crate::gate::core::Core) in the plainest code.
///
/// Its formulas use the core's units, nanoseconds and whole weighted tokens, so that both must agree
/// to the last digit. Only estimators that have tests of their own are shared.
pub(super) struct Reference {
    drain_rate: DrainRate,
    costs: Costs,
    hints: Hints,
    admissions: Admissions,
    pub(super) rivals: Rivals,
    pub(super) round_trip: RoundTrip,
    standing_queue: StandingQueue,
    pub(super) waiting: Vec<QueuedRequest>,
    pub(super) history: History,
    orders: u32,
}

#[derive(Clone, Copy)]
pub(super) struct QueuedRequest {
    pub(super) place: QueueKey,
    pub(super) cost: f64,
    pub(super) latest: Nanos,
    pub(super) is_patient: bool,
}

/// A request that arrives or returns.
#[derive(Clone, Copy)]
pub(super) struct Newly {
    pub(super) cost: f64,
    pub(super) rank: u8,
    pub(super) deadline: Nanos,
}

/// A refusal, and what its request may still do.
#[derive(Clone, Copy)]
pub(super) struct Word {
    pub(super) hint: Option<Duration>,
    pub(super) draw: f64,
    pub(super) deadline: Nanos,
    pub(super) is_patient: bool,
}

#[derive(Debug, PartialEq)]
pub(super) enum Expected {
    Go,
    Wait,
    Spill,
}

impl Reference {
    pub(super) fn new(interval: Option<Duration>, contention: Contention) -> Self {
        Self {
            drain_rate: DrainRate::new(),
            costs: Costs::new(),
            hints: Hints::new(),
            admissions: Admissions::new(),
            rivals: Rivals::new(contention),
            round_trip: RoundTrip::new(),
            standing_queue: StandingQueue::new(interval),
            waiting: Vec::new(),
            history: History::default(),
            orders: 0,
        }
    }

    pub(super) fn is_idle(&mut self, now: Nanos) -> bool {
        self.look(now);
        self.history.below_limit_at().is_none()
    }

    pub(super) fn arrive(&mut self, now: Nanos, newly: &Newly) -> (QueueKey, Expected) {
        self.look(now);
        let Newly { cost, rank, deadline } = *newly;
        self.costs.on_arrival(cost);
        self.history.0.push(Event::Arrived { at: now, rank, cost });
        let place = self.place(rank, now);
        let latest = self.latest(deadline);
        let budget = seconds(latest.saturating_sub(now).max(0));
        let wait = self.wait(now, rank, cost_of(&self.ahead_of(place)));
        self.standing_queue.on_arrival(seconds(now), wait, budget);
        let mut allowed = self.allowed_wait(place, cost, budget);
        if !self.ahead_of(place).is_empty() {
            allowed /= WAIT_SAFETY_FACTOR;
        }
        let expected = if self.is_asking(now, place) {
            Expected::Go
        } else if wait > allowed && self.wait_without_expired(now, place) > allowed {
            Expected::Spill
        } else {
            self.waiting.push(QueuedRequest { place, cost, latest, is_patient: false });
            Expected::Wait
        };
        (place, expected)
    }

    /// A request that has nowhere else to go arrives, or returns to its `place`.
    pub(super) fn arrive_patient(
        &mut self,
        now: Nanos,
        newly: &Newly,
        place: Option<QueueKey>,
    ) -> (QueueKey, Expected) {
        self.look(now);
        let Newly { cost, rank, deadline } = *newly;
        let place = place.unwrap_or_else(|| self.place(rank, now));
        self.history.0.push(Event::CameBack { place });
        let expected = if self.is_asking(now, place) {
            Expected::Go
        } else if now >= deadline || self.reopens_after(deadline) {
            Expected::Spill
        } else {
            self.waiting.push(QueuedRequest { place, cost, latest: deadline, is_patient: true });
            Expected::Wait
        };
        (place, expected)
    }

    /// What the request at `place` does now, and until when it waits.
    pub(super) fn turn(
        &mut self,
        now: Nanos,
        place: QueueKey,
        deadline: Nanos,
    ) -> (Expected, Nanos) {
        self.look(now);
        let latest = self.leaves_at(now, place, deadline);
        let is_patient = self.waiting(place).is_patient;
        let (next, may_ask_at) = self.next_to_ask(now).expect("it waits itself");
        let attempt_at = self.next_attempt_at();
        let is_next = next == place;
        if is_next && may_ask_at <= now && attempt_at <= now && now <= latest {
            return (Expected::Go, now);
        }
        // An open PTU does not wait for a request that may not make an attempt soon.
        let is_spent =
            is_next && !is_patient && may_ask_at > now.saturating_add(MAX_WAIT_TO_ASK_NS);
        if now >= latest || (is_spent && attempt_at <= now) {
            self.leave(place);
            return (Expected::Spill, now);
        }
        let own = self.history.may_ask_at(place);
        let turn = if is_next { attempt_at } else { Nanos::MAX };
        let until = match own > now {
            true if is_spent => own.min(attempt_at),
            true => own,
            false => turn,
        };
        (Expected::Wait, until.min(latest))
    }

    /// When the request at `place` spills.
    pub(super) fn leaves_at(&self, now: Nanos, place: QueueKey, deadline: Nanos) -> Nanos {
        let request = self.waiting(place);
        if !request.is_patient {
            request.latest.min(self.latest(deadline))
        } else if self.reopens_after(deadline) {
            now
        } else {
            deadline
        }
    }

    pub(super) fn waiting(&self, place: QueueKey) -> &QueuedRequest {
        let request = self.waiting.iter().find(|request| request.place == place);
        request.expect("it waits")
    }

    /// Whose turn it is, and when that request may make an attempt.
    pub(super) fn next_to_ask(&self, now: Nanos) -> Option<(QueueKey, Nanos)> {
        let mut places: Vec<_> = self.waiting.iter().map(|request| request.place).collect();
        places.sort_by(|a, b| if goes_before(*a, *b) { Less } else { Greater });
        let asks = places.into_iter().map(|place| (place, self.history.may_ask_at(place).max(now)));
        asks.min_by_key(|(_, at)| *at)
    }

    /// An attempt is sent, from the queue or past it.
    pub(super) fn send(&mut self, now: Nanos, place: QueueKey, cost: f64) -> Attempt {
        self.leave(place);
        let silent = self.first_sent().filter(|at| now >= at + self.round_trip.silence());
        if let Some(at) = silent {
            self.admitted(now, at);
        }
        let (rate, why, share) = (self.rate(), self.why(now), self.rivals.pace());
        if matches!(why, SentBecause::Silence { .. }) && self.checked_at().is_some() {
            self.rivals.on_checked(true);
        }
        self.costs.on_sent(cost);
        self.history.0.push(Event::Sent(Sent { place, cost, share, at: now, rate, why }));
        self.history.0.len() - 1
    }

    /// An attempt sent while nothing was known does not move the level.
    pub(super) fn untracked(&mut self, at: Nanos, cost: f64, rank: u8) -> Attempt {
        let place = self.place(rank, at);
        self.costs.on_arrival(cost);
        if self.history.below_limit_at().is_none() {
            self.drain_rate.on_first_refusal(seconds(at));
            self.admissions.on_first_refusal(at);
        }
        let why = SentBecause::Unasked;
        self.history.0.push(Event::Sent(Sent { place, cost, share: 1.0, at, rate: None, why }));
        self.history.0.len() - 1
    }

    pub(super) fn refused(
        &mut self,
        now: Nanos,
        attempt: Attempt,
        word: &Word,
    ) -> Option<QueueKey> {
        let sent @ Sent { place, cost, at, .. } = self.history.sent(attempt);
        self.round_trip.on_refused(now - at);
        let decided = (at + self.round_trip.one_way()).min(now);
        let known = self.history.since_refusal().0.filter(|last| decided < last.decided);
        if let Some(at) = self.history.below_limit_at().filter(|_| known.is_some()) {
            if sent.is_modelled() {
                self.costs.on_gone(cost);
                self.history.0.push(Event::Gone { attempt, rate: None });
            }
            return self.wait_again(now, sent.is_modelled(), word, place, cost, at);
        }
        let (is_first, is_check) = (self.first_sent() == Some(at), self.checked_at() == Some(at));
        if sent.is_modelled() {
            self.gone(attempt);
        }
        let later = self.history.later(attempt);
        let is_news = self.history.since_refusal().0.is_none_or(|last| at >= last.at);
        let mut hint = word.hint.map(nanos);
        if let (Some(hint), true) = (hint, is_news) {
            self.hints.on_hint(hint);
        }
        if self.hints.are_constant() {
            hint = None;
        }
        if is_news {
            let is_alone = later == 0.0 && is_first;
            self.learn_of_others(now, at, decided, hint.filter(|_| is_alone));
        }
        let modelled = self.history.below_limit_at();
        let claim = hint.map(|hint| Claim {
            decided,
            hint,
            reopens: decided.saturating_add(hint).saturating_add(drain_time(later, self.rate())),
            expected: seconds(modelled.map_or(0, |at| at.saturating_sub(decided).max(0))),
            fill: self.rate().map_or(UNKNOWN_FILL_S, |rate| self.costs.mean() / rate),
        });
        let believed = claim.filter(|claim| self.rate().is_none() || self.hints.believe(claim));
        let was_modelled = modelled.filter(|_| sent.is_modelled());
        let error = believed.zip(was_modelled);
        let error = error.map(|(claim, at)| seconds(claim.reopens.saturating_sub(at).abs()));
        let excess = believed.map_or(0, |claim| claim.hint);
        let is_hinted = believed.is_some();
        if !is_hinted && self.admissions.drought(now, self.fill()) > 0.0 {
            self.drain_rate.on_ran_dry();
        } else {
            let admitted = self.history.admitted() - later;
            let (at, excess) = (seconds(decided), seconds(excess));
            self.drain_rate.on_refused(drain_rate::Sample { at, excess, admitted });
        }
        if is_check {
            self.rivals.on_checked(false);
        }
        let closed_until = decided.saturating_add(excess);
        let mut refused = Refused {
            attempt,
            at: now,
            decided,
            closed_until,
            error,
            fill: self.fill(),
            reopens: 0,
            is_hinted,
            was_expected: false,
        };
        let was_closed = decided + MILLISECOND < self.history.closed_until();
        refused.was_expected = is_news && was_closed && refused.is_explained();
        if is_news && !refused.was_expected {
            self.admissions.on_refused();
        }
        let refusals = self.admissions.refusals();
        refused.reopens = if let Some(claim) = believed {
            let opens_at = (later == 0.0).then(|| decided.saturating_add(claim.hint));
            self.rivals.on_hint(claim.hint, opens_at);
            claim.reopens.saturating_add(self.rivals.passed_over(refusals, word.draw))
        } else {
            self.rivals.on_unknown();
            decided + self.guess(refusals)
        };
        self.history.0.push(Event::Refused(refused));
        if modelled.is_none_or(|at| refused.reopens.saturating_sub(at) > MIN_NEWS_NS) {
            self.give_up_late_requests(now);
        }
        self.wait_again(now, sent.is_modelled(), word, place, cost, refused.reopens)
    }

    pub(super) fn accepted(&mut self, now: Nanos, attempt: Attempt) {
        let sent_at = self.history.sent(attempt).at;
        self.history.0.push(Event::Known { sent_at });
        self.admitted(now, sent_at);
    }

    /// An attempt was cancelled.
    pub(super) fn lost(&mut self, attempt: Attempt) {
        let sent_at = self.history.sent(attempt).at;
        self.history.0.push(Event::Known { sent_at });
        self.gone(attempt);
    }

    /// An answer ended.
    pub(super) fn ended(&mut self, now: Nanos, attempt: Attempt, actual: Option<f64>) {
        let Sent { cost, at, .. } = self.history.sent(attempt);
        self.rivals.on_unknown();
        self.costs.on_ended(cost, seconds(now - at));
        if let Some(actual) = actual {
            self.costs.on_usage(cost, actual);
        }
        let actual = actual.unwrap_or(cost);
        self.history.0.push(Event::Ended { attempt, actual, rate: self.rate() });
    }

    pub(super) fn leave(&mut self, place: QueueKey) {
        self.waiting.retain(|other| other.place != place);
    }

    pub(super) fn rate(&self) -> Option<f64> {
        self.drain_rate.is_known().then(|| self.drain_rate.get())
    }

    pub(super) fn sendable_at(&self) -> Option<Nanos> {
        let below_at = self.history.below_limit_at()?;
        Some(below_at.saturating_sub(self.round_trip.one_way()))
    }

    /// Whether the PTU is known to refuse until after `deadline`.
    pub(super) fn reopens_after(&self, deadline: Nanos) -> bool {
        let until = self.history.closed_until().saturating_sub(self.round_trip.one_way());
        self.history.below_limit_at().is_some() && until > deadline
    }

    /// The latest time to send a request that must be sent somewhere by `deadline`.
    pub(super) fn latest(&self, deadline: Nanos) -> Nanos {
        deadline.saturating_sub(self.round_trip.spill_reserve())
    }

    pub(super) fn fill(&self) -> f64 {
        let actual = self.costs.ratio() * self.costs.mean();
        self.rate().map_or(UNKNOWN_FILL_S, |rate| actual / rate)
    }

    /// Each call may find the gate idle.
    fn look(&mut self, now: Nanos) {
        let Some(at) = self.history.below_limit_at() else { return };
        let refusal_known_at = self.history.since_refusal().0.map_or(NEVER, |last| last.at);
        let is_open = at.saturating_sub(now) < -IDLE_AFTER_NS;
        let silent_for = now - refusal_known_at;
        let is_idle = is_open && silent_for > IDLE_AFTER_NS + self.round_trip.usual();
        if self.waiting.is_empty() && (is_idle || silent_for > FORGOTTEN_AFTER_NS) {
            self.hints.on_idle();
            self.drain_rate.on_ran_dry();
            self.standing_queue.on_idle(seconds(now));
            self.history.0.push(Event::Idle);
        }
    }

    fn place(&mut self, rank: u8, since: Nanos) -> QueueKey {
        self.orders += 1;
        QueueKey { rank, since, order: self.orders }
    }

    /// Whether a request that has just arrived makes an attempt.
    fn is_asking(&self, now: Nanos, place: QueueKey) -> bool {
        let is_first = self.waiting.iter().all(|other| goes_before(place, other.place));
        let is_open = self.next_attempt_at() <= now && !self.is_surely_closed(now);
        is_first && (is_open || self.is_due_anyway(now))
    }

    /// The requests ahead of `place`, in order.
    fn ahead_of(&self, place: QueueKey) -> Vec<QueuedRequest> {
        let ahead = self.waiting.iter().filter(|request| goes_before(request.place, place));
        let mut ahead: Vec<_> = ahead.copied().collect();
        ahead.sort_by(|a, b| if goes_before(a.place, b.place) { Less } else { Greater });
        ahead
    }

    /// How long a request of `rank` waits behind a cost of `queued`, with the urgent requests
    /// expected meanwhile.
    fn wait(&self, now: Nanos, rank: u8, queued: f64) -> f64 {
        let urgent = self.history.urgent(now, rank);
        let share = self.rate().map_or(0.0, |rate| self.costs.ratio() * urgent / rate);
        self.wait_behind(now, queued) / (1.0 - share.min(MAX_URGENT_SHARE))
    }

    fn wait_behind(&self, now: Nanos, queued: f64) -> f64 {
        let Some(at) = self.sendable_at() else { return 0.0 };
        let closed = seconds(at.saturating_sub(now)).max(0.0);
        let rate = self.rate();
        let drained = rate.map_or(closed, |rate| self.costs.wait_behind(closed, queued, rate));
        let hinted = self.history.closed_until().saturating_sub(self.round_trip.one_way());
        let hinted = seconds(hinted.saturating_sub(now)).min(drained);
        (self.rivals.wait_factor() * drained).max(hinted).max(self.drought(now))
    }

    /// The same without requests that will have left before their turn; infinite if that is not worth
    /// computing.
    fn wait_without_expired(&self, now: Nanos, place: QueueKey) -> f64 {
        if self.rate().is_none() || self.waiting.len() > MAX_QUEUE_WALKED {
            return f64::INFINITY;
        }
        let mut staying = Vec::new();
        for request in self.ahead_of(place) {
            let turn = from_seconds(self.wait_behind(now, cost_of(&staying)));
            if now.saturating_add(turn) <= request.latest {
                staying.push(request);
            }
        }
        self.wait(now, place.rank, cost_of(&staying))
    }

    fn allowed_wait(&self, place: QueueKey, cost: f64, budget: f64) -> f64 {
        let worth = self.costs.worth(cost);
        let is_behind = !self.ahead_of(place).is_empty();
        let newcomer = Newcomer { budget, worth, is_behind };
        self.standing_queue.allowed_wait(&newcomer)
    }

    fn drought(&self, now: Nanos) -> f64 {
        let last = self.history.since_refusal().0;
        if last.is_some_and(|refused| refused.is_hinted) {
            0.0
        } else {
            self.admissions.drought(now, self.fill())
        }
    }

    fn guess(&self, refusals: u32) -> Nanos {
        let doublings = refusals.saturating_sub(1).min(MAX_GUESS_DOUBLINGS);
        let guess = GUESS_FILLS * self.fill() * f64::powi(2.0, doublings.cast_signed());
        from_seconds(guess.max(seconds(self.round_trip.silence())).min(MAX_GUESS_S))
    }

    fn gone(&mut self, attempt: Attempt) {
        self.costs.on_gone(self.history.sent(attempt).cost);
        self.history.0.push(Event::Gone { attempt, rate: self.rate() });
    }

    /// The attempt sent at `sent_at` was admitted.
    fn admitted(&mut self, now: Nanos, sent_at: Nanos) {
        let refused_at = self.history.since_refusal().0.map_or(NEVER, |last| last.decided);
        self.admissions.on_admitted(sent_at, refused_at);
        let arrived = sent_at + self.round_trip.one_way();
        self.history.0.push(Event::Admitted { sent_at, arrived });
        if self.admissions.refusals() == 0 {
            self.hints.on_admitted(now);
        }
    }

    /// An attempt sent at `sent_at`, made after the last refusal was known, was refused.
    fn learn_of_others(
        &mut self,
        now: Nanos,
        sent_at: Nanos,
        decided: Nanos,
        hint_alone: Option<Nanos>,
    ) {
        let silence = self.round_trip.silence();
        let silent = self.first_sent().filter(|first| now >= first + silence && *first < sent_at);
        if let Some(first) = silent {
            self.admitted(now, first);
        }
        if self.admissions.refusals() == 0 {
            self.rivals.on_admitted();
        } else if let Some(hint) = hint_alone {
            self.rivals.on_refused_alone(decided, hint, self.round_trip.one_way() / 2);
        }
    }

    /// Where a refused request waits again.
    fn wait_again(
        &mut self,
        now: Nanos,
        is_modelled: bool,
        word: &Word,
        place: QueueKey,
        cost: f64,
        reopens: Nanos,
    ) -> Option<QueueKey> {
        let Word { deadline, is_patient, .. } = *word;
        let latest = if is_patient { deadline } else { self.latest(deadline) };
        let budget = seconds(latest.saturating_sub(now));
        let wait = self.wait(now, place.rank, cost_of(&self.ahead_of(place)));
        let allowed = match is_modelled {
            true => budget,
            false => self.allowed_wait(place, cost, budget),
        };
        if (is_patient && reopens > deadline) || (!is_patient && wait > allowed) {
            return None;
        }
        self.waiting.push(QueuedRequest { place, cost, latest, is_patient });
        Some(place)
    }

    fn give_up_late_requests(&mut self, now: Nanos) {
        let last = QueueKey { rank: u8::MAX, since: Nanos::MAX, order: u32::MAX };
        let mut queued = 0.0;
        for request in self.ahead_of(last) {
            let turn =
                now.saturating_add(from_seconds(GIVE_UP_SHARE * self.wait_behind(now, queued)));
            if request.is_patient || turn <= request.latest {
                queued += request.cost;
                continue;
            }
            let late = self.waiting.iter_mut().find(|other| other.place == request.place);
            late.expect("it waits").latest = now;
        }
    }
}

fn cost_of(requests: &[QueuedRequest]) -> f64 {
    requests.iter().map(|request| request.cost).sum()
}

fn goes_before(a: QueueKey, b: QueueKey) -> bool {
    a.rank < b.rank
        || a.rank == b.rank && (a.since < b.since || a.since == b.since && a.order < b.order)
}
