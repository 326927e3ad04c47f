//! Turns the decision of the gate or the policy into the next step.

use std::time::{Duration, Instant};

use http::Request;

use super::{NextStep, Session, TICK, Tier};
use crate::{
    TryCloneBody,
    classify::Hint,
    clock,
    gate::Admission,
    policy::{FallbackFacts, Next},
    random,
    served::Why,
};

impl Session {
    /// Follows the gate's decision.
    pub(super) fn obey<B: TryCloneBody>(
        &mut self,
        admission: Admission,
        now: Instant,
        request: &Request<B>,
    ) -> NextStep {
        self.since = now;
        match admission {
            Admission::Go(permit) => {
                self.permit = Some(permit);
                NextStep::Send(Tier::Primary)
            }
            Admission::Wait(waiter, predicted) => {
                let why = Self::why_queued(predicted, now, self.limits(request));
                self.waits(why);
                NextStep::Queue(Box::new(waiter))
            }
            Admission::Spill(cause) => {
                self.why = Some(Self::why_lost(cause, now, self.limits(request)));
                self.spill(now, request)
            }
        }
    }

    /// Follows the policy's decision about a primary that stays `closed` for this long;
    /// [`why`](Self::why) is the reason.
    pub(super) fn decide<B: TryCloneBody>(
        &mut self,
        hint: Hint,
        closed: Duration,
        now: Instant,
        request: &Request<B>,
    ) -> NextStep {
        let limits = *self.limits(request);
        let elapsed = limits.elapsed(now);
        let draw = random::draw_if(hint.lacks_time());
        let facts = FallbackFacts::new(hint, elapsed, limits.max_wait, self.refusals);
        let facts = facts.drawing(draw);
        self.since = now;
        self.note_closed(now, closed);
        let next = self.config.policy.next(&facts);
        if !matches!(next, Next::Wait(_))
            && !limits.max_wait.is_zero()
            && hint.duration().is_some_and(|it| it <= limits.left(now))
        {
            // The default policy would have waited.
            self.why = Some(Why::Policy);
        }
        let wait = match next {
            // A timer would delay a wait of zero by a millisecond.
            Next::Wait(Duration::ZERO) if self.refusals < 2 => {
                return NextStep::Send(Tier::Primary);
            }
            // Repeated waits of zero would be a busy loop.
            Next::Wait(wait) => wait.max(TICK.min(limits.max_wait.saturating_sub(elapsed))),
            Next::Spill => return self.spill(now, request),
            Next::Return => return NextStep::Return,
        };
        // `max_wait` holds even if a policy exceeds it.
        let fits = elapsed.saturating_add(wait) <= limits.max_wait && !wait.is_zero();
        match now.checked_add(wait).filter(|_| fits) {
            Some(until) => {
                if let Some(why) = self.why {
                    self.waits(why);
                }
                NextStep::Sleep(clock::sleep_until(until))
            }
            None => self.spill(now, request),
        }
    }
}
