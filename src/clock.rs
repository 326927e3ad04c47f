//! The one place of the library that reads clocks and sleeps.

use std::{
    pin::Pin,
    time::{Duration, Instant, SystemTime},
};

use tokio::time::Sleep;

/// The time by tokio's clock, so that a paused runtime pauses every decision too.
#[expect(clippy::disallowed_methods, reason = "the one monotonic clock read")]
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The time from `start` to `end`, zero if that is earlier. Most requests are sent in the instant in
/// which they arrive, which needs no arithmetic.
#[inline]
pub(crate) fn between(start: Instant, end: Instant) -> Duration {
    if start == end { Duration::ZERO } else { end.saturating_duration_since(start) }
}

/// The wall clock. Only an HTTP-date and the end of an access token are compared with it.
#[expect(clippy::disallowed_methods, reason = "the one wall clock read")]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}

/// A sleep that ends at `until` or, by the timer's granularity, up to a millisecond later; never
/// before.
///
/// It is boxed so that a request that does not wait does not carry its 112 bytes.
#[expect(clippy::disallowed_methods, reason = "the one sleep")]
pub(crate) fn sleep_until(until: Instant) -> Pin<Box<Sleep>> {
    Box::pin(tokio::time::sleep_until(until.into()))
}

/// Timer granularity; also the shortest wait announced to a caller.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// Moves the end of a sleep.
pub(crate) fn reset(sleep: Pin<&mut Sleep>, until: Instant) {
    sleep.reset(until.into());
}
