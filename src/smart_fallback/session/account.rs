//! The account of a request: what is noted of each attempt, and left on the answer.

use std::sync::Arc;

use http::Response;

use super::{Session, Tier};
use crate::{
    Served,
    classify::{Outcome, Refusal},
    served::Attempt,
};

impl Session {
    pub(super) fn record<R, E>(
        &self,
        served: &mut Served,
        tier: Tier,
        result: &mut Result<Response<R>, E>,
        outcome: Outcome,
    ) {
        let at = self.since.saturating_duration_since(self.entered);
        let status = result.as_ref().ok().map(Response::status);
        let name = &self.config.names[tier as usize];
        let before = served.attempts().len();
        let refused = outcome != Outcome::Answered;
        let refusal = result.as_ref().ok().filter(|_| refused).and_then(Refusal::of);
        let reason = refusal.and_then(Refusal::known_reason);
        served.absorb(result.as_mut().ok().map(Response::extensions_mut), at, || {
            Attempt::new(Arc::clone(name), at, status, outcome).because(reason)
        });
        if tier == Tier::Fallback {
            served.set_spilled(before);
        }
    }
}

/// Leaves the account on the response that the caller gets.
pub(super) fn sign<R, E>(
    mut served: Served,
    tier: Tier,
    result: &mut Result<Response<R>, E>,
    is_kept: bool,
) {
    if tier == Tier::Primary && !is_kept {
        served.set_unreplayable();
    }
    if let Ok(response) = result {
        response.extensions_mut().insert(served);
    }
}
