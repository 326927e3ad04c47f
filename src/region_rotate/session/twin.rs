//! Coordinates with another sending of the same request: reports this one's backend, and skips the
//! other's.

use std::sync::Arc;

use http::{Extensions, Response};

use super::{ColdState, Session};
use crate::{
    AttemptBudget,
    classify::{Outcome, Refusal},
    cooldown::Failure,
    served::Attempt,
    twin::Twin,
};

impl Session {
    /// Counts attempts in `budget`, and joins the other sending of the request, if there is one.
    pub(super) fn count_attempts(&mut self, budget: &AttemptBudget, overrides: &Extensions) {
        let twin = Twin::of(budget, overrides);
        let cold = ColdState { budget: Some(budget.clone()), twin, ..ColdState::default() };
        self.cold = Some(Box::new(cold));
        if let Some(late) = self.leave_out_twin()
            && self.twin().is_some_and(Twin::is_second)
        {
            // If another backend of the pool answers, the late one counts as failed.
            self.cold().suspects.push((late, None, Failure::Answer));
        }
    }

    /// Skips the backend that has the other sending now, and returns it.
    pub(super) fn leave_out_twin(&mut self) -> Option<usize> {
        let taken = self.taken_by_twin()?;
        self.tried.insert(taken);
        Some(taken)
    }

    /// Reports that the request is sent to the chosen backend.
    pub(super) fn begin_beside_twin(&self) {
        if let Some(twin) = self.twin() {
            let name = Arc::clone(self.config.pool.member(self.backend).name());
            let attempt = Attempt::new(name, twin.since_arrival(self.since), None, Outcome::Late);
            twin.begin(self.config.pool.id(), self.backend, attempt);
        }
    }

    /// Reports the outcome of the last attempt.
    pub(super) fn end_beside_twin(&self) {
        if let Some(twin) = self.twin()
            && let Some(last) = self.served.attempts().next_back()
        {
            twin.end(last.clone());
        }
    }

    /// Marks the pool's own answer if it would differ without the other sending.
    pub(super) fn note_twin<R>(&self, response: &mut Response<R>) {
        if self.is_beside_twin() {
            Refusal::set_elsewhere(response);
        }
    }

    /// Whether a backend of the pool has the other sending of the request now.
    pub(super) fn is_beside_twin(&self) -> bool {
        self.taken_by_twin().is_some()
    }

    fn taken_by_twin(&self) -> Option<usize> {
        self.twin()?.taken_by_other(self.config.pool.id())
    }

    fn twin(&self) -> Option<&Twin> {
        self.cold.as_ref()?.twin.as_ref()
    }
}
