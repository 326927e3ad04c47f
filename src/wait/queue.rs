//! The edge of an ordered wait: the lock, the timers and the wakers around `wait/core.rs`.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, PoisonError, atomic::Ordering},
    task::{Context, Poll, ready},
    time::Instant,
};

use super::{
    RequestLimits,
    core::{QueuePosition, WaitCore, WaitDecision},
};
use crate::sync::{AtomicBool, Mutex, MutexGuard, Sleep, clock, poll_sleep};

/// The requests that wait for a service to reopen; clones share them.
///
/// A [`WaitLayer`](super::WaitLayer) makes its own, and so does a
/// [`SmartFallbackLayer`](crate::SmartFallbackLayer) for its fallback. Pass one in to observe it.
#[derive(Clone, Default)]
pub struct WaitQueue {
    shared: Arc<QueueShared>,
}

#[derive(Default)]
struct QueueShared {
    /// Whether requests must pass through `core`. Written only under its lock.
    busy: AtomicBool,
    core: Mutex<WaitCore>,
}

/// What a request does next.
#[derive(Debug)]
pub(crate) enum Turn {
    Go(TurnPermit),
    Wait(TurnWaiter),
}

/// A request in the queue. It resolves to a permit when it is its turn, or to `None` if that would
/// come too late. Dropping it leaves the queue and passes the turn on.
#[derive(Debug)]
pub(crate) struct TurnWaiter {
    queue: WaitQueue,
    /// `None` once it has left the queue.
    place: Option<QueuePosition>,
    sleep: Option<Pin<Box<Sleep>>>,
}

/// Permission for one attempt. Dropped without an outcome, it passes the turn on.
#[derive(Debug)]
pub(crate) struct TurnPermit {
    /// `None` if no request waited, so that the outcome matters to no other request.
    tracked: Option<(WaitQueue, QueuePosition)>,
}

/// A refused attempt whose request may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RefusedTurn {
    pub(crate) now: Instant,
    /// When the service reopens, according to its hint.
    pub(crate) opens: Instant,
    /// Whether the service itself remembers what it refuses, or the refusal concerns no other
    /// request, so that others may be sent.
    pub(crate) remembers: bool,
}

impl WaitQueue {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of requests that wait.
    pub fn waiting(&self) -> usize {
        self.lock().waiting()
    }

    /// Whether requests must [queue](Self::arrive) for their turn.
    #[inline]
    pub(crate) fn is_busy(&self) -> bool {
        self.shared.busy.load(Ordering::Relaxed)
    }

    /// The turn of a request that has not been refused.
    pub(crate) fn arrive(&self, now: Instant, limits: &RequestLimits) -> Turn {
        let decision = self.look(None, |core| {
            if core.is_idle() {
                self.shared.busy.store(false, Ordering::Relaxed);
                return WaitDecision::Pass;
            }
            let place = core.place(limits.rank, limits.arrival);
            core.on_arrival(now, place, limits.deadline())
        });
        match decision {
            WaitDecision::Go(place) => Turn::Go(TurnPermit::tracked(self.clone(), place)),
            WaitDecision::Wait { place, .. } => Turn::Wait(TurnWaiter::new(self.clone(), place)),
            WaitDecision::Pass | WaitDecision::Late => Turn::Go(TurnPermit::untracked()),
        }
    }

    /// An attempt was refused. The request waits at its position; `None` if its time ends before the
    /// reopening.
    pub(crate) fn refused(
        &self,
        permit: Option<TurnPermit>,
        refused: RefusedTurn,
        limits: &RequestLimits,
    ) -> Option<TurnWaiter> {
        let RefusedTurn { now, opens, remembers } = refused;
        let place = permit.and_then(TurnPermit::take);
        self.update(|core| {
            self.shared.busy.store(true, Ordering::Relaxed);
            let place = place.unwrap_or_else(|| core.place(limits.rank, limits.arrival));
            let waits = core.on_refused(now, place, opens, remembers, limits.deadline());
            waits.then(|| TurnWaiter::new(self.clone(), place))
        })
    }

    fn lock(&self) -> MutexGuard<'_, WaitCore> {
        // The state is valid between any two statements, so a panic elsewhere does no harm.
        self.shared.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls the core for the request at `place`, then wakes the request that goes next, if that has
    /// changed.
    fn look<T>(&self, place: Option<QueuePosition>, ask: impl FnOnce(&mut WaitCore) -> T) -> T {
        let (answer, head) = {
            let mut core = self.lock();
            let before = core.head();
            let answer = ask(&mut core);
            let changed = core.head() != before && core.head() != place;
            (answer, changed.then(|| core.head_waker()).flatten())
        };
        if let Some(head) = head {
            head.wake();
        }
        answer
    }

    /// Changes the core, then wakes the requests that the change concerns.
    fn update<T>(&self, change: impl FnOnce(&mut WaitCore) -> T) -> T {
        let (result, head, too_late) = {
            let mut core = self.lock();
            let result = change(&mut core);
            (result, core.head_waker(), core.wakers_too_late())
        };
        too_late.into_iter().chain(head).for_each(|waker| waker.wake());
        result
    }
}

impl TurnWaiter {
    const fn new(queue: WaitQueue, place: QueuePosition) -> Self {
        Self { queue, place: Some(place), sleep: None }
    }
}

impl Future for TurnWaiter {
    type Output = Option<TurnPermit>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<TurnPermit>> {
        let place = self.place.expect("a waiter is not polled after it resolved");
        let permit = loop {
            let now = clock::now();
            let decision = self.queue.look(Some(place), |core| {
                let decision = core.on_turn(now, place);
                core.wake_with(place, cx.waker());
                decision
            });
            match decision {
                WaitDecision::Wait { until, .. } => ready!(poll_sleep(&mut self.sleep, until, cx)),
                WaitDecision::Go(place) => {
                    break Some(TurnPermit::tracked(self.queue.clone(), place));
                }
                WaitDecision::Late | WaitDecision::Pass => break None,
            }
        };
        self.place = None;
        Poll::Ready(permit)
    }
}

impl Drop for TurnWaiter {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.queue.update(|core| core.on_left(place));
        }
    }
}

impl TurnPermit {
    pub(crate) const fn untracked() -> Self {
        Self { tracked: None }
    }

    const fn tracked(queue: WaitQueue, place: QueuePosition) -> Self {
        Self { tracked: Some((queue, place)) }
    }

    /// The attempt is about to be made.
    pub(crate) fn sent(&self, now: Instant) {
        if let Some((queue, place)) = &self.tracked {
            queue.update(|core| core.on_sent(now, *place));
        }
    }

    /// The attempt was not refused.
    pub(crate) fn served(mut self) {
        if let Some((queue, place)) = self.tracked.take() {
            let now = clock::now();
            queue.update(|core| core.on_served(now, place));
        }
    }

    fn take(mut self) -> Option<QueuePosition> {
        self.tracked.take().map(|(_, place)| place)
    }
}

impl Drop for TurnPermit {
    fn drop(&mut self) {
        if let Some((queue, place)) = &self.tracked {
            queue.update(|core| core.on_left(*place));
        }
    }
}

impl fmt::Debug for WaitQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitQueue").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}
