//! Sends a request to the fallback, as far as that is allowed.

use std::time::Instant;

use http::Request;

use super::{NextStep, Session, Tier};
use crate::{TryCloneBody, clock, smart_fallback::WhenSpent, wait::RequestLimits};

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
}
