//! An answer's body on its way to the client: forwarded frame by frame, recorded, with idle
//! timeouts.

use std::{
    error::Error,
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};

use crate::{
    access_record::Ended,
    serve::{
        idle_timeout::IdleTimeout, record::request_guard::RequestGuard, refusal::Refusal,
        upstream::stack::AnswerBody,
    },
};

/// The gateway's own body, or a backend's.
pub(crate) struct ResponseBody {
    /// Before the guard, because dropping it reports the usage: fields are dropped in order.
    kind: Kind,
    /// Until the last frame.
    guard: Option<Box<RequestGuard>>,
}

enum Kind {
    Own(Option<Bytes>),
    Passing {
        first: Option<Frame<Bytes>>,
        body: Pin<Box<AnswerBody>>,
        idle: IdleTimeout,
    },
    /// The error to return next.
    Failed(Option<ResponseBodyError>),
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

    /// With `waits`, waits for the first frame before returning.
    ///
    /// # Errors
    ///
    /// If it fails before its first frame, so that another answer can be sent.
    pub(crate) async fn passing(
        body: AnswerBody,
        idle_timeout: Duration,
        waits: bool,
        guard: Box<RequestGuard>,
    ) -> Result<Self, (ResponseBodyError, Box<RequestGuard>)> {
        let (mut body, mut idle) = (Box::pin(body), IdleTimeout::new(idle_timeout));
        let first = if body.is_end_stream() {
            None
        } else {
            poll_fn(|cx| match next(&mut body, &mut idle, cx) {
                Poll::Pending if !waits => Poll::Ready(None),
                next => next,
            })
            .await
        };
        match first.transpose() {
            Ok(first) => {
                let kind = Kind::Passing { first, body, idle };
                Ok(Self { kind, guard: Some(guard) }.begun())
            }
            Err(error) => Err((error, guard)),
        }
    }

    /// A body that is empty from the start is never polled.
    fn begun(mut self) -> Self {
        self.offer(0);
        if self.is_end_stream() {
            self.complete();
        }
        self
    }

    /// Records that a piece is ready for the client.
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
            Kind::Passing { first, body, idle } => match first.take() {
                Some(first) => Some(Ok(first)),
                None => {
                    let next = next(body, idle, cx);
                    if let (Poll::Pending, Some(guard)) = (&next, guard) {
                        guard.busy.delivery.await_backend();
                    }
                    ready!(next)
                }
            },
            Kind::Failed(error) => return Poll::Ready(error.take().map(Err)),
        };
        match &next {
            // Do not poll after end of stream.
            Some(Ok(frame)) => {
                if let (Some(guard), Some(data)) = (&mut self.guard, frame.data_ref()) {
                    guard.passes(data);
                }
                self.offer(frame.data_ref().map_or(0, Bytes::len));
                if self.is_end_stream() {
                    self.complete();
                }
            }
            Some(Err(error)) => {
                if let Some(guard) = &mut self.guard {
                    guard.record.ended = error.ended();
                }
                // The body first: dropping it reports the usage.
                self.kind = Kind::Failed(next.and_then(Result::err));
                self.guard = None;
                // When a body fails, hyper discards what it has not written yet; when a body is
                // pending, hyper writes it. So return pending once.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            None => self.complete(),
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Own(text) => text.is_none(),
            Kind::Passing { first, body, .. } => first.is_none() && body.is_end_stream(),
            Kind::Failed(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
            Kind::Passing { first: None, body, .. } => body.size_hint(),
            Kind::Passing { first: Some(first), body, .. } => {
                let length = first.data_ref().map_or(0, Bytes::len) as u64;
                let mut hint = body.size_hint();
                if let Some(upper) = hint.upper() {
                    hint.set_upper(upper.saturating_add(length));
                }
                hint.set_lower(hint.lower().saturating_add(length));
                hint
            }
            Kind::Failed(_) => SizeHint::default(),
        }
    }
}

impl ResponseBodyError {
    /// The answer to send if nothing of this one has been sent.
    pub(crate) fn refusal(&self) -> Refusal {
        match self {
            Self::Broken(_) => {
                Refusal::bad_gateway("The backend's answer broke off before its first byte.")
            }
            // The backend may go on and bill an answer that is never read.
            Self::Silent => Refusal::new(
                StatusCode::GATEWAY_TIMEOUT,
                "GatewayTimeout",
                "The backend's answer stopped before its first byte.",
            )
            .not_again(),
        }
    }

    fn ended(&self) -> Ended {
        match self {
            Self::Silent => Ended::Stalled,
            Self::Broken(error) if is_end_of_file(error) => Ended::Cut,
            Self::Broken(_) => Ended::Reset,
        }
    }
}

/// The next frame, or a timeout.
fn next(
    body: &mut Pin<Box<AnswerBody>>,
    idle: &mut IdleTimeout,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
    let Poll::Ready(next) = body.as_mut().poll_frame(cx) else {
        ready!(idle.poll(cx));
        return Poll::Ready(Some(Err(ResponseBodyError::Silent)));
    };
    idle.reset();
    Poll::Ready(next.map(|frame| frame.map_err(ResponseBodyError::Broken)))
}

/// Whether the connection ended in an orderly way, but too early.
fn is_end_of_file(error: &hyper::Error) -> bool {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        let io = error.downcast_ref::<io::Error>();
        let io = io.or_else(|| error.downcast_ref::<h2::Error>()?.get_io());
        // HTTP/2 reports this as a broken pipe, although nothing was written.
        let is_end =
            |kind| matches!(kind, io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe);
        if io.is_some_and(|error| is_end(error.kind())) {
            return true;
        }
        next = error.source();
    }
    error.is_incomplete_message()
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
