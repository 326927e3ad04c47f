//! What the core knows of a PTU. Instants and durations are in microseconds, costs in weighted
//! tokens, rates in weighted tokens per second.

use super::{
    constants::{NEVER, SEED_TIME_S},
    queue::RANKS,
};

#[derive(Clone, Debug)]
pub(super) struct State {
    /// When the level falls below the limit; `NEVER` while it is unknown.
    pub(super) below_at: f64,
    // The drain rate: a quotient of decaying sums of cost and seconds, and the last sample.
    pub(super) rate: f64,
    pub(super) rate_cost: f64,
    pub(super) rate_time: f64,
    pub(super) sample_at: f64,
    pub(super) sample_excess: f64,
    pub(super) sample_admitted: f64,
    pub(super) settled_at: f64,
    pub(super) is_provisional: bool,
    // Costs: the mean estimate; decaying sums over answers of their estimates, their actual costs, their
    // number, the squared estimates, and the products of both; and what is in flight.
    pub(super) mean: f64,
    pub(super) estimated: f64,
    pub(super) actual: f64,
    pub(super) answers: f64,
    pub(super) squared: f64,
    pub(super) product: f64,
    pub(super) in_flight: f64,
    /// When `in_flight` decayed last.
    pub(super) decayed_at: f64,
    pub(super) answer_time: f64,
    pub(super) admitted: f64,
    pub(super) sent: f64,
    // Hints: the last one, the share of repeats, the doubted one, and confirmed and refuted ones.
    pub(super) last_hint: f64,
    pub(super) repeats: f64,
    pub(super) doubt_at: f64,
    pub(super) doubt_reopens: f64,
    pub(super) confirmed: f64,
    pub(super) refuted: f64,
    pub(super) longest_hint: f64,
    /// Whether the last refusal had a hint that is believed.
    pub(super) is_hinted: bool,
    // The prober, as in the gate of one process.
    pub(super) silent_since: f64,
    pub(super) early_at: f64,
    pub(super) window: f64,
    pub(super) first_sent: f64,
    pub(super) last_sent: f64,
    pub(super) refused_at: f64,
    pub(super) known_at: f64,
    pub(super) closed_until: f64,
    pub(super) is_explained: bool,
    // Latencies of refusals.
    pub(super) network: f64,
    pub(super) usual: f64,
    pub(super) slowest: f64,
    // Consecutive refusals, and the last admission.
    pub(super) refusals: f64,
    pub(super) admitted_at: f64,
    // The depth of the bucket: decaying sums of hints and of shares above 1, and their error.
    pub(super) depth_hints: f64,
    pub(super) depth_shares: f64,
    pub(super) depth_error: f64,
    // The standing queue.
    pub(super) share: f64,
    pub(super) emptied_at: f64,
    pub(super) change_at: f64,
    pub(super) idle_since: f64,
    /// When the PTU last turned out to reopen much later than modelled.
    pub(super) news_at: f64,
    pub(super) last_order: f64,
    /// When the fleet was last notified that the PTU is busy.
    pub(super) said_at: f64,
    /// When requests of dead processes were last looked for.
    pub(super) purged_at: f64,
    // By rank: cost waiting, and the smoothed cost per second that arrives, with its time.
    pub(super) queued: [f64; RANKS],
    pub(super) arriving: [f64; RANKS],
    pub(super) arrived_at: [f64; RANKS],
}

impl State {
    pub(super) const fn new(now: f64) -> Self {
        Self {
            below_at: NEVER,
            rate: 0.0,
            rate_cost: 0.0,
            rate_time: 0.0,
            sample_at: NEVER,
            sample_excess: 0.0,
            sample_admitted: 0.0,
            settled_at: NEVER,
            is_provisional: true,
            mean: 0.0,
            estimated: 0.0,
            actual: 0.0,
            answers: 0.0,
            squared: 0.0,
            product: 0.0,
            in_flight: 0.0,
            decayed_at: now,
            answer_time: 0.0,
            admitted: 0.0,
            sent: 0.0,
            last_hint: NEVER,
            repeats: 0.0,
            doubt_at: NEVER,
            doubt_reopens: 0.0,
            confirmed: 0.5,
            refuted: 0.5,
            longest_hint: 0.0,
            is_hinted: false,
            silent_since: NEVER,
            early_at: NEVER,
            window: 1.0,
            first_sent: NEVER,
            last_sent: NEVER,
            refused_at: NEVER,
            known_at: NEVER,
            closed_until: NEVER,
            is_explained: false,
            network: 0.0,
            usual: 0.0,
            slowest: 0.0,
            refusals: 0.0,
            admitted_at: NEVER,
            depth_hints: 0.0,
            depth_shares: 0.0,
            depth_error: 0.0,
            share: 1.0,
            emptied_at: now,
            change_at: now,
            idle_since: now,
            news_at: NEVER,
            last_order: 0.0,
            said_at: NEVER,
            purged_at: NEVER,
            queued: [0.0; RANKS],
            arriving: [0.0; RANKS],
            arrived_at: [0.0; RANKS],
        }
    }

    /// The state of a store that lost its data, from its last answer to a process: the PTU stays closed for
    /// `closed` and drains at `rate`.
    pub(super) fn seed(&mut self, now: f64, closed: f64, rate: f64) {
        self.below_at = now + closed;
        self.rate = rate;
        self.rate_time = SEED_TIME_S;
        self.rate_cost = rate * SEED_TIME_S;
        self.is_provisional = false;
        self.refused_at = now;
        self.known_at = now;
        self.closed_until = self.below_at;
        self.admitted_at = now;
    }

    pub(super) fn is_modelled(&self) -> bool {
        self.rate > 0.0
    }
}
