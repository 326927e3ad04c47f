//! What a refusal or a failure of one backend means for the pool and for the request.

use std::time::{Duration, Instant};

use http::{Response, StatusCode};

use super::Session;
use crate::{
    ResponseBody, Served,
    backend::TriedSet,
    classify::{
        Hint, NativeSpillover, Outcome, Reason, Refusal, Scope, write_retry_after,
        write_retry_after_final,
    },
    cooldown::CooldownReason,
};

impl Session {
    /// Learns from an attempt that gave no answer.
    pub(in crate::region_rotate) fn learn<R, E>(
        &mut self,
        now: Instant,
        outcome: Outcome,
        result: &mut Result<Response<R>, E>,
    ) {
        match (outcome, &*result) {
            (Outcome::Failed, _) => self.failed(now),
            (Outcome::Throttled(hint), Ok(response)) => {
                self.end_probe();
                self.throttled(now, hint, response);
            }
            _ => self.end_probe(),
        }
        if let Ok(response) = &*result {
            self.note_spill(now, outcome, response);
        }
        self.record(result, outcome);
    }

    /// Chooses the next backend after a refusal or a failure; whether there is one.
    pub(in crate::region_rotate) fn choose_after(
        &mut self,
        outcome: Outcome,
        now: Instant,
    ) -> bool {
        (outcome != Outcome::Failed || self.affords_move(now)) && self.choose(now)
    }

    /// What the caller gets of a refusal or a failure after which no other backend is asked.
    pub(in crate::region_rotate) fn refused<R, E>(
        &mut self,
        now: Instant,
        outcome: Outcome,
        mut result: Result<Response<R>, E>,
        is_kept: bool,
    ) -> Result<Response<ResponseBody<R>>, E> {
        match (outcome, &mut result) {
            (Outcome::Throttled(_), Ok(response)) => self.speak_for_pool(response, now),
            (_, Ok(response)) => self.hand_on_spills(response),
            // A backend that refused is worth coming back for; the error would hide it.
            (_, Err(_)) if self.served.is_throttled() => {
                return Ok(self.closed(now, StatusCode::TOO_MANY_REQUESTS));
            }
            (_, Err(_)) => {}
        }
        self.sign(result, is_kept)
    }

    /// The backend was not asked, since its token could not be had.
    pub(super) fn rest_without_token(&self, now: Instant) {
        let rest = self.config.cooldowns.after(Outcome::Failed);
        self.config.pool.cool_down_for(self.backend, now, rest, CooldownReason::Refused);
    }

    fn failed(&mut self, now: Instant) {
        let probe = self.cold.as_mut().and_then(|cold| cold.probe.take());
        let rest = |failures| self.config.cooldowns.after_failures(failures);
        match probe {
            Some(probe) => probe.failed(now, rest),
            None => self.config.pool.fail(self.backend, now, rest),
        }
    }

    /// Takes a move after a failure out of the budget, if there is anywhere to move to.
    fn affords_move(&self, now: Instant) -> bool {
        self.may_go_on(self.served.attempts().len())
            && self.open(now).is_some()
            && self.config.move_on.withdraw()
    }

    /// The backend answered, so the probe succeeded.
    pub(super) fn end_probe(&mut self) {
        if let Some(probe) = self.cold.as_mut().and_then(|cold| cold.probe.take()) {
            probe.succeeded();
        }
    }

    /// Nothing was found out about the chosen backend.
    pub(in crate::region_rotate) fn drop_probe(&mut self) {
        if let Some(cold) = &mut self.cold {
            cold.probe = None;
        }
    }

    pub(super) fn is_probing(&self) -> bool {
        self.cold.as_ref().is_some_and(|cold| cold.probe.is_some())
    }

    fn throttled<R>(&mut self, now: Instant, hint: Hint, response: &Response<R>) {
        let spillover = NativeSpillover::of(response.headers());
        let refusal = Refusal::of(response);
        let reason = refusal.and_then(Refusal::known_reason);
        let (rest, why) = match reason {
            Some(Reason::Quota) => (self.config.cooldowns.after_quota(), CooldownReason::Quota),
            _ => {
                let is_other = spillover.is_some_and(|spillover| spillover.is_of_standard());
                let hint = if is_other { Hint::None } else { hint };
                (self.config.cooldowns.after(Outcome::Throttled(hint)), CooldownReason::Refused)
            }
        };
        self.config.pool.cool_down_for(self.backend, now, rest, why);
        let scope = match refusal {
            Some(refusal) if reason.is_some() => refusal.scope(),
            _ if response.status().is_client_error() => Scope::Quota,
            _ => Scope::Request,
        };
        for peer in self.config.pool.quota_peers(self.backend, scope) {
            self.config.pool.cool_down_for(peer, now, rest, why);
            self.tried.insert(peer);
        }
        if Refusal::forbids_retry(response, Served::is_on(response)) {
            self.cold().forbidding += 1;
        }
    }

    /// Has a refusal speak for the whole pool: for its soonest reopening, not for one backend.
    pub(super) fn speak_for_pool<R>(&mut self, response: &mut Response<R>, now: Instant) {
        let soonest = self.next_open(now);
        let is_failing = soonest.why == Some(CooldownReason::Failed);
        let refused_for = if is_failing { self.soonest_refused(now) } else { None };
        // A backend that this request may not go back to can be open already; "at once" is 1 ms.
        let left = soonest.left.max(Duration::from_millis(1));
        let forbidding = self.cold.as_ref().map_or(0, |cold| cold.forbidding);
        let is_final = forbidding > 0 && forbidding == self.served.attempts().len();
        let is_quota = soonest.why == Some(CooldownReason::Quota);
        let headers = response.headers_mut();
        let hint = match is_quota || is_final {
            true => write_retry_after_final(headers, left),
            false => write_retry_after(headers, left),
        };
        let spills = self.take_spills();
        let is_more = is_quota || is_final || is_failing || spills.is_some();
        Refusal::rewrite(response, hint, is_more, |refusal| {
            if is_quota {
                refusal.set_reason(Reason::Quota);
            } else if refusal.reason() == Reason::Quota {
                // That of one backend; another one is worth waiting for.
                refusal.set_reason(Reason::Rate);
            }
            // Where this pool adds nothing, what a pool inside of it found stays.
            refusal.is_final |= is_final;
            if is_failing {
                (refusal.is_failing, refusal.refused_for) = (true, refused_for);
            }
            if spills.is_some() {
                refusal.spills = spills;
            }
        });
    }

    /// When the first backend is open of those that refused.
    fn soonest_refused(&self, now: Instant) -> Option<Duration> {
        let backend = self.first_to_open(&TriedSet::default(), now)?;
        self.config.pool.refuses_for(backend, now)
    }
}
