//! The only module of the gateway's server that reads the clock and creates timers.

use std::{
    future::Future,
    time::{Duration, Instant, SystemTime},
};

use tokio::time::{Sleep, Timeout};

#[expect(clippy::disallowed_methods, reason = "the server's edge")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the server's edge")]
pub(crate) fn date() -> SystemTime {
    SystemTime::now()
}

#[expect(clippy::disallowed_methods, reason = "the server's edge")]
pub(crate) fn timer_now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the server's edge")]
pub(crate) fn sleep(duration: Duration) -> Sleep {
    tokio::time::sleep(duration)
}

#[expect(clippy::disallowed_methods, reason = "the server's edge")]
pub(crate) fn timeout<F: Future>(duration: Duration, future: F) -> Timeout<F> {
    tokio::time::timeout(duration, future)
}
