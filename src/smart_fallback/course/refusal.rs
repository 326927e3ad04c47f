//! What a refusal means for the next step, and what is told to the caller.

use std::time::{Duration, Instant};

use http::{Request, Response};

use super::{Config, Lane, TICK, Tiers, Wait};
use crate::{
    Attempts, Served, TryCloneBody,
    classify::{
        Exhausted, Failing, Hint, NativeSpillover, NotAgain, Reason, Refusal, announce,
        announce_in_vain, forbid_retry, forbids_retry, utilization,
    },
    gate,
    policy::{Policy, assumed_wait},
    resend::Step,
};

/// What a refusal of the primary says.
pub(super) struct Said {
    hint: Hint,
    /// Whether the hint is a guess of this layer's.
    is_guessed: bool,
    utilization: Option<f64>,
    /// Whether time would help this request.
    waits: bool,
    is_quota: bool,
    /// Whether it is closed since it fails.
    is_failing: bool,
}

impl Said {
    /// What is said by `response`, which still has the account of an inner layer.
    pub(super) fn by<R>(hint: Hint, response: &Response<R>) -> Self {
        let is_quota = is_quota(response);
        let is_pools = response.extensions().get::<Served>().is_some();
        let spillover = NativeSpillover::of(response.headers()).filter(|_| !is_pools);
        let is_of_standard = spillover.is_some_and(|spillover| spillover.is_of_standard());
        let hint = match hint {
            // What a backend says of its quota is not believed; a pool knows.
            _ if is_quota && !is_pools => Hint::TooLong,
            // The time is that of the deployment to which Azure spilled, which every attempt asks.
            _ if is_of_standard => Hint::After(NOT_ASKED_AGAIN_BEFORE),
            hint => hint,
        };
        let failing = response.extensions().get::<Failing>();
        let refused = failing.and_then(|failing| failing.refused);
        let hint = refused.map_or(hint, Hint::After);
        let is_failing = failing.is_some() && refused.is_none();
        let waits = !is_quota && !is_failing && !forbids_retry(response);
        let utilization = utilization(response.headers());
        Self { hint, is_guessed: is_of_standard, utilization, waits, is_quota, is_failing }
    }
}

impl<P, F, K: Policy, X> Tiers<P, F, K, X> {
    /// What follows a refusal of the primary; `None` when it is that the refusal be returned, as
    /// it is when the request is not held any more.
    pub(super) fn after_refusal<B: TryCloneBody, A>(
        &mut self,
        said: &Said,
        now: Instant,
        request: Option<&Request<B>>,
    ) -> Option<Step<Lane, Wait, A>> {
        self.closed = self.closed_by(said.hint);
        if said.is_failing {
            // Nobody waits for that, and of how full the primary is it says nothing.
            (self.pass, self.since) = (None, now);
            self.is_forbidden = true;
            return self.spill(now, request?);
        }
        self.is_forbidden = !said.waits && !said.is_quota;
        // Of a resource that is known apart from the others, the gate learns nothing.
        let is_apart = self.confined.is_apart;
        if said.is_quota && !is_apart {
            self.config.quota.rest(0, now, self.closed);
        }
        if is_apart || !self.config.gate.is_adaptive() {
            if !is_apart {
                self.config.gate.remember(now, self.closed);
            }
            return match said.waits {
                true => self.decide(said.hint, self.closed, now, request?),
                false => {
                    self.since = now;
                    self.spill(now, request?)
                }
            };
        }
        // Without the request there is nothing to wait with, so that it need not queue.
        let limits = request.map(|request| *self.limits(request));
        let deadline = limits.filter(|_| said.waits).map_or(now, |limits| limits.deadline());
        let refusal = gate::Refusal {
            cost: request.map_or(0.0, |request| self.weigh(request)),
            rank: limits.map_or(0, |limits| limits.rank),
            at: self.since,
            now,
            closed: self.closed,
            is_measured: matches!(said.hint, Hint::After(_)) && !said.is_guessed,
            utilization: said.utilization,
            deadline,
        };
        let ticket = self.config.gate.refused(self.pass.take(), &refusal);
        match ticket.filter(|_| said.waits) {
            Some(ticket) => self.obey(gate::Admission::Wait(ticket), now, request?),
            None => self.obey(gate::Admission::Spill, now, request?),
        }
    }

    /// Notes where Azure spilled to already, in vain: that is no place to spill to.
    pub(super) fn note_exhausted<R>(&mut self, response: &mut Response<R>) {
        if self.config.standard.is_some() {
            let spillover = NativeSpillover::of(response.headers());
            let asked = self.config.names[Lane::Primary as usize].as_bytes();
            let to = spillover.map(|spillover| spillover.standard(Some(asked)));
            self.is_spilled_in_vain |= match (to, &self.config.standard) {
                (Some(Some(to)), Some(standard)) => *to == *standard.as_bytes(),
                (to, _) => to.is_some(),
            };
        }
        if let Some(more) = response.extensions_mut().remove::<Exhausted>() {
            let known = self.exhausted.take().unwrap_or_default();
            self.exhausted = Some(Box::new(known.and(&more)));
        }
    }

    /// Hands on to the layers outside what Azure spilled in vain.
    pub(super) fn hand_on_exhausted<R>(&mut self, response: &mut Response<R>) {
        if let Some(known) = self.exhausted.take() {
            let extensions = response.extensions_mut();
            let all = extensions.get::<Exhausted>().map(|more| known.and(more));
            extensions.insert(all.unwrap_or(*known));
        }
    }

    /// Tells the caller when either tier is worth asking; of the fallback it is known what it `said`.
    pub(super) fn announce_soonest<R>(
        &self,
        response: &mut Response<R>,
        said: &Said,
        now: Instant,
    ) {
        let spent = self.config.quota.remaining(0, now);
        let left = self.primary_left(now);
        let primary = (spent.is_none() && !self.is_forbidden).then_some(left);
        let fallback = said.hint.duration().filter(|_| said.waits || said.is_failing);
        if let Some(soonest) = primary.into_iter().chain(fallback).min() {
            announce(response.headers_mut(), soonest.max(TICK));
            let extensions = response.extensions_mut();
            extensions.remove::<NotAgain>();
            if primary == Some(soonest) {
                extensions.remove::<Failing>();
            }
            if said.is_quota {
                extensions.insert(Refusal::new(Reason::Rate, Hint::After(soonest.max(TICK))));
            }
        } else if !said.waits {
            // Neither is mended by time, or only by more than anyone has.
            let of_primary = spent.unwrap_or(left);
            let is_told = !of_primary.is_zero();
            let wait = if is_told { of_primary } else { self.closed_by(said.hint) };
            announce_in_vain(response.headers_mut(), wait.max(TICK));
            if !said.is_quota || spent.is_none() {
                response.extensions_mut().insert(NotAgain);
            }
        }
    }

    /// Tells the caller's client what this refusal of the primary is about.
    pub(super) fn announce_final<R>(response: &mut Response<R>, said: &Said) {
        if said.is_quota {
            forbid_retry(response.headers_mut());
        }
    }

    /// Whether the layers have no attempt left for the request, all together.
    pub(super) fn is_out_of_attempts<B>(request: &Request<B>) -> bool {
        request.extensions().get().is_some_and(|attempts: &Attempts| !attempts.any_left())
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

impl<K, X> Config<K, X> {
    /// Whether any failure of the primary spills.
    pub(super) const fn watches_failures(&self) -> bool {
        self.has_on_error || self.failures.are_watched()
    }

    /// Whether the primary's quota is used up, as far as is known.
    pub(super) fn is_spent(&self, now: Instant) -> bool {
        !self.quota.is_open(0, now)
    }
}

/// How long a primary is left alone whose refusal tells only of the deployment to which Azure spilled:
/// as long as a pool leaves a backend that gives no time.
const NOT_ASKED_AGAIN_BEFORE: Duration = Duration::from_secs(1);

fn is_quota<R>(response: &Response<R>) -> bool {
    Refusal::of(response).is_some_and(|it| it.reason() == Reason::Quota)
}
