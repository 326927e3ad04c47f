//! The wait before a retry, as a future.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::time::Sleep;

use super::limits::Withdrawn;
use crate::clock;

/// The wait before a retry; the future of [`RetryAfterPolicy`](crate::RetryAfterPolicy).
///
/// Dropped before it is over, it returns the retry to the budget.
pub struct Wait {
    /// `None` for an immediate retry, which a timer would delay by a millisecond.
    sleep: Option<Pin<Box<Sleep>>>,
    withdrawn: Withdrawn,
}

impl Wait {
    pub(super) fn new(now: Instant, wait: Duration, withdrawn: Withdrawn) -> Self {
        let sleep = (!wait.is_zero()).then(|| clock::sleep_until(now + wait));
        Self { sleep, withdrawn }
    }
}

impl Future for Wait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(sleep) = &mut self.sleep {
            ready!(sleep.as_mut().poll(cx));
        }
        self.withdrawn.spend();
        Poll::Ready(())
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wait").finish_non_exhaustive()
    }
}
