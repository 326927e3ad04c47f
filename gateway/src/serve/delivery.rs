//! An answer on its way to its client: whether the client or the backend is waited for.

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

/// How far an answer came: of one stream of HTTP/2, or of one connection of HTTP/1.1 after another.
///
/// A connection asks for the next piece of an answer when the client has taken the last one, or left
/// room for it. Until then nothing of the answer is polled, so it cannot notice itself that its client
/// does not read: that takes whoever polls the stream or the connection.
#[derive(Debug, Default)]
pub(crate) struct Delivery {
    awaits_client: AtomicBool,
    /// Bytes, and one more for each piece.
    offered: AtomicU64,
}

impl Delivery {
    /// A piece is there for the client to take.
    pub(crate) fn offer(&self, bytes: u64) {
        self.awaits_client.store(true, Relaxed);
        self.offered.fetch_add(bytes.saturating_add(1), Relaxed);
    }

    /// The client has taken all there is.
    pub(crate) fn await_backend(&self) {
        self.awaits_client.store(false, Relaxed);
    }
}

pin_project! {
    /// A stream, or a connection, until it ends or its client does not take its answer.
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
    /// `None` for a client that does not take its answer.
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
