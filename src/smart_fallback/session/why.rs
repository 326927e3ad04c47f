//! Why a request waits, spills, or is refused.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use http::Request;

use super::{Session, Tier, after_refusal::PrimaryRefusal};
use crate::{
    AttemptBudget,
    classify::{Outcome, Refusal},
    cooldown::Traffic,
    gate::SpillReason,
    served::{TimeAndLimit, Why},
    wait::RequestLimits,
};

impl Session {
    /// Why a request cannot go to a primary that stays `closed` for this long to its kind of traffic,
    /// or to requests as heavy as this one.
    pub(super) fn why_closed(
        &self,
        closed: Duration,
        from: Option<NonZeroU32>,
        now: Instant,
        limits: &RequestLimits,
    ) -> Why {
        let times = TimeAndLimit::new(closed, limits.left(now));
        let is_of_bucket = self.load().0 == Traffic::Tokens || !self.config.gate.is_adaptive();
        match from {
            Some(from) => Why::Weight(from),
            None if limits.max_wait.is_zero() => Why::NeverWaits,
            None if is_of_bucket || self.confined.is_apart => Why::Hint(times),
            None => Why::Kind(times),
        }
    }

    /// Why a request waits at the gate, with the predicted wait in seconds.
    pub(super) fn why_queued(predicted: f64, now: Instant, limits: &RequestLimits) -> Why {
        Why::Queue(TimeAndLimit::from_seconds(predicted, limits.left(now).as_secs_f64()))
    }

    /// Why it does not wait at the gate, or not any longer.
    pub(super) fn why_lost(cause: SpillReason, now: Instant, limits: &RequestLimits) -> Why {
        match cause {
            _ if limits.max_wait.is_zero() => Why::NeverWaits,
            SpillReason::Queue { wait, allowed } => {
                Why::Queue(TimeAndLimit::from_seconds(wait, allowed))
            }
            SpillReason::StandingQueue { wait, allowed } => {
                Why::StandingQueue(TimeAndLimit::from_seconds(wait, allowed))
            }
            SpillReason::Late => Self::why_late(now, limits),
            SpillReason::Asked => Why::Attempts,
        }
    }

    /// Its time is up.
    pub(super) fn why_late(now: Instant, limits: &RequestLimits) -> Why {
        Why::Deadline(TimeAndLimit::new(limits.elapsed(now), limits.max_wait))
    }

    /// Why a request may not spill, if that differs from why it has not been served so far.
    pub(super) fn why_not_spilled(&self, limits: &RequestLimits) -> Option<Why> {
        match limits.spills {
            _ if self.config.is_alone => self.why,
            false => Some(Why::NeverSpills),
            true if self.is_bound => Some(Why::Sticky),
            true => self.why,
        }
    }

    /// Why a `refusal` of `tier`, or its failure, is returned to the caller.
    pub(super) fn why_returned<B>(
        &self,
        tier: Tier,
        refusal: Option<&Refusal>,
        kept: Option<&Request<B>>,
    ) -> Option<Why> {
        match (tier, kept, refusal) {
            (_, Some(it), _) if AttemptBudget::is_spent(it.extensions()) => Some(Why::Attempts),
            (Tier::Primary, None, _) => Some(Why::NotReplayable),
            (Tier::Primary, Some(_), _) | (Tier::Fallback, _, None) => self.why,
            (Tier::Fallback, _, Some(refusal)) => Some(match PrimaryRefusal::of(refusal) {
                _ if refusal.is_elsewhere => Why::FirstTokenLate,
                PrimaryRefusal::Quota => Why::Quota,
                _ if self.why.is_some_and(|why| why.tokens().is_some()) => return self.why,
                PrimaryRefusal::Final => Why::Forbidden,
                PrimaryRefusal::Wait => Why::FallbackClosed,
            }),
        }
    }
}

/// Why a request leaves a primary with this `outcome`, which is not a refusal.
pub(super) const fn why_failed(outcome: Outcome) -> Why {
    match outcome {
        Outcome::ContextTooLong => Why::ContextLength,
        Outcome::TierNotOffered => Why::ServiceTier,
        Outcome::Misconfigured => Why::Misconfigured,
        _ => Why::Failed,
    }
}
