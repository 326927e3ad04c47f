//! A gate whose PTU is used by several processes: they share its core in their fleet's store.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use super::{
    Gate, GateShared, GateState, RefusedAttempt,
    core::{Evidence, SpillReason, nanos},
};
use crate::{
    fleet::{
        Answer, Attempt, Call, Caller, GateCall, GateNews, GateReply, Grant, Kind, MAX_RANK, Name,
        Newcomer, OnBusy, Refusal, Seed, SpillKind, Step, Ticket, duration,
    },
    sync::{AtomicU64, Mutex, MutexGuard, Sleep, clock, poll_sleep},
};

/// The gate of a process as a member of a fleet.
pub(super) struct FleetMember {
    caller: Arc<Caller>,
    name: Name,
    /// How long a queue may stand, in microseconds; zero never cuts it.
    interval: f64,
    epoch: Instant,
    /// Until when the PTU is busy, in nanoseconds since `epoch`.
    busy_until: AtomicU64,
    /// Requests of this process that wait in the store's queue.
    waiting: AtomicUsize,
    link: Mutex<Link>,
}

/// What is known of the store, and what it is told next.
struct Link {
    /// Half of a smoothed round trip to the store, in microseconds.
    lead: f64,
    /// The last reply: when the PTU reopens, and its drain rate.
    last: Option<(Instant, f64)>,
    /// The last arrival: its rank, and when it was expected to be served.
    expected: Option<(u8, Instant)>,
    /// Since when the drain rate is known, or not known.
    since: Instant,
    /// Whether the local core was seeded with the last reply.
    is_seeded: bool,
    /// Steps that nobody waits for, with the instants at which they happened.
    untold: Vec<(Instant, Step)>,
}

/// A request that asks the store, and waits as it is told.
pub(super) struct FleetRequest {
    gate: Gate,
    rank: u8,
    cost: f64,
    is_patient: bool,
    deadline: Instant,
    /// Once the store gave it a place.
    order: Option<f64>,
    state: RequestState,
    sleep: Option<Pin<Box<Sleep>>>,
}

enum RequestState {
    /// What it asks when it is polled next.
    ToAsk(Question),
    Asking(Call<GateReply>, Instant, Question),
    /// It looks again at this instant.
    Waiting(Instant),
    /// It is sent at this instant.
    Granted(Instant, Attempt),
    Ended,
}

#[derive(Clone, Copy)]
enum Question {
    Enter,
    Turn,
    /// With the refused attempt, or `None` if it was sent while nothing was known.
    Refused {
        attempt: Option<Attempt>,
        sent_at: Instant,
        hint: Option<Duration>,
        share: Option<f64>,
    },
}

/// How a request leaves the queue of the fleet.
pub(super) enum FleetAdmission {
    /// It may be sent; `None` if nothing is known of the PTU.
    Go(Option<FleetAttempt>),
    Spill(SpillReason),
    /// The store did not answer: this process decides.
    Alone,
}

/// An attempt that the store permitted.
#[derive(Clone)]
pub(super) struct FleetAttempt {
    gate: Gate,
    ticket: Ticket,
    attempt: Attempt,
    sent_at: Instant,
}

/// A refused attempt and its request.
pub(super) struct FleetRefusal {
    pub(super) attempt: Option<FleetAttempt>,
    pub(super) cost: f64,
    pub(super) rank: u8,
    pub(super) is_patient: bool,
    pub(super) sent_at: Instant,
    pub(super) deadline: Instant,
    pub(super) hint: Option<Duration>,
    pub(super) share: Option<f64>,
}

impl FleetRefusal {
    pub(super) fn new(refusal: &RefusedAttempt, attempt: Option<FleetAttempt>) -> Self {
        let RefusedAttempt { cost, rank, is_patient, sent_at, deadline, .. } = *refusal;
        let hint = refusal.is_measured.then_some(refusal.closed);
        let share = refusal.utilization;
        Self { attempt, cost, rank, is_patient, sent_at, deadline, hint, share }
    }
}

impl FleetMember {
    pub(super) fn new(
        caller: &Arc<Caller>,
        name: &str,
        interval: Option<Duration>,
        epoch: Instant,
    ) -> Self {
        let link = Link {
            lead: INITIAL_LEAD,
            last: None,
            expected: None,
            since: epoch,
            is_seeded: false,
            untold: Vec::new(),
        };
        Self {
            name: caller.name(Kind::Gate, name),
            caller: Arc::clone(caller),
            interval: interval.map_or(0.0, micros),
            epoch,
            busy_until: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            link: Mutex::new(link),
        }
    }

    /// Has `gate`, of which this is a part, told when its PTU is busy.
    pub(super) fn listen(&self, gate: &Arc<GateShared>) {
        self.caller.listen(&self.name, GateNews::new(gate));
    }

    /// Whether requests ask the store at `now`.
    pub(super) fn decides(&self, now: Instant) -> bool {
        self.is_busy(now) && self.caller.is_up()
    }

    pub(super) fn is_busy(&self, now: Instant) -> bool {
        let now = now.saturating_duration_since(self.epoch);
        now.as_nanos() < u128::from(self.busy_until.load(Ordering::Relaxed))
    }

    pub(super) fn is_up(&self) -> bool {
        self.caller.is_up()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// The drain rate that the store knows.
    pub(super) fn rate(&self) -> Option<f64> {
        self.lock().last.map(|(_, rate)| rate).filter(|rate| *rate > 0.0)
    }

    /// What the store knows of the PTU, and for how long.
    pub(super) fn state(&self, now: Instant) -> GateState {
        let link = self.lock();
        let rate = link.last.map(|(_, rate)| rate).filter(|rate| *rate > 0.0);
        let evidence = match rate {
            Some(rate) => Evidence::Measured { rate },
            None => Evidence::Learning { refusals: 1, rate },
        };
        GateState::new(evidence, now.saturating_duration_since(link.since))
    }

    /// How far the PTU is above its limit, in weighted tokens, if the store knows it.
    pub(super) fn level(&self, now: Instant) -> Option<f64> {
        let (reopens, rate) = self.lock().last.filter(|(_, rate)| *rate > 0.0)?;
        let below = now.saturating_duration_since(reopens).as_secs_f64();
        Some((reopens.saturating_duration_since(now).as_secs_f64() - below) * rate)
    }

    /// How long a request of `rank` that arrives now waits: at least until the PTU reopens, and no less
    /// than what is left of the wait of the last one, unless that was less urgent.
    pub(super) fn predicted_wait(&self, now: Instant, rank: u8) -> Duration {
        let Link { last, expected, .. } = *self.lock();
        let reopens = last.map(|(reopens, _)| reopens);
        let behind = expected.filter(|(ahead, _)| *ahead <= rank).map(|(_, served)| served);
        let served = reopens.max(behind);
        served.map_or(Duration::ZERO, |served| served.saturating_duration_since(now))
    }

    /// The store answered a request of `rank` that arrived.
    fn on_arrival(&self, now: Instant, rank: u8, answer: &Answer) {
        let wait = match *answer {
            Answer::Go { after, .. } => after,
            Answer::Wait { predicted, .. } => predicted,
            Answer::Spill { cause: SpillKind::Late, .. } => return,
            Answer::Spill { wait, .. } => wait,
        };
        self.lock().expected = Some((rank, now + duration(wait)));
    }

    /// What this process goes by while the store does not answer: when the PTU reopens, and this
    /// process's share of its rate. `None` if nothing is known, or that was said already.
    pub(super) fn seed_alone(&self) -> Option<(Instant, f64)> {
        let mut link = self.lock();
        let (reopens, rate) = link.last.filter(|_| !link.is_seeded)?;
        link.is_seeded = true;
        Some((reopens, rate / f64::from(self.caller.replicas())))
    }

    fn on_closed(&self, now: Instant, closed: Duration) {
        let until = now.saturating_duration_since(self.epoch) + closed.min(MAX_BUSY) + BUSY_MARGIN;
        let until = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
        self.busy_until.fetch_max(until, Ordering::Relaxed);
    }

    /// Tells the store soon. Steps are gathered, because most come in pairs or before a question.
    fn tell(&self, now: Instant, step: Step) {
        let untold = {
            let mut link = self.lock();
            link.untold.push((now, step));
            let oldest = link.untold[0].0;
            let is_due = now.saturating_duration_since(oldest) >= MAX_TELLING_DELAY
                || link.untold.len() >= MAX_UNTOLD;
            is_due.then(|| self.call(&mut link, now, None))
        };
        if let Some(call) = untold {
            self.caller.tell_gate(&self.name, call);
        }
    }

    /// A call with everything that was not told yet, and then `question`.
    fn call(&self, link: &mut Link, now: Instant, question: Option<Step>) -> GateCall {
        let untold = link.untold.drain(..).map(|(at, step)| {
            let ago = micros(now.saturating_duration_since(at));
            match step {
                Step::Accepted { attempt, share, .. } => {
                    Step::Accepted { attempt, since: ago + link.lead.round(), share }
                }
                step => step,
            }
        });
        let steps = untold.chain(question).collect();
        let seed = link.last.map_or(Seed { closed: 0.0, rate: 0.0 }, |(reopens, rate)| Seed {
            closed: micros(reopens.saturating_duration_since(now)),
            rate,
        });
        GateCall { interval: self.interval, seed, steps }
    }

    /// Starts to ask; `None` if the store is down.
    fn ask(&self, now: Instant, question: impl FnOnce(f64) -> Step) -> Option<Call<GateReply>> {
        let call = {
            let mut link = self.lock();
            let question = question(link.lead.round());
            self.call(&mut link, now, Some(question))
        };
        self.caller.gate(&self.name, call)
    }

    /// The store replied to what was asked at `asked`. Returns for how long the PTU stays closed.
    fn on_reply(&self, asked: Instant, now: Instant, reply: &GateReply) -> Option<Duration> {
        let trip = micros(now.saturating_duration_since(asked));
        let mut link = self.lock();
        link.lead += (trip / 2.0 - link.lead) / LEAD_DIVISOR;
        link.is_seeded = false;
        let closed = duration(reply.0.closed?);
        let was_known = link.last.is_some_and(|(_, rate)| rate > 0.0);
        if link.last.is_none() || was_known != (reply.0.rate > 0.0) {
            link.since = now;
        }
        link.last = Some((now + closed, reply.0.rate));
        Some(closed)
    }

    fn lock(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GateShared {
    /// The fleet's PTU stays closed for `closed` after `now`, so that requests ask the store.
    pub(super) fn on_fleet_closed(&self, now: Instant, closed: Duration) {
        if let Some(member) = &self.fleet {
            member.on_closed(now, closed);
            self.busy.store(true, Ordering::Relaxed);
        }
    }
}

impl OnBusy for GateShared {
    fn busy_for(&self, time: Duration) {
        self.on_fleet_closed(clock::now(), time.saturating_sub(BUSY_MARGIN));
    }
}

impl FleetRequest {
    pub(super) fn new(gate: &Gate, (cost, rank): (f64, u8), deadline: Instant) -> Self {
        gate.member().waiting.fetch_add(1, Ordering::Relaxed);
        Self {
            gate: gate.clone(),
            rank: rank.min(MAX_RANK),
            cost: cost.round(),
            is_patient: false,
            deadline,
            order: None,
            state: RequestState::ToAsk(Question::Enter),
            sleep: None,
        }
    }

    /// It has nowhere else to go. It returns to its place with the store if it has one.
    pub(super) fn patient(mut self, ticket: Option<Ticket>) -> Self {
        self.is_patient = true;
        self.order = ticket.map(|ticket| ticket.order);
        if self.order.is_some() {
            self.state = RequestState::ToAsk(Question::Turn);
        }
        self
    }

    /// The request of a refused attempt, which waits again.
    pub(super) fn refused(gate: &Gate, refusal: &FleetRefusal) -> Self {
        let FleetRefusal { cost, rank, is_patient, sent_at, deadline, hint, share, .. } = *refusal;
        let mut request = Self::new(gate, (cost, rank), deadline);
        let mut known = None;
        if let Some(FleetAttempt { ticket, attempt, .. }) = &refusal.attempt {
            (request.rank, request.cost) = (ticket.rank, ticket.cost);
            request.order = Some(ticket.order);
            known = Some(*attempt);
        }
        request.is_patient = is_patient;
        request.state =
            RequestState::ToAsk(Question::Refused { attempt: known, sent_at, hint, share });
        request
    }

    /// Its place with the store, to return to.
    pub(super) fn ticket(&self) -> Option<Ticket> {
        let Self { rank, cost, is_patient, .. } = *self;
        self.order.map(|order| Ticket { rank, order, cost, is_patient })
    }

    /// What this process needs to admit it alone.
    pub(super) const fn applicant(&self) -> (f64, u8, Instant, bool) {
        (self.cost, self.rank, self.deadline, self.is_patient)
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<FleetAdmission> {
        loop {
            let now = clock::now();
            match &mut self.state {
                RequestState::ToAsk(question) => {
                    let question = *question;
                    let asked = self
                        .member()
                        .ask(now, |lead| self.step(question, now, self.deadline, lead));
                    let Some(call) = asked else { return self.alone(question) };
                    self.state = RequestState::Asking(call, now, question);
                }
                RequestState::Asking(call, asked, question) => {
                    let (asked, question) = (*asked, *question);
                    let reply = ready!(Pin::new(call).poll(cx));
                    let now = clock::now();
                    let answer = reply.ok().and_then(|reply| self.read(asked, now, &reply));
                    let Some(answer) = answer else {
                        // The store may have executed it; a request that is dropped does the same.
                        self.leave(now);
                        return self.alone(question);
                    };
                    if !matches!(question, Question::Turn) {
                        self.member().on_arrival(now, self.rank, &answer);
                    }
                    if let Some(admission) = self.obey(now, answer) {
                        self.state = RequestState::Ended;
                        return Poll::Ready(admission);
                    }
                }
                RequestState::Waiting(until) => {
                    ready!(poll_sleep(&mut self.sleep, *until, cx));
                    self.state = RequestState::ToAsk(Question::Turn);
                }
                RequestState::Granted(until, attempt) => {
                    let attempt = *attempt;
                    ready!(poll_sleep(&mut self.sleep, *until, cx));
                    self.state = RequestState::Ended;
                    return Poll::Ready(FleetAdmission::Go(Some(self.attempt(now, attempt))));
                }
                RequestState::Ended => unreachable!("it is not polled after it was admitted"),
            }
        }
    }

    /// The answer to the question that was asked at `asked`.
    fn read(&self, asked: Instant, now: Instant, reply: &GateReply) -> Option<Answer> {
        if let Some(closed) = self.member().on_reply(asked, now, reply) {
            self.gate.shared.on_fleet_closed(now, closed);
        }
        reply.0.answers.last().copied()
    }

    fn member(&self) -> &FleetMember {
        self.gate.member()
    }

    /// Follows the store's answer. Returns what becomes of the request, if that is known.
    fn obey(&mut self, now: Instant, answer: Answer) -> Option<FleetAdmission> {
        match answer {
            Answer::Go { grant: Grant { attempt: None, .. }, .. } => Some(FleetAdmission::Go(None)),
            Answer::Go { after, grant: Grant { order, attempt: Some(attempt) } } => {
                self.order = Some(order);
                // A timer would delay it by a millisecond.
                if after < MIN_SLEEP {
                    return Some(FleetAdmission::Go(Some(self.attempt(now, attempt))));
                }
                let until = (now + duration(after)).min(self.deadline.max(now));
                self.state = RequestState::Granted(until, attempt);
                None
            }
            // A store that keeps it waiting for ever is wrong.
            Answer::Wait { .. } if now >= self.deadline => {
                self.leave(now);
                Some(FleetAdmission::Spill(SpillReason::Late))
            }
            Answer::Wait { after, order, .. } => {
                self.order = Some(order);
                let until = now + duration(after.max(MIN_LOOK));
                self.state = RequestState::Waiting(until.min(self.deadline.max(now)));
                None
            }
            Answer::Spill { wait, allowed, cause } => {
                let (wait, allowed) = (wait / 1e6, allowed / 1e6);
                Some(FleetAdmission::Spill(match cause {
                    SpillKind::Late => SpillReason::Late,
                    SpillKind::Queue => SpillReason::Queue { wait, allowed },
                    SpillKind::StandingQueue => SpillReason::StandingQueue { wait, allowed },
                }))
            }
        }
    }

    /// The store does not answer: this process decides.
    fn alone(&mut self, question: Question) -> Poll<FleetAdmission> {
        if let Question::Refused { sent_at, hint, .. } = question {
            self.gate.on_refused_alone(sent_at, self.cost, self.rank, hint);
        }
        self.state = RequestState::Ended;
        Poll::Ready(FleetAdmission::Alone)
    }

    fn step(&self, question: Question, now: Instant, deadline: Instant, lead: f64) -> Step {
        let left = micros(deadline.saturating_duration_since(now));
        let Self { rank, cost, is_patient, .. } = *self;
        let ticket = Ticket { rank, order: self.order.unwrap_or(-1.0), cost, is_patient };
        match question {
            Question::Enter => {
                Step::Enter { newcomer: Newcomer { rank, cost, is_patient }, left, lead }
            }
            Question::Turn => Step::Turn { ticket, left, lead },
            Question::Refused { attempt, sent_at, hint, share } => {
                let ago = micros(now.saturating_duration_since(sent_at));
                let none = Attempt { at: 0.0, admitted_before: 0.0, sent_after: 0.0 };
                let attempt = attempt.unwrap_or(none);
                let hint = hint.map(micros);
                Step::Refused { refusal: Refusal { ticket, attempt, ago, hint, share }, left, lead }
            }
        }
    }

    fn attempt(&self, sent_at: Instant, attempt: Attempt) -> FleetAttempt {
        let ticket = self.ticket().expect("the store gave it a place");
        FleetAttempt { gate: self.gate.clone(), ticket, attempt, sent_at }
    }

    fn leave(&self, now: Instant) {
        if let Some(ticket) = self.ticket() {
            self.member().tell(now, Step::Leave { ticket });
        }
    }
}

impl Drop for FleetRequest {
    fn drop(&mut self) {
        self.member().waiting.fetch_sub(1, Ordering::Relaxed);
        let now = clock::now();
        match &self.state {
            // Others learn from the refusal nevertheless.
            RequestState::ToAsk(question @ Question::Refused { .. }) => {
                let step = self.step(*question, now, now, 0.0);
                self.member().tell(now, step);
            }
            RequestState::ToAsk(Question::Enter) | RequestState::Ended => {}
            RequestState::ToAsk(Question::Turn)
            | RequestState::Asking(..)
            | RequestState::Waiting(_) => self.leave(now),
            RequestState::Granted(_, attempt) => {
                self.member().tell(now, Step::Gone { at: attempt.at, cost: self.cost });
            }
        }
    }
}

impl FleetAttempt {
    /// It was admitted. Its answer may report the level as a share of the limit.
    pub(super) fn on_accepted(&self, share: Option<f64>) {
        let step = Step::Accepted { attempt: self.attempt, since: 0.0, share };
        self.gate.member().tell(clock::now(), step);
    }

    /// It ended without an answer that shows whether it was admitted.
    pub(super) fn on_cancelled(&self) {
        let step = Step::Gone { at: self.attempt.at, cost: self.ticket.cost };
        self.gate.member().tell(clock::now(), step);
    }

    /// Its answer ended; `actual` is its cost, if known.
    pub(super) fn on_ended(&self, actual: Option<f64>) {
        let now = clock::now();
        let after = micros(now.saturating_duration_since(self.sent_at));
        let actual = actual.map(f64::round);
        self.gate.member().tell(now, Step::Finished { cost: self.ticket.cost, after, actual });
    }
}

/// Whole microseconds, which no float of the store rounds; at most a day.
fn micros(duration: Duration) -> f64 {
    (nanos(duration) / 1_000).min(MAX_MICROS) as f64
}

const MAX_MICROS: i64 = 86_400_000_000;
/// The assumed half of a round trip before the first reply: a store in the same region.
const INITIAL_LEAD: f64 = 500.0;
/// The smoothed round trip averages about this many calls.
const LEAD_DIVISOR: f64 = 16.0;
/// How long a process asks the store after the PTU reopened: the level is near the limit for about
/// that long, and news come four times a second.
const BUSY_MARGIN: Duration = Duration::from_secs(1);
/// Whatever a hint or the store says, this is the longest time before the PTU is called unasked.
const MAX_BUSY: Duration = Duration::from_secs(3_600);
/// How long steps are gathered that nobody waits for, and how many at most.
const MAX_TELLING_DELAY: Duration = Duration::from_millis(20);
const MAX_UNTOLD: usize = 16;
/// Shorter times than these, in microseconds, are not slept: timers are coarser.
const MIN_SLEEP: f64 = 500.0;
/// The shortest time between two looks, in microseconds, whatever the store says.
const MIN_LOOK: f64 = 1_000.0;

impl fmt::Debug for FleetMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetMember").finish_non_exhaustive()
    }
}

impl fmt::Debug for FleetRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetRequest")
            .field("rank", &self.rank)
            .field("cost", &self.cost)
            .field("order", &self.order)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for FleetAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetAttempt").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
