//! The course of one request over two tiers.

mod account;
mod choice;
mod refusal;
mod spill;

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use futures::future::Either;
use http::{Request, Response};
use tower_service::Service;

use self::{account::sign, refusal::PrimaryRefusal};
use super::{layer::Config, limits::Limits, wait::Wait};
use crate::{
    AttemptBudget, Served, TryCloneBody,
    classify::{Hint, NativeSpillover, Outcome, Refusal, RefusedSpills, forbid_retry, utilization},
    clock,
    gate::{Admission, Permit, Weight},
    overrides::Arrival,
    policy::ClassifyError,
    resend::{Course, Readied, Step},
    sticky::Confined,
};

/// The two tiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Primary,
    Fallback,
}

/// One request over two tiers.
pub(super) struct Tiers<P, F, X> {
    primary: P,
    fallback: F,
    config: Arc<Config>,
    classify_error: X,
    /// Where it may go, if it refers to what one resource holds.
    confined: Confined,
    /// When the request reached this tier.
    entered: Instant,
    /// Looked up when they are first needed.
    limits: Option<Limits>,
    /// Weighed when it is first needed.
    weight: Option<Weight>,
    pass: Option<Permit>,
    refusals: u32,
    /// When the attempt under way was chosen, or the wait begun.
    since: Instant,
    /// How much longer the primary was going to refuse then.
    closed: Duration,
    /// Whether a refusal of the attempt under way is the caller's.
    is_last: bool,
    is_sent: bool,
    /// Whether the primary forbade this request to come back.
    is_forbidden: bool,
    /// Whether Azure spilled to the fallback itself, which refused.
    is_spilled_in_vain: bool,
    /// Where Azure spilled to, and was refused.
    spills: Option<RefusedSpills>,
    /// The account so far, once there is something to tell.
    served: Option<Box<Served>>,
}

impl<P, F, X> Tiers<P, F, X> {
    pub(super) const fn new(
        primary: P,
        fallback: F,
        config: Arc<Config>,
        classify_error: X,
        confined: Confined,
        now: Instant,
    ) -> Self {
        Self {
            primary,
            fallback,
            config,
            classify_error,
            confined,
            entered: now,
            limits: None,
            weight: None,
            pass: None,
            refusals: 0,
            since: now,
            closed: Duration::ZERO,
            is_last: false,
            is_sent: false,
            is_forbidden: false,
            is_spilled_in_vain: false,
            spills: None,
            served: None,
        }
    }

    /// The first step of a request that arrives now, or comes back from a wait.
    pub(super) fn start<B: TryCloneBody, A>(
        &mut self,
        now: Instant,
        request: &Request<B>,
    ) -> Step<Lane, Wait, A> {
        if self.confined.to_fallback {
            return Step::Send(Lane::Fallback);
        }
        if self.confined.is_apart {
            // The tier knows whether this resource is closed, the gate does not.
            return Step::Send(Lane::Primary);
        }
        let step = if self.config.gate.is_adaptive() {
            // Most requests find the gate open, and are not even weighed.
            if !self.config.gate.is_busy() {
                Some(Step::Send(Lane::Primary))
            } else if self.config.is_spent(now) {
                self.since = now;
                self.spill(now, request)
            } else {
                let cost = self.weigh(request);
                let limits = self.limits(request);
                let (rank, deadline) = (limits.rank, limits.deadline());
                let admission = self.config.gate.admit(now, cost, rank, deadline);
                self.obey(admission, now, request)
            }
        } else {
            match self.config.gate.remembered(now) {
                None => Some(Step::Send(Lane::Primary)),
                Some(_) if self.config.is_spent(now) => {
                    self.since = now;
                    self.spill(now, request)
                }
                Some(left) => self.decide(Hint::After(left), left, now, request),
            }
        };
        self.or_ask(step)
    }

    /// Drops the primary that was readied for a call which does not use it.
    pub(super) fn release_primary(&mut self, unreadied: P) {
        drop(mem::replace(&mut self.primary, unreadied));
    }

    /// A request that is to have the refusal returned, and has none yet, gets one.
    fn or_ask<A>(&mut self, step: Option<Step<Lane, Wait, A>>) -> Step<Lane, Wait, A> {
        step.unwrap_or_else(|| {
            self.is_last = true;
            Step::Send(Lane::Primary)
        })
    }

    fn limits<B>(&mut self, request: &Request<B>) -> &Limits {
        let find = || Limits::new(&self.config, request.extensions(), self.entered);
        self.limits.get_or_insert_with(find)
    }

    fn weigh<B: TryCloneBody>(&mut self, request: &Request<B>) -> f64 {
        let weigh = || self.config.gate.weigh(request);
        self.weight.get_or_insert_with(weigh).cost
    }
}

impl<P, F, X, B, R> Course<B> for Tiers<P, F, X>
where
    P: Service<Request<B>, Response = Response<R>> + Clone,
    F: Service<Request<B>, Response = Response<R>, Error = P::Error>,
    X: ClassifyError<P::Error>,
    B: TryCloneBody,
{
    type Lane = Lane;
    type Attempt = Either<P::Future, F::Future>;
    type Wait = Wait;
    type Answer = Result<Response<R>, P::Error>;

    fn poll_ready(
        &mut self,
        lane: Lane,
        cx: &mut Context<'_>,
        now: impl FnOnce() -> Instant,
        request: &Request<B>,
    ) -> Poll<Readied<Lane, Wait, Self::Answer>> {
        ready!(match lane {
            Lane::Primary => self.primary.poll_ready(cx),
            Lane::Fallback => self.fallback.poll_ready(cx),
        })
        .map_err(|error| {
            // The caller may keep the finished future; what it held is free all the same.
            self.pass = None;
            Step::Answer(Err(error))
        })?;
        // The gate has let it go already; a last attempt is made in any case.
        if lane == Lane::Fallback || self.is_last || self.config.gate.is_adaptive() {
            return Poll::Ready(Ok(()));
        }
        match self.start(now(), request) {
            Step::Send(Lane::Primary) => Poll::Ready(Ok(())),
            step => {
                self.release_primary(self.primary.clone());
                Poll::Ready(Err(step))
            }
        }
    }

    fn may_resend(&self, lane: Lane) -> bool {
        lane == Lane::Primary
    }

    fn send(&mut self, lane: Lane, mut request: Request<B>) -> Self::Attempt {
        if let Some(limits) = &self.limits
            && self.since > limits.arrival
        {
            // A tier inside this one must not start its waiting anew.
            request.extensions_mut().get_or_insert(Arrival(limits.arrival));
        }
        if let (Lane::Primary, Some(pass), Some(weight)) = (lane, &self.pass, &self.weight)
            && let Some(observe) = pass.observe(weight)
        {
            request.extensions_mut().insert(observe);
        }
        if let Some(attempts) = request.extensions_mut().get_mut::<AttemptBudget>() {
            if self.is_sent { attempts.reserve() } else { attempts.reserve_first() }
        }
        self.is_sent = true;
        match lane {
            Lane::Primary => Either::Left(self.primary.call(request)),
            Lane::Fallback => {
                if let Some(mut spills) = self.spills.clone() {
                    let extensions = request.extensions_mut();
                    if let Some(known) = extensions.get() {
                        spills = spills.and(known);
                    }
                    extensions.insert(spills);
                }
                Either::Right(self.fallback.call(request))
            }
        }
    }

    fn classify(&self, result: &Self::Answer) -> Outcome {
        self.config.move_on.classify(result, &self.classify_error, clock::wall)
    }

    fn answer(&mut self, lane: Lane, mut result: Self::Answer, held: bool) -> Self::Answer {
        if let Some(pass) = self.pass.take()
            && let Ok(response) = &result
            && response.status().is_success()
            && !NativeSpillover::has_served(response)
        {
            pass.on_accepted(utilization(response.headers()));
        }
        if self.config.move_on.watches_failures()
            && result.as_ref().is_ok_and(|response| response.status().is_success())
        {
            self.config.move_on.deposit();
        }
        // The account of an inner layer says it all about a first attempt, and stays where it is.
        if self.served.as_ref().is_none_or(|served| served.is_plain())
            && let Ok(response) = &mut result
            && let Some(served) = response.extensions_mut().get_mut::<Served>()
        {
            match lane {
                Lane::Fallback => served.set_spilled(0),
                Lane::Primary if !held => served.set_unreplayable(),
                Lane::Primary => {}
            }
            return result;
        }
        let mut served = self.served.take().map_or_else(Served::new, |served| *served);
        self.record(&mut served, lane, &mut result, Outcome::Answered);
        if lane == Lane::Primary && result.as_ref().is_ok_and(NativeSpillover::has_served) {
            served.set_spilled_by_azure();
        }
        sign(served, lane, result, held)
    }

    fn refused(
        &mut self,
        lane: Lane,
        now: Instant,
        outcome: Outcome,
        mut result: Self::Answer,
        held: Option<&Request<B>>,
    ) -> Step<Lane, Wait, Self::Answer> {
        let refusal = match (outcome, &result) {
            (Outcome::Throttled(hint), Ok(response)) => Some(Refusal::read(response, hint)),
            // What the fallback answers besides is the caller's.
            _ if lane == Lane::Fallback => {
                return Step::Answer(self.answer(lane, result, held.is_some()));
            }
            _ => None,
        };
        let mut served = self.served.take().unwrap_or_else(|| Box::new(Served::new()));
        self.record(&mut served, lane, &mut result, outcome);
        if let (Ok(response), Lane::Primary) = (&mut result, lane) {
            self.note_spills(response);
        }
        let request = held.filter(|request| !self.is_last && !Self::is_out_of_attempts(request));
        let step = match (&refusal, &mut result) {
            (Some(refusal), Ok(response)) if lane == Lane::Fallback => {
                if !self.confined.to_fallback {
                    self.announce_soonest(response, refusal, now);
                }
                None
            }
            (Some(refusal), Ok(response)) => {
                self.refusals += 1;
                let utilization = utilization(response.headers());
                let step = self.after_refusal(refusal, utilization, now, request);
                if step.is_none() && PrimaryRefusal::of(refusal) == PrimaryRefusal::Quota {
                    forbid_retry(response.headers_mut());
                }
                step
            }
            _ => {
                // The caller may keep the finished future; what it held is free all the same.
                self.pass = None;
                request.and_then(|request| self.after_failure(outcome, now, request))
            }
        };
        match step {
            Some(step) => {
                self.served = Some(served);
                step
            }
            None => {
                if let Ok(response) = &mut result {
                    self.hand_on_spills(response);
                    if let Outcome::Throttled(hint) = outcome {
                        Refusal::adopt(response, hint);
                    }
                }
                Step::Answer(sign(*served, lane, result, held.is_some()))
            }
        }
    }

    fn resume(
        &mut self,
        now: Instant,
        admission: Option<Admission>,
        request: &Request<B>,
    ) -> Step<Lane, Wait, Self::Answer> {
        let waited = now.saturating_duration_since(self.since);
        self.served.get_or_insert_with(|| Box::new(Served::new())).add_wait(waited);
        self.since = now;
        match admission {
            Some(admission) => {
                let step = self.obey(admission, now, request);
                self.or_ask(step)
            }
            // Another request may have been refused meanwhile.
            None => self.start(now, request),
        }
    }
}

/// What a timer takes over any time at all; "at once", said to a caller.
const TICK: Duration = Duration::from_millis(1);
