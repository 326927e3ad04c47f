//! The wait before a retry, as a future.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::time::Sleep;

use crate::resend::clock;

/// The wait before a retry; the future of [`RetryAfterPolicy`](crate::RetryAfterPolicy).
pub struct Wait {
    /// None for a retry at once, over which a timer would take a millisecond.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Wait {
    pub(super) fn new(now: Instant, wait: Duration) -> Self {
        Self { sleep: (!wait.is_zero()).then(|| clock::sleep_until(now + wait)) }
    }
}

impl Future for Wait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().poll(cx),
            None => Poll::Ready(()),
        }
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wait").finish_non_exhaustive()
    }
}
