//! The mirrored bucket: how full the PTU is, and when the next attempt may be made.

use std::time::Duration;

use super::{
    bucket_depth::BucketDepth,
    capacity_probe::Prober,
    queue::QueueKey,
    rate_estimator::DrainRate,
    time::{Nanos, SECOND, nanos, seconds},
};

/// A model of the PTU's leaky bucket, from what its refusals and answers say.
///
/// A refusal says exactly how long the level stays above the limit. From there the level is
/// modelled: it rises by the cost of what is sent and falls at the learned [`DrainRate`]. While
/// that rate is not trusted, only hints and [probes](Prober) count.
#[derive(Debug)]
pub(crate) struct Bucket {
    /// When the level falls below the limit; `None` while nothing is known of it.
    below_limit_at: Option<Nanos>,
    drain_rate: DrainRate,
    prober: Prober,
    depth: BucketDepth,
    /// The cost of all that was sent and not refused, corrected by what it cost in the end.
    admitted: f64,
    /// What requests cost in the end, as a share of their estimate.
    cost_ratio: f64,
    /// The mean estimated cost of a request.
    mean_cost: f64,
    /// The network's share of a refusal's latency, there and back.
    round_trip: Nanos,
}

/// An attempt that the model accounts for.
#[derive(Clone, Debug)]
pub(crate) struct TrackedAttempt {
    pub(super) key: QueueKey,
    pub(super) cost: f64,
    sent_at: Nanos,
    /// [`Bucket::admitted`] when it was sent.
    admitted_before: f64,
}

impl Bucket {
    pub(super) const fn new() -> Self {
        Self {
            below_limit_at: None,
            drain_rate: DrainRate::new(),
            prober: Prober::new(),
            depth: BucketDepth::new(),
            admitted: 0.0,
            cost_ratio: 1.0,
            mean_cost: 0.0,
            round_trip: 0,
        }
    }

    /// A request of `cost` arrives, whether or not it will be sent.
    pub(super) fn on_arrival(&mut self, cost: f64) {
        let is_first = self.mean_cost == 0.0;
        self.mean_cost += if is_first { cost } else { MEAN_COST_WEIGHT * (cost - self.mean_cost) };
    }

    /// An attempt is made.
    pub(super) fn on_sent(&mut self, now: Nanos, key: QueueKey, cost: f64) -> TrackedAttempt {
        let attempt = TrackedAttempt { key, cost, sent_at: now, admitted_before: self.admitted };
        self.admitted += cost;
        let is_below = self.prober.on_sent(now, self.drain_rate.trust());
        if self.is_trusted() {
            let arrives = now.saturating_add(self.round_trip / 2);
            let fill = self.drain_time(cost);
            // How far below the limit the level is cannot be observed; the next refusal will tell.
            self.below_limit_at = self.below_limit_at.map(|at| {
                let at = if is_below { at.min(arrives) } else { at };
                at.max(now - MAX_MODELLED_SPARE_NS).saturating_add(fill)
            });
        }
        attempt
    }

    /// An attempt that was made at `sent_at`, while nothing was known of the PTU, is about to be
    /// [refused](Self::on_refused).
    pub(super) fn on_untracked_refusal(
        &mut self,
        sent_at: Nanos,
        key: QueueKey,
        cost: f64,
    ) -> TrackedAttempt {
        self.prober.on_untracked_refusal();
        if self.below_limit_at.is_none() {
            self.drain_rate.on_first_refusal(seconds(sent_at));
        }
        let admitted_before = self.admitted;
        self.admitted += cost;
        TrackedAttempt { key, cost, sent_at, admitted_before }
    }

    /// `attempt` was refused with the hint that the PTU is `closed` for so long, which is measured
    /// unless it is a guess. Returns when the PTU reopens by that.
    pub(super) fn on_refused(
        &mut self,
        now: Nanos,
        attempt: &TrackedAttempt,
        closed: Duration,
        is_measured: bool,
    ) -> Nanos {
        self.on_cancelled(attempt);
        // Clamped: anything longer is server latency, not network distance.
        let took = now.saturating_sub(attempt.sent_at).clamp(0, MAX_ROUND_TRIP_NS);
        // The minimum is the network's; longer samples include connecting or queueing. It may
        // grow a little at each refusal, so that it follows a route that became longer.
        self.round_trip = match self.round_trip {
            0 => took,
            known => took.min(known + known / ROUND_TRIP_GROWTH_DIVISOR),
        };
        // It was decided half a round trip ago, which is when the hint begins to count.
        let decided = now - self.round_trip / 2;
        let reopens = decided.saturating_add(nanos(closed));
        let (seen, later) = self.seen_by(attempt, reopens);
        if is_measured {
            self.drain_rate.on_refused(seconds(decided), closed.as_secs_f64(), seen);
        }
        self.prober.on_refused();
        self.below_limit_at = Some(reopens.saturating_add(later));
        reopens
    }

    /// An attempt was admitted.
    pub(crate) fn on_accepted(&mut self, now: Nanos) {
        self.prober.on_ended();
        if !self.is_trusted() && self.below_limit_at.is_some_and(|at| at <= now) {
            self.prober.on_admitted();
        }
    }

    /// A refusal that lasts for `closed` came with the level as a `share` of the limit.
    pub(crate) fn on_refusal_utilization(&mut self, share: f64, closed: Duration) {
        self.depth.on_refused(share, closed.as_secs_f64());
    }

    /// The answer to `attempt`, which was admitted, came with the level as a `share` of the limit.
    ///
    /// The header does not say whether that is the level before the request was added or when the
    /// answer began, so the higher of the two readings is taken. It only ever lowers the modelled
    /// level: the next refusal corrects a model that is too low; nothing else would correct one
    /// that is too high.
    pub(crate) fn on_utilization(&mut self, now: Nanos, attempt: &TrackedAttempt, share: f64) {
        let (Some(at), Some(depth)) = (self.below_limit_at, self.depth.seconds()) else { return };
        if !self.is_trusted() {
            return;
        }
        let one_way = self.round_trip / 2;
        let over = ((share - 1.0) * depth * 1e9) as Nanos; // saturates
        let since = self.drain_time(self.admitted - attempt.admitted_before);
        let before =
            attempt.sent_at.saturating_add(one_way).saturating_add(over).saturating_add(since);
        let answering = now.saturating_sub(one_way).saturating_add(over);
        // The longer ago, the more the rate's own error is in it.
        let age = now.saturating_sub(attempt.sent_at);
        let slack = one_way.saturating_add(age / UTILIZATION_AGE_DIVISOR);
        self.below_limit_at = Some(at.min(before.max(answering).saturating_add(slack)));
    }

    /// `attempt` ended without an answer that says whether it was admitted.
    pub(crate) fn on_cancelled(&mut self, attempt: &TrackedAttempt) {
        self.prober.on_ended();
        self.admitted -= attempt.cost;
        self.shift(-attempt.cost);
    }

    /// `attempt`, which was admitted, cost `actual` in the end.
    pub(crate) fn on_usage(&mut self, attempt: &TrackedAttempt, actual: f64) {
        let difference = actual - attempt.cost;
        self.admitted += difference;
        if attempt.cost > 0.0 {
            self.cost_ratio += COST_RATIO_WEIGHT * (actual / attempt.cost - self.cost_ratio);
        }
        self.shift(difference);
    }

    /// The PTU has had capacity to spare for so long that nothing is known of its level.
    pub(super) const fn on_idle(&mut self) {
        self.below_limit_at = None;
        self.drain_rate.on_ran_dry();
    }

    /// Lets the rate drift up to `now`.
    pub(super) fn advance(&mut self, now: Nanos) {
        self.drain_rate.advance(seconds(now), self.mean_cost);
    }

    /// How much longer the PTU refuses; negative when it has capacity to spare, `None` while
    /// nothing is known of its level.
    pub(crate) fn closed_for(&self, now: Nanos) -> Option<Nanos> {
        self.below_limit_at.map(|at| at.saturating_sub(now))
    }

    /// The learned drain rate in weighted tokens a second.
    pub(crate) fn rate(&self) -> Option<f64> {
        Some(self.drain_rate.rate()).filter(|&rate| rate > 0.0)
    }

    /// Whether measurements agree so well that the level is modelled by the learned rate.
    pub(crate) fn is_trusted(&self) -> bool {
        self.drain_rate.is_trusted()
    }

    /// When a request sent then reaches the PTU at the instant at which its level falls below the
    /// limit.
    pub(super) fn sendable_at(&self) -> Option<Nanos> {
        self.below_limit_at.map(|at| at.saturating_sub(self.round_trip / 2))
    }

    /// When the next attempt is to be made: by the model, or as a probe.
    pub(super) fn next_attempt_at(&self) -> Nanos {
        let Some(at) = self.sendable_at() else { return Nanos::MIN };
        self.prober.next_attempt_at(at, self.drain_rate.trust(), self.round_trip)
    }

    /// When a request with this `deadline` is to be sent at the latest: a refusal must be back in
    /// time for it to be sent elsewhere, and the known round trip is the shortest.
    pub(super) fn latest_dispatch(&self, deadline: Nanos) -> Nanos {
        deadline.saturating_sub(self.round_trip * SPILL_RESERVE_HALF_TRIPS / 2)
    }

    /// How long waiting requests of this estimated `cost` take to drain, in seconds; zero while
    /// the rate is not trusted.
    pub(super) fn seconds_to_drain(&self, cost: impl FnOnce() -> f64) -> f64 {
        if self.is_trusted() { self.cost_ratio * cost() / self.drain_rate.rate() } else { 0.0 }
    }

    /// How long a waiting request of this estimated `cost` takes to drain.
    pub(super) fn expected_drain_time(&self, cost: f64) -> Nanos {
        self.drain_time(self.cost_ratio * cost)
    }

    /// How many requests of the mean cost drain in so many `seconds`.
    pub(super) fn requests_drained_in(&self, seconds: f64) -> f64 {
        if self.mean_cost > 0.0 { seconds * self.drain_rate.rate() / self.mean_cost } else { 0.0 }
    }

    /// The cost that the refusal of `attempt` knew of, and how long it takes to drain what came
    /// later.
    fn seen_by(&self, attempt: &TrackedAttempt, reopens: Nanos) -> (f64, Nanos) {
        if !self.is_trusted() {
            return (attempt.admitted_before, 0);
        }
        // What was sent after it comes on top of what the hint knew of, unless it overtook it on
        // the way. The two can only be told apart when much was sent, and by a model that is not
        // being checked.
        let later = self.drain_time((self.admitted - attempt.admitted_before).max(0.0));
        let expected = self.below_limit_at.map_or(reopens, |at| at.saturating_sub(later));
        let is_doubtful = self.prober.is_checking() || later < MIN_OVERTAKING_DRAIN_NS;
        if !is_doubtful && reopens.saturating_sub(expected) > later / OVERTAKING_DIVISOR {
            (self.admitted, 0)
        } else {
            (attempt.admitted_before, later)
        }
    }

    /// The level turns out to be higher by `cost` than modelled.
    fn shift(&mut self, cost: f64) {
        if self.is_trusted() {
            let time = self.drain_time(cost);
            self.below_limit_at = self.below_limit_at.map(|at| at.saturating_add(time));
        }
    }

    /// How long the PTU takes to drain `cost`; zero while its rate is not known.
    fn drain_time(&self, cost: f64) -> Nanos {
        let rate = self.drain_rate.rate();
        if rate > 0.0 { (cost / rate * 1e9) as Nanos } else { 0 } // saturates
    }
}

// What halving and doubling these does is in the table of the module `core`.

/// Weight of a new request in the mean estimated cost.
const MEAN_COST_WEIGHT: f64 = 0.05;
/// Weight of a new answer in the ratio of actual to estimated cost.
const COST_RATIO_WEIGHT: f64 = 0.02;
/// The longest latency of a refusal that is taken for the network's.
const MAX_ROUND_TRIP_NS: Nanos = SECOND / 10;
/// At each refusal the round trip may grow by one part in so many.
const ROUND_TRIP_GROWTH_DIVISOR: Nanos = 16;
/// What a request keeps of its time to be refused and sent elsewhere, in half round trips.
const SPILL_RESERVE_HALF_TRIPS: Nanos = 3;
/// A reported utilisation is off by one part in so many of its age.
const UTILIZATION_AGE_DIVISOR: Nanos = 16;
/// How much has to have been sent after a refused attempt, in time to drain it, before its hint is
/// searched for it.
const MIN_OVERTAKING_DRAIN_NS: Nanos = SECOND / 10;
/// A hint that is longer than expected by more than one part in so many of that time knew of it.
const OVERTAKING_DIVISOR: Nanos = 2;
/// How far below the limit the level is modelled, in time to drain it.
const MAX_MODELLED_SPARE_NS: Nanos = 60 * SECOND;
