//! What a failure means for the request, and for which tier is asked first from then on.

use std::time::{Duration, Instant};

use http::{Request, Response};

use super::{NextStep, Session, Tier, why::why_failed};
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
    /// Whether the request goes to the fallback first: the primary fails, and no probe of it is due just
    /// now whether it still does. That is no retry, and takes nothing from the budget of failures.
    pub(super) fn takes_fallback_first<B: TryCloneBody>(
        &mut self,
        now: Instant,
        request: &Request<B>,
    ) -> bool {
        if !self.config.gate.is_failing(now) {
            return false;
        }
        let limits = *self.limits(request);
        let takes = self.may_spill(&limits) && self.pay(now, request).is_ok();
        if takes {
            (self.is_reversed, self.since, self.why) = (true, now, Some(Why::Failing));
        }
        takes
    }

    /// What follows when the fallback, asked first, refused or failed: the primary is asked after all.
    pub(super) fn after_fallback(&mut self, outcome: Outcome, now: Instant) -> Option<NextStep> {
        let turns =
            self.is_reversed && (outcome != Outcome::Failed || self.config.move_on.withdraw());
        turns.then(|| {
            (self.is_reversed, self.since) = (false, now);
            // It was there already. Where that refused, it may reopen in time.
            self.confined.to_primary |= !matches!(outcome, Outcome::Throttled(_));
            self.permit = self.config.gate.pass();
            NextStep::Send(Tier::Primary)
        })
    }

    /// What follows when the primary failed, or the request is too long for it. It is no matter of
    /// time, and the gate learns nothing from it but that it fails.
    pub(super) fn after_failure<B: TryCloneBody>(
        &mut self,
        outcome: Outcome,
        now: Instant,
        request: &Request<B>,
    ) -> NextStep {
        self.since = now;
        // However soon the primary is open, this request has nothing to come back for.
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
        if self.pay(now, request).is_err() {
            self.why = Some(Why::SpillBudget);
            if has_failed {
                self.config.move_on.give_back();
            }
            return NextStep::Return;
        }
        NextStep::Send(Tier::Fallback)
    }

    /// The primary failed. Unless that cannot be the request's own fault, it is charged with it only when
    /// the fallback answers.
    pub(super) fn charge(&mut self, failure: Failure, now: Instant) {
        let permit = Permit::of_failed(self.permit.take(), &self.config.gate);
        match failure {
            Failure::Answer => self.permit = Some(permit),
            _ => permit.failed(failure, now, self.rest(failure)),
        }
    }

    /// Tells what the answer of `tier` says of the primary, to which `permit` let the request.
    pub(super) fn settle<R, E>(
        &self,
        tier: Tier,
        mut permit: Permit,
        result: &Result<Response<R>, E>,
    ) {
        let Ok(response) = result else { return };
        match tier {
            // The primary failed what the fallback serves.
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

    /// How long the primary is asked after the fallback once it was found to fail so many times in a row.
    fn rest(&self, failure: Failure) -> impl Fn(u32) -> Duration + use<> {
        let cooldowns = CooldownPolicy::default().longest(self.config.longest_cooldown);
        move |times| match failure {
            Failure::Configuration => cooldowns.after_misconfigured(times),
            // To try whether it can be connected to costs nothing, and the primary is paid for.
            Failure::Connect => cooldowns.after_failures(1).min(MAX_UNCONNECTED),
            _ => cooldowns.after_failures(times),
        }
    }
}

/// How long a primary rests at most that cannot be connected to, so that its return is noticed within a
/// second.
const MAX_UNCONNECTED: Duration = Duration::from_millis(900);
