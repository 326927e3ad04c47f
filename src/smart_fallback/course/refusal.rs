//! What a refusal means for the next step, and what is told to the caller.

use std::time::{Duration, Instant};

use http::{Request, Response};

use super::{Config, Lane, TICK, Tiers, Wait};
use crate::{
    AttemptBudget, TryCloneBody,
    classify::{
        Hint, NativeSpillover, Reason, Refusal, write_retry_after, write_retry_after_final,
    },
    gate,
    policy::assumed_wait,
    resend::Step,
};

/// What a refusal of the primary means for the request that met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PrimaryRefusal {
    /// Time helps it.
    Wait,
    /// The quota is used up, for all requests.
    Quota,
    /// The primary is closed since it fails.
    Failing,
    /// The service does not want this request back.
    Final,
}

impl PrimaryRefusal {
    pub(super) fn of(refusal: &Refusal) -> Self {
        if refusal.is_failing {
            Self::Failing
        } else if refusal.reason() == Reason::Quota {
            Self::Quota
        } else if refusal.is_final {
            Self::Final
        } else {
            Self::Wait
        }
    }
}

impl<P, F, X> Tiers<P, F, X> {
    /// What follows a refusal of the primary; `None` when it is that the refusal be returned, as
    /// it is when the request is not held any more.
    pub(super) fn after_refusal<B: TryCloneBody, A>(
        &mut self,
        refusal: &Refusal,
        utilization: Option<f64>,
        now: Instant,
        request: Option<&Request<B>>,
    ) -> Option<Step<Lane, Wait, A>> {
        let meaning = PrimaryRefusal::of(refusal);
        let waits = meaning == PrimaryRefusal::Wait;
        self.closed = self.closed_by(refusal.hint());
        self.is_forbidden = matches!(meaning, PrimaryRefusal::Failing | PrimaryRefusal::Final);
        if meaning == PrimaryRefusal::Failing {
            // Do not wait for a failing primary; and how full it is, it does not say.
            (self.pass, self.since) = (None, now);
            return self.spill(now, request?);
        }
        // Of a resource that is known apart from the others, the gate learns nothing.
        let is_apart = self.confined.is_apart;
        if meaning == PrimaryRefusal::Quota && !is_apart {
            self.config.quota.rest(0, now, self.closed);
        }
        if is_apart || !self.config.gate.is_adaptive() {
            if !is_apart {
                self.config.gate.remember(now, self.closed);
            }
            return match waits {
                true => self.decide(refusal.hint(), self.closed, now, request?),
                false => {
                    self.since = now;
                    self.spill(now, request?)
                }
            };
        }
        // Without the request there is nothing to wait with, so that it need not queue.
        let limits = request.map(|request| *self.limits(request));
        let deadline = limits.filter(|_| waits).map_or(now, |limits| limits.deadline());
        let refusal = gate::RefusedAttempt {
            cost: request.map_or(0.0, |request| self.weigh(request)),
            rank: limits.map_or(0, |limits| limits.rank),
            sent_at: self.since,
            now,
            closed: self.closed,
            is_measured: refusal.is_measured(),
            utilization,
            deadline,
        };
        let waiter = self.config.gate.on_refused(self.pass.take(), &refusal);
        match waiter.filter(|_| waits) {
            Some(waiter) => self.obey(gate::Admission::Wait(waiter), now, request?),
            None => self.obey(gate::Admission::Spill, now, request?),
        }
    }

    /// Notes where Azure spilled to already, and was refused: that is no place to spill to.
    pub(super) fn note_spills<R>(&mut self, response: &mut Response<R>) {
        if self.config.standard.is_some() {
            let spillover = NativeSpillover::of(response.headers());
            let asked = self.config.names[Lane::Primary as usize].as_bytes();
            let to = spillover.map(|spillover| spillover.standard(Some(asked)));
            self.is_spilled_in_vain |= match (to, &self.config.standard) {
                (Some(Some(to)), Some(standard)) => *to == *standard.as_bytes(),
                (to, _) => to.is_some(),
            };
        }
        let refusal = response.extensions_mut().get_mut::<Refusal>();
        if let Some(more) = refusal.and_then(|refusal| refusal.spills.take()) {
            self.spills = Some(match &self.spills {
                Some(known) => known.and(&more),
                None => more,
            });
        }
    }

    /// Leaves the deployments that native spillover already tried for the layers outside.
    pub(super) fn hand_on_spills<R>(&mut self, response: &mut Response<R>) {
        if let Some(spills) = self.spills.take() {
            Refusal::add_spills(response, &spills);
        }
    }

    /// Asks the caller to come back when either tier is worth asking, after a `refusal` of the fallback.
    pub(super) fn announce_soonest<R>(
        &self,
        response: &mut Response<R>,
        refusal: &Refusal,
        now: Instant,
    ) {
        let meaning = PrimaryRefusal::of(refusal);
        let is_quota = meaning == PrimaryRefusal::Quota;
        let spent = self.config.quota.remaining(0, now);
        let left = self.primary_left(now);
        let primary = (spent.is_none() && !self.is_forbidden).then_some(left);
        let opens = matches!(meaning, PrimaryRefusal::Wait | PrimaryRefusal::Failing);
        let fallback = refusal.hint().duration().filter(|_| opens);
        if let Some(soonest) = primary.into_iter().chain(fallback).min() {
            let hint = write_retry_after(response.headers_mut(), soonest.max(TICK));
            Refusal::rewrite(response, hint, false, |refusal| {
                refusal.is_final = false;
                if primary == Some(soonest) {
                    (refusal.is_failing, refusal.refused_for) = (false, None);
                }
                if is_quota {
                    refusal.set_reason(Reason::Rate);
                }
            });
        } else if meaning != PrimaryRefusal::Wait {
            // Waiting helps neither tier, or not within any request's limits.
            let of_primary = spent.unwrap_or(left);
            let is_known = !of_primary.is_zero();
            let wait = if is_known { of_primary } else { self.closed_by(refusal.hint()) };
            let hint = write_retry_after_final(response.headers_mut(), wait.max(TICK));
            Refusal::rewrite(response, hint, true, |refusal| {
                refusal.is_final |= !is_quota || spent.is_none();
            });
        }
    }

    /// Whether the layers have no attempt left for the request, all together.
    pub(super) fn is_out_of_attempts<B>(request: &Request<B>) -> bool {
        request.extensions().get().is_some_and(|attempts: &AttemptBudget| !attempts.any_left())
    }

    fn primary_left(&self, now: Instant) -> Duration {
        let remembered = self.config.gate.remembered(now).filter(|_| !self.confined.is_apart);
        remembered.unwrap_or_else(|| {
            self.closed.saturating_sub(now.saturating_duration_since(self.since))
        })
    }

    /// How long a primary that refuses with `hint` is taken to be closed.
    fn closed_by(&self, hint: Hint) -> Duration {
        let closed = assumed_wait(hint, self.refusals).unwrap_or(Duration::MAX);
        closed.min(self.config.longest_cooldown)
    }
}

impl Config {
    /// Whether the primary's quota is used up, as far as is known.
    pub(super) fn is_spent(&self, now: Instant) -> bool {
        !self.quota.is_open(0, now)
    }
}
