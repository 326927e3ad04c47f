//! A request body that was kept, as far as the limit allowed.

use std::{
    fmt, mem,
    pin::Pin,
    task::{Context, Poll, ready},
    vec,
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::{
    chunks::{WholeBody, into_bytes},
    renaming::{RenameEnd, Renaming},
};
use crate::{
    TryCloneBody,
    azure::{MemberNames, ModelRename},
    body::LazyContent,
};

/// A request body that was kept whole, or that is forwarded while it arrives because it is too long.
/// Made by [`ReplayLayer`](super::ReplayLayer).
pub struct ReplayBody<B: Body> {
    kind: ReplayKind<B>,
    /// Whether it is not kept for another attempt because the total had no room.
    lacked_room: bool,
    /// Found in the part that was read, if requested.
    names: Option<MemberNames>,
}

enum ReplayKind<B: Body> {
    /// The whole body. It can be sent again.
    Kept { body: WholeBody, trailers: Option<HeaderMap> },
    /// The whole body in pieces, for one backend: it is being sent, or some text was replaced.
    Pieced { pieces: vec::IntoIter<Bytes>, trailers: Option<HeaderMap> },
    /// What arrived before a limit was reached, then the rest of the body.
    Arriving { data: Bytes, rest: B, renaming: Option<Box<Renaming>> },
    /// What arrived before the error, then the error.
    Broken { data: Bytes, error: Option<B::Error> },
}

impl<B: Body> ReplayBody<B> {
    /// Whether the body was kept whole, so that it can be sent again.
    pub const fn is_replayable(&self) -> bool {
        matches!(self.kind, ReplayKind::Kept { .. } | ReplayKind::Pieced { .. })
            && !self.lacked_room
    }

    /// The part of the body that is in memory: all of it if it was kept.
    pub fn beginning(&self) -> Bytes {
        match &self.kind {
            ReplayKind::Kept { body, .. } => body.join(),
            ReplayKind::Arriving { data, .. } | ReplayKind::Broken { data, .. } => data.clone(),
            ReplayKind::Pieced { pieces, .. } => pieces.as_slice().concat().into(),
        }
    }

    /// Whether the body is not kept for another attempt because the
    /// [`ReplayTotal`](super::ReplayTotal) had no room.
    pub const fn lacked_room(&self) -> bool {
        self.lacked_room
    }

    /// Takes the error that ended the body while it was kept. The body then ends without it.
    pub fn take_error(&mut self) -> Option<B::Error> {
        match &mut self.kind {
            ReplayKind::Broken { error, .. } => error.take(),
            _ => None,
        }
    }

    /// Whether the body was cut off, because it named a model a second time on its way to a backend
    /// with another name for it. A client that announced the length aborts the request.
    pub fn is_cut_off(&self) -> bool {
        match &self.kind {
            ReplayKind::Arriving { renaming: Some(renaming), .. } => {
                renaming.end() == Some(RenameEnd::CutOff)
            }
            _ => false,
        }
    }

    pub(super) const fn kept(body: WholeBody, trailers: Option<HeaderMap>) -> Self {
        Self::of(ReplayKind::Kept { body, trailers })
    }

    pub(super) const fn arriving(data: Bytes, rest: B) -> Self {
        Self::of(ReplayKind::Arriving { data, rest, renaming: None })
    }

    pub(super) const fn broken(data: Bytes, error: B::Error) -> Self {
        Self::of(ReplayKind::Broken { data, error: Some(error) })
    }

    /// The body, not kept for another attempt.
    pub(super) fn once(self) -> Self {
        Self { lacked_room: true, ..self }
    }

    /// The body, in which these names were found.
    pub(super) fn naming(self, names: Option<MemberNames>) -> Self {
        Self { names, ..self }
    }

    const fn of(kind: ReplayKind<B>) -> Self {
        Self { kind, lacked_room: false, names: None }
    }
}

impl<B: Body + Unpin> TryCloneBody for ReplayBody<B> {
    fn try_clone(&self) -> Option<Self> {
        let kind = match &self.kind {
            _ if self.lacked_room => return None,
            ReplayKind::Kept { body, trailers } => {
                ReplayKind::Kept { body: body.clone(), trailers: trailers.clone() }
            }
            ReplayKind::Pieced { pieces, trailers } => {
                ReplayKind::Pieced { pieces: pieces.clone(), trailers: trailers.clone() }
            }
            ReplayKind::Arriving { .. } | ReplayKind::Broken { .. } => return None,
        };
        Some(Self::of(kind).naming(self.names))
    }

    fn content(&self) -> Option<Bytes> {
        let is_whole = matches!(self.kind, ReplayKind::Kept { .. } | ReplayKind::Pieced { .. });
        is_whole.then(|| self.beginning())
    }

    fn lazy_content(&self) -> Option<LazyContent> {
        match &self.kind {
            ReplayKind::Kept { body, .. } => Some(body.lazy()),
            _ => self.content().map(LazyContent::from),
        }
    }

    fn content_so_far(&self) -> Option<Bytes> {
        Some(self.beginning())
    }

    fn member_names(&self) -> Option<MemberNames> {
        self.names
    }

    fn replace_content(&mut self, content: Bytes) {
        match &mut self.kind {
            ReplayKind::Kept { body, .. } => *body = WholeBody::One(content),
            ReplayKind::Pieced { pieces, .. } => *pieces = vec![content].into_iter(),
            ReplayKind::Arriving { .. } | ReplayKind::Broken { .. } => {}
        }
    }

    fn replace_with_pieces(&mut self, new: Vec<Bytes>) {
        if let ReplayKind::Kept { trailers, .. } | ReplayKind::Pieced { trailers, .. } =
            &mut self.kind
        {
            let (pieces, trailers) = (new.into_iter(), trailers.take());
            self.kind = ReplayKind::Pieced { pieces, trailers };
        }
    }

    fn rename_model(&mut self, rename: ModelRename) -> bool {
        match &mut self.kind {
            ReplayKind::Kept { .. } | ReplayKind::Pieced { .. } => false,
            ReplayKind::Arriving { data, rest, renaming, .. } => {
                *renaming = Renaming::begin(rename, data, rest.size_hint()).map(Box::new);
                renaming.is_some()
            }
            // No backend gets any of it.
            ReplayKind::Broken { data, .. } => {
                *data = Bytes::new();
                true
            }
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
        match &mut self.kind {
            ReplayKind::Arriving { data, rest, renaming: Some(renaming), .. } => {
                // The data was kept only for another name.
                *data = Bytes::new();
                poll_renamed(renaming, rest, cx)
            }
            ReplayKind::Kept { body: WholeBody::One(data), .. }
            | ReplayKind::Arriving { data, .. }
            | ReplayKind::Broken { data, .. }
                if !data.is_empty() =>
            {
                Poll::Ready(Some(Ok(Frame::data(mem::take(data)))))
            }
            ReplayKind::Kept { body: body @ WholeBody::Pieces(_), trailers } => {
                let mut pieces = body.to_pieces().into_iter();
                let first = pieces.next().map(|piece| Ok(Frame::data(piece)));
                self.kind = ReplayKind::Pieced { pieces, trailers: trailers.take() };
                Poll::Ready(first)
            }
            ReplayKind::Pieced { pieces, trailers } => {
                let trailers = || trailers.take().map(Frame::trailers);
                Poll::Ready(pieces.next().map(Frame::data).or_else(trailers).map(Ok))
            }
            ReplayKind::Kept { trailers, .. } => {
                Poll::Ready(trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
            }
            ReplayKind::Arriving { rest, .. } => {
                Pin::new(rest).poll_frame(cx).map_ok(|frame| frame.map_data(into_bytes))
            }
            ReplayKind::Broken { error, .. } => Poll::Ready(error.take().map(Err)),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            ReplayKind::Kept { body, trailers } => body.len() == 0 && trailers.is_none(),
            ReplayKind::Pieced { pieces, trailers } => pieces.len() == 0 && trailers.is_none(),
            ReplayKind::Arriving { renaming: Some(renaming), .. } => {
                renaming.is_empty() && renaming.end().is_some()
            }
            ReplayKind::Arriving { data, rest, .. } => data.is_empty() && rest.is_end_stream(),
            ReplayKind::Broken { error, .. } => error.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            ReplayKind::Kept { body, .. } => SizeHint::with_exact(body.len() as u64),
            ReplayKind::Pieced { pieces, .. } => {
                SizeHint::with_exact(pieces.as_slice().iter().map(|piece| piece.len() as u64).sum())
            }
            ReplayKind::Arriving { rest, renaming: Some(renaming), .. } => {
                renaming.size_hint(rest.size_hint())
            }
            ReplayKind::Arriving { data, rest, .. } => {
                let (kept, rest) = (data.len() as u64, rest.size_hint());
                let mut hint = SizeHint::new();
                hint.set_lower(rest.lower().saturating_add(kept));
                if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(kept)) {
                    hint.set_upper(upper);
                }
                hint
            }
            ReplayKind::Broken { .. } => SizeHint::default(),
        }
    }
}

fn poll_renamed<B: Body + Unpin>(
    renaming: &mut Renaming,
    rest: &mut B,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
    loop {
        if let Some(frame) = renaming.next() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if renaming.end().is_some() {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut *rest).poll_frame(cx)).transpose()?;
        match frame.map(|frame| frame.map_data(into_bytes).into_data()) {
            Some(Ok(piece)) => renaming.push(&piece),
            Some(Err(trailers)) => renaming.finish(Some(trailers)),
            None => renaming.finish(None),
        }
    }
}

impl<B: Body> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Redacted: a prompt is private, its size is not.
        let (state, kept) = match &self.kind {
            ReplayKind::Kept { body, .. } => ("kept", body.len()),
            ReplayKind::Pieced { pieces, .. } => {
                ("kept", pieces.as_slice().iter().map(Bytes::len).sum())
            }
            ReplayKind::Arriving { data, .. } => ("arriving", data.len()),
            ReplayKind::Broken { data, .. } => ("broken", data.len()),
        };
        f.debug_struct("ReplayBody").field("state", &state).field("kept", &kept).finish()
    }
}
