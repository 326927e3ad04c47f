//! Sends a request to the fallback, as far as that is allowed.

use std::time::Instant;

use http::Request;

use super::{Lane, Limits, Tiers, Wait};
use crate::{TryCloneBody, classify::Outcome, clock, resend::Step, smart_fallback::WhenSpent};

impl<P, F, X> Tiers<P, F, X> {
    /// To the fallback, as far as that is allowed; `None` when the refusal is to be returned.
    pub(super) fn spill<B: TryCloneBody, A>(
        &mut self,
        now: Instant,
        request: &Request<B>,
    ) -> Option<Step<Lane, Wait, A>> {
        let limits = *self.limits(request);
        if !limits.spills || self.is_spilled_in_vain || self.confined.to_primary {
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

    /// What follows when the primary failed, or the request is too long for it; `None` when that is
    /// the caller's. It is no matter of time, and the gate learns nothing from it.
    pub(super) fn after_failure<B: TryCloneBody, A>(
        &mut self,
        outcome: Outcome,
        now: Instant,
        request: &Request<B>,
    ) -> Option<Step<Lane, Wait, A>> {
        self.since = now;
        // However soon the primary is open, this request has nothing to come back for.
        self.is_forbidden = true;
        if !self.limits(request).spills || self.confined.to_primary || self.is_spilled_in_vain {
            return None;
        }
        let has_failed = outcome == Outcome::Failed;
        if has_failed && !self.config.move_on.withdraw() {
            return None;
        }
        if let Some(purse) = self.config.spill_budget.clone()
            && purse.take(now, || self.weigh(request)).is_err()
        {
            if has_failed {
                self.config.move_on.give_back();
            }
            return None;
        }
        Some(Step::Send(Lane::Fallback))
    }
}
