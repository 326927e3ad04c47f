//! The one place of the gateway's server that reads the clock and makes timers.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime},
};

use tokio::time::{Sleep, Timeout};

#[expect(clippy::disallowed_methods, reason = "the server's edge")]
pub(super) fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the server's edge")]
pub(super) fn date() -> SystemTime {
    SystemTime::now()
}

#[expect(clippy::disallowed_methods, reason = "the server's edge")]
pub(super) fn sleep(duration: Duration) -> Sleep {
    tokio::time::sleep(duration)
}

#[expect(clippy::disallowed_methods, reason = "the server's edge")]
pub(super) fn timeout<F: Future>(duration: Duration, future: F) -> Timeout<F> {
    tokio::time::timeout(duration, future)
}

/// Notices that nothing has come for too long. Its timer is made by the first wait: most bodies
/// are there when they are asked for.
#[derive(Debug)]
pub(super) struct Silence {
    longest: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    is_waiting: bool,
}

impl Silence {
    pub(super) const fn new(longest: Duration) -> Self {
        Self { longest, timer: None, is_waiting: false }
    }

    /// Something came.
    pub(super) const fn end(&mut self) {
        self.is_waiting = false;
    }

    /// Nothing came yet; ready when that has been so for too long.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(self.longest)));
        if !self.is_waiting {
            self.is_waiting = true;
            #[expect(clippy::disallowed_methods, reason = "the server's edge")]
            timer.as_mut().reset(tokio::time::Instant::now() + self.longest);
        }
        timer.as_mut().poll(cx)
    }
}
