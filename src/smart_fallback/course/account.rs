//! The account of a request: what is noted of each attempt, and left on the answer.

use std::sync::Arc;

use http::Response;

use super::{Lane, Tiers};
use crate::{
    Served,
    classify::{Outcome, Refusal},
    served::Attempt,
};

impl<P, F, X> Tiers<P, F, X> {
    pub(super) fn record<R, E>(
        &self,
        served: &mut Served,
        lane: Lane,
        result: &mut Result<Response<R>, E>,
        outcome: Outcome,
    ) {
        let at = self.since.saturating_duration_since(self.entered);
        let status = result.as_ref().ok().map(Response::status);
        let name = &self.config.names[lane as usize];
        let before = served.attempts().len();
        let refused = outcome != Outcome::Answered;
        let refusal = result.as_ref().ok().filter(|_| refused).and_then(Refusal::of);
        let reason = refusal.and_then(Refusal::known_reason);
        served.absorb(result.as_mut().ok().map(Response::extensions_mut), at, || {
            Attempt::new(Arc::clone(name), at, status, outcome).because(reason)
        });
        if lane == Lane::Fallback {
            served.set_spilled(before);
        }
    }
}

/// Leaves the account on the response that the caller gets.
pub(super) fn sign<R, E>(
    mut served: Served,
    lane: Lane,
    mut result: Result<Response<R>, E>,
    held: bool,
) -> Result<Response<R>, E> {
    if lane == Lane::Primary && !held {
        served.set_unreplayable();
    }
    if let Ok(response) = &mut result {
        response.extensions_mut().insert(served);
    }
    result
}
