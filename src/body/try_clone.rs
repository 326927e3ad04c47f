//! A request body that may be sent more than once.

use bytes::{Buf, Bytes};
use http_body::Body;
use http_body_util::{Empty, Full};

use super::LazyContent;
use crate::azure::{MemberNames, ModelRename};

/// A request body that may be sent more than once.
///
/// [`Clone`] would be too strong, since a body that is still arriving has no copy, and too weak,
/// since it cannot say so. The layers give a body that cannot be cloned a single attempt, which
/// [`Served::replayable`](crate::Served::replayable) reports.
///
/// [`ReplayLayer`](crate::ReplayLayer) turns any body into one that implements this trait.
#[diagnostic::on_unimplemented(
    message = "a body of the type `{Self}` cannot be sent a second time",
    label = "not a `TryCloneBody`, which the layers of this stack need",
    note = "put `ReplayLayer::new(4 << 20)` outside of the other layers: it keeps any body that is `Unpin`",
    note = "or send a body that is in memory, such as `http_body_util::Full<Bytes>`"
)]
pub trait TryCloneBody: Body + Sized {
    /// A second body with the same content; `None` if there cannot be one.
    fn try_clone(&self) -> Option<Self>;

    /// The whole content, if it is in memory. Used when a v1 request names its deployment in the
    /// body's `model`.
    fn content(&self) -> Option<Bytes> {
        None
    }

    /// What [`content`](Self::content) would return later. A body in pieces saves joining them if that
    /// is never read.
    fn lazy_content(&self) -> Option<LazyContent> {
        self.content().map(LazyContent::from)
    }

    /// The content that is in memory, by default all of it. A body that is too long to be kept is
    /// pinned to a resource by the references in its start; see [`Sticky`](crate::Sticky).
    fn content_so_far(&self) -> Option<Bytes> {
        self.content()
    }

    /// The names found in [`content_so_far`](Self::content_so_far) while it arrived, if they were
    /// looked for: layers skip a body without the names that concern them.
    fn member_names(&self) -> Option<MemberNames> {
        None
    }

    /// Replaces the whole content. Called only after [`content`](Self::content) returned it.
    fn replace_content(&mut self, content: Bytes) {
        let _ = content;
    }

    /// Replaces the whole content by these pieces of it and of other text, which are joined by
    /// default. A body that can keep them separate saves the copy; called for long contents.
    fn replace_with_pieces(&mut self, pieces: Vec<Bytes>) {
        self.replace_content(pieces.concat().into());
    }

    /// Has `rename` rename the model of a body that is still arriving. Returns whether it will; by
    /// default it does not. Called only if [`content`](Self::content) returned nothing, for an
    /// attempt at a backend whose deployment has another name. A request that cannot be given that
    /// name is refused.
    ///
    /// If the length of the body is announced, it must be afterwards, too: the service requires it.
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
        // Only ASCII is replaced inside a text that was valid UTF-8, so the lossy conversion loses
        // nothing.
        *self = Self::from_utf8_lossy(&content).into_owned();
    }
}
