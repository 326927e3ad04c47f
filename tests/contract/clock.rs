//! The paused clock of these tests.

use std::{future::Future, time::Duration};

use tokio::time::Instant;

#[expect(clippy::disallowed_methods, reason = "a test tells the time by the paused clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "a test lets paused time pass")]
pub(crate) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// What `work` gives, and how long it took.
pub(crate) async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let start = now();
    let result = work.await;
    (result, start.elapsed())
}
