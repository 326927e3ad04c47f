//! The paused clock of these tests.

use std::{future::Future, time::Duration};

use tokio::time::Instant;

#[expect(clippy::disallowed_methods, reason = "a test tells the time by the paused clock")]
pub fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "a test lets paused time pass")]
pub async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The result of `work`, and how long it took.
pub async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let start = now();
    let result = work.await;
    (result, start.elapsed())
}

/// Runs `work` to completion in a new runtime whose clock is paused.
pub fn paused<T>(work: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().expect("a runtime").block_on(work)
}
