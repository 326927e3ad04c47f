//! The state of one request that may wait, and what it does next.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Extensions, Request, Response, StatusCode};

use super::{RefusedTurn, RequestLimits, Turn, TurnPermit, TurnWaiter, layer::WaitConfig};
use crate::{
    AttemptBudget, Served, TryCloneBody,
    classify::{Hint, Outcome, Reason, Refusal},
    clock::{self, TICK},
    cooldown::{Load, Traffic},
    events::{Event, Source},
    overrides::Arrival,
    policy::assumed_wait,
    random,
    served::{TimeAndLimit, Why},
};

/// What happens to a request next.
pub(super) enum NextStep {
    Send,
    Wait(Box<TurnWaiter>),
    /// Return the refusal to the caller.
    Return,
}

/// One request to a service that may refuse it.
pub(super) struct Session {
    config: Arc<WaitConfig>,
    arrival: Instant,
    /// When the current attempt was made, or the current wait began.
    since: Instant,
    /// Whether the caller has what it gets.
    is_over: bool,
    cold: Option<Box<ColdState>>,
}

/// State of requests that were refused, or that queued behind refused ones; boxed to keep the others
/// small.
struct ColdState {
    limits: RequestLimits,
    permit: Option<TurnPermit>,
    refusals: u32,
    is_sent: bool,
    /// Whether a refusal of the current attempt goes to the caller.
    is_last: bool,
    /// Why it waits now.
    why_waits: Option<Why>,
    served: Served,
}

impl Session {
    #[inline]
    pub(super) const fn new(config: Arc<WaitConfig>, now: Instant) -> Self {
        Self { config, arrival: now, since: now, is_over: false, cold: None }
    }

    /// The first step of a request that arrives now.
    #[inline]
    pub(super) fn start<B: TryCloneBody>(
        &mut self,
        now: Instant,
        request: &Request<B>,
    ) -> NextStep {
        // Requests without token cost, or of another kind, do not queue behind tokens.
        match self.config.queue.is_busy() && request.traffic() == Traffic::Tokens {
            false => NextStep::Send,
            true => self.arrive(now, request),
        }
    }

    /// The step after a wait, which gave a `permit` or ended too late.
    pub(super) fn after_wait(&mut self, now: Instant, permit: Option<TurnPermit>) {
        let waited = now.saturating_duration_since(self.since);
        self.since = now;
        if let Some(cold) = &mut self.cold {
            cold.served.add_wait(waited, cold.why_waits.take());
            // Without a refusal to return, it is sent in any case.
            cold.is_last = permit.is_none();
            cold.permit = permit;
        }
    }

    /// Writes the extensions of `request` that inner layers read.
    pub(super) fn prepare<B>(&mut self, request: &mut Request<B>) {
        let Some(cold) = &mut self.cold else {
            return AttemptBudget::count(request.extensions_mut(), false);
        };
        let now = clock::now();
        self.since = now;
        if let Some(permit) = &cold.permit {
            permit.sent(now);
        }
        let extensions = request.extensions_mut();
        // An inner layer must not restart the wait.
        extensions.get_or_insert(Arrival(cold.limits.arrival));
        AttemptBudget::count(extensions, cold.is_sent);
        cold.is_sent = true;
    }

    /// Whether a refusal of the coming attempt may be waited out.
    pub(super) fn may_come_again(&self) -> bool {
        self.cold.as_ref().is_none_or(|cold| !cold.is_last)
    }

    /// The future was dropped: reports that, unless the caller already has its result.
    #[inline]
    pub(super) fn dropped(&self) {
        if !self.is_over && self.config.events.is_on() {
            let served = self.cold.as_ref().map(|cold| &cold.served);
            self.config.events.emit_cancelled(Source::Wait, served);
        }
    }

    /// Passes the turn on now: the caller may keep the completed future alive.
    pub(super) fn give_up(&mut self) {
        let cold = self.cold.take();
        self.finished(cold.as_ref().map(|cold| &cold.served), None);
    }

    /// Classifies the service's answer by the service's own rules, and writes the outcome into it.
    #[inline]
    pub(super) fn read<R, E>(&self, result: &mut Result<Response<R>, E>) {
        if let Ok(response) = result {
            self.config.rules.apply(response, Served::is_on, clock::wall);
        }
    }

    /// Completes the service's answer for the caller. If the request is not `is_kept`, it could not
    /// have been sent again.
    pub(super) fn answered<R, E>(&mut self, result: &mut Result<Response<R>, E>, is_kept: bool) {
        let cold = self.cold.take();
        if cold.as_ref().is_none_or(|cold| cold.served.is_plain())
            && let Ok(response) = result
            && let Some(served) = response.extensions_mut().get_mut::<Served>()
        {
            if !is_kept {
                served.set_unreplayable();
            }
            self.is_over = true;
            if self.config.events.is_on() {
                self.finished(response.extensions().get(), Some(response.status()));
            }
        } else {
            let mut served = cold.as_ref().map_or_else(Served::new, |cold| cold.served.clone());
            self.record(&mut served, result, Outcome::Answered);
            self.finished(Some(&served), result.as_ref().ok().map(Response::status));
            served.sign(result, is_kept);
        }
        if let Some(permit) = cold.and_then(|cold| cold.permit)
            && result.is_ok()
        {
            permit.served();
        }
    }

    /// The step after a refusal with `hint`. If that is to return it, `response` is completed for the
    /// caller, as it is when the request is not `kept` and cannot be sent again.
    pub(super) fn refused<B: TryCloneBody, R, E>(
        &mut self,
        hint: Hint,
        result: &mut Result<Response<R>, E>,
        kept: Option<&Request<B>>,
    ) -> NextStep {
        let Ok(response) = &*result else { return NextStep::Return };
        let now = clock::now();
        let is_signed = Served::is_on(response);
        let refusal = Refusal::read(response, hint, is_signed);
        let remembers = is_signed
            || Refusal::is_about_weight(response, hint)
            || kept.is_some_and(|request| request.traffic() != Traffic::Tokens);
        let cold = self.cold.take();
        let mut cold = cold.unwrap_or_else(|| self.cold(kept.map(Request::extensions)));
        self.record(&mut cold.served, result, Outcome::Throttled(hint));
        cold.refusals += 1;
        cold.is_sent = true;
        let draw = random::draw_if(refusal.hint().lacks_time());
        let left = refused_for(&refusal, cold.refusals, draw);
        let opens = left.and_then(|left| now.checked_add(left));
        let comes_again = !cold.is_last
            && kept.is_some_and(|request| !AttemptBudget::is_spent(request.extensions()));
        let permit = cold.permit.take();
        let waiter = opens.and_then(|opens| {
            let limits = match comes_again {
                true => cold.limits,
                // Others learn from the refusal nevertheless.
                false => cold.limits.ending(now),
            };
            self.config.queue.refused(permit, RefusedTurn { now, opens, remembers }, &limits)
        });
        self.since = now;
        match waiter {
            Some(waiter) => {
                let closed =
                    opens.map_or(Duration::ZERO, |opens| opens.saturating_duration_since(now));
                let times = TimeAndLimit::new(closed, cold.limits.left(now));
                self.waits(&mut cold, Why::Hint(times));
                self.cold = Some(cold);
                NextStep::Wait(Box::new(waiter))
            }
            None => {
                let why = cold.why_returned(&refusal, kept, now, draw);
                cold.served.set_why_refused(Some(why));
                self.finished(Some(&cold.served), result.as_ref().ok().map(Response::status));
                cold.served.sign(result, kept.is_some());
                NextStep::Return
            }
        }
    }

    fn arrive<B>(&mut self, now: Instant, request: &Request<B>) -> NextStep {
        let mut cold = self.cold(Some(request.extensions()));
        let next = match self.config.queue.arrive(now, &cold.limits) {
            Turn::Go(permit) => {
                cold.permit = Some(permit);
                NextStep::Send
            }
            Turn::Wait(waiter) => {
                self.waits(&mut cold, Why::Behind);
                NextStep::Wait(Box::new(waiter))
            }
        };
        self.cold = Some(cold);
        next
    }

    fn cold(&self, overrides: Option<&Extensions>) -> Box<ColdState> {
        let WaitConfig { max_wait, classes, .. } = &*self.config;
        let none = Extensions::new();
        let overrides = overrides.unwrap_or(&none);
        Box::new(ColdState {
            limits: RequestLimits::new(*max_wait, classes, overrides, self.arrival),
            permit: None,
            refusals: 0,
            is_sent: false,
            is_last: false,
            why_waits: None,
            served: Served::new(),
        })
    }

    fn record<R, E>(
        &self,
        served: &mut Served,
        result: &mut Result<Response<R>, E>,
        outcome: Outcome,
    ) {
        let at = clock::between(self.arrival, self.since);
        let reports = self.config.events.is_on() && !result.as_ref().is_ok_and(Served::is_on);
        served.absorb(&self.config.name, at, result, outcome);
        if reports && let Some(attempt) = served.attempts().next_back() {
            self.config.events.emit(Source::Wait, Event::Attempted(attempt));
        }
    }

    /// The request begins to wait.
    fn waits(&self, cold: &mut ColdState, why: Why) {
        cold.why_waits = Some(why);
        cold.served.set_why_refused(None);
        self.config.events.emit(Source::Wait, Event::Waits(why));
    }

    /// The caller gets an answer of this `status`, or an error.
    #[inline]
    fn finished(&mut self, served: Option<&Served>, status: Option<StatusCode>) {
        self.is_over = true;
        if self.config.events.is_on() {
            let none = Served::new();
            let event = Event::Finished { served: served.unwrap_or(&none), status };
            self.config.events.emit(Source::Wait, event);
        }
    }
}

impl ColdState {
    /// Why a `refusal` is returned to the caller: the reason of an inner pool, if that is more specific
    /// than a closed pool, or the limit that the wait exceeds.
    fn why_returned<B>(
        &self,
        refusal: &Refusal,
        kept: Option<&Request<B>>,
        now: Instant,
        draw: u64,
    ) -> Why {
        let closed = assumed_wait(refusal.hint(), self.refusals, draw).unwrap_or(Hint::LONGEST);
        let (limits, inner) = (&self.limits, self.served.why_refused());
        match kept {
            // The last attempt keeps no copy.
            _ if self.is_last => {
                Why::Deadline(TimeAndLimit::new(limits.elapsed(now), limits.max_wait))
            }
            None => Why::NotReplayable,
            Some(request) if AttemptBudget::is_spent(request.extensions()) => Why::Attempts,
            Some(_) if refusal.reason() == Reason::Quota => Why::Quota,
            Some(_) if refusal.is_final => Why::Forbidden,
            Some(_) if refusal.is_elsewhere => Why::FirstTokenLate,
            Some(_) => match inner {
                Some(why) if !matches!(why, Why::AllClosed(_)) => why,
                _ if limits.max_wait.is_zero() => Why::NeverWaits,
                _ => Why::Hint(TimeAndLimit::new(closed, limits.left(now))),
            },
        }
    }
}

/// How long a service that refused this often for `refusal` stays closed, if that is worth waiting
/// for. It is not for a used-up quota, a refusal that forbids retrying, or one that only this copy of
/// the request met. A `draw` spreads assumed waits.
pub(crate) fn refused_for(refusal: &Refusal, refusals: u32, draw: u64) -> Option<Duration> {
    let helps = !refusal.is_final && !refusal.is_elsewhere && refusal.reason() != Reason::Quota;
    // A hint that is already over would be met again in the same instant.
    let wait = helps.then(|| assumed_wait(refusal.hint(), refusals, draw)).flatten();
    wait.map(|wait| wait.max(TICK))
}
