//! Records each attempt of a request, and leaves the account on its answer.

use std::{sync::Arc, time::Instant};

use http::{Response, StatusCode};

use super::{Session, spills::note_spilled};
use crate::{
    ResponseBody, Served,
    body::{Observer, ResponseTap},
    classify::{Outcome, Reason, Refusal, utilization},
    clock,
    cooldown::Load,
    events::{Event, Source},
    region_rotate::closed_pool::ClosedPool,
    served::{Attempt, Why},
};

impl Session {
    /// Records an attempt at the chosen backend, and what the inner layers did for it.
    #[inline]
    pub(super) fn record<R, E>(&mut self, result: &mut Result<Response<R>, E>, outcome: Outcome) {
        let status = result.as_ref().ok().map(Response::status);
        let refused = result.as_ref().ok().filter(|_| outcome != Outcome::Answered);
        let reason = refused.and_then(Refusal::of).and_then(Refusal::known_reason);
        let share = refused.and_then(|response| utilization(response.headers()));
        self.note(status, outcome, reason);
        if let Some(share) = share {
            self.served.set_utilization(share);
        }
        if let Some(inner) = result.as_mut().ok().and_then(|r| r.extensions_mut().remove()) {
            self.served.adopt(&inner);
        }
    }

    pub(super) fn note(
        &mut self,
        status: Option<StatusCode>,
        outcome: Outcome,
        reason: Option<Reason>,
    ) {
        let name = Arc::clone(self.config.pool.member(self.backend).name());
        let at = clock::between(self.arrival, self.since);
        let attempt = Attempt::new(name, at, status, outcome);
        self.served.push(attempt.because(reason));
        if self.config.events.is_on()
            && let Some(attempt) = self.served.attempts().next_back()
        {
            self.config.events.emit(Source::RegionRotate, Event::Attempted(attempt));
        }
    }

    /// The caller gets an answer of this `status`, or an error.
    #[inline]
    pub(super) fn finished(&mut self, status: Option<StatusCode>) {
        self.is_over = true;
        let event = Event::Finished { served: &self.served, status };
        self.config.events.emit(Source::RegionRotate, event);
    }

    /// The layer's own answer: no backend is open.
    pub(in crate::region_rotate) fn closed<R>(
        &mut self,
        now: Instant,
        status: StatusCode,
        request: &dyn Load,
    ) -> Response<ResponseBody<R>> {
        let considered = (0..self.config.pool.len()).filter(|&index| self.admits(index));
        let count = match &self.routing {
            None => self.config.pool.len(),
            Some(_) => considered.clone().count(),
        };
        let load = self.load.of(request);
        let closed = ClosedPool { pool: &self.config.pool, tried: &self.tried, now, load: &load };
        let mut response = closed.answer(considered, count, status);
        let soonest = self.speak_for_pool(&mut response, now, request);
        self.note_twin(&mut response);
        match status {
            StatusCode::TOO_MANY_REQUESTS => self.note_why_refused(&soonest, true),
            // The last backend's token could not be obtained.
            _ => self.served.set_why_refused(Some(Why::Failed)),
        }
        self.not_sent();
        self.served.set_own();
        if let Some(routing) = &self.routing {
            self.served.set_held(routing.held());
        }
        self.finished(Some(status));
        response.extensions_mut().insert(self.served.take());
        response
    }

    /// Returns the attempt that an outer layer counted, if none was made.
    pub(super) fn not_sent(&self) {
        if let Some(budget) = self.budget().filter(|_| !self.is_sent) {
            budget.give_back();
        }
    }

    /// Whether there is nothing to tell of the request but the backend that is answering it, and
    /// nothing to learn from the answer.
    #[inline]
    pub(super) fn is_plain(&self, is_kept: bool) -> bool {
        self.served.is_untouched()
            && self.cold.is_none()
            && self.routing.is_none()
            && self.observer.is_none()
            && self.config.name_header.is_none()
            && (is_kept || !self.may_go_on(1))
    }

    /// The success of a first attempt, if the request [is plain](Self::is_plain): what
    /// [`answered`](Self::answered) comes to for most requests.
    #[inline]
    pub(super) fn served_at_once<R>(&mut self, response: Response<R>) -> Response<ResponseBody<R>> {
        self.config.resends.note(false);
        self.config.move_on.deposit();
        self.is_over = true;
        let name = Arc::clone(self.member().name());
        let at = clock::between(self.arrival, self.since);
        let mut served = Served::new();
        let attempt = Attempt::new(name, at, Some(response.status()), Outcome::Answered);
        if self.config.events.is_on() {
            self.config.events.emit(Source::RegionRotate, Event::Attempted(&attempt));
        }
        served.push(attempt);
        note_spilled(&mut served, &response);
        let mut response = response.map(ResponseBody::upstream);
        let extensions = response.extensions_mut();
        if let Some(inner) = extensions.insert(served)
            && let Some(served) = extensions.get_mut::<Served>()
        {
            served.adopt_under(&inner);
        }
        if self.config.events.is_on()
            && let Some(served) = response.extensions().get()
        {
            let event = Event::Finished { served, status: Some(response.status()) };
            self.config.events.emit(Source::RegionRotate, event);
        }
        response
    }

    /// The answer of a backend, with the account of the request.
    #[inline]
    pub(super) fn sign<R, E>(
        &mut self,
        result: Result<Response<R>, E>,
        is_kept: bool,
    ) -> Result<Response<ResponseBody<R>>, E> {
        // Dropping it here reports that there is no success to observe.
        let observer = self.observer.take();
        if let Ok(response) = &result {
            note_spilled(&mut self.served, response);
        }
        let observer = match self.served.spilled_by_azure() {
            true => observer.and_then(Observer::without_gate),
            false => observer,
        };
        let learner = match &self.routing {
            None => None,
            Some(routing) => {
                self.served.set_held(routing.held());
                routing.learner(&self.config.pool, self.backend)
            }
        };
        let response = match result {
            Ok(response) => response,
            Err(error) => {
                self.finished(None);
                return Err(error);
            }
        };
        let mut response = observed(response, observer, learner);
        if !is_kept && self.may_go_on(self.served.attempts().len()) {
            self.served.set_unreplayable();
        }
        if let Some(header) = &self.config.name_header {
            let name = self.config.pool.member(self.backend).name_header();
            response.headers_mut().insert(header.clone(), name.clone());
        }
        self.finished(Some(response.status()));
        response.extensions_mut().insert(self.served.take());
        Ok(response)
    }
}

/// The response, with its body observed by `observer` and `learner` if it is a success.
#[inline]
fn observed<R>(
    response: Response<R>,
    observer: Option<Box<Observer>>,
    learner: Option<Box<dyn ResponseTap>>,
) -> Response<ResponseBody<R>> {
    if !response.status().is_success() || (observer.is_none() && learner.is_none()) {
        return response.map(ResponseBody::upstream);
    }
    let mut observer = observer.unwrap_or_else(|| Box::new(Observer::new(None)));
    observer.watch(response.headers(), learner);
    response.map(|body| ResponseBody::observed(body, observer))
}
