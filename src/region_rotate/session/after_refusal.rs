//! What follows a refusal or a failure of one backend, for the pool and for the request.

use std::time::{Duration, Instant};

use http::{Response, StatusCode};

use super::{Session, again::Again};
use crate::{
    ResponseBody, Served, TryCloneBody,
    classify::{
        Hint, NativeSpillover, Outcome, Reason, Refusal, Scope, write_retry_after,
        write_retry_after_final,
    },
    cooldown::{Closed, CooldownReason, Failure, Load, NextOpen, Traffic},
    events::{Event, Source},
    policy::ClassifyError,
    request_copy::SavedRequest,
};

impl Session {
    /// Learns from an attempt that was not answered.
    pub(in crate::region_rotate) fn learn<R, E>(
        &mut self,
        now: Instant,
        outcome: Outcome,
        result: &mut Result<Response<R>, E>,
        errors: &impl ClassifyError<E>,
        request: &dyn Load,
    ) {
        if let Some(cold) = &mut self.cold {
            cold.again = None;
        }
        let unprocessed =
            result.as_ref().err().and_then(|error| self.was_unprocessed(error, errors));
        match (outcome, &mut *result) {
            _ if unprocessed.is_some() => self.cold().again = unprocessed,
            (Outcome::Misconfigured, Ok(response)) if self.reject_token(response) => {
                self.cold().again = Some(Again::Token);
            }
            (Outcome::Misconfigured, Ok(response)) => {
                self.misconfigured(now, response, request);
            }
            (Outcome::Failed, result) => self.failed(now, Failure::of(result, errors)),
            (Outcome::Throttled(hint), Ok(response)) => {
                self.settle(false, || now);
                self.throttled(now, hint, response, request);
            }
            _ => self.settle(false, || now),
        }
        if let Ok(response) = &*result {
            self.note_spill(now, outcome, response);
        }
        self.record(result, outcome);
        self.end_beside_twin();
    }

    /// Chooses the next backend after a refusal or a failure; returns whether there is one.
    pub(in crate::region_rotate) fn choose_after(
        &mut self,
        outcome: Outcome,
        now: Instant,
        request: &dyn Load,
    ) -> bool {
        _ = self.leave_out_twin();
        self.goes_again(now)
            || (outcome != Outcome::Failed || self.affords_move(now, request))
                && self.choose(now, request)
    }

    /// What the caller gets after a refusal or a failure if no other backend is left.
    pub(in crate::region_rotate) fn refused<B: TryCloneBody, R, E>(
        &mut self,
        now: Instant,
        outcome: Outcome,
        mut result: Result<Response<R>, E>,
        request: &SavedRequest<B>,
    ) -> Result<Response<ResponseBody<R>>, E> {
        self.note_why_failed(outcome, request.is_kept());
        match (outcome, &mut result) {
            (Outcome::Throttled(_), Ok(response)) => {
                let soonest = self.speak_for_pool(response, now, request);
                self.note_why_refused(&soonest, request.is_kept());
            }
            (Outcome::Misconfigured, Ok(_)) if self.is_any_refused(now, request) => {
                return Ok(self.closed(now, StatusCode::TOO_MANY_REQUESTS, request));
            }
            // A backend that refused is worth a retry; the failure of another would hide that.
            (Outcome::Failed, _) if self.served.is_throttled() => {
                return Ok(self.closed(now, StatusCode::TOO_MANY_REQUESTS, request));
            }
            (_, Ok(response)) => self.hand_on_spills(response),
            (_, Err(_)) => {}
        }
        self.sign(result, request.is_kept())
    }

    /// Whether a backend refused the request, or is known to refuse it.
    fn is_any_refused(&self, now: Instant, request: &dyn Load) -> bool {
        let (pool, load) = (&self.config.pool, &self.load.of(request));
        self.served.is_throttled()
            || (0..pool.len()).any(|index| self.admits(index) && pool.refuses(index, now, load))
    }

    fn throttled<R>(
        &mut self,
        now: Instant,
        hint: Hint,
        response: &Response<R>,
        request: &dyn Load,
    ) {
        let spillover = NativeSpillover::of(response.headers());
        let refusal = Refusal::of(response);
        let reason = refusal.and_then(Refusal::known_reason);
        let (rest, why) = match reason {
            Some(Reason::Quota) => (self.config.cooldowns.after_quota(), CooldownReason::Quota),
            _ => {
                let is_other = spillover.is_some_and(|spillover| spillover.is_of_standard());
                match self.rest_after(if is_other { Hint::None } else { hint }) {
                    // An inner layer assumed the time.
                    (rest, _) if refusal.is_some_and(|it| it.is_guess) => {
                        (rest, CooldownReason::Assumed)
                    }
                    rest => rest,
                }
            }
        };
        if Refusal::forbids_retry(response, Served::is_on(response)) {
            self.cold().forbidding += 1;
        }
        self.served.set_traffic(self.load.of(request).traffic());
        let load = self.load.of(request);
        let closed = match load.traffic() {
            Traffic::Free => {
                // It closes nothing but itself.
                let reopens = now.checked_add(rest);
                let known = &mut self.cold().reopens;
                *known = known.iter().copied().chain(reopens).min();
                return;
            }
            _ if why == CooldownReason::Quota => Closed::Backend,
            traffic if Refusal::is_about_weight(response, hint) => {
                Closed::From(traffic, load.weight())
            }
            traffic => Closed::Kind(traffic),
        };
        // A heavy request may be refused for longer than is believed for all.
        let said = match (closed, hint) {
            (Closed::From(..), Hint::TooLong) => Hint::LONGEST,
            (Closed::From(..), Hint::After(wait)) => wait.max(rest),
            _ => rest,
        };
        self.config.pool.close(self.backend, closed, now, (rest, said), why);
        let backend = self.member().name();
        self.config.events.emit(Source::RegionRotate, Event::Closed { backend, time: rest });
        let scope = match refusal {
            Some(refusal) if reason.is_some() => refusal.scope(),
            _ if response.status().is_client_error() => Scope::Quota,
            _ => Scope::Request,
        };
        for peer in self.config.pool.quota_peers(self.backend, scope) {
            self.config.pool.close(peer, closed, now, (rest, said), why);
            self.tried.insert(peer);
        }
    }

    /// How long a backend that refused with this hint cools down, and whether the hint says so.
    pub(super) fn rest_after(&self, hint: Hint) -> (Duration, CooldownReason) {
        let rest = self.config.cooldowns.after(Outcome::Throttled(hint));
        let is_said = hint == Hint::After(rest);
        (rest, if is_said { CooldownReason::Refused } else { CooldownReason::Assumed })
    }

    /// Rewrites a refusal to speak for the whole pool: for its earliest reopening, not for one
    /// backend.
    pub(super) fn speak_for_pool<R>(
        &mut self,
        response: &mut Response<R>,
        now: Instant,
        request: &dyn Load,
    ) -> NextOpen {
        let soonest = self.worth_coming_back(now, request);
        // A backend that this request may not return to can be open already; the shortest announced
        // wait is 1 ms.
        let left = soonest.said.max(Duration::from_millis(1));
        let is_final = self.is_forbidden();
        let is_quota = soonest.why == Some(CooldownReason::Quota);
        let headers = response.headers_mut();
        let hint = match is_quota || is_final {
            true => write_retry_after_final(headers, left),
            false => write_retry_after(headers, left),
        };
        let spills = self.take_spills();
        // If a backend is open already, this request may not return to it.
        let is_guess = soonest.why != Some(CooldownReason::Refused) || soonest.said.is_zero();
        let is_more = is_guess || is_final || soonest.from.is_some() || spills.is_some();
        Refusal::rewrite(response, hint, is_more, |refusal| {
            if is_quota {
                refusal.set_reason(Reason::Quota);
            } else if refusal.reason() == Reason::Quota {
                // The reason was one backend's; another one is worth waiting for.
                refusal.set_reason(Reason::Rate);
            }
            refusal.is_guess = is_guess;
            // If this pool has nothing to add, the finding of an inner pool stays.
            refusal.is_final |= is_final;
            refusal.closed_from = soonest.from;
            if spills.is_some() {
                refusal.spills = spills;
            }
        });
        soonest
    }

    /// Whether every backend that was tried forbade a retry.
    pub(super) fn is_forbidden(&self) -> bool {
        let forbidding = self.cold.as_ref().map_or(0, |cold| cold.forbidding);
        forbidding > 0 && forbidding == self.served.attempts().len()
    }

    /// When the first backend reopens that did not fail this request; if all did, the time is that
    /// after a first failure.
    fn worth_coming_back(&self, now: Instant, request: &dyn Load) -> NextOpen {
        if let Some(reopens) = self.cold.as_ref().and_then(|cold| cold.reopens) {
            let left = reopens.saturating_duration_since(now);
            return NextOpen { left, said: left, why: Some(CooldownReason::Refused), from: None };
        }
        let load = self.load.of(request);
        if self.routing.is_none() && self.cold.as_ref().is_none_or(|cold| cold.failed.len() == 0) {
            return self.config.pool.next_open_of_all(now, &load);
        }
        let has_failed = |index| self.cold.as_ref().is_some_and(|cold| cold.failed.contains(index));
        let mut others = (0..self.config.pool.len())
            .filter(|&index| self.admits(index) && !has_failed(index))
            .peekable();
        if others.peek().is_none() {
            let left = self.config.cooldowns.after(Outcome::Failed);
            return NextOpen { left, said: left, why: None, from: None };
        }
        self.config.pool.next_open(others, now, &load)
    }
}
