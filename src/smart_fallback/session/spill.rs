//! Sends a request to the fallback, as far as that is allowed.

use std::time::{Duration, Instant};

use http::Request;

use super::{NextStep, Session, Tier};
use crate::{TryCloneBody, clock, smart_fallback::WhenSpent, wait::RequestLimits};

impl Session {
    /// Spills if class, budget and pinning allow it, when it is its turn; otherwise it waits for the
    /// primary, or the refusal is returned.
    pub(super) fn spill<B: TryCloneBody>(
        &mut self,
        now: Instant,
        request: &Request<B>,
    ) -> NextStep {
        let limits = *self.limits(request);
        if !self.may_spill(&limits) {
            return self.wait_for_primary(now, request);
        }
        match self.wait_for_fallback(now, request) {
            Some(next) => next,
            None => self.pay_and_spill(now, request),
        }
    }

    /// Spills at its turn, if the budget allows it. A request is paid for once.
    pub(super) fn pay_and_spill<B: TryCloneBody>(
        &mut self,
        now: Instant,
        request: &Request<B>,
    ) -> NextStep {
        let limits = *self.limits(request);
        if !self.may_spill(&limits) && !self.confined.to_fallback {
            return NextStep::Return;
        }
        match self.pay(now, request) {
            Ok(()) => NextStep::Send(Tier::Fallback),
            Err((when_spent, left)) => {
                self.pass_turn_on();
                match when_spent {
                    WhenSpent::Refuse => self.wait_for_primary(now, request),
                    WhenSpent::Wait => self.wait_for_budget(now, left, request),
                }
            }
        }
    }

    /// Takes a spill out of the budget, unless that is paid or goes where the request belongs.
    pub(super) fn pay<B: TryCloneBody>(
        &mut self,
        now: Instant,
        request: &Request<B>,
    ) -> Result<(), (WhenSpent, Duration)> {
        let is_paid = self.cold.as_ref().is_some_and(|cold| cold.charge.is_some());
        let is_free = self.confined.to_fallback || is_paid;
        let Some(budget) = self.config.spill_budget.clone().filter(|_| !is_free) else {
            return Ok(());
        };
        let charge = budget.charge(now, || self.weight(request).clone())?;
        self.cold().charge = Some(charge);
        Ok(())
    }

    /// Waits for the primary beyond `max_wait`, until the next window begins, which is `left` away.
    fn wait_for_budget<B: TryCloneBody>(
        &mut self,
        now: Instant,
        left: Duration,
        request: &Request<B>,
    ) -> NextStep {
        let limits = *self.limits(request);
        let elapsed = limits.elapsed(now);
        let longer = elapsed.saturating_add(left).min(limits.longest_wait);
        if longer <= elapsed {
            return NextStep::Return;
        }
        if longer <= limits.max_wait {
            // The primary has been asked for that long already: only a new window helps.
            return NextStep::Sleep(clock::sleep_until(limits.after(longer)));
        }
        self.limits = Some(RequestLimits { max_wait: longer, ..limits });
        self.start(now, request)
    }
}
