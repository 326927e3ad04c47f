//! A future that is polled only after it was woken.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures::task::AtomicWaker;
use pin_project_lite::pin_project;

pin_project! {
    /// A future beside another one in the same task, which is woken for every piece of an answer.
    pub(super) struct Woken<F> {
        #[pin]
        inner: F,
        alarm: Arc<Alarm>,
        waker: Waker,
    }
}

/// Notes that the future was woken, and wakes the task.
#[derive(Debug, Default)]
struct Alarm {
    is_woken: AtomicBool,
    task: AtomicWaker,
}

impl<F> Woken<F> {
    /// Polls `inner` a first time, and then when it was woken.
    pub(super) fn new(inner: F) -> Self {
        let alarm = Arc::new(Alarm { is_woken: AtomicBool::new(true), task: AtomicWaker::new() });
        Self { inner, waker: Arc::clone(&alarm).into(), alarm }
    }
}

impl<F: Future> Future for Woken<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        // Before the note is read: what is woken in between wakes this task again.
        this.alarm.task.register(cx.waker());
        if !this.alarm.is_woken.swap(false, SeqCst) {
            return Poll::Pending;
        }
        this.inner.poll(&mut Context::from_waker(this.waker))
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_woken.store(true, SeqCst);
        self.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        pin::pin,
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use futures::{FutureExt, task::AtomicWaker};

    use super::*;

    #[tokio::test]
    async fn it_is_polled_once_for_each_time_that_it_is_woken() {
        let (polls, own) = (AtomicUsize::new(0), AtomicWaker::new());
        let mut woken = pin!(Woken::new(poll_fn(|cx| {
            own.register(cx.waker());
            match polls.fetch_add(1, Relaxed) {
                0 | 1 => Poll::Pending,
                _ => Poll::Ready(()),
            }
        })));
        for expected in [1, 1, 1] {
            assert!(woken.as_mut().now_or_never().is_none());
            assert_eq!(polls.load(Relaxed), expected);
        }
        own.wake();
        assert!(woken.as_mut().now_or_never().is_none());
        assert_eq!(polls.load(Relaxed), 2);
        // Woken while its task sleeps.
        let wake = async {
            tokio::task::yield_now().await;
            own.wake();
        };
        tokio::join!(woken, wake);
        assert_eq!(polls.load(Relaxed), 3);
    }
}
