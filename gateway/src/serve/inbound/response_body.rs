//! An answer's body on its way out: passed on frame by frame, watched, and never waited for long.

use std::{
    error::Error,
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::serve::{
    idle_timeout::IdleTimeout, record::request_guard::RequestGuard, upstream::stack::AnswerBody,
};

/// A body of the gateway's own, or a backend's.
pub(crate) struct ResponseBody {
    /// Before the guard, which is to have its usage: fields are dropped in their order.
    kind: Kind,
    /// Until the last frame.
    guard: Option<Box<RequestGuard>>,
}

enum Kind {
    Own(Option<Bytes>),
    Passing { body: Pin<Box<AnswerBody>>, idle: IdleTimeout },
}

/// Why an answer broke off.
#[derive(Debug)]
pub(crate) enum ResponseBodyError {
    Broken(hyper::Error),
    Silent,
}

impl ResponseBody {
    pub(crate) fn own(text: Bytes, guard: Option<Box<RequestGuard>>) -> Self {
        Self { kind: Kind::Own(Some(text).filter(|text| !text.is_empty())), guard }.begun()
    }

    pub(crate) fn passing(
        body: AnswerBody,
        idle_timeout: Duration,
        guard: Box<RequestGuard>,
    ) -> Self {
        let idle = IdleTimeout::new(idle_timeout);
        Self { kind: Kind::Passing { body: Box::pin(body), idle }, guard: Some(guard) }.begun()
    }

    /// A body that is over before it began is never polled.
    fn begun(mut self) -> Self {
        self.offer(0);
        if self.is_end_stream() {
            self.complete();
        }
        self
    }

    /// The client is to take so much.
    fn offer(&self, bytes: usize) {
        if let Some(guard) = &self.guard {
            guard.busy.delivery.offer(bytes as u64);
        }
    }

    fn complete(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            guard.complete();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ResponseBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        let Self { kind, guard } = &mut *self;
        let next = match kind {
            Kind::Own(text) => text.take().map(|text| Ok(Frame::data(text))),
            Kind::Passing { body, idle } => {
                if let Poll::Ready(next) = body.as_mut().poll_frame(cx) {
                    idle.reset();
                    next.map(|frame| frame.map_err(ResponseBodyError::Broken))
                } else {
                    if let Some(guard) = guard {
                        guard.busy.delivery.await_backend();
                    }
                    ready!(idle.poll(cx));
                    Some(Err(ResponseBodyError::Silent))
                }
            }
        };
        match &next {
            // Not polled again after the end of the stream.
            Some(Ok(frame)) => {
                self.offer(frame.data_ref().map_or(0, Bytes::len));
                if self.is_end_stream() {
                    self.complete();
                }
            }
            Some(Err(_)) => {
                // First the body, which says what was used when it is dropped.
                self.kind = Kind::Own(None);
                self.guard = None;
            }
            None => self.complete(),
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Own(text) => text.is_none(),
            Kind::Passing { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
            Kind::Passing { body, .. } => body.size_hint(),
        }
    }
}

impl fmt::Display for ResponseBodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(error) => write!(f, "the backend's answer broke off: {error}"),
            Self::Silent => f.write_str("the backend's answer stopped arriving"),
        }
    }
}

impl Error for ResponseBodyError {}
