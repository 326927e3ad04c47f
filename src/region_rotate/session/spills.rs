//! Native spillover that was refused: which backends to skip for that reason.

use std::{mem, sync::Arc, time::Instant};

use http::{Extensions, Response};

use super::Session;
use crate::{
    Served,
    classify::{Hint, NativeSpillover, Outcome, Refusal, RefusedSpill, RefusedSpills},
    cooldown::{Closed, Traffic},
};

impl Session {
    /// Records and skips the Standard deployment that refused what Azure spilled to it from the
    /// chosen backend.
    pub(super) fn note_spill<R>(&mut self, at: Instant, outcome: Outcome, response: &Response<R>) {
        let Some(spillover) = NativeSpillover::of(response.headers()) else { return };
        let member = self.config.pool.member(self.backend);
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
        // The pool may contain other deployments of that name.
        self.leave_out_spill(&spill, |is_named| is_named == Some(true));
        spill.add_to(&mut self.cold().spills);
    }

    /// Skips the backends that Azure tried already, before the request came here.
    #[inline]
    pub(super) fn leave_out(&mut self, overrides: &Extensions) {
        if let Some(spills) = overrides.get() {
            self.leave_out_spills(spills);
        }
    }

    #[cold]
    fn leave_out_spills(&mut self, RefusedSpills(spills): &RefusedSpills) {
        for spill in spills.iter() {
            // A backend that keeps the caller's deployment name may be any deployment.
            self.leave_out_spill(spill, |is_named| is_named != Some(false));
        }
    }

    /// Skips the backends of the resource of `spill` that may be its deployment, judged by whether
    /// they have its name, as far as both are known.
    fn leave_out_spill(&mut self, spill: &RefusedSpill, is_meant: impl Fn(Option<bool>) -> bool) {
        let pool = &self.config.pool;
        let rest = spill.hint.map(|hint| self.rest_after(hint));
        let is_it = |&index: &usize| {
            let member = pool.member(index);
            let names = spill.deployment.as_deref().zip(member.deployment());
            let is_named = names.map(|(name, own)| name == own.as_bytes());
            is_meant(is_named) && *member.resource() == spill.resource
        };
        for index in (0..pool.len()).filter(is_it) {
            if let Some((rest, why)) = rest {
                // Azure spills requests of the default tier.
                let closed = Closed::Kind(Traffic::Tokens);
                pool.close(index, closed, spill.at, (rest, rest), why);
            }
            self.tried.insert(index);
        }
    }

    /// Attaches the deployments that native spillover already tried, for outer layers.
    pub(super) fn hand_on_spills<R>(&mut self, response: &mut Response<R>) {
        if let Some(spills) = self.take_spills() {
            Refusal::add_spills(response, &spills);
        }
    }

    pub(super) fn take_spills(&mut self) -> Option<RefusedSpills> {
        let spills = mem::take(&mut self.cold.as_mut()?.spills);
        (!spills.is_empty()).then(|| RefusedSpills(spills.into()))
    }
}

/// Records in `served` whether Azure answered from a deployment other than the requested one.
pub(super) fn note_spilled<R>(served: &mut Served, response: &Response<R>) {
    if NativeSpillover::has_served(response) {
        served.set_spilled_by_azure();
    }
}
