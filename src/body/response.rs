//! The response body of a layer that may answer itself.

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
    /// The response body of a layer that may answer itself: a backend's body, unchanged, including
    /// what was read ahead of it, or the layer's own short text. Frames, trailers, size hint and
    /// error type are those of `B`.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        #[pin]
        kind: BodyKind<B>,
    }
}

pin_project! {
    #[project = KindProj]
    #[derive(Debug)]
    enum BodyKind<B> {
        Upstream { #[pin] body: B },
        // The observer, until it has reported.
        Observed { #[pin] body: B, observer: Option<Box<Observer>> },
        Own { text: Option<Bytes> },
        // What was read ahead, until it is used up or the body is over.
        Read { #[pin] body: B, ahead: Option<Box<ReadAhead<B>>> },
    }
}

/// The frames that were read ahead of a body.
pub(crate) struct ReadAhead<B> {
    frames: VecDeque<Frame<Bytes>>,
    bytes: usize,
    end: ReadEnd<B>,
}

/// How reading ahead of a body ended.
enum ReadEnd<B> {
    /// The body continues.
    Open,
    Over,
    /// It failed; no more frames follow.
    Failed(Box<dyn StoredError<B> + Send + Sync>),
}

/// The error of a `B`, behind a trait so that `ResponseBody<B>` has no bounds on `B`.
trait StoredError<B> {
    fn give(self: Box<Self>) -> B::Error
    where
        B: Body;
}

/// A backend's body, unchanged: for a service that returns the same type as one below
/// [`InspectLayer`](crate::InspectLayer) without using that layer.
impl<B> From<B> for ResponseBody<B> {
    fn from(body: B) -> Self {
        Self::upstream(body)
    }
}

impl<B> ResponseBody<B> {
    pub(crate) const fn upstream(body: B) -> Self {
        Self { kind: BodyKind::Upstream { body } }
    }

    /// `observer` sees the frames of `body` as they pass, and is dropped with the last of them or
    /// with the body.
    pub(crate) const fn observed(body: B, observer: Box<Observer>) -> Self {
        Self { kind: BodyKind::Observed { body, observer: Some(observer) } }
    }

    /// Returns what was read ahead of `body` first, then the rest of it.
    pub(crate) fn read(body: B, ahead: ReadAhead<B>) -> Self {
        let ahead = (!ahead.is_through()).then(|| Box::new(ahead));
        Self { kind: BodyKind::Read { body, ahead } }
    }

    pub(crate) const fn own(text: Bytes) -> Self {
        Self { kind: BodyKind::Own { text: Some(text) } }
    }
}

impl<B> ReadAhead<B> {
    /// The bytes read, with a minimum per frame, since a peer can send any number of empty ones.
    pub(crate) fn weight(&self) -> usize {
        self.bytes.max(self.frames.len().saturating_mul(MIN_FRAME_BYTES))
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
        self.end = ReadEnd::Over;
    }

    /// The data that was read, contiguous.
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

    /// Whether everything was returned and the body continues.
    fn is_through(&self) -> bool {
        self.frames.is_empty() && matches!(self.end, ReadEnd::Open)
    }
}

impl<B: Body> ReadAhead<B> {
    /// The body has failed.
    pub(crate) fn fail(&mut self, error: B::Error)
    where
        B::Error: Send + Sync + 'static,
    {
        self.end = ReadEnd::Failed(Box::new(Failed(error)));
    }
}

impl<B> Default for ReadAhead<B> {
    fn default() -> Self {
        Self { frames: VecDeque::new(), bytes: 0, end: ReadEnd::Open }
    }
}

impl<B> fmt::Debug for ReadAhead<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Redacted; only the size is shown.
        f.debug_struct("ReadAhead").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

struct Failed<E>(E);

impl<B: Body> StoredError<B> for Failed<B::Error> {
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
                                watching.see(data, body.is_end_stream());
                            }
                            // Do not poll after end of stream.
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
                    match mem::replace(&mut read.end, ReadEnd::Over) {
                        ReadEnd::Open => *ahead = None,
                        ReadEnd::Over => return Poll::Ready(None),
                        ReadEnd::Failed(error) => return Poll::Ready(Some(Err(error.give()))),
                    }
                }
                body.poll_frame(cx)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            BodyKind::Upstream { body } | BodyKind::Observed { body, .. } => body.is_end_stream(),
            BodyKind::Own { text } => text.is_none(),
            BodyKind::Read { body, ahead: None } => body.is_end_stream(),
            BodyKind::Read { body, ahead: Some(ahead) } => {
                ahead.frames.is_empty()
                    && match ahead.end {
                        ReadEnd::Open => body.is_end_stream(),
                        ReadEnd::Over => true,
                        ReadEnd::Failed(_) => false,
                    }
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            BodyKind::Upstream { body } | BodyKind::Observed { body, .. } => body.size_hint(),
            BodyKind::Own { text } => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
            BodyKind::Read { body, ahead: None } => body.size_hint(),
            BodyKind::Read { body, ahead: Some(ahead) } => {
                let read = ahead.bytes as u64;
                let rest = match ahead.end {
                    ReadEnd::Over => SizeHint::with_exact(0),
                    ReadEnd::Open | ReadEnd::Failed(_) => body.size_hint(),
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

/// The least that a frame counts, in bytes.
const MIN_FRAME_BYTES: usize = 16;
