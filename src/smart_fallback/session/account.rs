//! Records each attempt of a request in its `Served`.

use std::sync::Arc;

use http::{Response, StatusCode};

use super::{Session, Tier};
use crate::{
    Served,
    classify::Outcome,
    clock,
    events::{Event, Source},
    served::{Attempt, Why},
};

impl Session {
    /// Returns the utilization reported with a refusal, if no inner layer has made the attempt.
    pub(super) fn record<R, E>(
        &self,
        served: &mut Served,
        tier: Tier,
        result: &mut Result<Response<R>, E>,
        outcome: Outcome,
    ) -> Option<f64> {
        let at = clock::between(self.entered, self.since);
        let before = served.attempts().len();
        let reports = self.config.events.is_on() && !result.as_ref().is_ok_and(Served::is_on);
        let utilization = served.absorb(&self.config.names[tier as usize], at, result, outcome);
        if tier == Tier::Fallback {
            served.set_spilled(before, self.why);
        }
        if reports && let Some(attempt) = served.attempts().next_back() {
            self.config.events.emit(Source::SmartFallback, Event::Attempted(attempt));
        }
        utilization
    }

    /// The account of a single attempt, which was answered with `status` by a `tier` that leaves none.
    pub(super) fn first_account(&self, tier: Tier, status: StatusCode) -> Served {
        let at = clock::between(self.entered, self.since);
        let name = Arc::clone(&self.config.names[tier as usize]);
        let attempt = Attempt::new(name, at, Some(status), Outcome::Answered);
        if self.config.events.is_on() {
            self.config.events.emit(Source::SmartFallback, Event::Attempted(&attempt));
        }
        let mut served = Served::new();
        served.push(attempt);
        if tier == Tier::Fallback {
            served.set_spilled(0, self.why);
        }
        served
    }

    /// The request begins to wait.
    pub(super) fn waits(&mut self, why: Why) {
        self.why_waits = Some(why);
        self.config.events.emit(Source::SmartFallback, Event::Waits(why));
    }

    /// The caller gets an answer of this `status`, or an error.
    #[inline]
    pub(super) fn finished(&mut self, served: Option<&Served>, status: Option<StatusCode>) {
        self.is_over = true;
        if self.config.events.is_on() {
            let none = Served::new();
            let event = Event::Finished { served: served.unwrap_or(&none), status };
            self.config.events.emit(Source::SmartFallback, event);
        }
    }
}
