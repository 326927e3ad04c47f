//! A rate that processes share: the rule of a store, and the lease that spares a call per request.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use futures_core::future::BoxFuture;

use super::{Caller, Fleet, Kind, Leased, Name, RateLimit, Unreachable, budget::micros};
use crate::clock;

/// A rate that all processes of a fleet keep together, for example one client's requests.
///
/// A process takes several requests at once from the store, a lease of a fifth of what it used in the
/// last second, before it has used up the last one: at higher rates, few requests wait for the store.
/// All processes together never exceed the rate. Requests of a lease that is not used for a second are
/// lost.
///
/// Without the store, each process keeps the rate divided by the number of
/// [replicas](Fleet::replicas), as last known.
///
/// ```
/// use tower_spillover::fleet::{Fleet, Local, Rate};
///
/// # async fn take() -> Result<(), tower_spillover::ConfigError> {
/// let fleet = Fleet::new("prod", Local::new())?;
/// let rate = Rate::new(&fleet, "team-a", 50.0);
/// if let Err(wait) = rate.take().await {
///     println!("try again in {wait:?}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Rate {
    shared: Arc<Shared>,
}

struct Shared {
    caller: Arc<Caller>,
    name: Name,
    limit: RateLimit,
    /// The origin of times in microseconds.
    started: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lease: Lease,
    /// What this process takes without the store.
    alone: StoredRate,
    /// A lease that is asked for ahead of need, and since when.
    ahead: Option<(BoxFuture<'static, Result<Leased, Unreachable>>, Instant)>,
}

/// The requests that a process may send without asking. Times are in microseconds.
#[derive(Debug, Default)]
struct Lease {
    left: u32,
    granted: u32,
    taken_at: u64,
    /// Requests in the current second, when that began, and those in the one before.
    in_second: u32,
    second: u64,
    in_last_second: u32,
    /// The store has none before this time.
    refused_until: u64,
}

/// What a process does for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Go,
    /// It goes, and this many are asked for meanwhile.
    GoAndAsk(u32),
    Ask(u32),
    Refuse(Duration),
}

impl Lease {
    /// For one request of a fleet of this many `replicas`.
    fn take(&mut self, now: u64, limit: RateLimit, replicas: u32) -> Step {
        self.count(now);
        if now.saturating_sub(self.taken_at) > LEASE_AGE_US {
            self.left = 0;
        }
        self.taken_at = now;
        let most = self.size(limit, replicas);
        if self.left > 0 {
            self.left -= 1;
            return match self.left * 2 < self.granted && most > 1 {
                true => Step::GoAndAsk(most),
                false => Step::Go,
            };
        }
        match self.refused_until.checked_sub(now).filter(|left| *left > 0) {
            Some(left) => Step::Refuse(Duration::from_micros(left)),
            None => Step::Ask(most),
        }
    }

    /// A fifth of the last second's requests: larger leases keep more from other processes, smaller
    /// ones need more calls. All leases together are at most half of a second's requests.
    fn size(&self, limit: RateLimit, replicas: u32) -> u32 {
        let used = self.in_last_second.max(self.in_second) / LEASES_PER_SECOND;
        let most = limit.per_second / (2.0 * f64::from(replicas));
        // The cast saturates.
        used.min(most as u32).max(1)
    }

    fn count(&mut self, now: u64) {
        let seconds = now.saturating_sub(self.second) / SECOND_US;
        if seconds > 0 {
            self.in_last_second = if seconds == 1 { self.in_second } else { 0 };
            (self.in_second, self.second) = (0, self.second + seconds * SECOND_US);
        }
        self.in_second += 1;
    }

    fn granted(&mut self, requests: u32) {
        self.left += requests;
        self.granted = self.left;
        self.refused_until = 0;
    }

    fn refused(&mut self, now: u64, wait: Duration) {
        self.refused_until = now.saturating_add(micros(wait));
    }
}

/// A rate as a store keeps it: a bucket of one second's requests, at least one.
/// `redis/lease.lua` is the same rule. Times are in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct StoredRate {
    /// When the bucket will be full again.
    full_at: f64,
}

impl StoredRate {
    /// Takes up to `most` requests at `now`.
    pub(crate) fn lease(&mut self, now: f64, limit: RateLimit, most: u32) -> Leased {
        let interval = limit.interval_us();
        let latest = now + limit.per_second.max(1.0) * interval;
        // A clock that was set back must not refuse for longer than the bucket takes to fill.
        let full_at = self.full_at.max(now).min(latest);
        let room = ((latest - full_at) / interval + ROUNDING).floor();
        if room < 1.0 {
            let wait = (full_at + interval - latest).ceil().max(1.0);
            return Leased::Spent { opens_in: Duration::from_micros(wait as u64) };
        }
        let granted = f64::from(most.max(1)).min(room);
        self.full_at = full_at + granted * interval;
        Leased::Granted(granted as u32)
    }
}

impl Rate {
    /// At most `per_second` requests of all processes of `fleet` that use a rate of the same name,
    /// `of`. After a pause, those of one second may come at once. Rates below one request in
    /// 11 days count as that.
    pub fn new(fleet: &Fleet, of: &str, per_second: f64) -> Self {
        let caller = Arc::clone(fleet.caller());
        let name = caller.name(Kind::Rate, of);
        let limit = RateLimit { per_second: per_second.max(1e-6) };
        let (started, state) = (clock::now(), Mutex::default());
        Self { shared: Arc::new(Shared { caller, name, limit, started, state }) }
    }

    /// Requests per second.
    pub fn per_second(&self) -> f64 {
        self.shared.limit.per_second
    }

    /// Takes one request. Waits for the store at most for the fleet's [timeout](Fleet::timeout), and
    /// only if the process has no lease.
    ///
    /// # Errors
    ///
    /// The time until the next request, if the rate is used up.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped while it waits for the store, what that grants is lost.
    pub async fn take(&self) -> Result<(), Duration> {
        let shared = &*self.shared;
        let most = match shared.step(clock::now()) {
            Step::Go | Step::GoAndAsk(_) => return Ok(()),
            Step::Refuse(wait) => return Err(wait),
            Step::Ask(most) => most,
        };
        let Some(call) = shared.caller.lease(&shared.name, shared.limit, most) else {
            return shared.take_alone(clock::now());
        };
        let answer = call.await;
        let now = clock::now();
        match answer {
            Ok(Leased::Granted(0)) | Err(Unreachable) => shared.take_alone(now),
            Ok(Leased::Granted(requests)) => {
                shared.lock().lease.granted(requests.min(most) - 1);
                Ok(())
            }
            Ok(Leased::Spent { opens_in }) => {
                shared.lock().lease.refused(shared.since_start(now), opens_in);
                Err(opens_in)
            }
        }
    }
}

impl Shared {
    fn step(&self, now: Instant) -> Step {
        let (at, replicas) = (self.since_start(now), self.caller.replicas());
        let mut state = self.lock();
        state.poll_ahead(at, now);
        if !self.caller.is_up() {
            drop(state);
            return match self.take_alone(now) {
                Ok(()) => Step::Go,
                Err(wait) => Step::Refuse(wait),
            };
        }
        let step = state.lease.take(at, self.limit, replicas);
        if let Step::GoAndAsk(most) = step
            && state.ahead.is_none()
        {
            let ahead = self.caller.lease_ahead(&self.name, self.limit, most);
            state.ahead = ahead.map(|ahead| (ahead, now));
            // A store may not begin before it is polled.
            state.poll_ahead(at, now);
        }
        step
    }

    fn take_alone(&self, now: Instant) -> Result<(), Duration> {
        let own = self.limit.per_second / f64::from(self.caller.replicas());
        let limit = RateLimit { per_second: own };
        let at = self.since_start(now) as f64;
        match self.lock().alone.lease(at, limit, 1) {
            Leased::Granted(_) => Ok(()),
            Leased::Spent { opens_in } => Err(opens_in),
        }
    }

    fn since_start(&self, now: Instant) -> u64 {
        // Zero is no time.
        1 + micros(now.saturating_duration_since(self.started))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes over the lease that was asked for ahead of need, if the store has answered.
    fn poll_ahead(&mut self, at: u64, now: Instant) {
        let Some((ahead, since)) = &mut self.ahead else { return };
        match Pin::new(ahead).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(Leased::Granted(requests))) => self.lease.granted(requests),
            Poll::Ready(Ok(Leased::Spent { opens_in })) => self.lease.refused(at, opens_in),
            Poll::Ready(Err(Unreachable)) => {}
            Poll::Pending if now.saturating_duration_since(*since) < AHEAD_TIMEOUT => return,
            Poll::Pending => {}
        }
        self.ahead = None;
    }
}

impl std::fmt::Debug for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rate").field("per_second", &self.per_second()).finish_non_exhaustive()
    }
}

/// Sums of intervals that are no whole microseconds.
const ROUNDING: f64 = 1e-6;
const SECOND_US: u64 = 1_000_000;
const LEASE_AGE_US: u64 = 1_000_000;
const LEASES_PER_SECOND: u32 = 5;
/// No request waits for it.
const AHEAD_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: RateLimit = RateLimit { per_second: 50.0 };

    #[test]
    fn a_bucket_has_a_second_of_requests_and_names_the_time_of_the_next() {
        let mut rate = StoredRate::default();
        let start = 1_790_000_000_123_457.0;
        assert_eq!(rate.lease(start, LIMIT, 30), Leased::Granted(30));
        assert_eq!(rate.lease(start, LIMIT, 30), Leased::Granted(20));
        let opens_in = Duration::from_millis(20);
        assert_eq!(rate.lease(start, LIMIT, 30), Leased::Spent { opens_in });
        assert!(matches!(rate.lease(start + 19_999.0, LIMIT, 1), Leased::Spent { .. }));
        assert_eq!(rate.lease(start + 20_000.0, LIMIT, 30), Leased::Granted(1));
        assert_eq!(rate.lease(start + 9e6, LIMIT, 99), Leased::Granted(50));
        // The clock was set back by a minute.
        assert_eq!(rate.lease(start - 6e7, LIMIT, 1), Leased::Spent { opens_in });
        let slow = RateLimit { per_second: 0.5 };
        let mut rate = StoredRate::default();
        assert_eq!(rate.lease(start, slow, 9), Leased::Granted(1));
        let opens_in = Duration::from_secs(2);
        assert_eq!(rate.lease(start, slow, 9), Leased::Spent { opens_in });
    }

    #[test]
    fn a_lease_grows_with_its_use_and_is_renewed_when_half_is_left() {
        let mut lease = Lease::default();
        assert_eq!(lease.take(1, LIMIT, 1), Step::Ask(1));
        for request in 0..40 {
            lease.granted(1);
            lease.take(1 + request, LIMIT, 1);
        }
        // 41 in the last second: a fifth.
        lease.left = 0;
        assert_eq!(lease.take(1 + SECOND_US, LIMIT, 1), Step::Ask(8));
        lease.granted(7);
        let steps: Vec<_> = (0..8).map(|_| lease.take(2 + SECOND_US, LIMIT, 1)).collect();
        let (go, ask) = (Step::Go, Step::GoAndAsk(8));
        assert_eq!(steps, [go, go, go, ask, ask, ask, ask, Step::Ask(8)]);
        // With more replicas it is smaller, and not below one request.
        assert_eq!(lease.take(3 + SECOND_US, LIMIT, 5), Step::Ask(5));
        assert_eq!(lease.take(3 + SECOND_US, LIMIT, 100), Step::Ask(1));
    }

    #[test]
    fn a_lease_that_is_not_used_for_a_second_is_lost() {
        let mut lease = Lease::default();
        lease.take(1, LIMIT, 1);
        lease.granted(9);
        assert_eq!(lease.take(1 + LEASE_AGE_US, LIMIT, 1), Step::Go);
        assert!(matches!(lease.take(2 + 2 * LEASE_AGE_US, LIMIT, 1), Step::Ask(_)));
    }

    #[test]
    fn a_refusal_of_the_store_is_remembered() {
        let mut lease = Lease::default();
        lease.take(1, LIMIT, 1);
        lease.refused(1, Duration::from_millis(20));
        let left = Duration::from_millis(15);
        assert_eq!(lease.take(5_001, LIMIT, 1), Step::Refuse(left));
        assert_eq!(lease.take(20_001, LIMIT, 1), Step::Ask(1));
    }
}
