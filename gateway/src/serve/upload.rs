//! A request's body as it comes from the client's connection.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::activity::Activity;

/// A body that says on its connection when it was given up before its end.
#[derive(Debug)]
pub(crate) struct Upload {
    incoming: Incoming,
    activity: Arc<Activity>,
    has_ended: bool,
}

impl Upload {
    pub(crate) fn new(incoming: Incoming, activity: Arc<Activity>) -> Self {
        Self { has_ended: incoming.is_end_stream(), incoming, activity }
    }
}

impl Upload {
    /// Whether a body that is pending was broken off by a client that half closed its connection.
    pub(crate) fn is_broken_off(&self, cx: &mut Context<'_>) -> bool {
        self.activity.is_upload_over(cx)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.has_ended {
            self.activity.note_body_left();
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let next = Pin::new(&mut self.incoming).poll_frame(cx);
        self.has_ended |= matches!(next, Poll::Ready(None)) || self.incoming.is_end_stream();
        next
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
