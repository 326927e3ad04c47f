//! A request body that was kept, or as much of one as the limit allowed.

use std::{
    fmt, mem,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::TryCloneBody;

/// A request body that was kept whole, or is sent on while it arrives because it is too long.
/// Made by [`ReplayLayer`](super::ReplayLayer).
pub struct ReplayBody<B: Body> {
    kind: Kind<B>,
}

enum Kind<B: Body> {
    /// The whole body. It can be sent again.
    Kept { data: Bytes, trailers: Option<HeaderMap> },
    /// What arrived before the limit or an error was met, then the rest of the body.
    Arriving { data: Bytes, rest: B },
    /// What arrived before the error, then the error.
    Broken { data: Bytes, error: Option<B::Error> },
}

impl<B: Body> ReplayBody<B> {
    /// Whether the body was kept whole, so that it can be sent again.
    pub const fn is_replayable(&self) -> bool {
        matches!(self.kind, Kind::Kept { .. })
    }

    pub(super) const fn kept(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self { kind: Kind::Kept { data, trailers } }
    }

    pub(super) const fn arriving(data: Bytes, rest: B) -> Self {
        Self { kind: Kind::Arriving { data, rest } }
    }

    pub(super) const fn broken(data: Bytes, error: B::Error) -> Self {
        Self { kind: Kind::Broken { data, error: Some(error) } }
    }
}

impl<B: Body + Unpin> TryCloneBody for ReplayBody<B> {
    fn try_clone(&self) -> Option<Self> {
        match &self.kind {
            Kind::Kept { data, trailers } => Some(Self::kept(data.clone(), trailers.clone())),
            Kind::Arriving { .. } | Kind::Broken { .. } => None,
        }
    }

    fn content(&self) -> Option<Bytes> {
        match &self.kind {
            Kind::Kept { data, .. } => Some(data.clone()),
            Kind::Arriving { .. } | Kind::Broken { .. } => None,
        }
    }

    fn replace_content(&mut self, content: Bytes) {
        if let Kind::Kept { data, .. } = &mut self.kind {
            *data = content;
        }
    }
}

/// Only the rest of a body is ever pinned.
impl<B: Body + Unpin> Unpin for ReplayBody<B> {}

impl<B: Body + Unpin> Body for ReplayBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let (Kind::Kept { data, .. } | Kind::Arriving { data, .. } | Kind::Broken { data, .. }) =
            &mut self.kind;
        if !data.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(mem::take(data)))));
        }
        match &mut self.kind {
            Kind::Kept { trailers, .. } => {
                Poll::Ready(trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Kind::Arriving { rest, .. } => {
                Pin::new(rest).poll_frame(cx).map_ok(|frame| frame.map_data(into_bytes))
            }
            Kind::Broken { error, .. } => Poll::Ready(error.take().map(Err)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Kept { data, trailers } => data.is_empty() && trailers.is_none(),
            Kind::Arriving { data, rest } => data.is_empty() && rest.is_end_stream(),
            Kind::Broken { error, .. } => error.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Kept { data, .. } => SizeHint::with_exact(data.len() as u64),
            Kind::Arriving { data, rest } => {
                let (kept, rest) = (data.len() as u64, rest.size_hint());
                let mut hint = SizeHint::new();
                hint.set_lower(rest.lower().saturating_add(kept));
                if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(kept)) {
                    hint.set_upper(upper);
                }
                hint
            }
            Kind::Broken { .. } => SizeHint::default(),
        }
    }
}

impl<B: Body> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A prompt is nobody's business but its size is.
        let (state, kept) = match &self.kind {
            Kind::Kept { data, .. } => ("kept", data.len()),
            Kind::Arriving { data, .. } => ("arriving", data.len()),
            Kind::Broken { data, .. } => ("broken", data.len()),
        };
        f.debug_struct("ReplayBody").field("state", &state).field("kept", &kept).finish()
    }
}

/// Chunks on their way to becoming one.
#[derive(Default)]
pub(super) struct Chunks {
    /// A body of one chunk is not copied.
    first: Bytes,
    joined: BytesMut,
}

impl Chunks {
    pub(super) fn len(&self) -> usize {
        self.first.len().max(self.joined.len())
    }

    pub(super) fn push(&mut self, chunk: impl Buf) {
        if self.len() == 0 {
            self.first = into_bytes(chunk);
            return;
        }
        if self.joined.is_empty() {
            self.joined.extend_from_slice(&mem::take(&mut self.first));
        }
        self.joined.reserve(chunk.remaining());
        bytes::BufMut::put(&mut self.joined, chunk);
    }

    pub(super) fn join(self) -> Bytes {
        if self.joined.is_empty() { self.first } else { self.joined.freeze() }
    }
}

/// Without copying, when the chunk is `Bytes` already.
fn into_bytes(mut chunk: impl Buf) -> Bytes {
    chunk.copy_to_bytes(chunk.remaining())
}
