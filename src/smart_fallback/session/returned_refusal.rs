//! Completes a refusal that is returned: when to retry, and what was tried.

use std::time::{Duration, Instant};

use http::Response;

use super::{Session, TICK, after_refusal::PrimaryRefusal};
use crate::classify::{Reason, Refusal, write_retry_after, write_retry_after_final};

impl Session {
    /// Attaches the deployments that native spillover already tried, for outer layers.
    pub(super) fn hand_on_spills<R>(&mut self, response: &mut Response<R>) {
        if let Some(spills) = self.cold.as_mut().and_then(|cold| cold.spills.take()) {
            Refusal::add_spills(response, &spills);
        }
    }

    /// Writes the earliest time at which either tier is worth a retry, after a `refusal` of the
    /// fallback.
    pub(super) fn announce_soonest<R>(
        &self,
        response: &mut Response<R>,
        refusal: &Refusal,
        now: Instant,
    ) {
        let meaning = PrimaryRefusal::of(refusal);
        let is_quota = meaning == PrimaryRefusal::Quota;
        let spent = self.config.quota.remaining(0, now);
        let left = self.primary_left(now);
        let primary = (spent.is_none() && !self.is_forbidden).then_some(left);
        let fallback = refusal.hint().duration().filter(|_| meaning == PrimaryRefusal::Wait);
        if let Some(soonest) = primary.into_iter().chain(fallback).min() {
            let hint = write_retry_after(response.headers_mut(), soonest.max(TICK));
            let is_measured = match primary {
                Some(left) if left == soonest => self.is_measured && !left.is_zero(),
                _ => refusal.is_measured(),
            };
            Refusal::rewrite(response, hint, !is_measured, |refusal| {
                (refusal.is_final, refusal.is_guess) = (false, !is_measured);
                if is_quota {
                    refusal.set_reason(Reason::Rate);
                }
            });
        } else if meaning != PrimaryRefusal::Wait {
            // Waiting helps neither tier, or not within any request's limits.
            let of_primary = spent.unwrap_or(left);
            let is_known = !of_primary.is_zero();
            let wait = if is_known { of_primary } else { self.closed_by(refusal.hint()) };
            let hint = write_retry_after_final(response.headers_mut(), wait.max(TICK));
            Refusal::rewrite(response, hint, true, |refusal| {
                refusal.is_final |= !is_quota || spent.is_none();
            });
        }
    }

    /// Writes the earlier of the time at which the primary would serve the request and the start of
    /// the budget's next window, after a `refusal` of the primary that the budget kept from spilling.
    pub(super) fn announce_unpaid<R>(
        &self,
        response: &mut Response<R>,
        refusal: &Refusal,
        now: Instant,
    ) {
        let Some(unpaid) = self.cold.as_ref().and_then(|cold| cold.unpaid) else { return };
        let left = |at: Option<Instant>| at.map(|at| at.saturating_duration_since(now));
        let is_worth_it = PrimaryRefusal::of(refusal) == PrimaryRefusal::Wait;
        let said = refusal.hint().duration().filter(|_| is_worth_it);
        let primary = said.map(|said| said.max(left(unpaid.served).unwrap_or_default()));
        let soonest = primary.into_iter().chain(left(unpaid.next_window)).min();
        if let Some(soonest) = soonest.filter(|_| soonest != said) {
            let hint = write_retry_after(response.headers_mut(), soonest.max(TICK));
            Refusal::rewrite(response, hint, true, |refusal| {
                (refusal.is_final, refusal.is_guess) = (false, true);
                if refusal.reason() == Reason::Quota {
                    // The reason was the primary's; Standard is worth a retry.
                    refusal.set_reason(Reason::Rate);
                }
            });
        }
    }

    pub(super) fn primary_left(&self, now: Instant) -> Duration {
        let gate = (!self.confined.is_apart).then_some(&self.config.gate);
        let remembered = gate.and_then(|gate| gate.remembered(now, &self.load()));
        remembered.unwrap_or_else(|| self.reopens.saturating_duration_since(now))
    }
}
