//! A naive gate: it keeps the whole history, and works everything out of it again each time.

use std::time::Duration;

use super::probing::SentBecause;
use crate::gate::core::{
    Nanos, QueueKey, nanos,
    rate_estimator::{DrainRate, Trust},
    seconds,
    standing_queue::StandingQueue,
};

/// What [`Core`](crate::gate::core::Core) claims to be, in the plainest code.
///
/// The formulas are in the units of the core, nanoseconds and whole weighted tokens, so that both
/// have to agree to the last digit. Only the drain rate and the standing-queue rule are shared.
pub(super) struct Reference {
    drain_rate: DrainRate,
    standing_queue: StandingQueue,
    pub(super) waiting: Vec<QueuedRequest>,
    pub(super) history: Vec<Event>,
    orders: u64,
}

pub(super) struct QueuedRequest {
    key: QueueKey,
    cost: f64,
    latest: Nanos,
}

/// An attempt: where it stands in the history.
pub(super) type Attempt = usize;

pub(super) enum Event {
    Arrived {
        cost: f64,
    },
    Sent {
        key: QueueKey,
        cost: f64,
        at: Nanos,
        rate: Option<f64>,
        why: SentBecause,
    },
    Gone {
        attempt: Attempt,
        rate: Option<f64>,
    },
    Accepted {
        widens: bool,
    },
    Finished {
        attempt: Attempt,
        actual: f64,
        rate: Option<f64>,
    },
    /// What was sent after it, and it did not know of, takes `later` to drain.
    Refused {
        took: Nanos,
        reopens: Nanos,
        later: Nanos,
    },
    Idle,
}

#[derive(Debug, PartialEq)]
pub(super) enum Expected {
    Go,
    Wait,
    Spill,
}

impl Reference {
    pub(super) fn new(interval: Option<Duration>) -> Self {
        Self {
            drain_rate: DrainRate::new(),
            standing_queue: StandingQueue::new(interval),
            waiting: Vec::new(),
            history: Vec::new(),
            orders: 0,
        }
    }

    pub(super) fn is_idle(&mut self, now: Nanos) -> bool {
        self.look(now);
        self.below_limit_at().is_none()
    }

    pub(super) fn arrive(
        &mut self,
        now: Nanos,
        cost: f64,
        rank: u8,
        deadline: Nanos,
    ) -> (QueueKey, Expected) {
        self.look(now);
        self.history.push(Event::Arrived { cost });
        let key = self.key(rank);
        let latest = self.latest(deadline);
        let (wait, budget) = (self.predicted_wait(now, rank), seconds((latest - now).max(0)));
        let mean = self.mean();
        let requests = if mean > 0.0 { wait * self.drain_rate.rate() / mean } else { 0.0 };
        self.standing_queue.on_arrival(seconds(now), wait, budget, requests);
        let allowed = self.standing_queue.allowed_wait(budget);
        let allowed = if self.trusted_rate().is_some() { allowed / 1.05 } else { allowed };
        let overtakes_all = self.waiting.iter().all(|other| goes_before(key, other.key));
        let expected = if overtakes_all && self.due() <= now {
            Expected::Go
        } else if wait > allowed && self.wait_behind(now, rank).is_none_or(|wait| wait > allowed) {
            Expected::Spill
        } else {
            self.waiting.push(QueuedRequest { key, cost, latest });
            Expected::Wait
        };
        (key, expected)
    }

    /// What the request at `key` is to do, and until when it is to wait.
    pub(super) fn turn(&mut self, now: Nanos, key: QueueKey, deadline: Nanos) -> (Expected, Nanos) {
        self.look(now);
        let is_head = self.head() == Some(key);
        let due = is_head.then(|| self.due());
        let latest = self.latest(deadline);
        if now <= latest && due.is_some_and(|due| due <= now) {
            return (Expected::Go, now);
        }
        if now >= latest {
            self.leave(key);
            return (Expected::Spill, now);
        }
        (Expected::Wait, due.map_or(latest, |due| due.min(latest)))
    }

    /// An attempt goes, from the queue or past it.
    pub(super) fn send(&mut self, now: Nanos, key: QueueKey, cost: f64) -> Attempt {
        self.leave(key);
        let (rate, why) = (self.trusted_rate(), self.why(now));
        self.history.push(Event::Sent { key, cost, at: now, rate, why });
        self.history.len() - 1
    }

    /// An attempt that was sent while nothing was known moves no level.
    pub(super) fn untracked(&mut self, at: Nanos, cost: f64, rank: u8) -> Attempt {
        let key = self.key(rank);
        if self.below_limit_at().is_none() {
            self.drain_rate.on_first_refusal(seconds(at));
        }
        self.history.push(Event::Sent { key, cost, at, rate: None, why: SentBecause::Unasked });
        self.history.len() - 1
    }

    pub(super) fn refused(
        &mut self,
        now: Nanos,
        attempt: Attempt,
        closed: Duration,
        is_measured: bool,
        deadline: Nanos,
    ) -> Option<QueueKey> {
        let (key, cost, at) = self.sent(attempt);
        let took = (now - at).clamp(0, 100_000_000);
        let round_trip = shortest(self.round_trip(), took);
        let decided = now - round_trip / 2;
        let reopens = decided + nanos(closed);
        self.gone(attempt);
        let (seen, later) = self.seen_by(attempt, reopens);
        if is_measured {
            self.drain_rate.on_refused(seconds(decided), closed.as_secs_f64(), seen);
        }
        self.history.push(Event::Refused { took, reopens, later });
        (reopens <= deadline).then(|| {
            self.waiting.push(QueuedRequest { key, cost, latest: self.latest(deadline) });
            key
        })
    }

    pub(super) fn accepted(&mut self, now: Nanos) {
        let is_open = self.below_limit_at().is_some_and(|at| at <= now);
        let widens = is_open && self.trusted_rate().is_none();
        self.history.push(Event::Accepted { widens });
    }

    pub(super) fn gone(&mut self, attempt: Attempt) {
        self.history.push(Event::Gone { attempt, rate: self.trusted_rate() });
    }

    pub(super) fn finished(&mut self, attempt: Attempt, actual: f64) {
        self.history.push(Event::Finished { attempt, actual, rate: self.trusted_rate() });
    }

    pub(super) fn leave(&mut self, key: QueueKey) {
        self.waiting.retain(|other| other.key != key);
    }

    pub(super) fn head(&self) -> Option<QueueKey> {
        let keys = self.waiting.iter().map(|request| request.key);
        keys.reduce(|a, b| if goes_before(a, b) { a } else { b })
    }

    /// When the level falls below the limit, by the last refusal and all that came after it.
    pub(super) fn below_limit_at(&self) -> Option<Nanos> {
        let is_start = |event: &Event| matches!(event, Event::Refused { .. } | Event::Idle);
        let start = self.history.iter().rposition(is_start)?;
        let Event::Refused { reopens, later, .. } = self.history[start] else {
            return None;
        };
        let mut below_at = reopens + later;
        for event in &self.history[start + 1..] {
            match *event {
                Event::Sent { cost, at, rate: Some(rate), ref why, .. } => {
                    if let SentBecause::Silence { arrives } = *why {
                        below_at = below_at.min(arrives);
                    }
                    below_at =
                        below_at.max(at - MAX_MODELLED_SPARE_NS) + drain_time(cost, Some(rate));
                }
                Event::Finished { attempt, actual, rate } => {
                    below_at += drain_time(actual - self.sent(attempt).1, rate);
                }
                Event::Gone { attempt, rate } => {
                    below_at += drain_time(-self.sent(attempt).1, rate);
                }
                _ => {}
            }
        }
        Some(below_at)
    }

    pub(super) fn trust(&self) -> Trust {
        self.drain_rate.trust()
    }

    pub(super) fn trusted_rate(&self) -> Option<f64> {
        self.drain_rate.is_trusted().then(|| self.drain_rate.rate())
    }

    pub(super) fn rate(&self) -> f64 {
        self.drain_rate.rate()
    }

    /// The last instant at which a request may go that has to be sent somewhere by `deadline`.
    pub(super) fn latest(&self, deadline: Nanos) -> Nanos {
        let round_trip = self.round_trip();
        deadline - round_trip - round_trip / 2
    }

    /// Each look finds that the queue has emptied or that the gate is idle, or lets the rate drift.
    fn look(&mut self, now: Nanos) {
        let Some(at) = self.below_limit_at() else { return };
        if now - at > 500_000_000 {
            self.standing_queue.on_empty();
        }
        if now - at > 1_000_000_000 && self.waiting.is_empty() {
            self.drain_rate.on_ran_dry();
            self.history.push(Event::Idle);
        } else {
            self.drain_rate.advance(seconds(now), self.mean());
        }
    }

    fn key(&mut self, rank: u8) -> QueueKey {
        self.orders += 1;
        QueueKey { rank, order: self.orders - 1 }
    }

    fn predicted_wait(&self, now: Nanos, rank: u8) -> f64 {
        let Some(at) = self.below_limit_at() else { return 0.0 };
        let closed = seconds(at - self.round_trip() / 2 - now);
        let ahead: f64 = self.ahead_of(rank).iter().map(|request| request.cost).sum();
        let ahead = self.trusted_rate().map_or(0.0, |rate| self.ratio() * ahead / rate);
        (closed + ahead).max(0.0)
    }

    /// The same without those that will have left by their turn; `None` when that is not worth
    /// knowing, or not known.
    fn wait_behind(&self, now: Nanos, rank: u8) -> Option<f64> {
        let (at, rate) = (self.below_limit_at()?, self.trusted_rate()?);
        let mut turn = Nanos::max(at - self.round_trip() / 2, now);
        for request in self.ahead_of(rank) {
            if request.latest >= turn {
                turn += drain_time(self.ratio() * request.cost, Some(rate));
            }
        }
        (self.waiting.len() <= 64).then(|| seconds(turn - now))
    }

    /// Who goes before a newcomer of `rank`, in the order in which they go.
    fn ahead_of(&self, rank: u8) -> Vec<&QueuedRequest> {
        let ahead = self.waiting.iter().filter(|request| request.key.rank <= rank);
        let mut ahead: Vec<_> = ahead.collect();
        ahead.sort_by_key(|request| (request.key.rank, request.key.order));
        ahead
    }

    /// The cost that the refusal of `attempt` knew of, and how long the rest takes to drain.
    fn seen_by(&self, attempt: Attempt, reopens: Nanos) -> (f64, Nanos) {
        let (before, all) = (admitted(&self.history[..attempt]), admitted(&self.history));
        let Some(rate) = self.trusted_rate() else { return (before, 0) };
        let later = drain_time((all - before).max(0.0), Some(rate));
        // By the model, a hint that knew of everything would say this.
        let overtaken = self.below_limit_at().is_some_and(|at| reopens > at - later + later / 2);
        if overtaken && later >= 100_000_000 && !self.is_checking() {
            (all, 0)
        } else {
            (before, later)
        }
    }

    fn mean(&self) -> f64 {
        self.history.iter().fold(0.0, |mean, event| match event {
            Event::Arrived { cost } if mean == 0.0 => *cost,
            Event::Arrived { cost } => mean + 0.05 * (cost - mean),
            _ => mean,
        })
    }

    fn ratio(&self) -> f64 {
        self.history.iter().fold(1.0, |ratio, event| match *event {
            Event::Finished { attempt, actual, .. } => match self.sent(attempt) {
                (_, cost, _) if cost > 0.0 => ratio + 0.02 * (actual / cost - ratio),
                _ => ratio,
            },
            _ => ratio,
        })
    }

    pub(super) fn round_trip(&self) -> Nanos {
        self.history.iter().fold(0, |known, event| match event {
            Event::Refused { took, .. } => shortest(known, *took),
            _ => known,
        })
    }

    fn sent(&self, attempt: Attempt) -> (QueueKey, f64, Nanos) {
        match self.history[attempt] {
            Event::Sent { key, cost, at, .. } => (key, cost, at),
            _ => unreachable!("an attempt was sent"),
        }
    }
}

/// The cost of all that was sent and not refused or lost, corrected where the end is known.
fn admitted(history: &[Event]) -> f64 {
    let cost = |attempt: Attempt| match history[attempt] {
        Event::Sent { cost, .. } => cost,
        _ => unreachable!("an attempt was sent"),
    };
    history.iter().fold(0.0, |sum, event| match *event {
        Event::Sent { cost, .. } => sum + cost,
        Event::Gone { attempt, .. } => sum - cost(attempt),
        Event::Finished { attempt, actual, .. } => sum + actual - cost(attempt),
        _ => sum,
    })
}

fn goes_before(a: QueueKey, b: QueueKey) -> bool {
    a.rank < b.rank || (a.rank == b.rank && a.order < b.order)
}

fn drain_time(cost: f64, rate: Option<f64>) -> Nanos {
    rate.map_or(0, |rate| (cost / rate * 1e9) as Nanos)
}

/// The shortest round trip, which may have become a little longer since.
fn shortest(known: Nanos, took: Nanos) -> Nanos {
    if known == 0 { took } else { took.min(known + known / 16) }
}

const MAX_MODELLED_SPARE_NS: Nanos = 60_000_000_000;
