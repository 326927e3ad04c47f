//! A place in the queue, as a future, and the pass that it turns into.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use super::{
    Gate, Weight,
    core::{Nanos, Place, Sent, Turn},
    cost::{EstimateCost, Usage},
    sane,
};
use crate::{
    body::{Observe, UsageSink},
    sync::{Sleep, clock},
};

/// What the gate says to a request.
#[derive(Debug)]
pub(crate) enum Admission {
    /// Go now, and tell by the pass what came of it.
    Go(Pass),
    /// Wait for the ticket.
    Wait(Ticket),
    /// Waiting cannot win.
    Spill,
}

/// A place in the queue. It resolves when the request is to go, or is to wait no longer.
///
/// Dropping it frees the place and wakes whoever is at the head then.
#[derive(Debug)]
pub(crate) struct Ticket {
    gate: Gate,
    /// `None` once the queue was left.
    place: Option<Place>,
    deadline: Nanos,
    sleep: Option<Pin<Box<Sleep>>>,
}

/// An attempt that was let go. Dropped before it is told what became of it, it counts as never
/// made.
#[derive(Debug)]
pub(crate) struct Pass {
    /// `None` when nothing was known of the PTU, so that nothing has to be told.
    tracked: Option<(Gate, Sent)>,
}

impl Ticket {
    pub(super) const fn new(gate: Gate, place: Place, deadline: Nanos) -> Self {
        Self { gate, place: Some(place), deadline, sleep: None }
    }

    /// Sleeps until `until`, to look again; ready when that is now.
    fn poll_sleep(&mut self, cx: &mut Context<'_>, until: Nanos) -> Poll<()> {
        let until = Duration::from_nanos(u64::try_from(until).unwrap_or(0));
        let until = self.gate.shared.epoch + until;
        let sleep = match &mut self.sleep {
            Some(sleep) => {
                clock::reset(sleep.as_mut(), until);
                sleep
            }
            none => none.insert(clock::sleep_until(until)),
        };
        sleep.as_mut().poll(cx)
    }
}

impl Future for Ticket {
    type Output = Admission;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Admission> {
        let place = self.place.expect("a ticket is not used twice");
        loop {
            let now = self.gate.nanos(clock::now());
            let (turn, head) = {
                let mut core = self.gate.lock();
                match core.turn(now, place, self.deadline) {
                    Turn::Wait(until) => {
                        core.wake_with(place, cx.waker());
                        (Turn::Wait(until), None)
                    }
                    turn => (turn, core.head_waker()),
                }
            };
            if let Some(head) = head {
                head.wake();
            }
            let admission = match turn {
                Turn::Go(sent) => Admission::Go(Pass::tracked(self.gate.clone(), sent)),
                Turn::Spill => Admission::Spill,
                Turn::Wait(until) => match self.poll_sleep(cx, until) {
                    Poll::Ready(()) => continue,
                    Poll::Pending => return Poll::Pending,
                },
            };
            self.place = None;
            return Poll::Ready(admission);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.gate.update(|core| core.leave(place));
        }
    }
}

impl Pass {
    pub(super) const fn untracked() -> Self {
        Self { tracked: None }
    }

    pub(super) const fn tracked(gate: Gate, sent: Sent) -> Self {
        Self { tracked: Some((gate, sent)) }
    }

    /// Has the gate told what the attempt of a request of `weight` cost in the end.
    pub(crate) fn observe(&self, weight: &Weight) -> Option<Observe> {
        let (gate, sent) = self.tracked.clone()?;
        let estimator = Arc::clone(&weight.estimator);
        Some(Observe(Arc::new(Correction { gate, sent, estimator })))
    }

    /// The attempt was admitted, and may have told the level as a share of the limit.
    pub(crate) fn accepted(mut self, utilization: Option<f64>) {
        if let Some((gate, sent)) = self.tracked.take() {
            let now = gate.nanos(clock::now());
            gate.update(|core| {
                core.accepted(now);
                if let Some(share) = utilization {
                    core.told(now, &sent, share);
                }
            });
        }
    }

    /// What the gate reckoned with, if anything.
    pub(super) fn take(mut self) -> Option<Sent> {
        self.tracked.take().map(|(_, sent)| sent)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some((gate, sent)) = &self.tracked {
            gate.update(|core| core.gone(sent));
        }
    }
}

/// Corrects the reckoning once an answer's usage is known.
struct Correction {
    gate: Gate,
    sent: Sent,
    estimator: Arc<dyn EstimateCost>,
}

impl UsageSink for Correction {
    fn ended(&self, usage: Option<Usage>) {
        if let Some(usage) = usage {
            let actual = sane(self.estimator.actual(&usage));
            self.gate.update(|core| core.finished(&self.sent, actual));
        }
    }
}
