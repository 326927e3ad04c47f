//! A request's body as it comes from the client's connection.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Version, header};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::activity::Activity;

/// A body that records on its connection how much of it is left. If it is dropped before its end,
/// the connection gets the rest.
#[derive(Debug)]
pub(crate) struct Upload {
    /// Present until dropped.
    incoming: Option<Incoming>,
    activity: Arc<Activity>,
    is_http_1: bool,
    /// The client may wait for an interim response, which is sent when the body is first polled.
    is_held_back: bool,
    has_ended: bool,
}

impl Upload {
    /// Wraps a request's body.
    pub(crate) fn of(request: Request<Incoming>, activity: Arc<Activity>) -> Request<Self> {
        let is_http_1 = request.version() < Version::HTTP_2;
        let is_held_back = request.headers().contains_key(header::EXPECT);
        request.map(|incoming| {
            let has_ended = incoming.is_end_stream();
            let upload =
                Self { incoming: Some(incoming), activity, is_http_1, is_held_back, has_ended };
            upload.note_left();
            upload
        })
    }

    /// Whether a pending body was broken off because the client half closed its connection.
    pub(crate) fn is_broken_off(&self, cx: &mut Context<'_>) -> bool {
        self.activity.is_upload_over(cx)
    }

    fn note_left(&self) {
        if self.is_http_1 {
            let known = self.size_hint().upper().filter(|_| !self.is_held_back);
            let left = if self.has_ended { 0 } else { known.unwrap_or(u64::MAX) };
            self.activity.note_upload_left(left);
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        match self.incoming.take() {
            Some(rest) if self.is_http_1 && !self.activity.is_last_exchange() => {
                self.activity.upload_rest.leave(rest);
            }
            _ => self.activity.note_body_left(),
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
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let next = Pin::new(&mut *incoming).poll_frame(cx);
        let has_ended = matches!(next, Poll::Ready(None)) || incoming.is_end_stream();
        self.has_ended |= has_ended;
        self.is_held_back = false;
        self.note_left();
        next
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(SizeHint::default, Incoming::size_hint)
    }
}
