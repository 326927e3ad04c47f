//! A request that waits for its turn in the queue of a fleet.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::atomic::Ordering,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use super::{FleetAttempt, FleetMember, FleetRefusal, micros};
use crate::{
    fleet::{
        Answer, Attempt, Call, GateReply, Grant, MAX_RANK, Newcomer, Refusal, SpillKind, Step,
        Ticket, duration,
    },
    gate::{Gate, core::SpillReason},
    sync::{Sleep, clock, poll_sleep},
};

/// A request that asks the store, and waits as it answers.
pub(in crate::gate) struct FleetRequest {
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
pub(in crate::gate) enum FleetAdmission {
    /// It may be sent; `None` if nothing is known of the PTU.
    Go(Option<FleetAttempt>),
    Spill(SpillReason),
    /// The store did not answer: this process decides.
    Alone,
}

impl FleetRequest {
    pub(in crate::gate) fn new(gate: &Gate, (cost, rank): (f64, u8), deadline: Instant) -> Self {
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
    pub(in crate::gate) fn patient(mut self, ticket: Option<Ticket>) -> Self {
        self.is_patient = true;
        self.order = ticket.map(|ticket| ticket.order);
        if self.order.is_some() {
            self.state = RequestState::ToAsk(Question::Turn);
        }
        self
    }

    /// The request of a refused attempt, which waits again.
    pub(in crate::gate) fn refused(gate: &Gate, refusal: &FleetRefusal) -> Self {
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
    pub(in crate::gate) fn ticket(&self) -> Option<Ticket> {
        let Self { rank, cost, is_patient, .. } = *self;
        self.order.map(|order| Ticket { rank, order, cost, is_patient })
    }

    /// What this process needs to admit it alone.
    pub(in crate::gate) const fn applicant(&self) -> (f64, u8, Instant, bool) {
        (self.cost, self.rank, self.deadline, self.is_patient)
    }

    pub(in crate::gate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<FleetAdmission> {
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

impl fmt::Debug for FleetRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetRequest")
            .field("rank", &self.rank)
            .field("cost", &self.cost)
            .field("order", &self.order)
            .finish_non_exhaustive()
    }
}

/// Shorter times than these, in microseconds, are not slept: timers are coarser.
const MIN_SLEEP: f64 = 500.0;
/// The shortest time between two looks, in microseconds, whatever the store says.
const MIN_LOOK: f64 = 1_000.0;
