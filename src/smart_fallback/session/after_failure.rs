//! What follows a failure of the primary, and which tier is called first from then on.

use std::time::{Duration, Instant};

use http::{Request, Response};

use super::{
    NextStep, Session, Tier,
    spill::{AfterPayment, NotPaid},
    why::why_failed,
};
use crate::{
    TryCloneBody,
    classify::{NativeSpillover, Outcome, utilization},
    clock,
    cooldown::Failure,
    gate::Permit,
    policy::CooldownPolicy,
    served::Why,
};

impl Session {
    /// The step of a request that goes to the fallback first, because the primary fails and no probe
    /// is due. That is not a retry, and takes nothing from the budget of failures.
    pub(super) fn fallback_first<B: TryCloneBody>(
        &mut self,
        now: Instant,
        request: &Request<B>,
    ) -> Option<NextStep> {
        if !self.config.gate.is_failing(now) {
            return None;
        }
        let limits = *self.limits(request);
        if !self.may_spill(&limits) {
            return None;
        }
        match self.pay(now, request) {
            Ok(()) => {
                (self.is_reversed, self.since, self.why) = (true, now, Some(Why::Failing));
                Some(NextStep::Send(Tier::Fallback))
            }
            Err(NotPaid::Asks(asks)) => Some(self.ask(asks, AfterPayment::Start)),
            Err(NotPaid::Spent(..)) => None,
        }
    }

    /// The step after the fallback, called first, refused or failed: the primary is called after all.
    pub(super) fn after_fallback(&mut self, outcome: Outcome, now: Instant) -> Option<NextStep> {
        let turns =
            self.is_reversed && (outcome != Outcome::Failed || self.config.move_on.withdraw());
        turns.then(|| {
            (self.is_reversed, self.since) = (false, now);
            // It was there already. If it refused, it may reopen in time.
            self.confined.to_primary |= !matches!(outcome, Outcome::Throttled(_));
            self.permit = self.config.gate.pass();
            NextStep::Send(Tier::Primary)
        })
    }

    /// The step after the primary failed, or the request is too long for it. Waiting does not help,
    /// and the gate learns only that the primary fails.
    pub(super) fn after_failure<B: TryCloneBody>(
        &mut self,
        outcome: Outcome,
        now: Instant,
        request: &Request<B>,
    ) -> NextStep {
        self.since = now;
        // However soon the primary reopens, this request must not return to it.
        self.is_forbidden = true;
        self.why = Some(why_failed(outcome));
        let limits = *self.limits(request);
        if !self.may_spill(&limits) {
            self.why = self.why_not_spilled(&limits);
            return NextStep::Return;
        }
        if let Some(next) = self.wait_again(now, request) {
            return next;
        }
        let has_failed = outcome == Outcome::Failed;
        if has_failed && !self.config.move_on.withdraw() {
            self.why = Some(Why::RetryBudget);
            return NextStep::Return;
        }
        self.pay_for_failed(now, has_failed, request)
    }

    /// Spills after a failure if the budget allows it. Otherwise gives back what it `withdrew` from
    /// the budget of failures.
    pub(super) fn pay_for_failed<B: TryCloneBody>(
        &mut self,
        now: Instant,
        withdrew: bool,
        request: &Request<B>,
    ) -> NextStep {
        match self.pay(now, request) {
            Ok(()) => NextStep::Send(Tier::Fallback),
            Err(NotPaid::Asks(asks)) => self.ask(asks, AfterPayment::SpillFailed { withdrew }),
            Err(NotPaid::Spent(..)) => {
                self.why = Some(Why::SpillBudget);
                if withdrew {
                    self.config.move_on.give_back();
                }
                NextStep::Return
            }
        }
    }

    /// The primary failed. Unless that cannot be the request's own fault, the failure counts only
    /// once the fallback answers.
    pub(super) fn charge(&mut self, failure: Failure, now: Instant) {
        let permit = Permit::of_failed(self.permit.take(), &self.config.gate);
        match failure {
            Failure::Answer => self.permit = Some(permit),
            _ => permit.failed(failure, now, self.rest(failure)),
        }
    }

    /// Records what the answer of `tier` shows about the primary, to which `permit` admitted the
    /// request.
    pub(super) fn settle<R, E>(
        &self,
        tier: Tier,
        mut permit: Permit,
        result: &Result<Response<R>, E>,
    ) {
        let Ok(response) = result else { return };
        match tier {
            // The fallback serves what the primary failed.
            Tier::Fallback if response.status().is_success() => {
                permit.failed(Failure::Answer, clock::now(), self.rest(Failure::Answer));
            }
            Tier::Fallback => {}
            Tier::Primary if response.status().is_server_error() => {}
            Tier::Primary => {
                permit.answered();
                if response.status().is_success() && !NativeSpillover::has_served(response) {
                    permit.on_accepted(utilization(response.headers()));
                }
            }
        }
    }

    /// How long the primary is deferred after it was found to fail this many times in a row.
    fn rest(&self, failure: Failure) -> impl Fn(u32) -> Duration + use<> {
        let cooldowns = CooldownPolicy::default().longest(self.config.longest_cooldown);
        move |times| match failure {
            Failure::Configuration => cooldowns.after_misconfigured(times),
            // Trying to connect costs nothing, while idle capacity of the primary is paid for.
            Failure::Connect => cooldowns.after_failures(1).min(MAX_UNCONNECTED_DEFERRAL),
            _ => cooldowns.after_failures(times),
        }
    }
}

/// The longest deferral of a primary that cannot be connected to, so that its return is noticed
/// within a second.
const MAX_UNCONNECTED_DEFERRAL: Duration = Duration::from_millis(900);
