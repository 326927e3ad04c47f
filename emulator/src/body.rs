//! The body of the emulator's answers, and its errors.

use std::{
    error::Error,
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use crate::{answer::sse::EventStream, clock::Clock};

/// A complete body, or an event stream that is generated as it is read.
#[derive(Debug)]
pub struct EmulatorBody(Kind);

#[derive(Debug)]
enum Kind {
    Whole(Bytes),
    /// Complete, but sent without a length, like a stream.
    Streamed(Bytes),
    Half {
        length: u64,
        half: Bytes,
        cut: Cut,
    },
    Events(Box<EventStream>),
}

impl EmulatorBody {
    /// Announces the length of `bytes`, sends half of them and breaks.
    #[doc(hidden)]
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self(Kind::Whole(bytes.into()))
    }

    /// A complete list of events. Like any stream's, their length is not announced.
    pub(crate) fn streamed(bytes: impl Into<Bytes>) -> Self {
        Self(Kind::Streamed(bytes.into()))
    }

    /// Announces the length of `bytes`, sends half of them and breaks.
    pub(crate) fn half(bytes: impl Into<Bytes>, cut: Cut) -> Self {
        let mut half = bytes.into();
        let length = half.len() as u64;
        half.truncate(half.len() / 2);
        Self(Kind::Half { length, half, cut })
    }

    pub(crate) fn events(events: EventStream) -> Self {
        Self(Kind::Events(Box::new(events)))
    }
}

impl Body for EmulatorBody {
    type Data = Bytes;
    type Error = EmulatorError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, EmulatorError>>> {
        let next = match &mut self.get_mut().0 {
            Kind::Whole(bytes) | Kind::Streamed(bytes) => Ok(std::mem::take(bytes)),
            Kind::Half { half, .. } if !half.is_empty() => Ok(std::mem::take(half)),
            Kind::Half { cut, .. } => Err(ready!(cut.poll(cx))),
            Kind::Events(events) => match ready!(events.poll_next(cx)) {
                Some(event) => event,
                None => return Poll::Ready(None),
            },
        };
        Poll::Ready(match next {
            Ok(bytes) if bytes.is_empty() => None,
            Ok(bytes) => Some(Ok(Frame::data(bytes))),
            Err(error) => Some(Err(error)),
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes) | Kind::Streamed(bytes) => bytes.is_empty(),
            Kind::Half { .. } => false,
            Kind::Events(events) => events.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Half { length, .. } => SizeHint::with_exact(*length),
            Kind::Streamed(_) | Kind::Events(_) => SizeHint::default(),
        }
    }
}

/// Breaks a body; over a socket, after a short pause.
#[derive(Debug)]
pub(crate) struct Cut {
    clock: Clock,
    pause: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Cut {
    /// `pause` gives the connection time to send the preceding bytes: hyper discards what is still
    /// in its buffers when a body fails, and so does h2 when it resets a stream.
    pub(crate) fn new(clock: Clock, pause: Duration) -> Self {
        Self { clock, pause, sleep: None }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<EmulatorError> {
        if !self.pause.is_zero() {
            let (clock, pause) = (self.clock, self.pause);
            let sleep = self
                .sleep
                .get_or_insert_with(|| clock.sleep_until(clock.now().saturating_add(pause)));
            ready!(sleep.as_mut().poll(cx));
        }
        Poll::Ready(EmulatorError::Cut)
    }
}

/// The error that an in-process caller gets where a caller over a socket sees its connection break.
#[derive(Debug)]
#[non_exhaustive]
pub enum EmulatorError {
    /// A scripted [`Fault::reset`](crate::Fault::reset).
    Reset,
    /// The connection is refused: the resource has an [`Outage`](crate::Outage).
    Down,
    /// A scripted [`Fault::cut_stream_after`](crate::Fault::cut_stream_after), from the
    /// body of an answer.
    Cut,
    /// The request's body failed.
    Request(Box<dyn Error + Send + Sync>),
}

impl fmt::Display for EmulatorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reset => "connection reset by the emulator",
            Self::Down => "connection refused by the emulator",
            Self::Cut => "answer cut off by the emulator",
            Self::Request(_) => "the request's body failed",
        })
    }
}

impl Error for EmulatorError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Request(error) => Some(&**error),
            _ => None,
        }
    }
}
