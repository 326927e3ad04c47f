//! The content of a request body that may still be in pieces.

use std::{fmt, sync::Arc};

use bytes::Bytes;

/// The whole content of a body. If it is in pieces, they are joined when it is first read.
#[derive(Clone)]
pub struct LazyContent(Kind);

#[derive(Clone)]
enum Kind {
    Joined(Bytes),
    Pieces(Arc<dyn JoinPieces>),
}

/// A content in pieces.
pub(crate) trait JoinPieces: Send + Sync {
    fn join(&self) -> Bytes;
}

impl LazyContent {
    pub(crate) fn of_pieces(pieces: Arc<impl JoinPieces + 'static>) -> Self {
        Self(Kind::Pieces(pieces))
    }

    /// The content in one piece.
    pub fn read(&self) -> Bytes {
        match &self.0 {
            Kind::Joined(content) => content.clone(),
            Kind::Pieces(pieces) => pieces.join(),
        }
    }
}

impl From<Bytes> for LazyContent {
    fn from(content: Bytes) -> Self {
        Self(Kind::Joined(content))
    }
}

/// Shows nothing of the content.
impl fmt::Debug for LazyContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazyContent").finish_non_exhaustive()
    }
}
