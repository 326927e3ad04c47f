//! Limits how long a body may send nothing.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep};

use super::clock;

/// Detects that a body has sent nothing for too long. The first wait creates the timer: most bodies
/// are ready when polled. Later waits only note when they begin, and the timer is set again when it
/// elapses: setting or polling it for every event of a stream costs more than the rest of a wait.
#[derive(Debug)]
pub(crate) struct IdleTimeout {
    longest: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    waiting_since: Option<Instant>,
    /// What the timer wakes.
    waker: Option<Waker>,
}

impl IdleTimeout {
    pub(crate) const fn new(longest: Duration) -> Self {
        Self { longest, timer: None, waiting_since: None, waker: None }
    }

    /// Something arrived.
    pub(crate) const fn reset(&mut self) {
        self.waiting_since = None;
    }

    /// Nothing has arrived; ready when that has lasted too long.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let is_begun = self.waiting_since.is_some();
        let since = *self.waiting_since.get_or_insert_with(clock::timer_now);
        let timer = self.timer.get_or_insert_with(|| Box::pin(clock::sleep(self.longest)));
        let is_set = self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if is_set && !is_begun && since < timer.deadline() {
            // The timer was polled before and has not elapsed.
            return Poll::Pending;
        }
        if !is_set {
            self.waker = Some(cx.waker().clone());
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            let end = since + self.longest;
            if timer.deadline() >= end {
                return Poll::Ready(());
            }
            timer.as_mut().reset(end);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wait_is_too_long_after_the_whole_time_and_not_before() {
        let longest = Duration::from_secs(60);
        let mut idle = IdleTimeout::new(longest);
        assert!(poll_fn(|cx| Poll::Ready(idle.poll(cx).is_pending())).await);
        tokio::time::advance(longest / 2).await;
        idle.reset();
        let begun = clock::timer_now();
        poll_fn(|cx| idle.poll(cx)).await;
        let waited = clock::timer_now() - begun;
        assert!(waited >= longest && waited < longest + Duration::from_secs(1), "{waited:?}");
        idle.reset();
        assert!(poll_fn(|cx| idle.poll(cx)).now_or_never().is_none());
    }
}
