//! The rest of a request's body that was answered before its end.

use std::{
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
};

use futures::task::AtomicWaker;
use http_body::Body;
use hyper::body::Incoming;

/// An unneeded body, until its connection's task has read and discarded it: the next request begins
/// after it. Without other notice, a client sends that request on the same connection, and loses it
/// if the connection is closed instead.
///
/// Needs no timer: meanwhile the connection counts as one without a request.
#[derive(Debug, Default)]
pub(crate) struct UploadRest {
    body: Mutex<Option<Incoming>>,
    left: AtomicWaker,
}

impl UploadRest {
    /// Above this, reading costs more than a new connection. Go's server uses the same limit.
    pub(crate) const MAX_BYTES: u64 = 256 << 10;

    pub(crate) fn leave(&self, body: Incoming) {
        *self.body.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        self.left.wake();
    }

    /// Ready each time a rest has been discarded.
    pub(crate) fn poll_discard(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.left.register(cx.waker());
        let mut rest = self.body.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(body) = rest.as_mut() {
            match Pin::new(body).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(None | Some(Err(_))) => {
                    *rest = None;
                    return Poll::Ready(());
                }
            }
        }
        Poll::Pending
    }
}
