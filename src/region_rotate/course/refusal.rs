//! What a refusal or a failure of one backend means for the pool and for the request.

use std::{
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Extensions, Response};

use super::{Lane, Rotation};
use crate::{
    AttemptBudget, Served,
    backend::{Probe, Tried},
    classify::{
        Hint, NativeSpillover, Outcome, Reason, Refusal, RefusedSpill, RefusedSpills, Scope,
        write_retry_after, write_retry_after_final,
    },
    cooldown::Why,
};

/// What most requests do without.
#[derive(Debug, Default)]
pub(super) struct Rare {
    /// What all layers may do together.
    pub(super) attempts: Option<AttemptBudget>,
    /// The backend under way is asked whether it is back.
    pub(super) probe: Option<Probe>,
    /// How many backends forbade to be asked again.
    forbidding: u32,
    /// Standard deployments that refused what Azure spilled to them.
    spills: Vec<RefusedSpill>,
}

impl Rare {
    pub(super) fn with(attempts: &AttemptBudget) -> Box<Self> {
        Box::new(Self { attempts: Some(attempts.clone()), ..Self::default() })
    }
}

impl<S, X> Rotation<S, X> {
    /// Learns from an attempt that gave no answer.
    pub(super) fn learn<R, E>(
        &mut self,
        lane: Lane,
        now: Instant,
        outcome: Outcome,
        result: &Result<Response<R>, E>,
    ) {
        match (outcome, result) {
            (Outcome::Failed, _) => self.failed(lane, now),
            (Outcome::Throttled(hint), Ok(response)) => {
                self.end_probe();
                self.throttled(lane, now, hint, response);
            }
            _ => self.end_probe(),
        }
        if let Ok(response) = result {
            self.note_spill(lane, now, outcome, response);
        }
    }

    fn failed(&mut self, lane: Lane, now: Instant) {
        let probe = self.rare.as_mut().and_then(|rare| rare.probe.take());
        let rest = |failures| self.config.cooldowns.after_failures(failures);
        match probe {
            Some(probe) => probe.failed(now, rest),
            None => self.config.pool.fail(lane, now, rest),
        }
    }

    /// Takes a move after a failure out of the budget, if there is anywhere to move to.
    pub(super) fn affords_move(&self, now: Instant) -> bool {
        self.may_go_on() && self.open_lane(now).is_some() && self.config.move_on.withdraw()
    }

    /// The backend that was asked is well, whatever it said.
    pub(super) fn end_probe(&mut self) {
        if let Some(probe) = self.rare.as_mut().and_then(|rare| rare.probe.take()) {
            probe.succeeded();
        }
    }

    /// Nothing was found out about the backend that was to be asked.
    pub(super) fn drop_probe(&mut self) {
        if let Some(rare) = &mut self.rare {
            rare.probe = None;
        }
    }

    pub(super) fn is_probing(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.probe.is_some())
    }

    pub(super) fn attempts(&self) -> Option<&AttemptBudget> {
        self.rare.as_ref()?.attempts.as_ref()
    }

    pub(super) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    fn throttled<R>(&mut self, lane: Lane, now: Instant, hint: Hint, response: &Response<R>) {
        let spillover = NativeSpillover::of(response.headers());
        let refusal = Refusal::of(response);
        let reason = refusal.and_then(Refusal::known_reason);
        let (rest, why) = match reason {
            Some(Reason::Quota) => (self.config.cooldowns.after_quota(), Why::Quota),
            _ => {
                let is_other = spillover.is_some_and(|spillover| spillover.is_of_standard());
                let hint = if is_other { Hint::None } else { hint };
                (self.config.cooldowns.after(Outcome::Throttled(hint)), Why::Refused)
            }
        };
        self.config.pool.rest_for(lane, now, rest, why);
        let scope = match refusal {
            Some(refusal) if reason.is_some() => refusal.scope(),
            _ if response.status().is_client_error() => Scope::Quota,
            _ => Scope::Request,
        };
        for sharer in self.config.pool.sharers(lane, scope) {
            self.config.pool.rest_for(sharer, now, rest, why);
            self.tried.insert(sharer);
        }
        if Refusal::forbids_retry(response) {
            self.rare().forbidding += 1;
        }
    }

    /// Notes, and leaves out, the Standard deployment that refused what Azure spilled to it from
    /// `lane`.
    pub(super) fn note_spill<R>(
        &mut self,
        lane: Lane,
        at: Instant,
        outcome: Outcome,
        response: &Response<R>,
    ) {
        let Some(spillover) = NativeSpillover::of(response.headers()) else { return };
        let member = self.config.pool.member(lane);
        let standard = spillover.standard(member.deployment().map(str::as_bytes));
        let hint = match outcome {
            // It answered the caller.
            Outcome::Answered if spillover.is_of_standard() => return,
            _ if spillover.is_callers(outcome) => None,
            Outcome::Throttled(hint) if spillover.is_of_standard() => Some(hint),
            _ => Some(Hint::None),
        };
        let spill = RefusedSpill {
            resource: Arc::clone(member.resource()),
            deployment: standard.map(Into::into),
            hint,
            at,
        };
        // Beside the deployment that spilled there may be others like it in this pool.
        self.leave_out_spill(&spill, |is_named| is_named == Some(true));
        spill.add_to(&mut self.rare().spills);
    }

    /// Leaves out the backends that Azure asked already, before the request came here.
    #[inline]
    pub(in crate::region_rotate) fn leave_out(&mut self, overrides: &Extensions) {
        if let Some(spills) = overrides.get() {
            self.leave_out_spills(spills);
        }
    }

    #[cold]
    fn leave_out_spills(&mut self, RefusedSpills(spills): &RefusedSpills) {
        for spill in spills.iter() {
            // A backend that keeps the caller's deployment may be any of them.
            self.leave_out_spill(spill, |is_named| is_named != Some(false));
        }
    }

    /// Leaves out the backends of the resource of `spill` that are taken for its deployment by whether
    /// they have its name, as far as both are known.
    fn leave_out_spill(&mut self, spill: &RefusedSpill, is_meant: impl Fn(Option<bool>) -> bool) {
        let pool = &self.config.pool;
        let rest = spill.hint.map(|hint| self.config.cooldowns.after(Outcome::Throttled(hint)));
        let is_it = |&lane: &Lane| {
            let member = pool.member(lane);
            let names = spill.deployment.as_deref().zip(member.deployment());
            let is_named = names.map(|(name, own)| name == own.as_bytes());
            is_meant(is_named) && *member.resource() == spill.resource
        };
        for lane in (0..pool.len()).filter(is_it) {
            if let Some(rest) = rest {
                pool.rest_for(lane, spill.at, rest, Why::Refused);
            }
            self.tried.insert(lane);
        }
    }

    /// Has a refusal speak for the whole pool: for its soonest reopening, not for one backend.
    pub(super) fn speak_for_pool<R>(&mut self, response: &mut Response<R>, now: Instant) {
        let soonest = self.soonest(now);
        let is_failing = soonest.why == Some(Why::Failed);
        let refused_for = if is_failing { self.soonest_refused(now) } else { None };
        // A backend that this request may not go back to can be open already; "at once" is 1 ms.
        let left = soonest.left.max(Duration::from_millis(1));
        let forbidding = self.rare.as_ref().map_or(0, |rare| rare.forbidding);
        let is_final = forbidding > 0 && forbidding == self.asked;
        let is_quota = soonest.why == Some(Why::Quota);
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
            (refusal.is_final, refusal.is_failing) = (is_final, is_failing);
            refusal.refused_for = refused_for;
            if spills.is_some() {
                refusal.spills = spills;
            }
        });
    }

    /// When the first backend is open of those that refused.
    fn soonest_refused(&self, now: Instant) -> Option<Duration> {
        let (pool, any) = (&self.config.pool, Tried::default());
        let lane = match &self.guide {
            None => pool.first_to_open(&any, now),
            Some(guide) => guide.first_to_open(pool, &any, now),
        };
        pool.refuses_for(lane?, now)
    }

    /// Leaves the deployments that native spillover already tried for the layers outside.
    pub(super) fn hand_on_spills<R>(&mut self, response: &mut Response<R>) {
        if let Some(spills) = self.take_spills() {
            Refusal::add_spills(response, &spills);
        }
    }

    fn take_spills(&mut self) -> Option<RefusedSpills> {
        let spills = mem::take(&mut self.rare.as_mut()?.spills);
        (!spills.is_empty()).then(|| RefusedSpills(spills.into()))
    }
}

/// Notes in `served` what Azure did by itself.
pub(super) fn note_spillover<R>(served: &mut Served, response: &Response<R>) {
    if NativeSpillover::has_served(response) {
        served.set_spilled_by_azure();
    }
}
