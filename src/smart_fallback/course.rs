//! The course of one request over two tiers.

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use futures::future::Either;
use http::{Request, Response};
use tower_service::Service;

use super::{layer::Config, limits::Limits, wait::Wait};
use crate::{
    Served, TryCloneBody,
    classify::{Hint, Outcome, announce, utilization},
    gate::{Admission, Pass, Refusal, Weight, WhenSpent},
    overrides::Arrival,
    policy::{Facts, Next, Policy, assumed_wait},
    resend::{Course, Readied, Step, clock},
    served::Attempt,
    sticky::Confined,
};

/// The two tiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Primary,
    Fallback,
}

/// One request over two tiers.
pub(super) struct Tiers<P, F, K> {
    primary: P,
    fallback: F,
    config: Arc<Config<K>>,
    /// Where it may go, if it refers to what one resource holds.
    confined: Confined,
    /// When the request reached this tier.
    entered: Instant,
    /// Looked up when they are first needed.
    limits: Option<Limits>,
    /// Weighed when it is first needed.
    weight: Option<Weight>,
    pass: Option<Pass>,
    refusals: u32,
    /// When the attempt under way was chosen, or the wait begun.
    since: Instant,
    /// How much longer the primary was going to refuse then.
    closed: Duration,
    /// Whether a refusal of the attempt under way is the caller's.
    is_last: bool,
    /// The account so far, once there is something to tell.
    served: Option<Box<Served>>,
}

impl<P, F, K: Policy> Tiers<P, F, K> {
    pub(super) const fn new(
        primary: P,
        fallback: F,
        config: Arc<Config<K>>,
        confined: Confined,
        now: Instant,
    ) -> Self {
        Self {
            primary,
            fallback,
            config,
            confined,
            entered: now,
            limits: None,
            weight: None,
            pass: None,
            refusals: 0,
            since: now,
            closed: Duration::ZERO,
            is_last: false,
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
            if self.config.gate.is_busy() {
                let cost = self.weigh(request);
                let limits = self.limits(request);
                let (rank, deadline) = (limits.rank, limits.deadline());
                let admission = self.config.gate.admit(now, cost, rank, deadline);
                self.obey(admission, now, request)
            } else {
                Some(Step::Send(Lane::Primary))
            }
        } else {
            self.config.gate.remembered(now).map_or(Some(Step::Send(Lane::Primary)), |left| {
                self.decide(Hint::After(left), left, now, request)
            })
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

    /// What the gate wants; `None` when it is that the refusal be returned.
    fn obey<B: TryCloneBody, A>(
        &mut self,
        admission: Admission,
        now: Instant,
        request: &Request<B>,
    ) -> Option<Step<Lane, Wait, A>> {
        self.since = now;
        match admission {
            Admission::Go(pass) => {
                self.pass = Some(pass);
                Some(Step::Send(Lane::Primary))
            }
            Admission::Wait(ticket) => Some(Step::Wait(Wait::Turn(Box::new(ticket)))),
            Admission::Spill => self.spill(now, request),
        }
    }

    /// What the policy wants about a primary that is `closed` for so long; `None` when it is that
    /// the refusal be returned.
    fn decide<B: TryCloneBody, A>(
        &mut self,
        hint: Hint,
        closed: Duration,
        now: Instant,
        request: &Request<B>,
    ) -> Option<Step<Lane, Wait, A>> {
        let limits = *self.limits(request);
        let elapsed = limits.elapsed(now);
        let facts = Facts::new(hint, elapsed, limits.max_wait, self.refusals);
        (self.since, self.closed) = (now, closed);
        let wait = match self.config.policy.next(&facts) {
            // A timer would take a millisecond over no time at all.
            Next::Wait(Duration::ZERO) if self.refusals < 2 => {
                return Some(Step::Send(Lane::Primary));
            }
            // More than once, no time at all would be a busy loop.
            Next::Wait(wait) => wait.max(TICK.min(limits.max_wait.saturating_sub(elapsed))),
            Next::MoveOn => return self.spill(now, request),
            Next::Return => return None,
        };
        // Somebody else's policy may be wrong; `max_wait` holds all the same.
        let fits = elapsed.saturating_add(wait) <= limits.max_wait && !wait.is_zero();
        match now.checked_add(wait).filter(|_| fits) {
            Some(until) => Some(Step::Wait(Wait::Sleep(clock::sleep_until(until)))),
            None => self.spill(now, request),
        }
    }

    /// To the fallback, as far as that is allowed; `None` when the refusal is to be returned.
    fn spill<B: TryCloneBody, A>(
        &mut self,
        now: Instant,
        request: &Request<B>,
    ) -> Option<Step<Lane, Wait, A>> {
        let limits = *self.limits(request);
        if !limits.spills || self.confined.to_primary {
            return None;
        }
        let Some(purse) = self.config.spill_budget.clone() else {
            return Some(Step::Send(Lane::Fallback));
        };
        match purse.take(now, || self.weigh(request)) {
            Ok(()) => Some(Step::Send(Lane::Fallback)),
            Err((WhenSpent::Refuse, _)) => None,
            Err((WhenSpent::Wait, left)) => {
                let elapsed = limits.elapsed(now);
                let longer = elapsed.saturating_add(left).min(limits.longest_wait);
                if longer <= elapsed {
                    return None;
                }
                if longer <= limits.max_wait {
                    // The primary has been asked for that long already: only a new window helps.
                    let sleep = clock::sleep_until(limits.after(longer));
                    return Some(Step::Wait(Wait::Sleep(sleep)));
                }
                self.limits = Some(Limits { max_wait: longer, ..limits });
                Some(self.start(now, request))
            }
        }
    }

    fn limits<B>(&mut self, request: &Request<B>) -> &Limits {
        let find = || Limits::new(&self.config, request.extensions(), self.entered);
        self.limits.get_or_insert_with(find)
    }

    fn weigh<B: TryCloneBody>(&mut self, request: &Request<B>) -> f64 {
        let weigh = || self.config.gate.weigh(request);
        self.weight.get_or_insert_with(weigh).cost
    }

    /// How long a primary that refuses with `hint` is taken to be closed.
    fn closed_by(&self, hint: Hint) -> Duration {
        let closed = assumed_wait(hint, self.refusals).unwrap_or(Duration::MAX);
        closed.min(self.config.longest_cooldown)
    }

    /// What follows a refusal of the primary; `None` when it is that the refusal be returned, as
    /// it is when the request is not held any more.
    fn after_refusal<B: TryCloneBody, A>(
        &mut self,
        hint: Hint,
        utilization: Option<f64>,
        now: Instant,
        request: Option<&Request<B>>,
    ) -> Option<Step<Lane, Wait, A>> {
        self.closed = self.closed_by(hint);
        if self.confined.is_apart {
            return self.decide(hint, self.closed, now, request?);
        }
        if !self.config.gate.is_adaptive() {
            self.config.gate.remember(now, self.closed);
            return self.decide(hint, self.closed, now, request?);
        }
        // Without the request there is nothing to wait with, so that it need not queue.
        let limits = request.map(|request| *self.limits(request));
        let refusal = Refusal {
            cost: request.map_or(0.0, |request| self.weigh(request)),
            rank: limits.map_or(0, |limits| limits.rank),
            at: self.since,
            now,
            closed: self.closed,
            is_measured: matches!(hint, Hint::After(_)),
            utilization,
            deadline: limits.map_or(now, |limits| limits.deadline()),
        };
        let ticket = self.config.gate.refused(self.pass.take(), &refusal);
        let admission = ticket.map_or(Admission::Spill, Admission::Wait);
        self.obey(admission, now, request?)
    }

    /// How long until either tier is worth asking, when the fallback refuses with `hint`.
    fn soonest(&self, hint: Hint, now: Instant) -> Duration {
        let remembered = self.config.gate.remembered(now).filter(|_| !self.confined.is_apart);
        let primary = remembered.unwrap_or_else(|| {
            self.closed.saturating_sub(now.saturating_duration_since(self.since))
        });
        hint.duration().map_or(primary, |fallback| fallback.min(primary)).max(TICK)
    }

    fn record<R, E>(
        &self,
        served: &mut Served,
        lane: Lane,
        result: &mut Result<Response<R>, E>,
        outcome: Outcome,
    ) {
        let at = self.since.saturating_duration_since(self.entered);
        let status = result.as_ref().ok().map(Response::status);
        let name = &self.config.names[lane as usize];
        let before = served.attempts().len();
        served.absorb(result.as_mut().ok().map(Response::extensions_mut), at, || {
            Attempt::new(Arc::clone(name), at, status, outcome)
        });
        if lane == Lane::Fallback {
            served.set_spilled(before);
        }
    }
}

/// Leaves the account on the response that the caller gets.
fn sign<R, E>(
    mut served: Served,
    lane: Lane,
    mut result: Result<Response<R>, E>,
    held: bool,
) -> Result<Response<R>, E> {
    if lane == Lane::Primary && !held {
        served.set_unreplayable();
    }
    if let Ok(response) = &mut result {
        response.extensions_mut().insert(served);
    }
    result
}

impl<P, F, K, B, R> Course<B> for Tiers<P, F, K>
where
    P: Service<Request<B>, Response = Response<R>> + Clone,
    F: Service<Request<B>, Response = Response<R>, Error = P::Error>,
    K: Policy,
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
        match lane {
            Lane::Primary => Either::Left(self.primary.call(request)),
            Lane::Fallback => Either::Right(self.fallback.call(request)),
        }
    }

    fn classify(&self, result: &Self::Answer) -> Outcome {
        let Ok(response) = result else { return Outcome::Answered };
        match Outcome::of(response.status(), response.headers(), clock::wall) {
            Outcome::Throttled(hint) => Outcome::Throttled(hint),
            _ => Outcome::Answered,
        }
    }

    fn answer(&mut self, lane: Lane, mut result: Self::Answer, held: bool) -> Self::Answer {
        if let Some(pass) = self.pass.take()
            && let Ok(response) = &result
            && response.status().is_success()
        {
            pass.accepted(utilization(response.headers()));
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
        let Outcome::Throttled(hint) = outcome else {
            return Step::Answer(self.answer(lane, result, held.is_some()));
        };
        let mut served = self.served.take().unwrap_or_else(|| Box::new(Served::new()));
        self.record(&mut served, lane, &mut result, outcome);
        if lane == Lane::Primary {
            self.refusals += 1;
            let request = held.filter(|_| !self.is_last);
            let level = result.as_ref().ok().and_then(|response| utilization(response.headers()));
            if let Some(step) = self.after_refusal(hint, level, now, request) {
                self.served = Some(served);
                return step;
            }
        } else if let Ok(response) = &mut result
            && !self.confined.to_fallback
        {
            announce(response.headers_mut(), self.soonest(hint, now));
        }
        Step::Answer(sign(*served, lane, result, held.is_some()))
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
