//! What a refusal or a failure of one backend means for the pool and for the request.

use std::{
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Extensions, Response};

use super::{Lane, Rotation};
use crate::{
    Attempts, Served,
    backend::{Probe, Tried},
    classify::{
        Exhausted, Failing, Hint, NativeSpillover, NotAgain, Outcome, Reason, Refusal, Scope,
        Spent, announce, announce_in_vain, forbids_retry,
    },
    cooldown::Why,
};

/// What most requests do without.
#[derive(Debug, Default)]
pub(super) struct Rare {
    /// What all layers may do together.
    pub(super) attempts: Option<Attempts>,
    /// The backend under way is asked whether it is back.
    pub(super) probe: Option<Probe>,
    /// How many backends forbade to be asked again.
    forbidding: u32,
    /// Standard deployments that Azure spilled to in vain.
    exhausted: Vec<Spent>,
}

impl Rare {
    pub(super) fn with(attempts: &Attempts) -> Box<Self> {
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
            self.note_exhausted(lane, now, outcome, response);
        }
    }

    fn failed(&mut self, lane: Lane, now: Instant) {
        let probe = self.rare.as_mut().and_then(|rare| rare.probe.take());
        let rest = |failures| self.config.rests.after_failures(failures);
        match probe {
            Some(probe) => probe.failed(now, rest),
            None => self.config.pool.fail(lane, now, rest),
        }
    }

    /// Takes a move after a failure out of the budget, if there is anywhere to move to.
    pub(super) fn affords_move(&self, now: Instant) -> bool {
        self.may_go_on() && self.open_lane(now).is_some() && self.config.failures.withdraw()
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

    pub(super) fn attempts(&self) -> Option<&Attempts> {
        self.rare.as_ref()?.attempts.as_ref()
    }

    pub(super) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    fn throttled<R>(&mut self, lane: Lane, now: Instant, hint: Hint, response: &Response<R>) {
        let spillover = NativeSpillover::of(response.headers());
        let refusal = Refusal::of(response);
        let (rest, why) = match refusal.map(Refusal::reason) {
            Some(Reason::Quota) => (self.config.rests.after_quota(), Why::Quota),
            _ => {
                let is_other = spillover.is_some_and(|spillover| spillover.is_of_standard());
                let hint = if is_other { Hint::None } else { hint };
                (self.config.rests.after(Outcome::Throttled(hint)), Why::Refused)
            }
        };
        self.config.pool.rest_for(lane, now, rest, why);
        let scope = match refusal {
            Some(refusal) => refusal.scope(),
            None if response.status().is_client_error() => Scope::Quota,
            None => Scope::Request,
        };
        for sharer in self.config.pool.sharers(lane, scope) {
            self.config.pool.rest_for(sharer, now, rest, why);
            self.tried.insert(sharer);
        }
        if forbids_retry(response) {
            self.rare().forbidding += 1;
        }
    }

    /// Notes, and leaves out, the Standard deployment that refused what Azure spilled to it from
    /// `lane`.
    pub(super) fn note_exhausted<R>(
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
        let spent = Spent {
            resource: Arc::clone(member.resource()),
            deployment: standard.map(Into::into),
            hint,
            at,
        };
        // Beside the deployment that spilled there may be others like it in this pool.
        self.leave_out_spent(&spent, |is_named| is_named == Some(true));
        spent.note(&mut self.rare().exhausted);
    }

    /// Leaves out the backends that Azure asked already, before the request came here.
    #[inline]
    pub(in crate::region_rotate) fn leave_out(&mut self, overrides: &Extensions) {
        if let Some(exhausted) = overrides.get() {
            self.leave_out_exhausted(exhausted);
        }
    }

    #[cold]
    fn leave_out_exhausted(&mut self, Exhausted(exhausted): &Exhausted) {
        for spent in exhausted.iter() {
            // A backend that keeps the caller's deployment may be any of them.
            self.leave_out_spent(spent, |is_named| is_named != Some(false));
        }
    }

    /// Leaves out the backends of the resource of `spent` that are taken for its deployment by whether
    /// they have its name, as far as both are known.
    fn leave_out_spent(&mut self, spent: &Spent, is_meant: impl Fn(Option<bool>) -> bool) {
        let pool = &self.config.pool;
        let rest = spent.hint.map(|hint| self.config.rests.after(Outcome::Throttled(hint)));
        let is_it = |&lane: &Lane| {
            let member = pool.member(lane);
            let names = spent.deployment.as_deref().zip(member.deployment());
            let is_named = names.map(|(name, own)| name == own.as_bytes());
            is_meant(is_named) && *member.resource() == spent.resource
        };
        for lane in (0..pool.len()).filter(is_it) {
            if let Some(rest) = rest {
                pool.rest_for(lane, spent.at, rest, Why::Refused);
            }
            self.tried.insert(lane);
        }
    }

    /// Has a refusal speak for the whole pool: for its soonest reopening, not for one backend.
    pub(super) fn speak_for_pool<R>(&mut self, response: &mut Response<R>, now: Instant) {
        let soonest = self.soonest(now);
        let failing = (soonest.why == Some(Why::Failed))
            .then(|| Failing { refused: self.soonest_refused(now) });
        // A backend that this request may not go back to can be open already; "at once" is 1 ms.
        let left = soonest.left.max(Duration::from_millis(1));
        let forbidding = self.rare.as_ref().map_or(0, |rare| rare.forbidding);
        let is_forbidden = forbidding > 0 && forbidding == self.asked;
        let is_quota = soonest.why == Some(Why::Quota);
        if is_quota || is_forbidden {
            announce_in_vain(response.headers_mut(), left);
        } else {
            announce(response.headers_mut(), left);
        }
        let extensions = response.extensions_mut();
        if is_quota {
            extensions.insert(Refusal::new(Reason::Quota, Hint::After(left)));
        } else if extensions.get::<Refusal>().is_some_and(|it| it.reason() == Reason::Quota) {
            // That of one backend; another one is worth waiting for.
            extensions.insert(Refusal::new(Reason::Rate, Hint::After(left)));
        }
        if is_forbidden {
            extensions.insert(NotAgain);
        }
        if let Some(failing) = failing {
            extensions.insert(failing);
        }
        self.hand_on_exhausted(response);
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

    /// Hands on to the layers outside what Azure spilled in vain.
    pub(super) fn hand_on_exhausted<R>(&mut self, response: &mut Response<R>) {
        let exhausted = self.rare.as_mut().map(|rare| mem::take(&mut rare.exhausted));
        if let Some(exhausted) = exhausted.filter(|exhausted| !exhausted.is_empty()) {
            response.extensions_mut().insert(Exhausted(exhausted.into()));
        }
    }
}

/// Notes in `served` what Azure did by itself.
pub(super) fn note_spillover<R>(served: &mut Served, response: &Response<R>) {
    if NativeSpillover::has_served(response) {
        served.set_spilled_by_azure();
    }
}
