//! Records each attempt of a request in its `Served`.

use http::Response;

use super::{Session, Tier};
use crate::{Served, classify::Outcome};

impl Session {
    pub(super) fn record<R, E>(
        &self,
        served: &mut Served,
        tier: Tier,
        result: &mut Result<Response<R>, E>,
        outcome: Outcome,
    ) {
        let at = self.since.saturating_duration_since(self.entered);
        let before = served.attempts().len();
        served.absorb(&self.config.names[tier as usize], at, result, outcome);
        if tier == Tier::Fallback {
            served.set_spilled(before, self.why);
        }
    }
}
