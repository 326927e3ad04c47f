//! The gate of one process as a member of a fleet.

use std::{
    fmt,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::micros;
use crate::{
    fleet::{
        Answer, Call, Caller, GateCall, GateNews, GateReply, Kind, Name, OnBusy, Seed, SpillKind,
        Step, duration,
    },
    gate::{GateShared, GateState, core::Evidence},
    sync::{AtomicU64, Mutex, MutexGuard, clock},
};

/// The gate of a process as a member of a fleet.
pub(in crate::gate) struct FleetMember {
    caller: Arc<Caller>,
    name: Name,
    /// How long a queue may stand, in microseconds; zero never cuts it.
    interval: f64,
    epoch: Instant,
    /// Until when the PTU is busy, in nanoseconds since `epoch`.
    busy_until: AtomicU64,
    /// Requests of this process that wait in the store's queue.
    pub(super) waiting: AtomicUsize,
    link: Mutex<Link>,
}

/// What is known of the store, and what is sent to it next.
struct Link {
    /// Half of a smoothed round trip to the store, in microseconds.
    lead: f64,
    /// The last reply: when the PTU reopens, and its drain rate.
    last: Option<(Instant, f64)>,
    /// The last arrival: its rank, and when it was expected to be served.
    expected: Option<(u8, Instant)>,
    /// Since when the drain rate is known, or not known.
    since: Instant,
    /// Whether the local core was seeded with the last reply.
    is_seeded: bool,
    /// Steps that no request waits for, with the instants at which they happened.
    untold: Vec<(Instant, Step)>,
    /// When the store was called last, and the smoothed time between calls, in microseconds.
    called_at: Instant,
    between_calls: f64,
}

impl FleetMember {
    pub(in crate::gate) fn new(
        caller: &Arc<Caller>,
        name: &str,
        interval: Option<Duration>,
        epoch: Instant,
    ) -> Self {
        let link = Link {
            lead: INITIAL_LEAD,
            last: None,
            expected: None,
            since: epoch,
            is_seeded: false,
            untold: Vec::new(),
            called_at: epoch,
            between_calls: 0.0,
        };
        Self {
            name: caller.name(Kind::Gate, name),
            caller: Arc::clone(caller),
            interval: interval.map_or(0.0, micros),
            epoch,
            busy_until: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            link: Mutex::new(link),
        }
    }

    /// Notifies `gate`, of which this is a part, when its PTU is busy.
    pub(in crate::gate) fn listen(&self, gate: &Arc<GateShared>) {
        self.caller.listen(&self.name, GateNews::new(gate));
    }

    /// Whether the store said that the PTU is busy at `now`.
    pub(in crate::gate) fn is_busy(&self, now: Instant) -> bool {
        let now = now.saturating_duration_since(self.epoch);
        now.as_nanos() < u128::from(self.busy_until.load(Ordering::Relaxed))
    }

    pub(in crate::gate) fn is_up(&self) -> bool {
        self.caller.is_up()
    }

    pub(in crate::gate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// The drain rate that the store knows.
    pub(in crate::gate) fn rate(&self) -> Option<f64> {
        self.lock().last.map(|(_, rate)| rate).filter(|rate| *rate > 0.0)
    }

    /// What the store knows of the PTU, and for how long.
    pub(in crate::gate) fn state(&self, now: Instant) -> GateState {
        let link = self.lock();
        let rate = link.last.map(|(_, rate)| rate).filter(|rate| *rate > 0.0);
        let evidence = match rate {
            Some(rate) => Evidence::Measured { rate },
            None => Evidence::Learning { refusals: 1, rate },
        };
        GateState::new(evidence, now.saturating_duration_since(link.since))
    }

    /// How far the PTU is above its limit, in weighted tokens, if the store knows it.
    pub(in crate::gate) fn level(&self, now: Instant) -> Option<f64> {
        let (reopens, rate) = self.lock().last.filter(|(_, rate)| *rate > 0.0)?;
        let below = now.saturating_duration_since(reopens).as_secs_f64();
        Some((reopens.saturating_duration_since(now).as_secs_f64() - below) * rate)
    }

    /// How long a request of `rank` that arrives now waits: at least until the PTU reopens, and no less
    /// than what is left of the wait of the last one, unless that was less urgent.
    pub(in crate::gate) fn predicted_wait(&self, now: Instant, rank: u8) -> Duration {
        let Link { last, expected, .. } = *self.lock();
        let reopens = last.map(|(reopens, _)| reopens);
        let behind = expected.filter(|(ahead, _)| *ahead <= rank).map(|(_, served)| served);
        let served = reopens.max(behind);
        served.map_or(Duration::ZERO, |served| served.saturating_duration_since(now))
    }

    /// The store answered a request of `rank` that arrived.
    pub(super) fn on_arrival(&self, now: Instant, rank: u8, answer: &Answer) {
        let wait = match *answer {
            Answer::Go { after, .. } => after,
            Answer::Wait { predicted, .. } => predicted,
            Answer::Spill { cause: SpillKind::Late, .. } => return,
            Answer::Spill { wait, .. } => wait,
        };
        self.lock().expected = Some((rank, now + duration(wait)));
    }

    /// What this process goes by while the store does not answer: when the PTU reopens, and this
    /// process's share of its rate. `None` if nothing is known, or that was said already.
    pub(in crate::gate) fn seed_alone(&self) -> Option<(Instant, f64)> {
        let mut link = self.lock();
        let (reopens, rate) = link.last.filter(|_| !link.is_seeded)?;
        link.is_seeded = true;
        Some((reopens, rate / f64::from(self.caller.replicas())))
    }

    fn on_closed(&self, now: Instant, closed: Duration) {
        let until = now.saturating_duration_since(self.epoch) + closed.min(MAX_BUSY) + BUSY_MARGIN;
        let until = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
        self.busy_until.fetch_max(until, Ordering::Relaxed);
    }

    /// Tells the store soon. Steps are gathered, because most come in pairs or before a question, unless
    /// the process calls the store so rarely that the next call is later than that.
    pub(super) fn tell(&self, now: Instant, step: Step) {
        let untold = {
            let mut link = self.lock();
            link.untold.push((now, step));
            let oldest = link.untold[0].0;
            let is_due = now.saturating_duration_since(oldest) >= MAX_TELLING_DELAY
                || link.untold.len() >= MAX_UNTOLD
                || link.between_calls >= micros(MAX_TELLING_DELAY);
            is_due.then(|| self.call(&mut link, now, None))
        };
        if let Some(call) = untold {
            self.caller.tell_gate(&self.name, call);
        }
    }

    /// A call with all steps that were not sent yet, and then `question`.
    fn call(&self, link: &mut Link, now: Instant, question: Option<Step>) -> GateCall {
        let since = micros(now.saturating_duration_since(link.called_at)).min(MAX_BETWEEN_CALLS);
        link.between_calls += (since - link.between_calls) / BETWEEN_CALLS_DIVISOR;
        link.called_at = now;
        let untold = link.untold.drain(..).map(|(at, step)| {
            let ago = micros(now.saturating_duration_since(at));
            match step {
                Step::Accepted { attempt, share, .. } => {
                    Step::Accepted { attempt, since: ago + link.lead.round(), share }
                }
                step => step,
            }
        });
        let steps = untold.chain(question).collect();
        let seed = link.last.map_or(Seed { closed: 0.0, rate: 0.0 }, |(reopens, rate)| Seed {
            closed: micros(reopens.saturating_duration_since(now)),
            rate,
        });
        GateCall { interval: self.interval, seed, steps }
    }

    /// Starts to ask; `None` if the store is down.
    pub(super) fn ask(
        &self,
        now: Instant,
        question: impl FnOnce(f64) -> Step,
    ) -> Option<Call<GateReply>> {
        let call = {
            let mut link = self.lock();
            let question = question(link.lead.round());
            self.call(&mut link, now, Some(question))
        };
        self.caller.gate(&self.name, call)
    }

    /// The store replied to what was asked at `asked`. Returns for how long the PTU stays closed.
    pub(super) fn on_reply(
        &self,
        asked: Instant,
        now: Instant,
        reply: &GateReply,
    ) -> Option<Duration> {
        let trip = micros(now.saturating_duration_since(asked));
        let mut link = self.lock();
        link.lead += (trip / 2.0 - link.lead) / LEAD_DIVISOR;
        link.is_seeded = false;
        let closed = duration(reply.0.closed?);
        let was_known = link.last.is_some_and(|(_, rate)| rate > 0.0);
        if link.last.is_none() || was_known != (reply.0.rate > 0.0) {
            link.since = now;
        }
        link.last = Some((now + closed, reply.0.rate));
        Some(closed)
    }

    fn lock(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GateShared {
    /// The fleet's PTU stays closed for `closed` after `now`, so that requests ask the store.
    pub(in crate::gate) fn on_fleet_closed(&self, now: Instant, closed: Duration) {
        if let Some(member) = &self.fleet {
            member.on_closed(now, closed);
            // A request that finds the gate idle may be about to say so.
            let _core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
            self.busy.store(true, Ordering::Relaxed);
        }
    }
}

impl OnBusy for GateShared {
    fn busy_for(&self, time: Duration) {
        self.on_fleet_closed(clock::now(), time.saturating_sub(BUSY_MARGIN));
    }
}

impl fmt::Debug for FleetMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetMember").finish_non_exhaustive()
    }
}

/// The assumed half of a round trip before the first reply: a store in the same region.
const INITIAL_LEAD: f64 = 500.0;
/// The smoothed round trip averages about this many calls.
const LEAD_DIVISOR: f64 = 16.0;
/// How long a process asks the store after the PTU reopened: the level is near the limit for about
/// that long, and news come four times a second.
const BUSY_MARGIN: Duration = Duration::from_secs(1);
/// Whatever a hint or the store says, this is the longest time before the PTU is called unasked.
const MAX_BUSY: Duration = Duration::from_secs(3_600);
/// A busy period predicts the next one; the time between the two does not.
const MAX_BETWEEN_CALLS: f64 = 1e6;
const BETWEEN_CALLS_DIVISOR: f64 = 16.0;
/// How long steps are gathered that no request waits for, and how many at most.
pub(super) const MAX_TELLING_DELAY: Duration = Duration::from_millis(20);
const MAX_UNTOLD: usize = 16;
