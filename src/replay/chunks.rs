//! The chunks of a body while it arrives, and the whole body in the pieces that result.

use std::{
    mem,
    sync::{Arc, PoisonError},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::total::Room;
use crate::{
    body::{JoinPieces, LazyContent},
    sync::{Mutex, MutexGuard},
};

/// The chunks that have arrived so far, kept as they came unless they are short.
#[derive(Default)]
pub(super) struct Chunks {
    /// A body of one chunk allocates nothing.
    first: Bytes,
    more: Vec<Bytes>,
    /// Short chunks are copied: each would keep the whole buffer that it was read into.
    short: BytesMut,
    length: usize,
}

impl Chunks {
    pub(super) const fn len(&self) -> usize {
        self.length
    }

    pub(super) fn push(&mut self, chunk: impl Buf) {
        let length = chunk.remaining();
        if self.length == 0 {
            self.first = into_bytes(chunk);
        } else if length < MIN_PIECE_BYTES {
            self.short.reserve(length);
            self.short.put(chunk);
            if self.short.len() >= MAX_JOINED_BYTES {
                self.end_short();
            }
        } else {
            self.end_short();
            self.more.push(into_bytes(chunk));
        }
        self.length += length;
    }

    /// The last `length` bytes, if the last chunk had that many.
    pub(super) fn last(&self, length: usize) -> &[u8] {
        let last = match self.more.last() {
            _ if !self.short.is_empty() => &self.short[..],
            Some(piece) => piece,
            None => &self.first,
        };
        &last[last.len().saturating_sub(length)..]
    }

    /// The pieces, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let whole = [&self.first].into_iter().chain(&self.more).map(|piece| &**piece);
        whole.chain([&*self.short])
    }

    /// The body in one piece, which holds `room`.
    pub(super) fn join(self, room: Room) -> Bytes {
        let joined = if self.is_one() { self.first } else { self.into_pieces().concat().into() };
        room.hold(joined)
    }

    /// The whole body, which holds `room`.
    pub(super) fn into_whole(self, room: Room) -> WholeBody {
        // Several pieces take longer to write than a short body takes to copy.
        if self.length <= MAX_COPIED_BYTES || self.is_one() {
            return WholeBody::One(self.join(room));
        }
        let (length, mut pieces) = (self.length, self.into_pieces());
        let room = room.share();
        if let Some(room) = &room {
            pieces.iter_mut().for_each(|piece| *piece = Room::hold_shared(room, mem::take(piece)));
        }
        let text = Mutex::new(Text::Pieces(pieces));
        WholeBody::Pieces(Arc::new(Pieces { text, length, room }))
    }

    fn is_one(&self) -> bool {
        self.more.is_empty() && self.short.is_empty()
    }

    fn into_pieces(mut self) -> Vec<Bytes> {
        self.end_short();
        self.more.insert(0, self.first);
        self.more
    }

    fn end_short(&mut self) {
        if !self.short.is_empty() {
            self.more.push(mem::take(&mut self.short).freeze());
        }
    }
}

/// A whole body in memory.
#[derive(Clone)]
pub(super) enum WholeBody {
    One(Bytes),
    /// In pieces until a reader needs the body contiguous. Copies share them, so that they are joined
    /// once.
    Pieces(Arc<Pieces>),
}

pub(super) struct Pieces {
    text: Mutex<Text>,
    length: usize,
    /// For the joined text.
    room: Option<Arc<Room>>,
}

enum Text {
    Pieces(Vec<Bytes>),
    Joined(Bytes),
}

impl WholeBody {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::One(text) => text.len(),
            Self::Pieces(pieces) => pieces.length,
        }
    }

    /// The body, contiguous.
    pub(super) fn join(&self) -> Bytes {
        match self {
            Self::One(text) => text.clone(),
            Self::Pieces(pieces) => pieces.join(),
        }
    }

    /// The body, to be joined when it is read.
    pub(super) fn lazy(&self) -> LazyContent {
        match self {
            Self::One(text) => text.clone().into(),
            Self::Pieces(pieces) => LazyContent::of_pieces(Arc::clone(pieces)),
        }
    }

    /// The body in the pieces that it consists of now.
    pub(super) fn to_pieces(&self) -> Vec<Bytes> {
        match self {
            Self::One(text) => vec![text.clone()],
            Self::Pieces(pieces) => match &*pieces.text() {
                Text::Pieces(pieces) => pieces.clone(),
                Text::Joined(text) => vec![text.clone()],
            },
        }
    }
}

impl JoinPieces for Pieces {
    fn join(&self) -> Bytes {
        let mut text = self.text();
        let joined = match &mut *text {
            Text::Joined(joined) => return joined.clone(),
            Text::Pieces(pieces) => Bytes::from(mem::take(pieces).concat()),
        };
        let joined = match &self.room {
            Some(room) => Room::hold_shared(room, joined),
            None => joined,
        };
        *text = Text::Joined(joined.clone());
        joined
    }
}

impl Pieces {
    fn text(&self) -> MutexGuard<'_, Text> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does not copy if the chunk is `Bytes` already.
pub(super) fn into_bytes(mut chunk: impl Buf) -> Bytes {
    chunk.copy_to_bytes(chunk.remaining())
}

/// The shortest chunk that is not copied. A chunk holds the buffer that it was read into, of which
/// hyper allocates at least 8 KiB.
const MIN_PIECE_BYTES: usize = 4 << 10;
/// Short chunks are joined up to this length.
const MAX_JOINED_BYTES: usize = 64 << 10;
/// A body up to this length is joined.
const MAX_COPIED_BYTES: usize = 16 << 10;
