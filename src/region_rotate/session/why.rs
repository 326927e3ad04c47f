//! Why a refusal or a failure is returned to the caller instead of another attempt.

use std::time::Duration;

use super::Session;
use crate::{
    classify::Outcome,
    cooldown::{CooldownReason, NextOpen},
    served::{TimeAndLimit, Why},
};

impl Session {
    /// Records why a refusal is returned to the caller. `is_kept`: the request could be sent again;
    /// `soonest`: when the pool serves it again.
    pub(super) fn note_why_refused(&mut self, soonest: &NextOpen, is_kept: bool) {
        let attempts = self.served.attempts().len();
        let has_another = (0..self.config.pool.len())
            .any(|index| !self.tried.contains(index) && self.admits(index));
        let why = match soonest.from {
            _ if !is_kept && self.may_go_on(attempts) => Why::NotReplayable,
            _ if has_another && attempts > 0 && !self.may_attempt(attempts) => Why::Attempts,
            _ if self.is_beside_twin() => Why::FirstTokenLate,
            _ if soonest.why == Some(CooldownReason::Quota) => Why::Quota,
            _ if self.is_forbidden() => Why::Forbidden,
            Some(from) => Why::Weight(from),
            None if self.is_bound() => Why::Sticky,
            None => Why::AllClosed(TimeAndLimit::new(soonest.said, Duration::ZERO)),
        };
        self.served.set_why_refused(Some(why));
    }

    /// Whether the request is pinned to a resource that not all backends have.
    fn is_bound(&self) -> bool {
        self.routing.is_some() && (0..self.config.pool.len()).any(|index| !self.admits(index))
    }

    /// Records why a failure is returned to the caller, if a request that `is_kept` could have moved
    /// on.
    pub(super) fn note_why_failed(&mut self, outcome: Outcome, is_kept: bool) {
        let attempts = self.served.attempts().len();
        let why = match &self.cold {
            _ if !is_kept && self.may_go_on(attempts) => Some(Why::NotReplayable),
            Some(cold) if outcome == Outcome::Failed && cold.is_unaffordable => {
                Some(Why::RetryBudget)
            }
            _ => None,
        };
        self.served.set_why_refused(why);
    }
}
