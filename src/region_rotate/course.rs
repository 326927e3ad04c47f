//! The course of one request through a pool.

mod account;
mod refusal;

use std::{
    future::{Future, Ready},
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use http::{Extensions, Request, Response, StatusCode};
use tower_service::Service;

use self::refusal::Rare;
use super::layer::Config;
use crate::{
    AttemptBudget, ResponseBody, Served, TryCloneBody,
    backend::{Probe, Ticket, TokenFuture, Tried},
    body::{Observe, Observer},
    classify::Outcome,
    clock,
    cooldown::{Reopening, Why},
    policy::ClassifyError,
    resend::{Course, Readied, Step},
    sticky::Guide,
};

/// An index into the pool.
pub(super) type Lane = usize;

/// To a backend, or the answer of one, or of the layer itself.
type Follows<R, E> = Step<Lane, Ready<()>, Result<Response<ResponseBody<R>>, E>>;

/// One request through a pool.
pub(super) struct Rotation<S, X> {
    inner: S,
    config: Arc<Config>,
    classify_error: X,
    draw: u64,
    /// Those that were asked, and those that would say the same.
    tried: Tried,
    /// How many were asked.
    asked: u32,
    is_sent: bool,
    /// A gate in front knows better than the cooldowns when one that refused is to be tried.
    admitted: bool,
    /// What most requests do without, so that they need not carry it.
    rare: Option<Box<Rare>>,
    authority: Authority,
    arrival: Instant,
    /// When the attempt under way was chosen.
    since: Instant,
    served: Served,
    /// Where the request belongs, if that matters.
    guide: Option<Box<Guide>>,
    /// Reports what the answer used, to who asked for it.
    observer: Option<Box<Observer>>,
}

/// What the next attempt authenticates with.
enum Authority {
    Ticket(Ticket),
    Fetching(TokenFuture),
}

impl<S, X> Rotation<S, X> {
    #[inline]
    pub(super) fn new(
        inner: S,
        config: Arc<Config>,
        classify_error: X,
        overrides: &Extensions,
        guide: Option<Box<Guide>>,
        now: Instant,
        draw: u64,
    ) -> Self {
        Self {
            inner,
            config,
            classify_error,
            admitted: overrides.get::<Observe>().is_some(),
            draw,
            tried: Tried::default(),
            asked: 0,
            is_sent: false,
            rare: overrides.get().map(Rare::with),
            authority: Authority::Ticket(Ticket::Own),
            arrival: now,
            since: now,
            served: Served::new(),
            guide,
            observer: None,
        }
    }

    /// The first step: to a backend, or an answer when none is open.
    pub(super) fn start<R, E>(&mut self) -> Follows<R, E> {
        self.go_on(self.arrival, StatusCode::TOO_MANY_REQUESTS)
    }

    /// Whether the chosen backend's credential is at hand.
    pub(super) const fn is_authorized(&self) -> bool {
        matches!(self.authority, Authority::Ticket(_))
    }

    /// Drops the service that was readied for a call which does not use it yet.
    pub(super) fn release(&mut self, unreadied: S) {
        drop(mem::replace(&mut self.inner, unreadied));
    }

    /// The next backend, or an answer of `status` when none is left.
    fn go_on<R, E>(&mut self, now: Instant, status: StatusCode) -> Follows<R, E> {
        match self.choose(now) {
            Some(lane) => Step::Send(lane),
            None => Step::Answer(Ok(self.closed(now, status))),
        }
    }

    /// What follows when the token for `lane` could not be had.
    fn without_token<R, E>(&mut self, lane: Lane, now: Instant) -> Follows<R, E> {
        // A backend that refused is worth coming back for, whatever became of this one.
        let status = match self.served.is_throttled() {
            true => StatusCode::TOO_MANY_REQUESTS,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        self.drop_probe(); // A token says nothing of the backend.
        self.note(lane, None, Outcome::Failed, None);
        let rest = self.config.cooldowns.after(Outcome::Failed);
        self.config.pool.rest_for(lane, now, rest, Why::Refused);
        self.go_on(now, status)
    }

    /// Chooses the next backend, and notes that it is tried.
    fn choose(&mut self, now: Instant) -> Option<Lane> {
        let lane = match self.may_go_on().then(|| self.open_lane(now)).flatten() {
            Some(lane) if self.config.move_on.watches_failures() => {
                match Probe::begin(&self.config.pool, lane, now) {
                    Ok(None) => self.drop_probe(),
                    Ok(Some(probe)) => self.rare().probe = Some(probe),
                    // Another request was faster; now it is not open to this one any more.
                    Err(_) => return self.choose(now),
                }
                lane
            }
            Some(lane) => lane,
            None if self.admitted && self.asked == 0 => self.first_to_open(now)?,
            None => return None,
        };
        self.since = now;
        self.asked += 1;
        self.tried.insert(lane);
        self.authority = match self.config.pool.member(lane).token() {
            None => Authority::Ticket(Ticket::Own),
            Some(mut token) => match token.take_ready() {
                Some(token) => Authority::Ticket(Ticket::bearer(token)),
                None => Authority::Fetching(token),
            },
        };
        Some(lane)
    }

    fn open_lane(&self, now: Instant) -> Option<Lane> {
        let pool = &self.config.pool;
        match &self.guide {
            None => pool.choose(&self.tried, now, self.draw),
            Some(guide) => guide.choose(pool, &self.tried, now, self.draw),
        }
    }

    fn first_to_open(&self, now: Instant) -> Option<Lane> {
        let pool = &self.config.pool;
        match &self.guide {
            None => pool.first_to_open(&self.tried, now),
            Some(guide) => guide.first_to_open(pool, &self.tried, now),
        }
    }

    /// When the first backend is open that the request may go to.
    fn soonest(&self, now: Instant) -> Reopening {
        let pool = &self.config.pool;
        match &self.guide {
            None => pool.soonest(now),
            Some(guide) => guide.soonest(pool, now),
        }
    }

    fn may_go_on(&self) -> bool {
        self.tried.len() < self.config.pool.len()
            && self.asked < self.config.max_attempts
            // A first attempt is made in any case; a layer outside may have counted it.
            && (!self.is_sent || self.attempts().is_none_or(AttemptBudget::any_left))
    }
}

impl<S, X, B, R> Course<B> for Rotation<S, X>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    X: ClassifyError<S::Error>,
    B: TryCloneBody,
{
    type Lane = Lane;
    type Attempt = S::Future;
    type Wait = Ready<()>;
    type Answer = Result<Response<ResponseBody<R>>, S::Error>;

    fn poll_ready(
        &mut self,
        lane: Lane,
        cx: &mut Context<'_>,
        now: impl FnOnce() -> Instant,
        _: &Request<B>,
    ) -> Poll<Readied<Lane, Self::Wait, Self::Answer>> {
        // The credential comes first: a service must not be kept ready while a token is fetched.
        if let Authority::Fetching(token) = &mut self.authority {
            let Ok(token) = ready!(Pin::new(token).poll(cx)) else {
                return Poll::Ready(Err(self.without_token(lane, now())));
            };
            self.authority = Authority::Ticket(Ticket::bearer(token));
        }
        ready!(self.inner.poll_ready(cx)).map_err(|error| {
            // The caller may keep the finished future; what it held is free all the same.
            self.drop_probe();
            Step::Answer(Err(error))
        })?;
        if self.admitted || self.is_probing() {
            return Poll::Ready(Ok(()));
        }
        let now = now();
        if self.config.pool.is_open(lane, now) {
            return Poll::Ready(Ok(()));
        }
        // The next backend may have a token to fetch, and this one was not asked after all.
        self.release(self.inner.clone());
        self.tried.remove(lane);
        self.asked -= 1;
        Poll::Ready(Err(self.go_on(now, StatusCode::TOO_MANY_REQUESTS)))
    }

    fn may_resend(&self, _: Lane) -> bool {
        self.may_go_on()
    }

    fn send(&mut self, lane: Lane, mut request: Request<B>) -> Self::Attempt {
        let spent = Authority::Ticket(Ticket::Own);
        let Authority::Ticket(ticket) = mem::replace(&mut self.authority, spent) else {
            unreachable!("a lane is ready once its token is here")
        };
        if let Some(observe) = request.extensions_mut().remove::<Observe>() {
            // The spare request has it too, so an observer may be here since an earlier attempt.
            self.observer.get_or_insert_with(|| Box::new(Observer::new(Some(observe))));
        }
        if self.attempts().is_some()
            && let Some(attempts) = request.extensions_mut().get_mut::<AttemptBudget>()
        {
            if self.is_sent { attempts.reserve() } else { attempts.reserve_first() }
        }
        self.is_sent = true;
        self.config.pool.member(lane).address(&mut request, ticket);
        self.inner.call(request)
    }

    #[inline]
    fn classify(&self, result: &Result<Response<R>, S::Error>) -> Outcome {
        self.config.move_on.classify(result, &self.classify_error, clock::wall)
    }

    fn answer(
        &mut self,
        lane: Lane,
        mut result: Result<Response<R>, S::Error>,
        held: bool,
    ) -> Self::Answer {
        let mut outcome = Outcome::Answered;
        match &result {
            Ok(response) if !response.status().is_server_error() => self.end_probe(),
            // It does not move the request, but shows no backend that is well either.
            _ => self.drop_probe(),
        }
        if let Ok(response) = &result {
            if response.status().is_success() {
                if self.config.move_on.watches_failures() {
                    self.config.move_on.deposit();
                }
            } else {
                if response.status() == StatusCode::BAD_REQUEST {
                    outcome = Outcome::of_response(response, clock::wall);
                }
                self.note_spill(lane, self.since, outcome, response);
            }
        }
        self.record(lane, &mut result, outcome);
        let mut answer = self.sign(lane, result, held);
        if let Ok(response) = &mut answer
            && !response.status().is_success()
        {
            self.hand_on_spills(response);
        }
        answer
    }

    fn refused(
        &mut self,
        lane: Lane,
        now: Instant,
        outcome: Outcome,
        mut result: Result<Response<R>, S::Error>,
        held: Option<&Request<B>>,
    ) -> Step<Lane, Self::Wait, Self::Answer> {
        self.learn(lane, now, outcome, &result);
        self.record(lane, &mut result, outcome);
        if held.is_some()
            && (outcome != Outcome::Failed || self.affords_move(now))
            && let Some(lane) = self.choose(now)
        {
            return Step::Send(lane);
        }
        if result.is_err() && self.served.is_throttled() {
            // A backend that refused is worth coming back for; the error would hide it.
            return Step::Answer(Ok(self.closed(now, StatusCode::TOO_MANY_REQUESTS)));
        }
        let mut answer = self.sign(lane, result, held.is_some());
        match (outcome, &mut answer) {
            (Outcome::Throttled(_), Ok(response)) => self.speak_for_pool(response, now),
            (_, Ok(response)) => self.hand_on_spills(response),
            (_, Err(_)) => {}
        }
        Step::Answer(answer)
    }

    fn resume(
        &mut self,
        _: Instant,
        (): (),
        _: &Request<B>,
    ) -> Step<Lane, Self::Wait, Self::Answer> {
        unreachable!("a rotation does not wait")
    }
}
