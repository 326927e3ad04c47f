//! What the gate or the policy wants of a request, as the next step.

use std::time::{Duration, Instant};

use http::Request;

use super::{Lane, TICK, Tiers, Wait};
use crate::{
    TryCloneBody,
    classify::Hint,
    clock,
    gate::Admission,
    policy::{FallbackFacts, Next},
    resend::Step,
};

impl<P, F, X> Tiers<P, F, X> {
    /// What the gate wants; `None` when it is that the refusal be returned.
    pub(super) fn obey<B: TryCloneBody, A>(
        &mut self,
        admission: Admission,
        now: Instant,
        request: &Request<B>,
    ) -> Option<Step<Lane, Wait, A>> {
        self.since = now;
        match admission {
            Admission::Go(pass) => {
                self.pass = Some(pass);
                Some(Step::Send(Lane::Primary))
            }
            Admission::Wait(ticket) => Some(Step::Wait(Wait::Turn(Box::new(ticket)))),
            Admission::Spill => self.spill(now, request),
        }
    }

    /// What the policy wants about a primary that is `closed` for so long; `None` when it is that
    /// the refusal be returned.
    pub(super) fn decide<B: TryCloneBody, A>(
        &mut self,
        hint: Hint,
        closed: Duration,
        now: Instant,
        request: &Request<B>,
    ) -> Option<Step<Lane, Wait, A>> {
        let limits = *self.limits(request);
        let elapsed = limits.elapsed(now);
        let facts = FallbackFacts::new(hint, elapsed, limits.max_wait, self.refusals);
        (self.since, self.closed) = (now, closed);
        let wait = match self.config.policy.next(&facts) {
            // A timer would take a millisecond over no time at all.
            Next::Wait(Duration::ZERO) if self.refusals < 2 => {
                return Some(Step::Send(Lane::Primary));
            }
            // More than once, no time at all would be a busy loop.
            Next::Wait(wait) => wait.max(TICK.min(limits.max_wait.saturating_sub(elapsed))),
            Next::Spill => return self.spill(now, request),
            Next::Return => return None,
        };
        // Somebody else's policy may be wrong; `max_wait` holds all the same.
        let fits = elapsed.saturating_add(wait) <= limits.max_wait && !wait.is_zero();
        match now.checked_add(wait).filter(|_| fits) {
            Some(until) => Some(Step::Wait(Wait::Sleep(clock::sleep_until(until)))),
            None => self.spill(now, request),
        }
    }
}
