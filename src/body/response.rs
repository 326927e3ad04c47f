//! The response body of a layer that may answer by itself.

use std::{
    borrow::Cow,
    collections::VecDeque,
    fmt, mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::Observer;

pin_project! {
    /// The response body of a layer that may answer by itself: a backend's body, untouched, what
    /// was read ahead of it included, or the layer's own short text. Frames, trailers, size hint
    /// and error type are those of `B`.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProj]
    #[derive(Debug)]
    enum Kind<B> {
        Upstream { #[pin] body: B },
        // The observer, while it has not reported.
        Observed { #[pin] body: B, observer: Option<Box<Observer>> },
        Own { text: Option<Bytes> },
        // What was read ahead, while there is some or the body is over.
        Read { #[pin] body: B, ahead: Option<Box<Ahead<B>>> },
    }
}

/// What was read ahead of a body.
pub(crate) struct Ahead<B> {
    frames: VecDeque<Frame<Bytes>>,
    bytes: usize,
    end: End<B>,
}

/// How far a body was read ahead.
enum End<B> {
    /// It goes on.
    Open,
    Over,
    /// It failed, once and for all.
    Failed(Box<dyn Failure<B> + Send + Sync>),
}

/// The error of a `B`, behind a trait so that `ResponseBody<B>` asks nothing of `B`.
trait Failure<B> {
    fn give(self: Box<Self>) -> B::Error
    where
        B: Body;
}

/// A backend's body, untouched: for a service that is to answer as one inside of
/// [`InspectLayer`](crate::InspectLayer) does, without being inside of it.
impl<B> From<B> for ResponseBody<B> {
    fn from(body: B) -> Self {
        Self::upstream(body)
    }
}

impl<B> ResponseBody<B> {
    pub(crate) const fn upstream(body: B) -> Self {
        Self { kind: Kind::Upstream { body } }
    }

    /// `observer` sees the frames of `body` pass by, and is dropped with the last of them or with
    /// the body.
    pub(crate) const fn observed(body: B, observer: Box<Observer>) -> Self {
        Self { kind: Kind::Observed { body, observer: Some(observer) } }
    }

    /// Gives what was read ahead of `body` first, then the rest of it.
    pub(crate) fn read(body: B, ahead: Ahead<B>) -> Self {
        let ahead = (!ahead.is_through()).then(|| Box::new(ahead));
        Self { kind: Kind::Read { body, ahead } }
    }

    pub(crate) const fn own(text: Bytes) -> Self {
        Self { kind: Kind::Own { text: Some(text) } }
    }
}

impl<B> Ahead<B> {
    /// How many bytes were read, each frame counted as a few at least: there is no end to the
    /// empty ones that a peer can send.
    pub(crate) fn weight(&self) -> usize {
        self.bytes.max(self.frames.len().saturating_mul(LIGHTEST))
    }

    pub(crate) fn push_data(&mut self, data: Bytes) {
        self.bytes = self.bytes.saturating_add(data.len());
        self.frames.push_back(Frame::data(data));
    }

    pub(crate) fn push_trailers(&mut self, trailers: HeaderMap) {
        self.frames.push_back(Frame::trailers(trailers));
    }

    /// The body has ended.
    pub(crate) fn end(&mut self) {
        self.end = End::Over;
    }

    /// The data that was read, in one piece.
    pub(crate) fn text(&self) -> Cow<'_, [u8]> {
        let mut pieces = self.frames.iter().filter_map(Frame::data_ref);
        match (pieces.next(), pieces.next()) {
            (None, _) => Cow::Borrowed(&[]),
            (Some(only), None) => Cow::Borrowed(only),
            _ => {
                let pieces = self.frames.iter().filter_map(Frame::data_ref);
                let mut text = Vec::with_capacity(self.bytes);
                pieces.for_each(|piece| text.extend_from_slice(piece));
                Cow::Owned(text)
            }
        }
    }

    fn pop(&mut self) -> Option<Frame<Bytes>> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.data_ref().map_or(0, Bytes::len);
        Some(frame)
    }

    /// Whether there is nothing to give any more, and the body goes on.
    fn is_through(&self) -> bool {
        self.frames.is_empty() && matches!(self.end, End::Open)
    }
}

impl<B: Body> Ahead<B> {
    /// The body has failed.
    pub(crate) fn fail(&mut self, error: B::Error)
    where
        B::Error: Send + Sync + 'static,
    {
        self.end = End::Failed(Box::new(Failed(error)));
    }
}

impl<B> Default for Ahead<B> {
    fn default() -> Self {
        Self { frames: VecDeque::new(), bytes: 0, end: End::Open }
    }
}

impl<B> fmt::Debug for Ahead<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What a model says is nobody's business but its size is.
        f.debug_struct("Ahead").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

struct Failed<E>(E);

impl<B: Body> Failure<B> for Failed<B::Error> {
    fn give(self: Box<Self>) -> B::Error {
        self.0
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body,
    B::Data: From<Bytes>,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.project().kind.project() {
            KindProj::Upstream { body } => body.poll_frame(cx),
            KindProj::Observed { mut body, observer } => {
                let next = ready!(body.as_mut().poll_frame(cx));
                if let Some(watching) = observer {
                    match &next {
                        Some(Ok(frame)) => {
                            if let Some(data) = frame.data_ref() {
                                watching.see(data);
                            }
                            // Nobody has to poll a body again that says it is over.
                            if body.is_end_stream() {
                                *observer = None;
                            }
                        }
                        Some(Err(_)) | None => *observer = None,
                    }
                }
                Poll::Ready(next)
            }
            KindProj::Own { text } => {
                Poll::Ready(text.take().map(|text| Ok(Frame::data(text.into()))))
            }
            KindProj::Read { body, ahead } => {
                if let Some(read) = ahead {
                    if let Some(frame) = read.pop() {
                        if read.is_through() {
                            *ahead = None;
                        }
                        return Poll::Ready(Some(Ok(frame.map_data(Into::into))));
                    }
                    match mem::replace(&mut read.end, End::Over) {
                        End::Open => *ahead = None,
                        End::Over => return Poll::Ready(None),
                        End::Failed(error) => return Poll::Ready(Some(Err(error.give()))),
                    }
                }
                body.poll_frame(cx)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Upstream { body } | Kind::Observed { body, .. } => body.is_end_stream(),
            Kind::Own { text } => text.is_none(),
            Kind::Read { body, ahead: None } => body.is_end_stream(),
            Kind::Read { body, ahead: Some(ahead) } => {
                ahead.frames.is_empty()
                    && match ahead.end {
                        End::Open => body.is_end_stream(),
                        End::Over => true,
                        End::Failed(_) => false,
                    }
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Upstream { body } | Kind::Observed { body, .. } => body.size_hint(),
            Kind::Own { text } => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
            Kind::Read { body, ahead: None } => body.size_hint(),
            Kind::Read { body, ahead: Some(ahead) } => {
                let read = ahead.bytes as u64;
                let rest = match ahead.end {
                    End::Over => SizeHint::with_exact(0),
                    End::Open | End::Failed(_) => body.size_hint(),
                };
                let mut hint = SizeHint::new();
                hint.set_lower(rest.lower().saturating_add(read));
                if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(read)) {
                    hint.set_upper(upper);
                }
                hint
            }
        }
    }
}

/// In bytes.
const LIGHTEST: usize = 16;
