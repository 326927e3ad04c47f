//! A request body that may be sent more than once.

use bytes::{Buf, Bytes};
use http_body::Body;
use http_body_util::{Empty, Full};

use crate::azure::ModelRename;

/// A request body that may be sent more than once.
///
/// [`Clone`] would be too strong, since a body that is still arriving has no copy, and too weak,
/// since it cannot say so. The layers give a body that cannot be cloned a single attempt, and
/// [`Served::replayable`](crate::Served::replayable) tells.
///
/// [`ReplayLayer`](crate::ReplayLayer) turns any body into one that implements this trait.
pub trait TryCloneBody: Body + Sized {
    /// A second body with the same content; `None` when there cannot be one.
    fn try_clone(&self) -> Option<Self>;

    /// The whole content, when it is in memory. It is asked for where a v1 request names its
    /// deployment in the body's `model`.
    fn content(&self) -> Option<Bytes> {
        None
    }

    /// As much of the content as is in memory, the whole of it by default. A body that is too long to be
    /// kept is held to a resource by what its beginning refers to; see [`Sticky`](crate::Sticky).
    fn content_so_far(&self) -> Option<Bytes> {
        self.content()
    }

    /// Replaces the whole content. It is called only after [`content`](Self::content) returned it.
    fn replace_content(&mut self, content: Bytes) {
        let _ = content;
    }

    /// Replaces the whole content by these pieces of it and of other text, which are joined by default.
    /// A body that can keep them apart saves the copy; it is called for long contents.
    fn replace_with_pieces(&mut self, pieces: Vec<Bytes>) {
        self.replace_content(pieces.concat().into());
    }

    /// Has `rename` rename the model of a body that is still arriving; whether it will, which is no by
    /// default. It is called only when [`content`](Self::content) returned nothing, for an attempt at
    /// a backend whose deployment has a name of its own. A request that cannot be given that name is
    /// refused.
    ///
    /// Where the body's length is known, so must it be afterwards: the service requires it.
    fn rename_model(&mut self, rename: ModelRename) -> bool {
        let _ = rename;
        false
    }
}

impl TryCloneBody for Full<Bytes> {
    fn try_clone(&self) -> Option<Self> {
        Some(self.clone())
    }

    fn content(&self) -> Option<Bytes> {
        self.clone().into_inner()
    }

    fn replace_content(&mut self, content: Bytes) {
        *self = Self::new(content);
    }
}

impl<D: Buf> TryCloneBody for Empty<D> {
    fn try_clone(&self) -> Option<Self> {
        Some(Self::new())
    }
}

impl TryCloneBody for String {
    fn try_clone(&self) -> Option<Self> {
        Some(self.clone())
    }

    fn content(&self) -> Option<Bytes> {
        Some(Bytes::copy_from_slice(self.as_bytes()))
    }

    fn replace_content(&mut self, content: Bytes) {
        // Only ASCII is exchanged inside a text that was UTF-8 already; a lossy copy loses nothing.
        *self = Self::from_utf8_lossy(&content).into_owned();
    }
}
