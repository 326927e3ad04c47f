//! Sends a request to the fallback, if that is allowed.

use std::time::{Duration, Instant};

use http::Request;

use super::{
    NextStep, Session, Tier,
    waiting::{OtherWait, Unpaid},
};
use crate::{
    TryCloneBody,
    cooldown::Traffic,
    served::Why,
    smart_fallback::{
        WhenSpent,
        spill_budget::{BudgetWaiter, Charge, ChargeRequest, Payment},
    },
    wait::RequestLimits,
};

/// Why a spill is not charged yet.
pub(super) enum NotPaid {
    /// Nothing is left, and the next window starts after this time.
    Spent(WhenSpent, Duration),
    /// The fleet's store decides.
    Asks(Box<ChargeRequest>),
}

/// The step that is taken again once the fleet's store has answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum AfterPayment {
    #[default]
    Start,
    Spill,
    /// A spill after a failure, which may have been withdrawn from the budget of failures.
    SpillFailed {
        withdrew: bool,
    },
}

impl Session {
    /// Spills at its turn if class, budget and pinning allow it; otherwise the request waits for the
    /// primary, or the refusal is returned.
    pub(super) fn spill<B: TryCloneBody>(
        &mut self,
        now: Instant,
        request: &Request<B>,
    ) -> NextStep {
        let limits = *self.limits(request);
        if !self.may_spill(&limits) {
            self.why = self.why_not_spilled(&limits);
            return self.wait_for_primary(now, request);
        }
        // It waited for the primary until the end because it could not spill, and it is too late now.
        if self.is_late && now > self.last_spill(&limits) {
            return NextStep::Return;
        }
        // Otherwise it would wait for a turn that it may not use.
        if self.unpaid(now, &limits).is_some() {
            return self.pay_and_spill(now, request);
        }
        match self.wait_for_fallback(now, request) {
            Some(next) => next,
            None => self.pay_and_spill(now, request),
        }
    }

    /// Spills at its turn, if the budget allows it. A request is charged once.
    pub(super) fn pay_and_spill<B: TryCloneBody>(
        &mut self,
        now: Instant,
        request: &Request<B>,
    ) -> NextStep {
        let limits = *self.limits(request);
        if !self.may_spill(&limits) && !self.confined.to_fallback {
            self.why = self.why_not_spilled(&limits);
            return NextStep::Return;
        }
        match self.pay(now, request) {
            Ok(()) => NextStep::Send(Tier::Fallback),
            Err(NotPaid::Asks(asks)) => self.ask(asks, AfterPayment::Spill),
            Err(NotPaid::Spent(when_spent, left)) => {
                self.why = Some(Why::SpillBudget);
                self.pass_turn_on();
                match when_spent {
                    WhenSpent::Refuse => self.wait_or_refuse(now, left, request),
                    WhenSpent::Wait => self.wait_for_budget(now, left, request),
                }
            }
        }
    }

    /// Takes a spill out of the budget, unless it is charged already or goes to the resource that it
    /// is pinned to.
    pub(super) fn pay<B: TryCloneBody>(
        &mut self,
        now: Instant,
        request: &Request<B>,
    ) -> Result<(), NotPaid> {
        let is_paid = self.cold.as_ref().is_some_and(|cold| cold.charge.is_some());
        let is_free = self.confined.to_fallback || is_paid;
        let Some(budget) = self.config.spill_budget.clone().filter(|_| !is_free) else {
            return Ok(());
        };
        if let Some((when_spent, left)) = self.cold.as_mut().and_then(|cold| cold.not_paid.take()) {
            return Err(NotPaid::Spent(when_spent, left));
        }
        match budget.pay(now, || self.weight(request).clone()) {
            Payment::Decided(Ok(charge)) => {
                self.cold().charge = Some(charge);
                Ok(())
            }
            Payment::Decided(Err((when_spent, left))) => Err(NotPaid::Spent(when_spent, left)),
            Payment::Asks(asks) => Err(NotPaid::Asks(asks)),
        }
    }

    /// Waits for the answer of the fleet's store, then takes the same step again.
    pub(super) fn ask(&mut self, asks: Box<ChargeRequest>, then: AfterPayment) -> NextStep {
        self.cold().after_payment = then;
        NextStep::Ask(asks)
    }

    /// The step after the fleet's store was asked. It returns a refusal only if there is one.
    pub(in crate::smart_fallback) fn after_asking<B: TryCloneBody>(
        &mut self,
        now: Instant,
        answer: Result<Charge, (WhenSpent, Duration)>,
        has_refusal: bool,
        request: &Request<B>,
    ) -> NextStep {
        if now > self.since {
            self.note_wait(now);
        }
        let cold = self.cold();
        match answer {
            Ok(charge) => cold.charge = Some(charge),
            Err(spent) => cold.not_paid = Some(spent),
        }
        let next = match cold.after_payment {
            AfterPayment::Start => self.start(now, request),
            AfterPayment::Spill => self.pay_and_spill(now, request),
            AfterPayment::SpillFailed { withdrew } => self.pay_for_failed(now, withdrew, request),
        };
        // Whatever step follows, the answer is not for a later one.
        self.cold().not_paid = None;
        if has_refusal { next } else { self.or_last_attempt(next) }
    }

    /// Waits for the primary if that can serve the request in time, or else returns the refusal
    /// immediately. The next window starts in `left`.
    fn wait_or_refuse<B: TryCloneBody>(
        &mut self,
        now: Instant,
        left: Duration,
        request: &Request<B>,
    ) -> NextStep {
        let limits = *self.limits(request);
        let is_queued = self.config.gate.is_adaptive() && self.traffic(request) == Traffic::Tokens;
        let wait = is_queued.then(|| self.config.gate.predicted_wait(now, limits.rank));
        let wait = wait.unwrap_or_default();
        let cold = self.cold();
        cold.unpaid =
            Some(Unpaid { next_window: now.checked_add(left), served: now.checked_add(wait) });
        // A request that has a position already is not behind the waiting ones.
        if cold.place.is_none() && limits.elapsed(now).saturating_add(wait) > limits.max_wait {
            return NextStep::Return;
        }
        self.wait_for_primary(now, request)
    }

    /// Waits for the primary beyond `max_wait`, at the request's position, and also for the budget
    /// from then on. The budget's next window starts in `left`.
    fn wait_for_budget<B: TryCloneBody>(
        &mut self,
        now: Instant,
        left: Duration,
        request: &Request<B>,
    ) -> NextStep {
        let limits = *self.limits(request);
        match self.budget_waiter(&limits, now, now, left) {
            Some((until, waiter)) => {
                self.race(now, until, Some(OtherWait::Budget(waiter)), request)
            }
            None => NextStep::Return,
        }
    }

    /// A wait for the budget, starting at `from`, and the end of the wait for the primary: when the
    /// next window starts, in `left`. `None` if the time is up.
    fn budget_waiter(
        &self,
        limits: &RequestLimits,
        from: Instant,
        now: Instant,
        left: Duration,
    ) -> Option<(Instant, BudgetWaiter)> {
        let elapsed = limits.elapsed(now);
        let longer = elapsed.saturating_add(left).min(limits.longest_wait);
        let budget = self.config.spill_budget.as_ref().filter(|_| longer > elapsed)?;
        let waiter = budget.wait(from, limits.longest());
        Some((limits.after(longer), waiter))
    }

    /// Why a request may not spill although it otherwise could: a spent budget, and for how long.
    fn unpaid(&self, now: Instant, limits: &RequestLimits) -> Option<(WhenSpent, Duration)> {
        let is_paid = self.cold.as_ref().is_some_and(|cold| cold.charge.is_some());
        let may_spill = !is_paid && self.may_spill(limits);
        self.config.spill_budget.as_ref().filter(|_| may_spill)?.refuses(now)
    }

    /// How long a refused request waits at its position when the budget prevents a spill and the
    /// primary reopens by `reopens`.
    pub(super) fn longer_wait(
        &self,
        now: Instant,
        reopens: Instant,
        limits: &RequestLimits,
    ) -> Option<(Instant, BudgetWaiter)> {
        let Some((WhenSpent::Wait, left)) = self.unpaid(now, limits) else { return None };
        // A wait that fits needs only the primary.
        let deadline = limits.deadline();
        let from = if reopens <= deadline { deadline } else { now };
        self.budget_waiter(limits, from, now, left)
    }
}
