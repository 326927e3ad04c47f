//! A waiting request as a future, and the permit that it resolves to.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use super::{
    Gate, WeighedCost,
    core::{Decision, Nanos, QueueKey, SpillReason, TrackedAttempt},
    cost::{EstimateCost, Usage},
    fleet::{FleetAdmission, FleetAttempt, FleetRequest},
    sane,
};
use crate::{
    body::{Admitted, UsageSink},
    cooldown::{Failure, Watch},
    fleet::Ticket,
    sync::{AtomicBool, Sleep, clock, poll_sleep},
};

/// What a request is to do.
#[derive(Debug)]
pub(crate) enum Admission {
    Go(Permit),
    /// Wait, with the predicted wait in seconds.
    Wait(Waiter, f64),
    /// Waiting would not help, or did not.
    Spill(SpillReason),
}

/// A request in the gate's queue. It resolves when the request may be sent, or must spill.
///
/// Dropping it leaves the queue and wakes the request that is then at the head.
#[derive(Debug)]
pub(crate) struct Waiter {
    gate: Gate,
    /// `None` once it has left the queue.
    place: Option<QueueKey>,
    deadline: Nanos,
    sleep: Option<Pin<Box<Sleep>>>,
    /// Set while it waits in the queue of its fleet's store instead.
    fleet: Option<Box<FleetRequest>>,
}

/// A position in the queue, to return to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    Alone(QueueKey),
    Fleet(Ticket),
}

impl Place {
    pub(super) const fn key(self) -> Option<QueueKey> {
        match self {
            Self::Alone(key) => Some(key),
            Self::Fleet(_) => None,
        }
    }

    pub(super) const fn ticket(self) -> Option<Ticket> {
        match self {
            Self::Fleet(ticket) => Some(ticket),
            Self::Alone(_) => None,
        }
    }
}

/// An attempt that is accounted for.
#[derive(Clone, Debug)]
pub(super) enum Tracked {
    /// By the core of this process.
    Alone(Gate, TrackedAttempt),
    /// By the store of its fleet.
    Fleet(FleetAttempt),
}

impl Tracked {
    pub(super) fn alone(self) -> Option<TrackedAttempt> {
        match self {
            Self::Alone(_, attempt) => Some(attempt),
            Self::Fleet(_) => None,
        }
    }

    pub(super) fn of_fleet(self) -> Option<FleetAttempt> {
        match self {
            Self::Fleet(attempt) => Some(attempt),
            Self::Alone(..) => None,
        }
    }
}

/// Permission for one attempt. The outcome is reported through it; if it is dropped unreported, the
/// attempt counts as never made.
#[derive(Debug)]
pub(crate) struct Permit {
    /// `None` if nothing was known of the PTU, so that there is nothing to account for.
    tracked: Option<Tracked>,
    /// Whether a gate let the attempt go although it tracks nothing.
    is_passing: bool,
    /// Corrects the modelled cost when the answer ends, if there is one.
    correction: Option<Arc<CostCorrection>>,
    /// Set if the primary failed lately, or failed this request.
    watch: Option<Box<Watch<Gate>>>,
}

impl Waiter {
    pub(super) const fn new(gate: Gate, place: QueueKey, deadline: Nanos) -> Self {
        Self { gate, place: Some(place), deadline, sleep: None, fleet: None }
    }

    pub(super) fn of_fleet(gate: Gate, request: FleetRequest) -> Self {
        Self { gate, place: None, deadline: 0, sleep: None, fleet: Some(Box::new(request)) }
    }

    /// Whether the gate of a fleet decided without the fleet's store, as far as it has decided.
    pub(crate) fn is_alone(&self) -> bool {
        self.fleet.is_none() && self.gate.has_fleet()
    }

    /// Its position in the queue, to return to.
    pub(crate) fn place(&self) -> Option<Place> {
        match &self.fleet {
            Some(request) => request.ticket().map(Place::Fleet),
            None => self.place.map(Place::Alone),
        }
    }
}

impl Future for Waiter {
    type Output = Admission;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Admission> {
        let this = &mut *self;
        if let Some(request) = &mut this.fleet {
            let admission = match ready!(request.poll(cx)) {
                FleetAdmission::Go(None) => Admission::Go(Permit::untracked(&this.gate)),
                FleetAdmission::Go(Some(attempt)) => {
                    Admission::Go(Permit::tracked(&this.gate, Tracked::Fleet(attempt)))
                }
                FleetAdmission::Spill(cause) => Admission::Spill(cause),
                FleetAdmission::Alone => {
                    let admission = this.gate.admit_unanswered(clock::now(), request);
                    this.fleet = None;
                    admission
                }
            };
            let Admission::Wait(alone, _) = admission else { return Poll::Ready(admission) };
            *this = alone;
        }
        let place = self.place.expect("a waiter is not polled after it resolved");
        loop {
            let now = self.gate.nanos(clock::now());
            let (decision, wakers) = {
                let mut core = self.gate.lock();
                let decision = core.on_turn(now, place, self.deadline);
                let wakers = if let Decision::Wait { .. } = decision {
                    core.wake_with(place, cx.waker());
                    None
                } else {
                    Some(core.take_wakers(now))
                };
                (decision, wakers)
            };
            if let Some(wakers) = wakers {
                wakers.wake();
            }
            let admission = match decision {
                Decision::Go(attempt) => {
                    let tracked = Tracked::Alone(self.gate.clone(), attempt);
                    Admission::Go(Permit::tracked(&self.gate, tracked))
                }
                Decision::Spill(cause) => Admission::Spill(cause),
                Decision::Wait { until, .. } => {
                    let until = Duration::from_nanos(u64::try_from(until).unwrap_or(0));
                    let until = self.gate.shared.epoch + until;
                    ready!(poll_sleep(&mut self.sleep, until, cx));
                    continue;
                }
            };
            self.place = None;
            return Poll::Ready(admission);
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.gate.update(|core| core.on_left(place));
        }
    }
}

impl Permit {
    pub(super) fn untracked(gate: &Gate) -> Self {
        Self { tracked: None, is_passing: true, correction: None, watch: gate.watch() }
    }

    pub(super) fn tracked(gate: &Gate, tracked: Tracked) -> Self {
        let watch = gate.watch();
        Self { tracked: Some(tracked), is_passing: false, correction: None, watch }
    }

    /// Whether the gate of a fleet gave it without the fleet's store.
    pub(crate) fn is_alone(&self) -> bool {
        matches!(&self.tracked, Some(Tracked::Alone(gate, _)) if gate.has_fleet())
    }

    /// What remains of a permit after the primary failed: the attempt counts as never made.
    pub(crate) fn of_failed(permit: Option<Self>, gate: &Gate) -> Self {
        let watch = permit.and_then(|mut permit| permit.watch.take());
        Self::watching(watch.unwrap_or_else(|| Box::new(Watch::of_one_that_was_well(gate, 0))))
    }

    pub(super) const fn watching(watch: Box<Watch<Gate>>) -> Self {
        Self { tracked: None, is_passing: false, correction: None, watch: Some(watch) }
    }

    /// Records a failure of the primary.
    pub(crate) fn failed(
        mut self,
        failure: Failure,
        now: Instant,
        rest: impl FnOnce(u32) -> Duration,
    ) {
        if let Some(watch) = self.watch.take() {
            let gate = watch.handle().clone();
            watch.failed(failure, now, rest);
            gate.update(|_| gate.shared.busy.store(true, Ordering::Relaxed));
        }
    }

    /// The primary answered, whatever the status.
    pub(crate) fn answered(&mut self) {
        if let Some(watch) = self.watch.take() {
            watch.answered(clock::now());
        }
    }

    /// Called once a connection to the primary stands, if none could be made before.
    pub(crate) fn on_connect(&self) -> Option<impl Fn() + use<>> {
        self.watch.as_ref().and_then(|watch| watch.on_connect())
    }

    /// Has the actual cost of an attempt of `weight` reported when its answer ends, if the gate
    /// tracks it. Also informs an inner pool that the gate let the request go, which overrides that
    /// pool's cooldowns.
    pub(crate) fn observe(&mut self, weight: &WeighedCost) -> Option<Admitted> {
        if self.is_passing {
            return Some(Admitted(None));
        }
        let tracked = self.tracked.clone()?;
        let estimator = Arc::clone(&weight.estimator);
        let is_admitted = AtomicBool::new(false);
        let correction = Arc::new(CostCorrection { tracked, estimator, is_admitted });
        self.correction = Some(Arc::clone(&correction));
        Some(Admitted(Some(correction)))
    }

    /// The attempt was admitted. Its answer may report the level as a share of the limit.
    pub(crate) fn on_accepted(mut self, utilization: Option<f64>) {
        self.answered();
        if let Some(correction) = self.correction.take() {
            correction.is_admitted.store(true, Ordering::Relaxed);
        }
        match self.tracked.take() {
            Some(Tracked::Alone(gate, attempt)) => {
                let now = gate.nanos(clock::now());
                gate.update(|core| {
                    core.bucket.on_accepted(now, &attempt);
                    if let Some(share) = utilization {
                        core.bucket.on_utilization(now, &attempt, share);
                    }
                });
            }
            Some(Tracked::Fleet(attempt)) => attempt.on_accepted(utilization),
            None => {}
        }
    }

    /// The tracked attempt, if any.
    pub(super) fn take(mut self) -> Option<Tracked> {
        self.tracked.take()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        match &self.tracked {
            Some(Tracked::Alone(gate, attempt)) => {
                gate.update(|core| core.bucket.on_cancelled(attempt));
            }
            Some(Tracked::Fleet(attempt)) => attempt.on_cancelled(),
            None => {}
        }
    }
}

/// Corrects the modelled level once an answer's usage is known.
#[derive(Debug)]
struct CostCorrection {
    tracked: Tracked,
    estimator: Arc<dyn EstimateCost>,
    /// The body of a refused attempt is read or dropped, too; it must not count.
    is_admitted: AtomicBool,
}

impl UsageSink for CostCorrection {
    fn ended(&self, usage: Option<Usage>) {
        if !self.is_admitted.load(Ordering::Relaxed) {
            return;
        }
        let actual = usage.map(|usage| sane(self.estimator.actual(&usage)));
        match &self.tracked {
            Tracked::Alone(gate, attempt) => {
                let now = gate.nanos(clock::now());
                gate.update(|core| core.bucket.on_ended(now, attempt, actual));
            }
            Tracked::Fleet(attempt) => attempt.on_ended(actual),
        }
    }
}
