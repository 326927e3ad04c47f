//! The locks, atomics and timer of shared state, or their substitutes in a loom model.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

#[cfg(spillover_loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, fence},
};
#[cfg(not(spillover_loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, fence},
};
#[cfg(not(spillover_loom))]
pub(crate) use tokio::time::Sleep;

#[cfg(not(spillover_loom))]
pub(crate) use crate::clock;

#[cfg(spillover_loom)]
pub(crate) use self::clock::Sleep;

/// Sleeps until `until` with the timer in `sleep`, which is created when first needed; ready if
/// `until` has come.
pub(crate) fn poll_sleep(
    sleep: &mut Option<Pin<Box<Sleep>>>,
    until: Instant,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let sleep = match sleep {
        Some(sleep) => {
            clock::reset(sleep.as_mut(), until);
            sleep
        }
        none => none.insert(clock::sleep_until(until)),
    };
    sleep.as_mut().poll(cx)
}

/// A clock that is set by hand, and a timer that never fires, so that every waiter has to be woken.
#[cfg(spillover_loom)]
pub(crate) mod clock {
    use std::{
        cell::Cell,
        future::Pending,
        pin::Pin,
        sync::OnceLock,
        time::{Duration, Instant},
    };

    pub(crate) type Sleep = Pending<()>;

    thread_local! {
        // The threads of a model are coroutines of the one thread that runs it.
        static SINCE_ORIGIN: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    pub(crate) fn now() -> Instant {
        at(SINCE_ORIGIN.get())
    }

    /// Sets the clock, and returns the time.
    #[cfg(test)]
    pub(crate) fn set(since_origin: Duration) -> Instant {
        SINCE_ORIGIN.set(since_origin);
        now()
    }

    #[expect(clippy::disallowed_methods, reason = "an instant can be had in no other way")]
    fn at(since_origin: Duration) -> Instant {
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        *ORIGIN.get_or_init(Instant::now) + since_origin
    }

    pub(crate) fn sleep_until(_: Instant) -> Pin<Box<Sleep>> {
        Box::pin(std::future::pending())
    }

    pub(crate) fn reset(_: Pin<&mut Sleep>, _: Instant) {}
}
