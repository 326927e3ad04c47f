//! Waits of a request that neither tier serves now, for the first one to reopen.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::{Extensions, Request, Response, StatusCode};
use tokio::time::Sleep;

use super::{NextStep, RequestLimits, Session, TICK, Tier, spill::AfterPayment};
use crate::{
    Served, TryCloneBody,
    body::OnUsage,
    classify::{Hint, Refusal, RefusedSpills},
    clock,
    cooldown::Traffic,
    gate::{self, Admission},
    random,
    served::Why,
    smart_fallback::{
        WhenSpent,
        spill_budget::{BudgetWaiter, Charge, SpillBudget},
    },
    wait::{self, RefusedTurn, Turn, refused_for},
};

/// A wait for the tier that reopens first. Dropping it leaves both queues.
pub(in crate::smart_fallback) struct Race {
    primary: Option<PrimaryWait>,
    other: Option<OtherWait>,
}

/// A wait besides the one for the primary, of a request that may not spill now.
pub(super) enum OtherWait {
    Fallback(wait::TurnWaiter),
    Budget(BudgetWaiter),
}

/// A wait for the primary.
pub(super) enum PrimaryWait {
    /// At the gate, which releases requests in order; with the predicted wait in seconds.
    Queue(Box<gate::Waiter>, f64),
    /// Until an instant: for a refusal that the gate does not model, or in a mode without a queue.
    Sleep(Pin<Box<Sleep>>),
}

/// The tier that a request goes to after a wait.
pub(in crate::smart_fallback) enum Winner {
    Primary(gate::Permit),
    /// The primary reopens now.
    PrimaryInTime,
    Fallback(wait::TurnPermit),
    /// The budget has something left.
    Budget,
    /// Neither reopened in time.
    Neither,
}

/// State of requests that met a closed fallback; boxed to keep the others small.
#[derive(Default)]
pub(super) struct ColdState {
    /// Its position at the gate, to return to.
    pub(super) place: Option<gate::Place>,
    /// Its permission to call the fallback, while that reopens.
    turn: Option<wait::TurnPermit>,
    /// Its charge to the budget, returned unless the fallback serves it.
    pub(super) charge: Option<Charge>,
    /// Set if it could not spill because the budget was spent.
    pub(super) unpaid: Option<Unpaid>,
    /// The answer of the fleet's store that nothing was left, for the next step only.
    pub(super) not_paid: Option<(WhenSpent, Duration)>,
    /// The step that asked it.
    pub(super) after_payment: AfterPayment,
    /// How often the fallback refused it.
    refusals: u32,
    /// The refusal of a fallback that was called before the primary.
    refused: Option<RefusedTurn>,
    /// The deployments to which Azure spilled and that refused.
    pub(super) spills: Option<RefusedSpills>,
}

/// When a request that the budget keeps from spilling may be served.
#[derive(Clone, Copy)]
pub(super) struct Unpaid {
    /// When it may spill again.
    pub(super) next_window: Option<Instant>,
    /// When the primary is predicted to serve it.
    pub(super) served: Option<Instant>,
}

impl Future for Race {
    type Output = Winner;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Winner> {
        // The primary first, because it is paid for whether it is used or not.
        match &mut self.primary {
            Some(PrimaryWait::Queue(waiter, _)) => match Pin::new(&mut **waiter).poll(cx) {
                Poll::Ready(Admission::Go(permit)) => return Poll::Ready(Winner::Primary(permit)),
                Poll::Ready(_) => self.primary = None,
                Poll::Pending => {}
            },
            Some(PrimaryWait::Sleep(sleep)) => match sleep.as_mut().poll(cx) {
                Poll::Ready(()) => {
                    self.other = None;
                    return Poll::Ready(Winner::PrimaryInTime);
                }
                Poll::Pending => {}
            },
            None => {}
        }
        let winner = match &mut self.other {
            Some(OtherWait::Fallback(waiter)) => {
                Pin::new(waiter).poll(cx).map(|turn| turn.map(Winner::Fallback))
            }
            Some(OtherWait::Budget(waiter)) => {
                Pin::new(waiter).poll(cx).map(|()| Some(Winner::Budget))
            }
            None => Poll::Pending,
        };
        if let Poll::Ready(winner) = winner {
            self.other = None;
            if let Some(winner) = winner {
                // It may return to this position, and must have left it before.
                self.primary = None;
                return Poll::Ready(winner);
            }
        }
        match (&self.primary, &self.other) {
            (None, None) => Poll::Ready(Winner::Neither),
            _ => Poll::Pending,
        }
    }
}

impl Session {
    /// Records the refusal of a fallback that was called before the primary: the request waits for it
    /// if the primary does not serve either.
    pub(super) fn note_fallback_refusal<R>(
        &mut self,
        hint: Hint,
        response: &Response<R>,
        now: Instant,
    ) {
        let is_signed = Served::is_on(response);
        let refusal = Refusal::read(response, hint, is_signed);
        let remembers = is_signed || Refusal::is_about_weight(response, hint);
        let draw = random::draw_if(refusal.hint().lacks_time());
        let cold = self.cold();
        cold.refusals += 1;
        let left = refused_for(&refusal, cold.refusals, draw);
        let opens = left.and_then(|left| now.checked_add(left));
        cold.refused = opens.map(|opens| RefusedTurn { now, opens, remembers });
        // A fallback that is not worth waiting for is not called again.
        self.confined.to_primary |= opens.is_none();
    }

    /// Waits for a fallback that refused before the primary was called.
    pub(super) fn wait_again<B: TryCloneBody>(
        &mut self,
        now: Instant,
        request: &Request<B>,
    ) -> Option<NextStep> {
        let refused = self.cold.as_mut()?.refused.take()?;
        let limits = *self.limits(request);
        let waiter =
            self.config.fallback_queue.refused(None, RefusedTurn { now, ..refused }, &limits);
        Some(self.race(now, limits.deadline(), waiter.map(OtherWait::Fallback), request))
    }

    /// Queues for permission to call the fallback, while that reopens.
    pub(super) fn wait_for_fallback<B: TryCloneBody>(
        &mut self,
        now: Instant,
        request: &Request<B>,
    ) -> Option<NextStep> {
        if let Some(next) = self.wait_again(now, request) {
            return Some(next);
        }
        if !self.config.fallback_queue.is_busy() || self.traffic(request) != Traffic::Tokens {
            return None;
        }
        let limits = *self.limits(request);
        match self.config.fallback_queue.arrive(now, &limits) {
            Turn::Go(permit) => {
                self.cold().turn = Some(permit);
                None
            }
            Turn::Wait(waiter) => {
                let waiter = OtherWait::Fallback(waiter);
                Some(self.race(now, limits.deadline(), Some(waiter), request))
            }
        }
    }

    /// The step after a refusal of the fallback, which `remembers` it or refuses no other request for
    /// it. The refusal is returned if the request cannot be sent again, or neither tier reopens in
    /// time.
    pub(super) fn after_fallback_refusal<B: TryCloneBody>(
        &mut self,
        refusal: &Refusal,
        remembers: bool,
        now: Instant,
        request: Option<&Request<B>>,
    ) -> NextStep {
        let cold = self.cold();
        cold.refusals += 1;
        let (turn, refusals) = (cold.turn.take(), cold.refusals);
        self.since = now;
        let draw = random::draw_if(refusal.hint().lacks_time());
        let opens = refused_for(refusal, refusals, draw).and_then(|left| now.checked_add(left));
        let limits = match (request, &self.limits) {
            (Some(request), _) => Some(*self.limits(request)),
            // Others learn from the refusal nevertheless.
            (None, limits) => limits.map(|limits| limits.ending(now)),
        };
        let remembers = remembers || self.traffic.is_some_and(|it| it != Traffic::Tokens);
        let waiter = opens.zip(limits).and_then(|(opens, limits)| {
            self.config.fallback_queue.refused(turn, RefusedTurn { now, opens, remembers }, &limits)
        });
        let Some(request) = request else { return NextStep::Return };
        let deadline = self.limits(request).deadline();
        match self.race(now, deadline, waiter.map(OtherWait::Fallback), request) {
            NextStep::Return if self.is_primary_open(now) => {
                // Its time is up, and its turn at the primary has not come.
                self.is_last = true;
                NextStep::Send(Tier::Primary)
            }
            next => next,
        }
    }

    /// Waits for the primary until `deadline`, and for everything else that may free the request.
    pub(super) fn race<B: TryCloneBody>(
        &mut self,
        now: Instant,
        deadline: Instant,
        other: Option<OtherWait>,
        request: &Request<B>,
    ) -> NextStep {
        let primary = match self.primary_wait(now, deadline, request) {
            Some(Ok(permit)) => {
                self.permit = Some(permit);
                return self.note_late(NextStep::Send(Tier::Primary), now, request);
            }
            Some(Err(wait)) => Some(wait),
            None => None,
        };
        let limits = *self.limits(request);
        let why = match (&primary, &other) {
            (None, None) => return NextStep::Return,
            (_, Some(OtherWait::Fallback(_))) => Why::FallbackClosed,
            (_, Some(OtherWait::Budget(_))) => Why::SpillBudget,
            (Some(PrimaryWait::Queue(_, predicted)), None) => {
                Self::why_queued(*predicted, now, &limits)
            }
            (Some(PrimaryWait::Sleep(sleep)), None) => {
                let closed = sleep.deadline().into_std().saturating_duration_since(now);
                self.why_closed(closed, None, now, &limits)
            }
        };
        self.waits(why);
        match (primary, other) {
            (Some(PrimaryWait::Queue(waiter, _)), None) => NextStep::Queue(waiter),
            (Some(PrimaryWait::Sleep(sleep)), None) => NextStep::Sleep(sleep),
            (primary, other) => NextStep::Race(Box::new(Race { primary, other })),
        }
    }

    /// Waits in the gate's queue, at its position again, and for the budget.
    pub(super) fn race_in_queue(
        &mut self,
        waiter: gate::Waiter,
        predicted: f64,
        budget: BudgetWaiter,
    ) -> NextStep {
        self.cold().place = waiter.place();
        self.waits(Why::SpillBudget);
        let primary = Some(PrimaryWait::Queue(Box::new(waiter), predicted));
        NextStep::Race(Box::new(Race { primary, other: Some(OtherWait::Budget(budget)) }))
    }

    /// The step of a request that may not use the fallback: it waits for the primary, if that reopens
    /// in time.
    pub(super) fn wait_for_primary<B: TryCloneBody>(
        &mut self,
        now: Instant,
        request: &Request<B>,
    ) -> NextStep {
        let deadline = self.limits(request).deadline();
        self.race(now, deadline, None, request)
    }

    /// The step after a race.
    pub(in crate::smart_fallback) fn after_race<B: TryCloneBody>(
        &mut self,
        now: Instant,
        winner: Winner,
        request: &Request<B>,
    ) -> NextStep {
        self.note_wait(now);
        let next = match winner {
            Winner::Primary(permit) => {
                self.note_alone(permit.is_alone());
                self.permit = Some(permit);
                NextStep::Send(Tier::Primary)
            }
            // A request that the primary serves by now does not spill.
            Winner::PrimaryInTime | Winner::Budget => self.start(now, request),
            Winner::Fallback(permit) => {
                self.cold().turn = Some(permit);
                self.pay_and_spill(now, request)
            }
            Winner::Neither => {
                if let None | Some(Why::SpillBudget) = self.why {
                    self.why = Some(Self::why_late(now, self.limits(request)));
                }
                self.pay_and_spill(now, request)
            }
        };
        let next = self.note_late(next, now, request);
        self.or_last_attempt(next)
    }

    /// A wait for the primary that ends by `deadline`; or permission to go there now.
    fn primary_wait<B: TryCloneBody>(
        &mut self,
        now: Instant,
        deadline: Instant,
        request: &Request<B>,
    ) -> Option<Result<gate::Permit, PrimaryWait>> {
        if self.is_forbidden || self.confined.to_fallback || self.is_quota_spent(now) {
            return None;
        }
        let (limits, cost) = (*self.limits(request), self.weigh(request));
        if deadline <= now {
            return None;
        }
        let is_of_bucket = self.traffic(request) == Traffic::Tokens
            && self.config.gate.is_adaptive()
            && self.config.gate.closed_for(now, &self.load()).is_none();
        if self.confined.is_apart || !is_of_bucket {
            let until = now.checked_add(self.primary_left(now).max(TICK))?;
            let fits = until <= deadline;
            return fits.then(|| Err(PrimaryWait::Sleep(clock::sleep_until(until))));
        }
        let place = self.cold.as_ref().and_then(|cold| cold.place);
        match self.config.gate.admit_patient(now, cost, limits.rank, deadline, place) {
            Admission::Go(permit) => Some(Ok(permit)),
            Admission::Wait(waiter, predicted) => {
                self.cold().place = waiter.place();
                Some(Err(PrimaryWait::Queue(Box::new(waiter), predicted)))
            }
            Admission::Spill(_) => None,
        }
    }

    /// After a wait, `next` is chosen at `now`: notes whether it is an attempt at the primary whose
    /// refusal may be back too late to spill.
    pub(super) fn note_late<B: TryCloneBody>(
        &mut self,
        next: NextStep,
        now: Instant,
        request: &Request<B>,
    ) -> NextStep {
        if let NextStep::Send(Tier::Primary) = next {
            let limits = *self.limits(request);
            let left = self.last_spill(&limits).saturating_duration_since(now);
            self.is_late = self.may_spill(&limits) && left < self.config.gate.spill_reserve();
        }
        next
    }

    /// The latest instant at which a request spills after a wait.
    pub(super) fn last_spill(&self, limits: &RequestLimits) -> Instant {
        let budget = self.config.spill_budget.as_ref();
        let waits_for_budget = budget.is_some_and(SpillBudget::is_waited_for);
        if waits_for_budget { limits.longest() } else { limits.deadline() }
    }

    /// Whether nothing speaks against calling the primary, although the request has no permit.
    fn is_primary_open(&self, now: Instant) -> bool {
        !self.is_forbidden
            && !self.confined.to_fallback
            && !self.is_quota_spent(now)
            && self.primary_left(now).is_zero()
    }

    /// Whether there is a fallback, and the request may use it.
    pub(super) fn may_spill(&self, limits: &RequestLimits) -> bool {
        limits.spills && !self.confined.to_primary && !self.config.is_alone
    }

    /// Whether another attempt may follow a refusal of `tier`, so that a copy of the request is
    /// needed.
    pub(in crate::smart_fallback) fn may_come_again<B>(
        &mut self,
        tier: Tier,
        request: &Request<B>,
    ) -> bool {
        tier == Tier::Primary || self.is_reversed || !self.limits(request).max_wait.is_zero()
    }

    pub(super) fn note_closed(&mut self, now: Instant, closed: Duration) {
        self.reopens = now.checked_add(closed).unwrap_or_else(|| now + FOREVER);
    }

    /// A request with these extensions is about to be sent to the fallback.
    pub(super) fn on_sent_to_fallback(&self, extensions: &mut Extensions) {
        let Some(cold) = &self.cold else { return };
        if let Some(turn) = &cold.turn {
            turn.sent(clock::now());
        }
        if let Some(sink) = cold.charge.as_ref().and_then(Charge::sink) {
            OnUsage::subscribe(extensions, sink);
        }
    }

    /// The permission to call the fallback is not used.
    pub(super) fn pass_turn_on(&mut self) {
        if let Some(cold) = &mut self.cold {
            cold.turn = None;
        }
    }

    /// The attempt at `tier` ended, with a `status` or an error.
    pub(super) fn end_attempt(&mut self, tier: Tier, status: Option<StatusCode>) {
        let Some(ColdState { turn, charge, .. }) = self.cold.take().map(|cold| *cold) else {
            return;
        };
        if let Some(turn) = turn.filter(|_| status.is_some()) {
            turn.served();
        }
        let is_served = tier == Tier::Fallback && status.is_some_and(|it| it.is_success());
        if let Some(charge) = charge.filter(|_| is_served) {
            charge.served();
        }
    }

    pub(super) fn cold(&mut self) -> &mut ColdState {
        self.cold.get_or_insert_default()
    }
}

/// Longer than any cooldown.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3_600);
