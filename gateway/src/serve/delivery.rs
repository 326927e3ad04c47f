//! Tracks an answer on its way to the client: whether it waits for the client or the backend.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;

use super::client_patience::ClientPatience;

/// The progress of an answer: of one HTTP/2 stream, or of one HTTP/1.1 connection after another.
///
/// A connection polls an answer for its next piece when the client has accepted the last one, or
/// has left room for it. Until then the answer is not polled and cannot notice that its client does
/// not read; the task that polls the stream or the connection has to.
#[derive(Debug, Default)]
pub(crate) struct Delivery {
    awaits_client: AtomicBool,
    /// Bytes, plus one for each piece.
    offered: AtomicU64,
}

impl Delivery {
    /// A piece is ready for the client.
    pub(crate) fn offer(&self, bytes: u64) {
        self.awaits_client.store(true, Relaxed);
        self.offered.fetch_add(bytes.saturating_add(1), Relaxed);
    }

    /// The client has accepted everything so far.
    pub(crate) fn await_backend(&self) {
        self.awaits_client.store(false, Relaxed);
    }
}

pin_project! {
    /// Polls a stream or a connection until it ends, or its client does not accept the answer.
    pub(crate) struct Delivering<F> {
        #[pin]
        inner: F,
        delivery: Arc<Delivery>,
        offered: u64,
        patience: ClientPatience,
    }
}

impl<F> Delivering<F> {
    pub(crate) const fn new(inner: F, delivery: Arc<Delivery>, idle_timeout: Duration) -> Self {
        Self { inner, delivery, offered: 0, patience: ClientPatience::new(idle_timeout) }
    }

    pub(crate) fn inner(self: Pin<&mut Self>) -> Pin<&mut F> {
        self.project().inner
    }
}

impl<F: Future> Future for Delivering<F> {
    /// `None` if the client does not accept the answer.
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.inner.poll(cx) {
            return Poll::Ready(Some(output));
        }
        if !this.delivery.awaits_client.load(Relaxed) {
            this.patience.rest();
            return Poll::Pending;
        }
        let offered = this.delivery.offered.load(Relaxed);
        if offered != *this.offered {
            this.patience.passed(offered - *this.offered);
            *this.offered = offered;
        }
        this.patience.poll(cx).map(|()| None)
    }
}
