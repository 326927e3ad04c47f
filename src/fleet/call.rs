//! Calls to the store that no request waits for longer than the fleet's timeout.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_core::future::BoxFuture;

use super::{
    Allowance, Closing, FleetStats, GateCall, GateNews, GateReply, IdHolder, Kind, Leased,
    Listener, Name, OnStored, Operation, RateLimit, Store, Taken, Unreachable,
    budget::micros,
    stats::{Counters, Ended},
};
use crate::{
    clock,
    sync::{Sleep, poll_sleep},
};

/// Calls a fleet's store.
pub(crate) struct Caller {
    fleet: Arc<str>,
    store: Arc<dyn Store>,
    timeout_us: AtomicU64,
    epoch: Instant,
    /// Until when no request calls the store, in microseconds since `epoch`: a request may make several
    /// calls, one after the other, and is to wait for one of them only.
    skipped_until: AtomicU64,
    counters: Counters,
}

impl Caller {
    pub(super) fn new(fleet: Arc<str>, store: Arc<dyn Store>) -> Self {
        store.join(&fleet);
        Self {
            fleet,
            store,
            timeout_us: AtomicU64::new(micros(DEFAULT_TIMEOUT)),
            epoch: clock::now(),
            skipped_until: AtomicU64::new(0),
            counters: Counters::default(),
        }
    }

    pub(super) fn set_timeout(&self, timeout: Duration) {
        self.timeout_us.store(micros(timeout), Ordering::Relaxed);
        self.store.set_timeout(timeout);
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_micros(self.timeout_us.load(Ordering::Relaxed))
    }

    pub(super) fn fleet(&self) -> &str {
        &self.fleet
    }

    pub(super) fn store(&self) -> &dyn Store {
        &*self.store
    }

    pub(super) fn stats(&self) -> FleetStats {
        self.counters.read()
    }

    pub(crate) fn name(&self, kind: Kind, of: &str) -> Name {
        Name::new(&self.fleet, kind, of)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.store.is_up()
    }

    /// The number of processes in the fleet, as last known.
    pub(crate) fn replicas(&self) -> u32 {
        self.store.replicas(&self.fleet).max(1)
    }

    /// Takes `amount` out of a budget; `None` if the store is known to be down.
    pub(crate) fn take(
        self: &Arc<Self>,
        name: &Name,
        from: Allowance,
        amount: u64,
    ) -> Option<Call<Taken>> {
        self.call(Operation::Take, |store| store.take(name, from, amount))
    }

    /// Takes requests out of a rate; `None` if the store is known to be down.
    pub(crate) fn lease(
        self: &Arc<Self>,
        name: &Name,
        limit: RateLimit,
        most: u32,
    ) -> Option<Call<Leased>> {
        self.call(Operation::Lease, |store| store.lease(name, limit, most))
    }

    /// The same, for no request that waits for it.
    pub(crate) fn lease_ahead(
        &self,
        name: &Name,
        limit: RateLimit,
        most: u32,
    ) -> Option<BoxFuture<'static, Result<Leased, Unreachable>>> {
        self.is_up().then(|| self.store.lease(name, limit, most))
    }

    pub(crate) fn close(&self, backend: &Name, closing: Closing) {
        if self.is_up() {
            self.store.close(backend, closing);
        }
    }

    pub(crate) fn follow(&self, backend: &Name, listener: Listener) {
        self.store.follow(backend, listener);
    }

    pub(crate) fn correct(&self, name: &Name, window: u64, change: i64) {
        if self.is_up() {
            self.store.correct(name, window, change);
        }
    }

    pub(crate) fn keeps_ids(&self) -> bool {
        self.store.keeps_ids()
    }

    pub(crate) fn remember(
        &self,
        ids: Vec<(Box<[u8]>, IdHolder)>,
        age: Duration,
        on_stored: OnStored,
    ) {
        self.store.remember(&self.fleet, ids, age, on_stored);
    }

    /// Asks who holds these ids; `None` if the store is known to be down.
    pub(crate) fn recall(
        self: &Arc<Self>,
        ids: Vec<Box<[u8]>>,
        age: Duration,
    ) -> Option<Call<Vec<Option<IdHolder>>>> {
        self.call(Operation::Recall, |store| store.recall(&self.fleet, ids, age))
    }

    /// The store had so many of the ids that it was asked for, and did not have so many.
    pub(crate) fn count_recalled(&self, found: usize, unknown: usize) {
        self.counters.recalled(found, unknown);
    }

    /// Asks a gate; `None` if the store is known to be down.
    pub(crate) fn gate(self: &Arc<Self>, name: &Name, call: GateCall) -> Option<Call<GateReply>> {
        self.call(Operation::Gate, |store| store.gate(name, call))
    }

    pub(crate) fn tell_gate(&self, name: &Name, call: GateCall) {
        if self.is_up() {
            self.store.tell_gate(name, call);
        }
    }

    pub(crate) fn listen(&self, name: &Name, news: GateNews) {
        self.store.listen(name, news);
    }

    fn call<T>(
        self: &Arc<Self>,
        operation: Operation,
        call: impl FnOnce(&dyn Store) -> BoxFuture<'static, Result<T, Unreachable>>,
    ) -> Option<Call<T>> {
        let now = clock::now();
        if !self.is_up() || self.since_epoch(now) < self.skipped_until.load(Ordering::Relaxed) {
            self.counters.skipped(operation);
            return None;
        }
        let answer = call(&*self.store);
        let timeout = self.timeout();
        Some(Call {
            caller: Arc::clone(self),
            operation,
            answer,
            from: now,
            until: now + timeout,
            sleep: None,
        })
    }

    fn since_epoch(&self, now: Instant) -> u64 {
        micros(now.saturating_duration_since(self.epoch))
    }

    /// A call was not answered in time.
    fn on_timeout(&self, now: Instant) {
        let until = self.since_epoch(now + self.timeout());
        self.skipped_until.fetch_max(until, Ordering::Relaxed);
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.store.leave(&self.fleet);
    }
}

/// A call to the store. Ready after the fleet's timeout at the latest.
pub(crate) struct Call<T> {
    caller: Arc<Caller>,
    operation: Operation,
    answer: BoxFuture<'static, Result<T, Unreachable>>,
    from: Instant,
    until: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl<T> Call<T> {
    /// The same call, ready at `until` at the latest.
    pub(crate) fn not_after(mut self, until: Instant) -> Self {
        self.until = self.until.min(until);
        self
    }
}

impl<T> Future for Call<T> {
    type Output = Result<T, Unreachable>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let (result, ended) = match this.answer.as_mut().poll(cx) {
            Poll::Ready(Ok(answer)) => (Ok(answer), Ended::Answered),
            Poll::Ready(Err(error)) => (Err(error), Ended::Failed),
            Poll::Pending => match poll_sleep(&mut this.sleep, this.until, cx) {
                Poll::Ready(()) => (Err(Unreachable), Ended::TimedOut),
                Poll::Pending => return Poll::Pending,
            },
        };
        let now = clock::now();
        if ended == Ended::TimedOut {
            this.caller.on_timeout(now);
        }
        let took = now.saturating_duration_since(this.from);
        this.caller.counters.ended(this.operation, ended, took);
        Poll::Ready(result)
    }
}

/// A store in the same region answers within a millisecond; waits for the PTU take seconds.
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::fleet::Fleet;

    /// A store that takes requests and never answers.
    #[derive(Debug)]
    struct Hangs;

    impl Store for Hangs {
        fn take(
            &self,
            _: &Name,
            _: Allowance,
            _: u64,
        ) -> BoxFuture<'static, Result<Taken, Unreachable>> {
            Box::pin(pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_calls_several_times_is_held_once() {
        let fleet = Fleet::new("test", Hangs).expect("a name");
        let caller = fleet.caller();
        let name = caller.name(Kind::Budget, "a");
        let allowance = Allowance { limit: 1, window: Duration::from_secs(1) };
        let ask = || caller.take(&name, allowance, 1);
        let started = clock::now();
        assert_eq!(ask().expect("it is up").await, Err(Unreachable));
        assert!(ask().is_none(), "it is not asked again at once");
        let held = clock::now() - started;
        assert!(held <= DEFAULT_TIMEOUT + Duration::from_millis(2), "{held:?}");
        clock::sleep_until(started + 2 * DEFAULT_TIMEOUT + Duration::from_millis(5)).await;
        assert!(ask().is_some(), "a single call may be lost");
    }
}
