//! Sends a request to the fallback, as far as that is allowed.

use std::time::Instant;

use http::Request;

use super::{NextStep, Session, Tier};
use crate::{
    TryCloneBody, classify::Outcome, clock, smart_fallback::WhenSpent, wait::RequestLimits,
};

impl Session {
    /// Spills if class, budget and pinning allow it; otherwise the refusal is returned.
    pub(super) fn spill<B: TryCloneBody>(
        &mut self,
        now: Instant,
        request: &Request<B>,
    ) -> NextStep {
        let limits = *self.limits(request);
        if !limits.spills || self.confined.to_primary {
            return NextStep::Return;
        }
        let Some(budget) = self.config.spill_budget.clone() else {
            return NextStep::Send(Tier::Fallback);
        };
        match budget.take(now, || self.weigh(request)) {
            Ok(()) => NextStep::Send(Tier::Fallback),
            Err((WhenSpent::Refuse, _)) => NextStep::Return,
            Err((WhenSpent::Wait, left)) => {
                let elapsed = limits.elapsed(now);
                let longer = elapsed.saturating_add(left).min(limits.longest_wait);
                if longer <= elapsed {
                    return NextStep::Return;
                }
                if longer <= limits.max_wait {
                    // The primary has been asked for that long already: only a new window helps.
                    return NextStep::Sleep(clock::sleep_until(limits.after(longer)));
                }
                self.limits = Some(RequestLimits { max_wait: longer, ..limits });
                self.start(now, request)
            }
        }
    }

    /// What follows when the primary failed, or the request is too long for it. It is no matter of
    /// time, and the gate learns nothing from it.
    pub(super) fn after_failure<B: TryCloneBody>(
        &mut self,
        outcome: Outcome,
        now: Instant,
        request: &Request<B>,
    ) -> NextStep {
        self.since = now;
        // However soon the primary is open, this request has nothing to come back for.
        self.is_forbidden = true;
        if !self.limits(request).spills || self.confined.to_primary {
            return NextStep::Return;
        }
        let has_failed = outcome == Outcome::Failed;
        if has_failed && !self.config.move_on.withdraw() {
            return NextStep::Return;
        }
        if let Some(budget) = self.config.spill_budget.clone()
            && budget.take(now, || self.weigh(request)).is_err()
        {
            if has_failed {
                self.config.move_on.give_back();
            }
            return NextStep::Return;
        }
        NextStep::Send(Tier::Fallback)
    }
}
