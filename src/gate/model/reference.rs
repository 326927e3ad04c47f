//! A naive gate: it keeps the whole history, and works everything out of it again each time.

use std::time::Duration;

use crate::gate::{
    core::{Nanos, nanos, seconds},
    meter::Meter,
    queue::Place,
    standing::Standing,
};

/// What [`Core`](crate::gate::core::Core) claims to be, written down without any cleverness.
///
/// The formulas are in the units of the core, nanoseconds and whole weighted tokens, so that both
/// have to agree to the last digit. Only the meter and the standing-queue rule are shared.
pub(super) struct Reference {
    meter: Meter,
    standing: Standing,
    pub(super) waiting: Vec<(Place, f64)>,
    history: Vec<Event>,
    orders: u64,
}

/// An attempt: where it stands in the history.
pub(super) type Attempt = usize;

enum Event {
    Arrived { cost: f64 },
    Sent { place: Place, cost: f64, at: Nanos, rate: Option<f64> },
    Gone { attempt: Attempt, rate: Option<f64> },
    Accepted { widens: bool },
    Finished { attempt: Attempt, actual: f64, rate: Option<f64> },
    Refused { attempt: Attempt, took: Nanos, reopens: Nanos, rate: Option<f64> },
    Idle,
}

#[derive(Debug, PartialEq)]
pub(super) enum Expected {
    Go,
    Wait,
    Spill,
}

impl Reference {
    pub(super) fn new(patience: Option<Duration>) -> Self {
        Self {
            meter: Meter::new(),
            standing: Standing::new(patience),
            waiting: Vec::new(),
            history: Vec::new(),
            orders: 0,
        }
    }

    pub(super) fn is_idle(&mut self, now: Nanos) -> bool {
        self.look(now);
        self.clear().is_none()
    }

    pub(super) fn arrive(
        &mut self,
        now: Nanos,
        cost: f64,
        rank: u8,
        deadline: Nanos,
    ) -> (Place, Expected) {
        self.look(now);
        self.history.push(Event::Arrived { cost });
        let place = self.place(rank);
        let (wait, budget) = (self.predicted_wait(now, rank), seconds(deadline - now));
        let mean = self.mean();
        let jobs = if mean > 0.0 { wait * self.meter.rate() / mean } else { 0.0 };
        self.standing.observe(seconds(now), wait, budget, jobs);
        let overtakes_all = self.waiting.iter().all(|&(other, _)| goes_before(place, other));
        let expected = if overtakes_all && self.due().is_some_and(|due| due <= now) {
            Expected::Go
        } else if wait > self.standing.allowed(budget) {
            Expected::Spill
        } else {
            self.waiting.push((place, cost));
            Expected::Wait
        };
        (place, expected)
    }

    /// What the request at `place` is to do, and until when it is to wait.
    pub(super) fn turn(&mut self, now: Nanos, place: Place, deadline: Nanos) -> (Expected, Nanos) {
        self.look(now);
        let is_head = self.head() == Some(place);
        let due = self.due().filter(|_| is_head);
        let latest = self.latest(deadline);
        if now <= latest && due.is_some_and(|due| due <= now) {
            return (Expected::Go, now);
        }
        if now >= latest {
            self.leave(place);
            return (Expected::Spill, now);
        }
        (Expected::Wait, due.map_or(latest, |due| due.min(latest)))
    }

    /// An attempt goes, from the queue or past it.
    pub(super) fn send(&mut self, now: Nanos, place: Place, cost: f64) -> Attempt {
        self.leave(place);
        self.history.push(Event::Sent { place, cost, at: now, rate: self.trusted_rate() });
        self.history.len() - 1
    }

    /// An attempt that was sent while nothing was known moves no level.
    pub(super) fn untracked(&mut self, at: Nanos, cost: f64, rank: u8) -> Attempt {
        let place = self.place(rank);
        self.history.push(Event::Sent { place, cost, at, rate: None });
        self.history.len() - 1
    }

    pub(super) fn refused(
        &mut self,
        now: Nanos,
        attempt: Attempt,
        closed: Duration,
        is_measured: bool,
        deadline: Nanos,
    ) -> Option<Place> {
        let (place, cost, at) = self.sent(attempt);
        let took = (now - at).clamp(0, 100_000_000);
        let round_trip = shortest(self.round_trip(), took);
        let decided = now - round_trip / 2;
        self.history.push(Event::Gone { attempt, rate: None });
        if is_measured {
            let mark = admitted(&self.history[..attempt]);
            self.meter.refused(seconds(decided), closed.as_secs_f64(), mark);
        }
        let reopens = decided + nanos(closed);
        let rate = self.trusted_rate();
        self.history.push(Event::Refused { attempt, took, reopens, rate });
        (reopens <= deadline).then(|| {
            self.waiting.push((place, cost));
            place
        })
    }

    pub(super) fn accepted(&mut self, now: Nanos) {
        let is_open = self.clear().is_some_and(|clear| clear <= now);
        let widens = is_open && self.trusted_rate().is_none();
        self.history.push(Event::Accepted { widens });
    }

    pub(super) fn gone(&mut self, attempt: Attempt) {
        self.history.push(Event::Gone { attempt, rate: self.trusted_rate() });
    }

    pub(super) fn finished(&mut self, attempt: Attempt, actual: f64) {
        self.history.push(Event::Finished { attempt, actual, rate: self.trusted_rate() });
    }

    pub(super) fn leave(&mut self, place: Place) {
        self.waiting.retain(|&(other, _)| other != place);
    }

    pub(super) fn head(&self) -> Option<Place> {
        let places = self.waiting.iter().map(|&(place, _)| place);
        places.reduce(|a, b| if goes_before(a, b) { a } else { b })
    }

    /// When the level passes the rim, by the last refusal and all that came after it.
    pub(super) fn clear(&self) -> Option<Nanos> {
        let is_start = |event: &Event| matches!(event, Event::Refused { .. } | Event::Idle);
        let start = self.history.iter().rposition(is_start)?;
        let Event::Refused { attempt, reopens, rate, .. } = self.history[start] else {
            return None;
        };
        // What was sent after the refused one came on top of what its refusal knew of.
        let on_top = admitted(&self.history[..start]) - admitted(&self.history[..attempt]);
        let mut clear = reopens + drain_time(on_top.max(0.0), rate);
        for event in &self.history[start + 1..] {
            match *event {
                Event::Sent { cost, at, rate: Some(rate), .. } => {
                    clear = clear.max(at - DEEPEST) + drain_time(cost, Some(rate));
                }
                Event::Finished { attempt, actual, rate } => {
                    clear += drain_time(actual - self.sent(attempt).1, rate);
                }
                Event::Gone { attempt, rate } => {
                    clear += drain_time(-self.sent(attempt).1, rate);
                }
                _ => {}
            }
        }
        Some(clear)
    }

    /// When the head is to go; `None` while it has to await an answer.
    pub(super) fn due(&self) -> Option<Nanos> {
        let Some(clear) = self.clear() else { return Some(Nanos::MIN) };
        let may_go = self.trusted_rate().is_some() || self.under_way() < self.window();
        may_go.then(|| clear - self.round_trip() / 2)
    }

    pub(super) fn trusted_rate(&self) -> Option<f64> {
        self.meter.is_trusted().then(|| self.meter.rate())
    }

    pub(super) fn rate(&self) -> f64 {
        self.meter.rate()
    }

    /// The attempts whose answer is awaited.
    pub(super) fn under_way(&self) -> usize {
        self.history.iter().fold(0, |count, event| match event {
            Event::Sent { .. } => count + 1,
            Event::Gone { .. } | Event::Accepted { .. } => count - 1,
            _ => count,
        })
    }

    /// One probe after a refusal, and one more for each that was admitted since.
    pub(super) fn window(&self) -> usize {
        let is_refusal = |event: &&Event| matches!(event, Event::Refused { .. });
        let since = self.history.iter().rev().take_while(|event| !is_refusal(event));
        1 + since.filter(|event| matches!(event, Event::Accepted { widens: true })).count()
    }

    /// The last instant at which a request may go that has to be sent somewhere by `deadline`.
    pub(super) fn latest(&self, deadline: Nanos) -> Nanos {
        let round_trip = self.round_trip();
        deadline - round_trip - round_trip / 2
    }

    /// Whoever looks finds that the queue has emptied or that the gate is idle, or lets the rate
    /// creep.
    fn look(&mut self, now: Nanos) {
        let Some(clear) = self.clear() else { return };
        if now - clear > 500_000_000 {
            self.standing.emptied();
        }
        if now - clear > 1_000_000_000 && self.waiting.is_empty() {
            self.meter.forget_mark();
            self.history.push(Event::Idle);
        } else {
            self.meter.creep(seconds(now), self.mean());
        }
    }

    fn place(&mut self, rank: u8) -> Place {
        self.orders += 1;
        Place { rank, order: self.orders - 1 }
    }

    fn predicted_wait(&self, now: Nanos, rank: u8) -> f64 {
        let Some(clear) = self.clear() else { return 0.0 };
        let closed = seconds(clear - self.round_trip() / 2 - now);
        let ahead = self.waiting.iter().filter(|(place, _)| place.rank <= rank);
        let ahead: f64 = ahead.map(|&(_, cost)| cost).sum();
        let ahead = self.trusted_rate().map_or(0.0, |rate| self.ratio() * ahead / rate);
        (closed + ahead).max(0.0)
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

    fn round_trip(&self) -> Nanos {
        self.history.iter().fold(0, |known, event| match event {
            Event::Refused { took, .. } => shortest(known, *took),
            _ => known,
        })
    }

    fn sent(&self, attempt: Attempt) -> (Place, f64, Nanos) {
        match self.history[attempt] {
            Event::Sent { place, cost, at, .. } => (place, cost, at),
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

fn goes_before(a: Place, b: Place) -> bool {
    a.rank < b.rank || (a.rank == b.rank && a.order < b.order)
}

fn drain_time(cost: f64, rate: Option<f64>) -> Nanos {
    rate.map_or(0, |rate| (cost / rate * 1e9) as Nanos)
}

/// The shortest round trip, which may have become a little longer since.
fn shortest(known: Nanos, took: Nanos) -> Nanos {
    if known == 0 { took } else { took.min(known + known / 16) }
}

const DEEPEST: Nanos = 60_000_000_000;
