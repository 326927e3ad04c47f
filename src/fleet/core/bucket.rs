//! The mirrored bucket, with its estimators and the prober: the rules of `gate/core` in microseconds.

use super::{constants::*, state::State};

/// An attempt that was permitted. The process keeps it, and sends it back unchanged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Attempt {
    /// When it was to be sent, by the store's clock.
    pub(crate) at: f64,
    /// The cost admitted before it, and the cost sent after it.
    pub(crate) admitted_before: f64,
    pub(crate) sent_after: f64,
}

/// A hint, and what the model expected instead.
struct Claim {
    decided: f64,
    hint: f64,
    reopens: f64,
    expected: f64,
    fill: f64,
}

/// A refusal that is about to change the model.
pub(super) struct Refused {
    pub(super) now: f64,
    /// Half of a round trip to the store.
    pub(super) lead: f64,
    /// Since the attempt was sent.
    pub(super) ago: f64,
    pub(super) cost: f64,
    pub(super) hint: Option<f64>,
    pub(super) is_untracked: bool,
}

impl State {
    pub(super) fn on_arrival(&mut self, cost: f64) {
        if self.mean == 0.0 {
            self.mean = cost;
        } else {
            self.mean += MEAN_WEIGHT * (cost - self.mean);
        }
    }

    /// An attempt of `cost` is sent at `at`.
    pub(super) fn on_sent(&mut self, at: f64, cost: f64) -> Attempt {
        if self.is_silent(at) {
            self.on_admitted(at, self.first_sent);
        }
        self.sent += cost;
        let attempt = Attempt { at, admitted_before: self.admitted, sent_after: self.sent };
        self.admitted += cost;
        self.in_flight += cost;
        let is_below = self.probe(at);
        if self.below_at != NEVER {
            let arrives = at + self.one_way();
            let below = if is_below { self.below_at.min(arrives) } else { self.below_at };
            self.below_at = below.max(at - MAX_MODELLED_SPARE) + self.drain_time(cost);
        }
        attempt
    }

    /// Notes an attempt. Returns whether silence has shown that the level was below the limit.
    fn probe(&mut self, at: f64) -> bool {
        let gap = self.silence() / self.window;
        let mut is_below = false;
        if self.early_at != NEVER {
            if at >= self.early_at + gap {
                is_below = true;
                self.early_at = at;
                self.window = (self.window + 1.0).min(MAX_WINDOW);
            }
        } else if at < self.sendable_at() {
            self.early_at = at;
        } else if !self.is_modelled() && self.first_sent != NEVER && at >= self.silent_since + gap {
            self.window = (self.window + 1.0).min(MAX_UNMODELLED_WINDOW);
        }
        if self.first_sent == NEVER {
            self.first_sent = at;
        }
        self.last_sent = at;
        self.silent_since = at;
        is_below
    }

    /// A request that was sent at `sent_at`, while nothing was known, is about to be refused.
    pub(super) fn on_untracked(&mut self, sent_at: f64, cost: f64) {
        self.on_arrival(cost);
        self.first_sent = NEVER;
        if self.below_at == NEVER {
            self.settled_at = sent_at + SETTLING;
            self.refusals = 0.0;
            self.admitted_at = sent_at;
        }
    }

    /// `attempt` was refused. Returns when the PTU reopens.
    pub(super) fn on_refused(&mut self, attempt: &Attempt, refused: &Refused) -> f64 {
        let Refused { now, lead, ago, cost, is_untracked, .. } = *refused;
        self.on_latency(ago, now - attempt.at);
        let arrived = (attempt.at + self.one_way()).min(now - lead);
        if self.below_at != NEVER && arrived < self.refused_at {
            // A later decision is known already.
            if !is_untracked {
                self.uncount(cost);
            }
            return self.below_at;
        }
        if !is_untracked {
            self.give_back(cost);
        }
        let later = (self.sent - attempt.sent_after).max(0.0);
        let is_news = attempt.at >= self.known_at;
        let mut hint = refused.hint;
        if is_news && let Some(hint) = hint {
            self.on_hint(hint);
        }
        if self.repeats >= MIN_CONSTANT_SHARE {
            hint = None;
        }
        if is_news && self.is_silent(now) && self.first_sent < attempt.at {
            self.on_admitted(now, self.first_sent);
        }
        let is_early = arrived + MILLISECOND < self.closed_until;
        let mut excess = 0.0;
        let mut error = None;
        let mut reopens = 0.0;
        self.is_hinted = false;
        if let Some(hint) = hint {
            let claim = self.claim(arrived, hint, later);
            if !self.is_modelled() || self.believe(&claim) {
                if self.below_at != NEVER && !is_untracked {
                    error = Some((claim.reopens - self.below_at).abs());
                }
                self.is_hinted = true;
                excess = hint;
                reopens = claim.reopens;
            }
        }
        if self.drought(now) > 0.0 {
            self.sample_at = NEVER;
        } else {
            self.measure(arrived, excess, self.admitted - later);
        }
        self.is_explained =
            error.is_some_and(|error| error <= EXPLAINED_SHARE * excess + EXPLAINED);
        self.closed_until = arrived + excess;
        self.refused_at = arrived;
        self.known_at = now;
        self.first_sent = NEVER;
        self.window = 1.0;
        self.early_at = NEVER;
        if is_news && !(is_early && self.is_explained) {
            self.refusals += 1.0;
        }
        if !self.is_hinted {
            reopens = arrived + self.guess();
        }
        if self.below_at == NEVER || reopens - self.below_at > MIN_NEWS {
            self.news_at = now;
        }
        self.below_at = reopens;
        reopens
    }

    /// `attempt` was admitted: its answer began at `now`.
    pub(super) fn on_accepted(&mut self, now: f64, attempt: &Attempt, share: Option<f64>) {
        self.on_known(attempt.at);
        self.on_admitted(now, attempt.at);
        if let Some(share) = share {
            self.on_utilization(now, attempt, share);
        }
    }

    /// The answer to `attempt` reported the level as a `share` of the limit.
    fn on_utilization(&mut self, now: f64, attempt: &Attempt, share: f64) {
        let is_deep =
            self.depth_shares >= MIN_SHARE_SUM && self.depth_error < MAX_TRUSTED_DEVIATION;
        if self.below_at == NEVER || !is_deep || !self.is_modelled() {
            return;
        }
        let one_way = self.one_way();
        let over = (share - 1.0) * (self.depth_hints / self.depth_shares) * SECOND;
        let since = self.drain_time(self.admitted - attempt.admitted_before);
        let before = attempt.at + one_way + over + since;
        let answering = now - one_way + over;
        let slack = one_way + (now - attempt.at) / UTILIZATION_AGE_DIVISOR;
        self.below_at = self.below_at.min(before.max(answering) + slack);
    }

    /// An attempt of `cost`, sent at `at`, ended without an answer that shows whether it was
    /// admitted.
    pub(super) fn on_cancelled(&mut self, at: f64, cost: f64) {
        self.on_known(at);
        if self.first_sent == at {
            self.first_sent = NEVER;
        }
        if self.early_at == at {
            self.early_at = NEVER;
        }
        self.give_back(cost);
    }

    /// The answer to an admitted attempt of `cost` ended `after` it was sent. `actual` is its cost,
    /// if known.
    pub(super) fn on_ended(&mut self, cost: f64, after: f64, actual: Option<f64>) {
        self.in_flight = (self.in_flight - cost).max(0.0);
        if self.answer_time == 0.0 {
            self.answer_time = after;
        } else {
            self.answer_time += DURATION_WEIGHT * (after - self.answer_time);
        }
        if let Some(actual) = actual {
            self.estimated = SUM_DECAY * self.estimated + cost;
            self.actual = SUM_DECAY * self.actual + actual;
            self.answers = SUM_DECAY * self.answers + 1.0;
            self.squared = SUM_DECAY * self.squared + cost * cost;
            self.product = SUM_DECAY * self.product + cost * actual;
            self.admitted += actual - cost;
            let later = self.shift(actual - cost);
            if later < 0.0 {
                self.closed_until += later;
            }
        }
    }

    /// A refusal at a level of `share` had a hint of `hint`.
    pub(super) fn on_depth(&mut self, share: f64, hint: f64) {
        let (over, hint) = (share - 1.0, hint / SECOND);
        if over <= 0.0 || hint <= 0.0 {
            return;
        }
        if self.depth_shares >= MIN_SHARE_SUM {
            let depth = self.depth_hints / self.depth_shares;
            let off = ((hint - over * depth).abs() - UTILIZATION_ROUNDING * depth).max(0.0);
            self.depth_error += DEVIATION_WEIGHT * ((off / hint).min(1.0) - self.depth_error);
        }
        self.depth_hints = SUM_DECAY_PER_REFUSAL * self.depth_hints + hint;
        self.depth_shares = SUM_DECAY_PER_REFUSAL * self.depth_shares + over;
    }

    /// Whether the PTU has had spare capacity for so long that its level is unknown.
    pub(super) fn is_idle(&self, now: f64) -> bool {
        let silent_for = now - self.known_at;
        self.below_at != NEVER
            && ((self.below_at - now < -IDLE_AFTER && silent_for > IDLE_AFTER + self.usual)
                || silent_for > FORGOTTEN_AFTER)
    }

    pub(super) fn on_idle(&mut self) {
        self.below_at = NEVER;
        self.doubt_at = NEVER;
        self.sample_at = NEVER;
    }

    /// When to send a request so that it reaches the PTU as its level falls below the limit.
    pub(super) fn sendable_at(&self) -> f64 {
        self.below_at - self.one_way() + DISPATCH_MARGIN
    }

    /// When to make the next attempt, for the request with `ahead` others ahead of it.
    pub(super) fn due(&self, ahead: f64) -> f64 {
        if self.below_at == NEVER {
            return NEVER;
        }
        let gap = self.silence() / self.window;
        let mut by_model = self.sendable_at();
        if self.is_modelled() {
            by_model += ahead * self.fill_time();
        } else {
            if self.first_sent != NEVER {
                by_model = by_model.max(self.silent_since + gap);
            }
            by_model += ahead * gap;
        }
        let early = if self.early_at == NEVER { self.check_at() } else { self.early_at + gap };
        by_model.min(early + ahead * gap)
    }

    /// When to make an early attempt.
    fn check_at(&self) -> f64 {
        self.refused_at + (CHECK_AND_TRIP - self.network).max(MIN_CHECK)
    }

    /// Until when a request that is sent is known to be refused.
    pub(super) fn refuses_until(&self) -> f64 {
        self.closed_until - self.one_way()
    }

    /// Whether the model predicted the last refusal, and neither it nor the hint expects the PTU to be
    /// open.
    pub(super) fn is_surely_closed(&self, now: f64) -> bool {
        let until = self.refuses_until().min(self.sendable_at());
        self.below_at != NEVER && self.is_explained && now < until
    }

    /// Whether a request that will not wait may probe, since no attempt was made for long.
    pub(super) fn is_due_anyway(&self, now: f64) -> bool {
        now - self.refused_at.max(self.last_sent) >= BYPASS_AFTER
    }

    /// The part of a request's time that is reserved for a refusal and a spill.
    pub(super) fn reserve(&self) -> f64 {
        (self.slowest * RESERVE_MARGIN).max(self.network * SILENCE_TRIPS)
    }

    /// How long a request waits behind a cost of `queued`.
    pub(super) fn wait_behind(&self, now: f64, queued: f64) -> f64 {
        if self.below_at == NEVER {
            return 0.0;
        }
        let closed = (self.sendable_at() - now).max(0.0);
        let wait = if self.is_modelled() { self.drained_after(closed, queued) } else { closed };
        wait.max(self.drought(now))
    }

    /// The same for a request of `rank`, including the more urgent requests that are expected.
    pub(super) fn predicted_wait(&self, now: f64, rank: u8, queued: f64) -> f64 {
        let mut urgent = 0.0;
        for other in 0..usize::from(rank) {
            urgent += self.arriving_at(other, now);
        }
        let mut share = 0.0;
        if self.is_modelled() {
            share = (self.ratio() * urgent / self.rate).min(MAX_URGENT_SHARE);
        }
        self.wait_behind(now, queued) / (1.0 - share)
    }

    fn arriving_at(&self, rank: usize, now: f64) -> f64 {
        if self.arriving[rank] == 0.0 {
            return 0.0;
        }
        self.arriving[rank] * (-(now - self.arrived_at[rank]).max(0.0) / ARRIVAL_WINDOW).exp()
    }

    pub(super) fn on_rank_arrival(&mut self, now: f64, rank: u8, cost: f64) {
        let rank = usize::from(rank);
        self.arriving[rank] = self.arriving_at(rank, now) + cost / (ARRIVAL_WINDOW / SECOND);
        self.arrived_at[rank] = now;
    }

    /// How long the PTU, closed for `closed`, takes to drain a cost of `queued` as well; see
    /// `Costs::wait_behind` in `gate/core`.
    fn drained_after(&self, closed: f64, queued: f64) -> f64 {
        let queued = self.drain_time(queued);
        let (ratio, duration) = (self.ratio(), self.answer_time);
        if duration <= 0.0 {
            return closed + ratio * queued;
        }
        let given_back = ((1.0 - ratio) * self.drain_time(self.in_flight)).max(0.0);
        let sooner = (closed + queued) / (1.0 + given_back / duration);
        if sooner <= duration {
            return sooner;
        }
        let b = closed - given_back + ratio * queued;
        let c = (1.0 - ratio) * duration * queued;
        (0.5 * (b + (b * b + 4.0 * c).max(0.0).sqrt())).max(0.0)
    }

    /// Actual cost as a share of the estimate.
    fn ratio(&self) -> f64 {
        if self.estimated > 0.0 { self.actual / self.estimated } else { 1.0 }
    }

    /// How long the PTU takes to drain `cost`; zero while its rate is not known.
    fn drain_time(&self, cost: f64) -> f64 {
        if self.is_modelled() { cost / self.rate * SECOND } else { 0.0 }
    }

    /// How long a request of the mean cost takes to drain.
    fn fill_time(&self) -> f64 {
        if self.is_modelled() {
            self.ratio() * self.mean / self.rate * SECOND
        } else {
            UNKNOWN_FILL
        }
    }

    fn one_way(&self) -> f64 {
        self.network / 2.0
    }

    /// How long an attempt must go unrefused to count as admitted.
    fn silence(&self) -> f64 {
        (self.usual * SILENCE_TRIPS).max(MIN_SILENCE)
    }

    fn is_silent(&self, now: f64) -> bool {
        self.first_sent != NEVER && now >= self.first_sent + self.silence()
    }

    /// The shortest wait to expect because nothing was admitted for that long.
    fn drought(&self, now: f64) -> f64 {
        if self.is_hinted || self.refusals < MIN_REFUSALS {
            return 0.0;
        }
        let dry = now - self.admitted_at;
        if dry > MIN_DROUGHT.max(MIN_DROUGHT_FILLS * self.fill_time()) { dry } else { 0.0 }
    }

    /// How long the PTU is assumed to stay closed without a hint: longer after each refusal.
    fn guess(&self) -> f64 {
        let mut guess = GUESS_FILLS * self.fill_time();
        let mut doublings = (self.refusals - 1.0).min(MAX_GUESS_DOUBLINGS);
        while doublings > 0.0 {
            guess *= 2.0;
            doublings -= 1.0;
        }
        guess.max(self.silence()).min(MAX_GUESS)
    }

    fn on_latency(&mut self, network: f64, known: f64) {
        let near = network.clamp(0.0, MAX_NETWORK);
        let took = known.max(0.0);
        if self.network == 0.0 {
            self.network = near;
        } else {
            self.network = near.min(self.network + self.network / NETWORK_GROWTH_DIVISOR);
        }
        if self.usual == 0.0 {
            self.usual = took;
        } else {
            self.usual += (took - self.usual) / USUAL_DIVISOR;
        }
        self.slowest = took.max(self.slowest - (self.slowest - took) / LONGEST_DECAY_DIVISOR);
    }

    fn on_known(&mut self, at: f64) {
        if self.silent_since == at {
            self.silent_since = NEVER;
        }
    }

    /// The attempt sent at `sent_at` was admitted, as is known at `now`.
    fn on_admitted(&mut self, now: f64, sent_at: f64) {
        if sent_at > self.refused_at {
            self.refusals = 0.0;
        }
        self.admitted_at = self.admitted_at.max(sent_at);
        if sent_at >= self.known_at {
            self.closed_until = self.closed_until.min(sent_at + self.one_way());
        }
        if self.refusals == 0.0 && self.doubt_at != NEVER {
            if self.doubt_reopens > now + MIN_REFUTED {
                self.refuted += 1.0;
            }
            self.doubt_at = NEVER;
            self.fade();
        }
    }

    fn on_hint(&mut self, hint: f64) {
        let repeats = hint > MIN_REPEATED && (hint - self.last_hint).abs() <= MILLISECOND;
        self.repeats += REPEATS_WEIGHT * (if repeats { 1.0 } else { 0.0 } - self.repeats);
        self.last_hint = hint;
    }

    fn claim(&self, decided: f64, hint: f64, later: f64) -> Claim {
        let mut expected = 0.0;
        if self.below_at != NEVER {
            expected = (self.below_at - decided).max(0.0);
        }
        let fill = if self.is_modelled() { self.drain_time(self.mean) } else { UNKNOWN_FILL };
        Claim { decided, hint, reopens: decided + hint + self.drain_time(later), expected, fill }
    }

    /// Whether to believe `claim`. If not, it is doubted from now on.
    fn believe(&mut self, claim: &Claim) -> bool {
        if claim.hint <= (DOUBT_FACTOR * (claim.expected + claim.fill)).max(MIN_DOUBTED) {
            self.doubt_at = NEVER;
            return true;
        }
        if self.refuted < MAX_REFUTED_RATIO * self.confirmed
            && claim.hint <= CREDIBLE_FACTOR * self.longest_hint
        {
            self.doubt_at = NEVER;
            return true;
        }
        if self.doubt_at != NEVER {
            let apart = claim.decided - self.doubt_at;
            let blur = claim.fill.min(MAX_BLUR);
            if (claim.reopens - self.doubt_reopens).abs() <= MAX_DRIFT * apart + blur {
                if apart < MIN_CONFIRMATION.max(2.0 * blur) {
                    return false;
                }
                self.confirmed += 1.0;
                self.longest_hint = (LONGEST_HINT_DECAY * self.longest_hint)
                    .max(self.doubt_reopens - self.doubt_at);
                self.doubt_at = NEVER;
                self.fade();
                return true;
            }
        }
        self.doubt_at = claim.decided;
        self.doubt_reopens = claim.reopens;
        false
    }

    fn fade(&mut self) {
        if self.confirmed + self.refuted > MAX_REMEMBERED {
            self.confirmed *= FADE_FACTOR;
            self.refuted *= FADE_FACTOR;
        }
    }

    /// Measures the drain rate at a refusal.
    fn measure(&mut self, at: f64, excess: f64, admitted: f64) {
        let is_settling = at < self.settled_at;
        if is_settling && !self.is_provisional {
            return;
        }
        if self.sample_at == NEVER {
            (self.sample_at, self.sample_excess, self.sample_admitted) = (at, excess, admitted);
            return;
        }
        let cost = admitted - self.sample_admitted;
        let time = (at - self.sample_at) / SECOND;
        let drained = time + (excess - self.sample_excess) / SECOND;
        let is_first = self.rate_time == 0.0 && cost > 0.0;
        if (time < MIN_INTERVAL_S && !is_first) || drained < MIN_DRAIN_S {
            return;
        }
        (self.sample_at, self.sample_excess, self.sample_admitted) = (at, excess, admitted);
        if self.is_provisional && !is_settling {
            (self.rate_cost, self.rate_time, self.is_provisional) = (0.0, 0.0, false);
        }
        let kept = (-drained / RATE_SAMPLE_WINDOW_S).exp();
        self.rate_cost = kept * self.rate_cost + cost;
        self.rate_time = kept * self.rate_time + drained;
        if self.rate_cost > 0.0 {
            self.rate = self.rate_cost / self.rate_time;
        }
    }

    fn give_back(&mut self, cost: f64) {
        self.uncount(cost);
        self.shift(-cost);
    }

    fn uncount(&mut self, cost: f64) {
        self.admitted -= cost;
        self.in_flight = (self.in_flight - cost).max(0.0);
    }

    /// The level turns out to be `cost` higher than modelled. Returns how much later it falls below
    /// the limit.
    fn shift(&mut self, cost: f64) -> f64 {
        let time = self.drain_time(cost);
        if self.below_at != NEVER {
            self.below_at += time;
        }
        time
    }

    // The standing queue.

    /// The longest wait worth starting for a request of `cost` that may wait for `budget`. `interval`
    /// is how long a queue may stand; zero never cuts it.
    pub(super) fn allowed_wait(
        &self,
        interval: f64,
        budget: f64,
        cost: f64,
        is_behind: bool,
    ) -> f64 {
        if interval == 0.0 || !is_behind {
            return budget;
        }
        let shared = budget.min((budget * self.share).max(2.0 * TARGET));
        (shared * self.worth(cost).max(MIN_SIZE_SHARE)).min(budget)
    }

    /// How much a request of `cost` is worth waiting for, beside one of the mean.
    fn worth(&self, cost: f64) -> f64 {
        let size = if self.mean > 0.0 { cost / self.mean } else { 1.0 };
        let size = size.max(MIN_RELATIVE_COST);
        self.relative_cost(cost, size) / size.sqrt()
    }

    /// What a request of `cost` will cost in the end, as a multiple of the mean.
    fn relative_cost(&self, cost: f64, size: f64) -> f64 {
        let spread = self.answers * self.squared - self.estimated * self.estimated;
        if spread <= MIN_SPREAD * self.estimated * self.estimated {
            return size;
        }
        let common = self.answers * self.product - self.estimated * self.actual;
        let slope = (common / spread).max(0.0);
        let base = (self.actual - slope * self.estimated) / self.answers;
        let mean = base + slope * self.mean;
        if mean > 0.0 { ((base + slope * cost) / mean).max(MIN_RELATIVE_COST) } else { size }
    }

    /// A request arrives and would have to wait for `wait` of its `budget`.
    pub(super) fn on_predicted(&mut self, interval: f64, now: f64, wait: f64, budget: f64) {
        if interval == 0.0 {
            return;
        }
        let interval = interval.max(INTERVAL_WAITS * budget);
        if self.idle_since != NEVER {
            let idle = ((now - self.idle_since) / SECOND).min(MAX_IDLE_S);
            self.share = (self.share * (LN_IDLE_GROWTH_PER_S * idle).exp()).min(1.0);
            self.idle_since = NEVER;
            self.emptied_at = now;
        }
        if wait <= TARGET.max(TARGET_SHARE * budget) {
            self.emptied_at = now;
            if now >= self.change_at {
                self.share = (self.share * GROWTH_PER_INTERVAL).min(1.0);
                self.change_at = now + interval;
            }
            return;
        }
        let stands_for = (interval * self.share).max(CUT_INTERVAL);
        if now - self.emptied_at >= stands_for && now >= self.change_at {
            self.share = (self.share * CUT_FACTOR).max(MIN_SHARE);
            self.change_at = now + CUT_INTERVAL;
        }
    }
}
