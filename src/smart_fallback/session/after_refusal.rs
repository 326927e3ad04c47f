//! The step after a tier refused: wait for the primary, spill, or return the refusal.

use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};

use super::{NextStep, Session, Tier};
use crate::{
    AttemptBudget, Served, TryCloneBody,
    classify::{Hint, NativeSpillover, Outcome, Reason, Refusal, forbid_retry, utilization},
    cooldown::{Closed, Failure, Traffic},
    gate::{self, Admission, SpillReason},
    policy::{ClassifyError, assumed_wait},
    served::Why,
};

/// What a refusal of the primary means for the request that met it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PrimaryRefusal {
    /// Waiting helps.
    Wait,
    /// The quota is used up, for all requests.
    Quota,
    /// The service forbids retrying this request.
    Final,
}

impl PrimaryRefusal {
    pub(super) fn of(refusal: &Refusal) -> Self {
        if refusal.reason() == Reason::Quota {
            Self::Quota
        } else if refusal.is_final {
            Self::Final
        } else {
            Self::Wait
        }
    }

    /// Why waiting does not help, if so.
    const fn why_final(self) -> Option<Why> {
        match self {
            Self::Wait => None,
            Self::Quota => Some(Why::Quota),
            Self::Final => Some(Why::Forbidden),
        }
    }
}

impl Session {
    /// The step after a refusal or a failure of `tier`. If that is to return it, `result` is
    /// completed for the caller, as it is if the request is not `kept` and cannot be sent again.
    pub(in crate::smart_fallback) fn refused<B: TryCloneBody, R, E>(
        &mut self,
        tier: Tier,
        now: Instant,
        outcome: Outcome,
        result: &mut Result<Response<R>, E>,
        errors: &impl ClassifyError<E>,
        kept: Option<&Request<B>>,
    ) -> NextStep {
        let may_go_on =
            kept.is_some_and(|it| !self.is_last && !AttemptBudget::is_spent(it.extensions()));
        if tier == Tier::Fallback
            && may_go_on
            && let Some(next) = self.after_fallback(outcome, now)
        {
            let mut served = self.served.take().unwrap_or_else(|| Box::new(Served::new()));
            if let (Outcome::Throttled(hint), Ok(response)) = (outcome, &*result) {
                self.note_fallback_refusal(hint, response, now);
            }
            self.record(&mut served, tier, result, outcome);
            served.set_returned();
            self.served = Some(served);
            return next;
        }
        let is_signed = result.as_ref().is_ok_and(Served::is_on);
        let refusal = Self::refusal_in(outcome, result);
        if tier == Tier::Fallback && refusal.is_none() {
            // Any other answer of the fallback is returned to the caller.
            self.answered(tier, result, kept.is_some());
            return NextStep::Return;
        }
        let mut served = self.served.take().unwrap_or_else(|| Box::new(Served::new()));
        let attempts = served.attempts().len();
        let reported = self.record(&mut served, tier, result, outcome);
        let is_remembered = served.attempts().len() == attempts;
        // The tier's reason does not explain yet why the caller gets the refusal.
        served.set_why_refused(None);
        // The next step may record a wait in it.
        self.served = Some(served);
        if let (Ok(response), Tier::Primary) = (&mut *result, tier) {
            self.note_spills(response);
        }
        let request = kept.filter(|_| may_go_on);
        let next = match (&refusal, &mut *result) {
            (Some(refusal), Ok(response)) if tier == Tier::Fallback => {
                let remembers = is_signed || Refusal::is_about_weight(response, refusal.hint());
                self.after_fallback_refusal(refusal, remembers, now, request)
            }
            (Some(refusal), Ok(response)) => {
                self.refusals += 1;
                if let Some(permit) = &mut self.permit {
                    permit.answered();
                }
                let utilization =
                    if is_signed { utilization(response.headers()) } else { reported };
                let closed = self.closes(refusal, response, kept);
                let known = (closed, utilization, is_remembered);
                self.after_refusal(refusal, known, now, request)
            }
            (_, result) => {
                match (outcome, result) {
                    (Outcome::Failed, result) => self.charge(Failure::of(result, errors), now),
                    // A role that allows no uploads may still allow completions.
                    (Outcome::Misconfigured, _) if self.load().0.is_of_resource() => {
                        self.permit = None;
                    }
                    // A missing object may be the request's own fault.
                    (Outcome::Misconfigured, Ok(response))
                        if response.status() == StatusCode::NOT_FOUND =>
                    {
                        self.charge(Failure::Answer, now);
                    }
                    (Outcome::Misconfigured, _) => self.charge(Failure::Configuration, now),
                    _ => self.permit = None,
                }
                request.map_or(NextStep::Return, |it| self.after_failure(outcome, now, it))
            }
        };
        if matches!(next, NextStep::Return) {
            self.complete_refusal(tier, now, refusal.as_ref(), result, kept);
        }
        next
    }

    /// Completes the refusal or the failure of `tier` for the caller, after the fleet's store kept
    /// the request from spilling.
    pub(in crate::smart_fallback) fn refused_by_fleet<B: TryCloneBody, R, E>(
        &mut self,
        tier: Tier,
        now: Instant,
        outcome: Outcome,
        result: &mut Result<Response<R>, E>,
        request: &Request<B>,
    ) {
        let refusal = Self::refusal_in(outcome, result);
        self.complete_refusal(tier, now, refusal.as_ref(), result, Some(request));
    }

    /// Completes the refusal or the failure of `tier` for the caller.
    fn complete_refusal<B: TryCloneBody, R, E>(
        &mut self,
        tier: Tier,
        now: Instant,
        refusal: Option<&Refusal>,
        result: &mut Result<Response<R>, E>,
        kept: Option<&Request<B>>,
    ) {
        if let (Some(refusal), Ok(response)) = (refusal, &mut *result) {
            match tier {
                Tier::Primary => {
                    if PrimaryRefusal::of(refusal) == PrimaryRefusal::Quota {
                        forbid_retry(response.headers_mut());
                    }
                    self.announce_unpaid(response, refusal, now);
                }
                Tier::Fallback if !self.confined.to_fallback => {
                    self.announce_soonest(response, refusal, now);
                }
                Tier::Fallback => {}
            }
        }
        let mut served = self.served.take().unwrap_or_else(|| Box::new(Served::new()));
        served.set_why_refused(self.why_returned(tier, refusal, kept));
        if let Ok(response) = result {
            self.hand_on_spills(response);
        }
        // The caller may keep the completed future alive.
        self.cold = None;
        self.finished(Some(&served), result.as_ref().ok().map(Response::status));
        served.sign(result, kept.is_some() || tier == Tier::Fallback);
    }

    fn refusal_in<R, E>(outcome: Outcome, result: &Result<Response<R>, E>) -> Option<Refusal> {
        match (outcome, result) {
            (Outcome::Throttled(hint), Ok(response)) => {
                Some(Refusal::read(response, hint, Served::is_on(response)))
            }
            _ => None,
        }
    }

    /// What a `refusal` of the primary closes, unless it is about the level of its bucket: requests
    /// that are far too heavy, and traffic other than tokens of the default service tier.
    fn closes<B: TryCloneBody, R>(
        &mut self,
        refusal: &Refusal,
        response: &Response<R>,
        kept: Option<&Request<B>>,
    ) -> Option<Closed> {
        let (traffic, _) = self.load();
        let hint = refusal.hint();
        if hint.is_beyond_windows() && Refusal::is_about_weight(response, hint) {
            kept.map(|request| self.weigh(request));
            let (_, weight) = self.load();
            return Some(Closed::From(traffic, weight));
        }
        let is_of_bucket = traffic == Traffic::Tokens && self.config.gate.is_adaptive();
        (!is_of_bucket).then_some(Closed::Kind(traffic))
    }

    /// The step after a refusal of the primary; it is returned if the request cannot be sent again.
    fn after_refusal<B: TryCloneBody>(
        &mut self,
        refusal: &Refusal,
        (closed, utilization, is_remembered): (Option<Closed>, Option<f64>, bool),
        now: Instant,
        request: Option<&Request<B>>,
    ) -> NextStep {
        if refusal.is_elsewhere {
            // It concerns only this sending: there is nothing to wait for, and nothing for the gate
            // to learn.
            (self.permit, self.since, self.why) = (None, now, Some(Why::FirstTokenLate));
            return request.map_or(NextStep::Return, |request| self.spill(now, request));
        }
        let meaning = PrimaryRefusal::of(refusal);
        let waits = meaning == PrimaryRefusal::Wait;
        let believed = self.closed_by(refusal.hint());
        self.note_closed(now, believed);
        // A hint that is not believed is not a measurement.
        self.is_measured =
            refusal.is_measured() && waits && refusal.hint() == Hint::After(believed);
        self.is_forbidden = meaning == PrimaryRefusal::Final;
        // The gate learns nothing from a single resource among several, nor from requests without
        // token cost.
        let is_apart = self.confined.is_apart || self.traffic == Some(Traffic::Free);
        if meaning == PrimaryRefusal::Quota && !is_apart {
            self.config.quota.rest(0, now, believed);
        }
        if is_apart || closed.is_some() {
            self.permit = None;
            let (mut hint, mut left) = (refusal.hint(), believed);
            if let Some(closed) = closed.filter(|_| !is_apart) {
                if matches!(closed, Closed::From(..)) {
                    left = hint.duration().unwrap_or(Hint::LONGEST);
                    self.note_closed(now, left);
                }
                self.config.gate.close(now, closed, (believed, left));
                if self.config.gate.is_adaptive() {
                    // A request that can wait that long tries again then.
                    hint = Hint::After(believed);
                }
            }
            if !waits {
                self.since = now;
            }
            let Some(request) = request else { return NextStep::Return };
            let limits = *self.limits(request);
            let from = match closed {
                Some(Closed::From(_, weight)) if !is_apart => weight.least_alike().tokens(),
                _ => None,
            };
            self.why = Some(meaning.why_final().unwrap_or_else(|| {
                self.why_closed(hint.duration().unwrap_or(left), from, now, &limits)
            }));
            return match waits {
                true => self.decide(hint, left, now, request),
                false => self.spill(now, request),
            };
        }
        if is_remembered && waits && self.permit.is_none() && self.config.gate.is_modelling(now) {
            // A pool did not call the PTU, and says when its last hint ends. The gate had that hint
            // already, and knows what has lowered the level since.
            let Some(request) = request else { return NextStep::Return };
            let (limits, cost) = (*self.limits(request), self.weigh(request));
            let admission = self.config.gate.admit(now, cost, limits.rank, limits.deadline());
            return self.obey(admission, now, request);
        }
        // Without a copy of the request it cannot wait, so it need not queue.
        let limits = request.map(|request| *self.limits(request));
        let longer = limits.filter(|_| waits);
        let longer = longer.and_then(|limits| self.longer_wait(now, self.reopens, &limits));
        let deadline = limits.filter(|_| waits).map_or(now, |limits| limits.deadline());
        let deadline = longer.as_ref().map_or(deadline, |(longer, _)| *longer);
        let refusal = gate::RefusedAttempt {
            cost: request.map_or(0.0, |request| self.weigh(request)),
            rank: limits.map_or(0, |limits| limits.rank),
            sent_at: self.since,
            now,
            closed: believed,
            is_measured: self.is_measured,
            utilization,
            deadline,
            is_patient: longer.is_some() || limits.is_some_and(|it| !self.may_spill(&it)),
        };
        let waiter = self.config.gate.on_refused(self.permit.take(), &refusal);
        let (Some(request), Some(limits)) = (request, limits) else { return NextStep::Return };
        self.since = now;
        let cause = match (waiter, longer) {
            (Ok((waiter, predicted)), Some((_, budget))) if waits => {
                return self.race_in_queue(waiter, predicted, budget);
            }
            (Ok((waiter, predicted)), None) if waits => {
                return self.obey(Admission::Wait(waiter, predicted), now, request);
            }
            // It leaves the queue here.
            (waiter, _) => waiter.err().unwrap_or(SpillReason::Late),
        };
        self.why = Some(match meaning.why_final() {
            Some(why) => why,
            None if believed > limits.left(now) => self.why_closed(believed, None, now, &limits),
            None => Self::why_lost(cause, now, &limits),
        });
        self.spill(now, request)
    }

    /// Records where Azure spilled and was refused, so that nothing is spilled there again.
    fn note_spills<R>(&mut self, response: &mut Response<R>) {
        if self.config.standard.is_some() {
            let spillover = NativeSpillover::of(response.headers());
            let asked = self.config.names[Tier::Primary as usize].as_bytes();
            let to = spillover.map(|spillover| spillover.standard(Some(asked)));
            // Native spillover already tried our fallback deployment, which refused.
            self.confined.to_primary |= match (to, &self.config.standard) {
                (Some(Some(to)), Some(standard)) => *to == *standard.as_bytes(),
                (to, _) => to.is_some(),
            };
        }
        let refusal = response.extensions_mut().get_mut::<Refusal>();
        if let Some(more) = refusal.and_then(|refusal| refusal.spills.take()) {
            let spills = &mut self.cold().spills;
            *spills = Some(match spills {
                Some(known) => known.and(&more),
                None => more,
            });
        }
    }

    /// How long a primary that refuses with `hint` is assumed to stay closed.
    pub(super) fn closed_by(&self, hint: Hint) -> Duration {
        // The request itself waits no less than this, whatever it draws.
        let closed = assumed_wait(hint, self.refusals, 0).unwrap_or(Duration::MAX);
        closed.min(self.config.longest_cooldown)
    }
}
