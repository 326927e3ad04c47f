//! The only module of the simulator that reads the clock or sleeps: tokio's clock, which is paused.

use std::time::Instant;

#[expect(clippy::disallowed_methods, reason = "the one clock read")]
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[expect(clippy::disallowed_methods, reason = "the one sleep")]
pub(crate) fn sleep_until(until: Instant) -> tokio::time::Sleep {
    tokio::time::sleep_until(until.into())
}
