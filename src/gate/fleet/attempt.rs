//! An attempt that the store of a fleet permitted, and its outcome.

use std::{
    fmt,
    time::{Duration, Instant},
};

use super::micros;
use crate::{
    fleet::{Attempt, Step, Ticket},
    gate::{Gate, RefusedAttempt},
    sync::clock,
};

/// An attempt that the store permitted.
#[derive(Clone)]
pub(in crate::gate) struct FleetAttempt {
    pub(super) gate: Gate,
    pub(super) ticket: Ticket,
    pub(super) attempt: Attempt,
    pub(super) sent_at: Instant,
}

/// A refused attempt and its request.
pub(in crate::gate) struct FleetRefusal {
    pub(in crate::gate) attempt: Option<FleetAttempt>,
    pub(in crate::gate) cost: f64,
    pub(in crate::gate) rank: u8,
    pub(in crate::gate) is_patient: bool,
    pub(in crate::gate) sent_at: Instant,
    pub(in crate::gate) deadline: Instant,
    pub(in crate::gate) hint: Option<Duration>,
    pub(in crate::gate) share: Option<f64>,
}

impl FleetRefusal {
    pub(in crate::gate) fn new(refusal: &RefusedAttempt, attempt: Option<FleetAttempt>) -> Self {
        let RefusedAttempt { cost, rank, is_patient, sent_at, deadline, .. } = *refusal;
        let hint = refusal.is_measured.then_some(refusal.closed);
        let share = refusal.utilization;
        Self { attempt, cost, rank, is_patient, sent_at, deadline, hint, share }
    }
}

impl FleetAttempt {
    /// It was admitted. Its answer may report the level as a share of the limit.
    pub(in crate::gate) fn on_accepted(&self, share: Option<f64>) {
        let step = Step::Accepted { attempt: self.attempt, since: 0.0, share };
        self.gate.member().tell(clock::now(), step);
    }

    /// It ended without an answer that shows whether it was admitted.
    pub(in crate::gate) fn on_cancelled(&self) {
        let step = Step::Gone { at: self.attempt.at, cost: self.ticket.cost };
        self.gate.member().tell(clock::now(), step);
    }

    /// Its answer ended; `actual` is its cost, if known.
    pub(in crate::gate) fn on_ended(&self, actual: Option<f64>) {
        let now = clock::now();
        let after = micros(now.saturating_duration_since(self.sent_at));
        let actual = actual.map(f64::round);
        self.gate.member().tell(now, Step::Finished { cost: self.ticket.cost, after, actual });
    }
}

impl fmt::Debug for FleetAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetAttempt").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}
