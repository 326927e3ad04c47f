//! Limits how long a body may send nothing.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Sleep;

use super::clock;

/// Detects that a body has sent nothing for too long. The first wait creates the timer: most bodies
/// are ready when polled.
#[derive(Debug)]
pub(crate) struct IdleTimeout {
    longest: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    is_waiting: bool,
}

impl IdleTimeout {
    pub(crate) const fn new(longest: Duration) -> Self {
        Self { longest, timer: None, is_waiting: false }
    }

    /// Something arrived.
    pub(crate) const fn reset(&mut self) {
        self.is_waiting = false;
    }

    /// Nothing has arrived; ready when that has lasted too long.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(clock::sleep(self.longest)));
        if !self.is_waiting {
            self.is_waiting = true;
            timer.as_mut().reset(clock::timer_now() + self.longest);
        }
        timer.as_mut().poll(cx)
    }
}
