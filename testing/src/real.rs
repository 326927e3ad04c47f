//! Real time, which tests with sockets need.

use std::{
    future::Future,
    time::{Duration, Instant},
};

/// Fails the test if `future` does not complete within 5 s.
#[expect(clippy::disallowed_methods, reason = "sockets live in real time")]
pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(5), future).await.expect("an end within 5 s")
}

#[expect(clippy::disallowed_methods, reason = "sockets live in real time")]
pub async fn pause(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// Waits until `condition` holds.
pub async fn until(condition: impl Fn() -> bool) {
    soon(async {
        while !condition() {
            pause(2).await;
        }
    })
    .await;
}

#[derive(Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "sockets live in real time")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}
