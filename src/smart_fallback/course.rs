//! The course of one request over two tiers.

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use futures::future::Either;
use http::{Extensions, Request, Response};
use tower_service::Service;

use super::layer::Config;
use crate::{
    Deadline, MaxWait, Served,
    classify::{Hint, Outcome, announce},
    overrides::Arrival,
    policy::{Facts, Next, Policy, assumed_wait},
    resend::{Course, Readied, Step, clock},
    served::Attempt,
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
    /// When the request reached the outermost tier, and when this one.
    arrival: Instant,
    entered: Instant,
    /// The longest that this request may wait, counted from its arrival.
    max_wait: Duration,
    refusals: u32,
    /// When the attempt under way was chosen, or the wait begun.
    since: Instant,
    /// How much longer the primary was going to refuse then.
    closed: Duration,
    served: Served,
}

impl<P, F, K: Policy> Tiers<P, F, K> {
    pub(super) fn new(
        primary: P,
        fallback: F,
        config: Arc<Config<K>>,
        overrides: &Extensions,
        now: Instant,
    ) -> Self {
        let arrival = overrides.get().map_or(now, |&Arrival(arrival)| arrival);
        let mut max_wait = overrides.get().map_or(config.max_wait, |&MaxWait(max_wait)| max_wait);
        if let Some(&Deadline(deadline)) = overrides.get() {
            max_wait = max_wait.min(deadline.saturating_duration_since(arrival));
        }
        Self {
            primary,
            fallback,
            config,
            arrival,
            entered: now,
            max_wait,
            refusals: 0,
            since: now,
            closed: Duration::ZERO,
            served: Served::new(),
        }
    }

    /// The first step of a request that arrives now.
    pub(super) fn start<A>(&mut self, now: Instant) -> Step<Lane, A> {
        // A policy that wants the refusal returned has none yet: the primary gives it one.
        self.remembered(now)
            .and_then(|left| self.decide(Hint::After(left), left, now))
            .unwrap_or(Step::Send(Lane::Primary))
    }

    /// Drops the primary that was readied for a call which does not use it.
    pub(super) fn release_primary(&mut self, unreadied: P) {
        drop(mem::replace(&mut self.primary, unreadied));
    }

    /// What the policy wants about a primary that is `closed` for so long; `None` when it is that
    /// the refusal be returned.
    fn decide<A>(&mut self, hint: Hint, closed: Duration, now: Instant) -> Option<Step<Lane, A>> {
        let elapsed = now.saturating_duration_since(self.arrival);
        let facts = Facts::new(hint, elapsed, self.max_wait, self.refusals);
        (self.since, self.closed) = (now, closed);
        Some(match self.config.policy.next(&facts) {
            // A timer would take a millisecond over no time at all.
            Next::Wait(Duration::ZERO) if self.refusals < 2 => Step::Send(Lane::Primary),
            // More than once, no time at all would be a busy loop.
            Next::Wait(Duration::ZERO) => self.wait(TICK, elapsed, now),
            Next::Wait(wait) => self.wait(wait, elapsed, now),
            Next::MoveOn => Step::Send(Lane::Fallback),
            Next::Return => return None,
        })
    }

    /// Somebody else's policy may be wrong; `max_wait` holds all the same.
    fn wait<A>(&self, wait: Duration, elapsed: Duration, now: Instant) -> Step<Lane, A> {
        let fits = elapsed.saturating_add(wait) <= self.max_wait;
        let until = now.checked_add(wait).filter(|_| fits);
        until.map_or(Step::Send(Lane::Fallback), Step::Wait)
    }

    /// How much longer the primary is known to refuse; `None` when it is open.
    fn remembered(&self, now: Instant) -> Option<Duration> {
        self.config.memory.as_ref()?.remaining(PRIMARY, now)
    }

    /// Remembers that the primary refused with `hint`, and gives how long it is taken to be closed.
    fn remember(&self, hint: Hint, now: Instant) -> Duration {
        let closed = assumed_wait(hint, self.refusals).unwrap_or(Duration::MAX);
        let closed = closed.min(self.config.longest_cooldown);
        if let Some(memory) = &self.config.memory {
            memory.rest(PRIMARY, now, closed);
        }
        closed
    }

    /// How long until either tier is worth asking, when the fallback refuses with `hint`.
    fn soonest(&self, hint: Hint, now: Instant) -> Duration {
        let primary = self.remembered(now).unwrap_or_else(|| {
            self.closed.saturating_sub(now.saturating_duration_since(self.since))
        });
        hint.duration().map_or(primary, |fallback| fallback.min(primary)).max(TICK)
    }

    fn record<R, E>(&mut self, lane: Lane, result: &mut Result<Response<R>, E>, outcome: Outcome) {
        let at = self.since.saturating_duration_since(self.entered);
        let status = result.as_ref().ok().map(Response::status);
        let name = &self.config.names[lane as usize];
        let before = self.served.attempts().len();
        self.served.absorb(result.as_mut().ok().map(Response::extensions_mut), at, || {
            Attempt::new(Arc::clone(name), at, status, outcome)
        });
        if lane == Lane::Fallback {
            self.served.set_spilled(before);
        }
    }

    /// Leaves the account on the response that the caller gets.
    fn sign<R, E>(&mut self, result: &mut Result<Response<R>, E>, held: bool, lane: Lane) {
        if lane == Lane::Primary && !held {
            self.served.set_unreplayable();
        }
        if let Ok(response) = result {
            let served = mem::replace(&mut self.served, Served::new());
            response.extensions_mut().insert(served);
        }
    }
}

impl<P, F, K, B, R> Course<B> for Tiers<P, F, K>
where
    P: Service<Request<B>, Response = Response<R>> + Clone,
    F: Service<Request<B>, Response = Response<R>, Error = P::Error>,
    K: Policy,
{
    type Lane = Lane;
    type Attempt = Either<P::Future, F::Future>;
    type Answer = Result<Response<R>, P::Error>;

    fn poll_ready(
        &mut self,
        lane: Lane,
        cx: &mut Context<'_>,
        now: impl FnOnce() -> Instant,
    ) -> Poll<Readied<Lane, Self::Answer>> {
        ready!(match lane {
            Lane::Primary => self.primary.poll_ready(cx),
            Lane::Fallback => self.fallback.poll_ready(cx),
        })
        .map_err(|error| Step::Answer(Err(error)))?;
        if lane == Lane::Fallback {
            return Poll::Ready(Ok(()));
        }
        match self.start(now()) {
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
        if self.since > self.arrival {
            // A tier inside this one must not start its waiting anew.
            request.extensions_mut().get_or_insert(Arrival(self.arrival));
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
        // The account of an inner layer says it all about a first attempt, and stays where it is.
        if self.served.is_plain()
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
        self.record(lane, &mut result, Outcome::Answered);
        self.sign(&mut result, held, lane);
        result
    }

    fn refused(
        &mut self,
        lane: Lane,
        now: Instant,
        outcome: Outcome,
        mut result: Self::Answer,
        held: bool,
    ) -> Step<Lane, Self::Answer> {
        let Outcome::Throttled(hint) = outcome else {
            return Step::Answer(self.answer(lane, result, held));
        };
        self.record(lane, &mut result, outcome);
        if lane == Lane::Primary {
            self.refusals += 1;
            let closed = self.remember(hint, now);
            if let Some(step) = self.decide(hint, closed, now).filter(|_| held) {
                return step;
            }
        } else if let Ok(response) = &mut result {
            announce(response.headers_mut(), self.soonest(hint, now));
        }
        self.sign(&mut result, held, lane);
        Step::Answer(result)
    }

    fn resume(&mut self, now: Instant) -> Step<Lane, Self::Answer> {
        self.served.add_wait(now.saturating_duration_since(self.since));
        self.since = now;
        // Another request may have been refused meanwhile.
        self.start(now)
    }
}

/// The memory of the primary has one entry.
const PRIMARY: usize = 0;

/// What a timer takes over any time at all; "at once", said to a caller.
const TICK: Duration = Duration::from_millis(1);
