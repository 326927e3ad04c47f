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
use tower_spillover::ResponseBody;

use crate::serve::{clock::Silence, record::request_guard::Ledger, upstream::stack::Read};

/// A body of the gateway's own, or a backend's.
pub(crate) struct Outbound {
    kind: Kind,
    /// Until the last frame.
    ledger: Option<Box<Ledger>>,
}

enum Kind {
    Own(Option<Bytes>),
    Passing { body: Pin<Box<ResponseBody<Read>>>, silence: Silence },
}

/// Why an answer broke off.
#[derive(Debug)]
pub(crate) enum OutboundError {
    Broken(hyper::Error),
    Silent,
}

impl Outbound {
    pub(crate) fn own(text: Bytes, ledger: Option<Box<Ledger>>) -> Self {
        Self { kind: Kind::Own(Some(text).filter(|text| !text.is_empty())), ledger }.checked()
    }

    pub(crate) fn passing(
        body: ResponseBody<Read>,
        longest_silence: Duration,
        ledger: Box<Ledger>,
    ) -> Self {
        let silence = Silence::new(longest_silence);
        Self { kind: Kind::Passing { body: Box::pin(body), silence }, ledger: Some(ledger) }
            .checked()
    }

    /// A body that is over before it began is never polled.
    fn checked(mut self) -> Self {
        if self.is_end_stream() {
            self.complete();
        }
        self
    }

    fn complete(&mut self) {
        if let Some(mut ledger) = self.ledger.take() {
            ledger.complete();
        }
    }
}

impl Body for Outbound {
    type Data = Bytes;
    type Error = OutboundError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, OutboundError>>> {
        let next = match &mut self.kind {
            Kind::Own(text) => text.take().map(|text| Ok(Frame::data(text))),
            Kind::Passing { body, silence } => {
                if let Poll::Ready(next) = body.as_mut().poll_frame(cx) {
                    silence.end();
                    next.map(|frame| frame.map_err(OutboundError::Broken))
                } else {
                    ready!(silence.poll(cx));
                    Some(Err(OutboundError::Silent))
                }
            }
        };
        match &next {
            Some(Ok(frame)) => {
                if let (Some(ledger), Some(data)) = (&mut self.ledger, frame.data_ref()) {
                    ledger.see(data);
                }
                // Nobody has to poll a body again that says it is over.
                if self.is_end_stream() {
                    self.complete();
                }
            }
            Some(Err(_)) => self.ledger = None,
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

impl fmt::Display for OutboundError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(error) => write!(f, "the backend's answer broke off: {error}"),
            Self::Silent => f.write_str("the backend's answer stopped arriving"),
        }
    }
}

impl Error for OutboundError {}
