//! The mirrored bucket: how full the PTU is, and when the next attempt may be made.

use std::time::Duration;

use super::{
    admissions::Admissions,
    bucket_depth::BucketDepth,
    contention::{Contention, Rivals},
    costs::Costs,
    drain_rate::{DrainRate, Sample},
    hints::{Claim, Hints},
    knowledge::Evidence,
    prober::{Pace, Prober, PtuRefusal},
    queue::{Asks, QueueKey},
    round_trip::RoundTrip,
    time::{MILLISECOND, Nanos, SECOND, from_seconds, nanos, seconds},
};

/// A model of the PTU's leaky bucket, built from its refusals and answers.
///
/// A refusal says how long the level stays above the limit. From there the level is modelled: the
/// cost of attempts raises it, and it falls at the learned [`DrainRate`]. [`Hints`] judges the hints
/// of refusals, and the [`Prober`] whether the model still holds.
#[derive(Debug)]
pub(crate) struct Bucket {
    /// When the level falls below the limit; `None` while it is unknown.
    below_limit_at: Option<Nanos>,
    drain_rate: DrainRate,
    costs: Costs,
    hints: Hints,
    prober: Prober,
    round_trip: RoundTrip,
    admissions: Admissions,
    rivals: Rivals,
    depth: BucketDepth,
    /// Total cost sent and not refused, with actual costs where they are known.
    admitted: f64,
    /// Total cost sent.
    sent: f64,
    /// Whether the last refusal had a hint that is believed.
    is_hinted: bool,
    /// Refusals so far.
    refusals: u32,
}

/// An attempt that the model accounts for.
#[derive(Clone, Debug)]
pub(crate) struct TrackedAttempt {
    pub(super) place: QueueKey,
    pub(super) cost: f64,
    /// Its request's earlier attempts.
    pub(super) asks: Asks,
    pub(super) sent_at: Nanos,
    /// [`Bucket::admitted`] before it was sent, and [`Bucket::sent`] after.
    admitted_before: f64,
    sent_after: f64,
    /// The share of its cost that raised the level.
    share: f64,
    /// Whether it was sent while nothing was known of the PTU.
    pub(super) is_untracked: bool,
}

/// What a refusal changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reopening {
    pub(super) at: Nanos,
    /// Whether it is much later than was modelled, so that waiting requests may have become too late.
    pub(super) is_news: bool,
    /// Whether the refusal was expected: the attempt was made although the PTU was known to be closed.
    pub(super) was_expected: bool,
}

impl Bucket {
    pub(super) const fn new(contention: Contention) -> Self {
        Self {
            below_limit_at: None,
            drain_rate: DrainRate::new(),
            costs: Costs::new(),
            hints: Hints::new(),
            prober: Prober::new(),
            round_trip: RoundTrip::new(),
            admissions: Admissions::new(),
            rivals: Rivals::new(contention),
            depth: BucketDepth::new(),
            admitted: 0.0,
            sent: 0.0,
            is_hinted: false,
            refusals: 0,
        }
    }

    /// A request of `cost` arrives, whether or not it will be sent.
    pub(super) fn on_arrival(&mut self, cost: f64) {
        self.costs.on_arrival(cost);
    }

    /// The mean estimate of a request's cost.
    pub(super) const fn mean_cost(&self) -> f64 {
        self.costs.mean()
    }

    pub(super) fn on_sent(
        &mut self,
        now: Nanos,
        place: QueueKey,
        asks: Asks,
        cost: f64,
    ) -> TrackedAttempt {
        let silence = self.round_trip.silence();
        if let Some(sent_at) = self.prober.silent_attempt(now, silence) {
            self.on_admitted(now, sent_at);
        }
        self.sent += cost;
        let share = self.rivals.pace();
        let attempt = TrackedAttempt {
            place,
            cost,
            asks,
            sent_at: now,
            admitted_before: self.admitted,
            sent_after: self.sent,
            share,
            is_untracked: false,
        };
        self.admitted += cost;
        self.costs.on_sent(cost);
        let is_checking = self.prober.checked_at().is_some();
        let is_below = self.pace().is_some_and(|pace| self.prober.on_sent(now, &pace));
        if is_below && is_checking {
            self.rivals.on_checked(true);
        }
        let arrives = now.saturating_add(self.round_trip.one_way());
        let fill = self.drain_time(share * cost);
        // The depth of the level below the limit cannot be observed; the next refusal corrects it.
        self.below_limit_at = self.below_limit_at.map(|at| {
            let at = if is_below { at.min(arrives) } else { at };
            at.max(now - MAX_MODELLED_SPARE_NS).saturating_add(fill)
        });
        attempt
    }

    /// An attempt that was sent at `sent_at`, while nothing was known of the PTU, is about to be
    /// [refused](Self::on_refused).
    pub(super) fn on_untracked_refusal(
        &mut self,
        sent_at: Nanos,
        place: QueueKey,
        cost: f64,
    ) -> TrackedAttempt {
        self.costs.on_arrival(cost);
        self.prober.on_untracked_refusal();
        if self.below_limit_at.is_none() {
            self.drain_rate.on_first_refusal(seconds(sent_at));
            self.admissions.on_first_refusal(sent_at);
        }
        TrackedAttempt {
            place,
            cost,
            asks: Asks::NONE,
            sent_at,
            admitted_before: self.admitted,
            sent_after: self.sent,
            share: 1.0,
            is_untracked: true,
        }
    }

    /// `attempt` was refused, with a `hint` if there was one. `draw` is a random number from 0 to 1.
    pub(super) fn on_refused(
        &mut self,
        now: Nanos,
        attempt: &TrackedAttempt,
        hint: Option<Duration>,
        draw: f64,
    ) -> Reopening {
        self.refusals = self.refusals.saturating_add(1);
        self.round_trip.on_refused(now.saturating_sub(attempt.sent_at));
        // The PTU decides when an attempt arrives. Time beyond the network's is spent on the way
        // back.
        let arrived = attempt.sent_at.saturating_add(self.round_trip.one_way()).min(now);
        if let Some(at) = self.below_limit_at.filter(|_| arrived < self.prober.refused_at()) {
            // A later decision is known already, and does not include attempts that were refused
            // before it.
            if !attempt.is_untracked {
                self.uncount(attempt);
            }
            return Reopening { at, is_news: false, was_expected: false };
        }
        if !attempt.is_untracked {
            self.give_back(attempt);
        }
        // The cost sent after it is not included in the hint.
        let later = (self.sent - attempt.sent_after).max(0.0);
        let is_news = self.prober.is_news(attempt.sent_at);
        let hint = hint.map(nanos).filter(|&hint| {
            if is_news {
                self.hints.on_hint(hint);
            }
            !self.hints.are_constant()
        });
        if is_news {
            self.on_news(now, attempt, arrived, hint, later);
        }
        let is_early = arrived.saturating_add(MILLISECOND) < self.prober.closed_until();
        let claim = hint.map(|hint| self.claim(arrived, hint, later));
        let believed = claim.filter(|claim| !self.is_modelled() || self.hints.believe(claim));
        let error = believed.and_then(|claim| self.model_error(attempt, &claim));
        let excess = believed.map_or(0, |claim| claim.hint);
        self.is_hinted = believed.is_some();
        if self.drought(now) > 0.0 {
            // The bucket's drain is not what keeps it closed.
            self.drain_rate.on_ran_dry();
        } else {
            self.drain_rate.on_refused(Sample {
                at: seconds(arrived),
                excess: seconds(excess),
                admitted: self.admitted - later,
            });
        }
        if self.prober.checked_at() == Some(attempt.sent_at) {
            self.rivals.on_checked(false);
        }
        self.prober.on_refused(&PtuRefusal {
            now,
            decided: arrived,
            closed_until: arrived.saturating_add(excess),
            error,
            fill: self.fill(),
        });
        let was_expected = is_news && is_early && self.prober.is_explained();
        if is_news && !was_expected {
            self.admissions.on_refused();
        }
        let refusals = self.admissions.refusals();
        let reopens = match believed {
            Some(claim) => {
                let opens_at = (later == 0.0).then(|| arrived.saturating_add(claim.hint));
                self.rivals.on_hint(claim.hint, opens_at);
                claim.reopens.saturating_add(self.rivals.passed_over(refusals, draw))
            }
            None => {
                self.rivals.on_unknown();
                arrived.saturating_add(self.guess(refusals))
            }
        };
        let modelled = self.below_limit_at.replace(reopens);
        let is_news = modelled.is_none_or(|at| reopens.saturating_sub(at) > MIN_NEWS_NS);
        Reopening { at: reopens, is_news, was_expected }
    }

    /// An attempt was admitted: its answer begins.
    pub(crate) fn on_accepted(&mut self, now: Nanos, attempt: &TrackedAttempt) {
        self.prober.on_known(attempt.sent_at);
        self.on_admitted(now, attempt.sent_at);
    }

    /// A refusal for `closed` reported the level as a `share` of the limit.
    pub(crate) fn on_refusal_utilization(&mut self, share: f64, closed: Duration) {
        self.depth.on_refused(share, closed.as_secs_f64());
    }

    /// The answer to `attempt`, which was admitted, reported the level as a `share` of the limit.
    ///
    /// The header does not say whether that is the level before the request was added or when the
    /// answer began, so the higher of the two readings is used. It only ever lowers the modelled
    /// level: the next refusal corrects a model that is too low.
    pub(crate) fn on_utilization(&mut self, now: Nanos, attempt: &TrackedAttempt, share: f64) {
        let (Some(at), Some(depth)) = (self.below_limit_at, self.depth.seconds()) else { return };
        if !self.is_modelled() {
            return;
        }
        let one_way = self.round_trip.one_way();
        let over = from_seconds((share - 1.0) * depth);
        let since = self.drain_time(self.admitted - attempt.admitted_before);
        let before =
            attempt.sent_at.saturating_add(one_way).saturating_add(over).saturating_add(since);
        let answering = now.saturating_sub(one_way).saturating_add(over);
        // The older the attempt, the more of the rate's own error is included.
        let age = now.saturating_sub(attempt.sent_at);
        let slack = one_way.saturating_add(age / UTILIZATION_AGE_DIVISOR);
        self.below_limit_at = Some(at.min(before.max(answering).saturating_add(slack)));
    }

    /// `attempt` ended without an answer that shows whether it was admitted.
    pub(crate) fn on_cancelled(&mut self, attempt: &TrackedAttempt) {
        self.prober.on_cancelled(attempt.sent_at);
        self.give_back(attempt);
    }

    /// The answer to `attempt`, which was admitted, ended. `actual` is its cost, if known.
    pub(crate) fn on_ended(&mut self, now: Nanos, attempt: &TrackedAttempt, actual: Option<f64>) {
        self.rivals.on_unknown();
        self.costs.on_ended(attempt.cost, seconds(now.saturating_sub(attempt.sent_at)));
        if let Some(actual) = actual {
            self.costs.on_usage(attempt.cost, actual);
            self.admitted += actual - attempt.cost;
            let later = self.shift(attempt.share * (actual - attempt.cost));
            self.prober.on_lowered(later.min(0).saturating_neg());
        }
    }

    /// Continues with what the store of a fleet knew.
    pub(super) fn seed(&mut self, now: Nanos, reopens: Nanos, rate: f64) {
        self.on_idle();
        self.below_limit_at = Some(reopens);
        if rate > 0.0 {
            self.drain_rate.seed(rate);
        }
        self.prober.seed(now, reopens);
        self.admissions.on_first_refusal(now);
    }

    /// The PTU has had spare capacity for so long that its level is unknown.
    pub(super) const fn on_idle(&mut self) {
        self.below_limit_at = None;
        self.hints.on_idle();
        self.drain_rate.on_ran_dry();
    }

    /// The modelled level as a share of the limit, if the depth of the bucket is known.
    pub(crate) fn utilization(&self, now: Nanos) -> Option<f64> {
        let over = seconds(self.closed_for(now)?);
        Some((1.0 + over / self.depth.seconds()?).max(0.0))
    }

    /// How much longer the PTU refuses; negative when it has spare capacity, `None` while its level
    /// is unknown.
    pub(crate) fn closed_for(&self, now: Nanos) -> Option<Nanos> {
        self.below_limit_at.map(|at| at.saturating_sub(now))
    }

    /// Whether the PTU has had spare capacity for so long by `now` that the gate may step aside, or
    /// its last refusal is so old that the level is unknown. If refusals are slow, the last one may
    /// not have arrived yet.
    pub(super) fn is_idle(&self, now: Nanos) -> bool {
        let silent_for = now.saturating_sub(self.prober.refusal_known_at());
        let is_open = self.closed_for(now).is_some_and(|closed| closed < -IDLE_AFTER_NS);
        is_open && silent_for > IDLE_AFTER_NS + self.round_trip.usual()
            || self.below_limit_at.is_some() && silent_for > FORGOTTEN_AFTER_NS
    }

    /// The learned drain rate in weighted tokens per second.
    pub(crate) fn rate(&self) -> Option<f64> {
        Some(self.drain_rate.get()).filter(|&rate| rate > 0.0)
    }

    /// Whether the level is modelled by a rate that was measured.
    pub(crate) fn is_modelled(&self) -> bool {
        self.drain_rate.is_known()
    }

    /// The cost of attempts that have not ended.
    #[cfg(test)]
    pub(super) const fn in_flight(&self) -> f64 {
        self.costs.in_flight()
    }

    /// What the gate bases its decisions on at `now`, with the figures.
    pub(super) fn evidence(&self, now: Nanos) -> Evidence {
        let (dry, rate) = (self.drought(now), self.drain_rate.get());
        if self.below_limit_at.is_none() {
            Evidence::Open
        } else if dry > 0.0 {
            Evidence::Outage { dry, refusals: self.admissions.refusals() }
        } else if let Some((hint, expected)) = self.hints.doubted() {
            Evidence::DoubtedHint { hint: seconds(hint), expected }
        } else if let Some(hint) = self.hints.constant() {
            Evidence::ConstantHint { hint: seconds(hint) }
        } else if !self.drain_rate.is_settled() {
            Evidence::Learning { refusals: self.refusals, rate: self.rate() }
        } else if self.rivals.are_there() {
            Evidence::Shared { rate, lost: self.rivals.lost_share() }
        } else {
            Evidence::Measured { rate }
        }
    }

    /// When to send a request so that it reaches the PTU as its level falls below the limit.
    pub(super) fn sendable_at(&self) -> Option<Nanos> {
        self.below_limit_at.map(|at| at.saturating_sub(self.round_trip.one_way()))
    }

    /// Until when a request that is sent is known to be refused, by a hint that is believed.
    pub(crate) fn refuses_until(&self) -> Option<Nanos> {
        let until = self.prober.closed_until().saturating_sub(self.round_trip.one_way());
        self.below_limit_at.map(|_| until)
    }

    /// Whether the model predicted the last refusal, and neither it nor the hint expects the PTU to be
    /// open: an attempt would most likely be refused.
    pub(super) fn is_surely_closed(&self, now: Nanos) -> bool {
        let until = self.refuses_until().min(self.sendable_at());
        self.prober.is_explained() && until.is_some_and(|until| now < until)
    }

    /// When to make the next attempt: by the model, or as a probe.
    pub(crate) fn next_attempt_at(&self) -> Nanos {
        self.pace().map_or(Nanos::MIN, |pace| self.prober.next_attempt_at(&pace))
    }

    /// Whether a request that will not wait may probe, since no attempt was made for long.
    pub(super) fn is_due_anyway(&self, now: Nanos) -> bool {
        self.prober.is_due_anyway(now)
    }

    /// The latest time to send a request with this `deadline`: a refusal must be back in time to
    /// spill, even if it takes as long as the slowest one.
    pub(super) fn latest_dispatch(&self, deadline: Nanos) -> Nanos {
        deadline.saturating_sub(self.spill_reserve())
    }

    /// The part of a request's time reserved for a refusal and a spill.
    pub(crate) fn spill_reserve(&self) -> Nanos {
        self.round_trip.spill_reserve()
    }

    /// A refusal that the store of a fleet accounts for came back `took` after its attempt was sent.
    pub(crate) fn on_refusal_latency(&mut self, took: Nanos) {
        self.round_trip.on_refused(took);
    }

    /// How long a request waits behind a cost of `queued`, in seconds.
    pub(super) fn wait_behind(&self, now: Nanos, queued: f64) -> f64 {
        let Some(sendable_at) = self.sendable_at() else { return 0.0 };
        let closed = seconds(sendable_at.saturating_sub(now)).max(0.0);
        let modelled =
            self.rate().map_or(closed, |rate| self.costs.wait_behind(closed, queued, rate));
        // The discount does not apply to a hint that is believed.
        let hinted = self.refuses_until().map_or(0.0, |until| seconds(until.saturating_sub(now)));
        (self.rivals.wait_factor() * modelled).max(hinted.min(modelled)).max(self.drought(now))
    }

    /// The shortest wait to expect, in seconds, because nothing was admitted for that long.
    pub(super) fn drought(&self, now: Nanos) -> f64 {
        if self.is_hinted {
            return 0.0;
        }
        self.admissions.drought(now, self.fill())
    }

    /// How much a request of `cost` is worth waiting for, beside one of the mean.
    pub(super) fn worth(&self, cost: f64) -> f64 {
        self.costs.worth(cost)
    }

    /// The share of the PTU that `cost_per_second` takes.
    pub(super) fn share_of(&self, cost_per_second: f64) -> f64 {
        self.rate().map_or(0.0, |rate| self.costs.ratio() * cost_per_second / rate)
    }

    /// Evidence from an attempt that was made after the last refusal was known.
    fn on_news(
        &mut self,
        now: Nanos,
        attempt: &TrackedAttempt,
        arrived: Nanos,
        hint: Option<Nanos>,
        later: f64,
    ) {
        let silent = self.prober.silent_attempt(now, self.round_trip.silence());
        if let Some(sent_at) = silent.filter(|sent_at| *sent_at < attempt.sent_at) {
            self.on_admitted(now, sent_at);
        }
        if self.admissions.refusals() == 0 {
            self.rivals.on_admitted();
        } else if let Some(excess) =
            hint.filter(|_| later == 0.0 && self.prober.is_first(attempt.sent_at))
        {
            self.rivals.on_refused_alone(arrived, excess, self.round_trip.one_way() / 2);
        }
    }

    fn on_admitted(&mut self, now: Nanos, sent_at: Nanos) {
        self.admissions.on_admitted(sent_at, self.prober.refused_at());
        self.prober.on_admitted(sent_at, sent_at.saturating_add(self.round_trip.one_way()));
        if self.admissions.refusals() == 0 {
            self.hints.on_admitted(now);
        }
    }

    fn claim(&self, decided: Nanos, hint: Nanos, later: f64) -> Claim {
        let expected = self.below_limit_at.map_or(0, |at| at.saturating_sub(decided)).max(0);
        Claim {
            decided,
            hint,
            reopens: decided.saturating_add(hint).saturating_add(self.drain_time(later)),
            expected: seconds(expected),
            fill: self.rate().map_or(UNKNOWN_FILL_S, |rate| self.costs.mean() / rate),
        }
    }

    /// The error of the model before `claim`, in seconds.
    fn model_error(&self, attempt: &TrackedAttempt, claim: &Claim) -> Option<f64> {
        let at = self.below_limit_at.filter(|_| !attempt.is_untracked)?;
        Some(seconds(claim.reopens.saturating_sub(at).abs()))
    }

    /// How long the PTU is assumed to stay closed without a hint: longer after each refusal.
    fn guess(&self, refusals: u32) -> Nanos {
        let doublings = refusals.saturating_sub(1).min(MAX_GUESS_DOUBLINGS);
        let guess = GUESS_FILLS * self.fill() * f64::from(2_u32.pow(doublings));
        from_seconds(guess.max(seconds(self.round_trip.silence())).min(MAX_GUESS_S))
    }

    /// How long a request of the mean cost takes to drain, in seconds.
    fn fill(&self) -> f64 {
        self.rate().map_or(UNKNOWN_FILL_S, |rate| self.costs.ratio() * self.costs.mean() / rate)
    }

    fn pace(&self) -> Option<Pace> {
        Some(Pace {
            sendable_at: self.sendable_at()?,
            is_modelled: self.is_modelled(),
            silence: self.round_trip.silence(),
            round_trip: self.round_trip.network(),
            yielding_check: self.rivals.yielding_check(),
        })
    }

    /// An attempt that was counted was not admitted.
    fn give_back(&mut self, attempt: &TrackedAttempt) {
        self.uncount(attempt);
        self.shift(-(attempt.share * attempt.cost));
    }

    fn uncount(&mut self, attempt: &TrackedAttempt) {
        self.admitted -= attempt.cost;
        self.costs.on_gone(attempt.cost);
    }

    /// The level turns out to be `cost` higher than modelled. Returns how much later it falls below
    /// the limit.
    fn shift(&mut self, cost: f64) -> Nanos {
        let time = self.drain_time(cost);
        self.below_limit_at = self.below_limit_at.map(|at| at.saturating_add(time));
        time
    }

    /// How long the PTU takes to drain `cost`; zero while its rate is not known.
    fn drain_time(&self, cost: f64) -> Nanos {
        self.rate().map_or(0, |rate| from_seconds(cost / rate))
    }
}

// The table in `core/mod.rs` shows the effect of halving and doubling these.

/// Time below the limit after which the gate is idle: few buckets are less than a second deep.
pub(super) const IDLE_AFTER_NS: Nanos = SECOND;
/// Time without a refusal after which the last one is forgotten: answers have ended unseen since.
pub(super) const FORGOTTEN_AFTER_NS: Nanos = 10 * SECOND;
/// How much later than modelled the PTU must reopen for waiting requests to be reconsidered.
pub(super) const MIN_NEWS_NS: Nanos = SECOND / 4;
/// How long a request takes to drain, in seconds, before anything is known.
pub(super) const UNKNOWN_FILL_S: f64 = 0.05;
/// How long the PTU is assumed to stay closed after a first refusal without a hint, in times to drain
/// a request; how often that doubles; and the longest assumption in seconds.
pub(super) const GUESS_FILLS: f64 = 0.5;
pub(super) const MAX_GUESS_DOUBLINGS: u32 = 16;
pub(super) const MAX_GUESS_S: f64 = 0.49;
/// A reported utilisation is off by up to one part in this many of its age.
pub(super) const UTILIZATION_AGE_DIVISOR: Nanos = 16;
/// How far below the limit the level is modelled, in time to drain it.
pub(super) const MAX_MODELLED_SPARE_NS: Nanos = 60 * SECOND;
