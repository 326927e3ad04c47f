//! Drains a refused HTTP/1.1 response so that its connection can be reused.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Buf;
use http::Version;
use http_body::Body;
use tokio::time::Sleep;

use crate::clock;

/// The bytes and the time that may still be spent on reading a refused response.
///
/// hyper closes an HTTP/1.1 connection whose response was not read to its end (hyper 1.12,
/// `poll_drain_or_close_read`). The service ends its answer with the refusing event, or one event
/// later.
#[derive(Debug)]
pub(super) struct Drain {
    left_bytes: usize,
    /// Created when the body is first pending.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Drain {
    /// No drain for HTTP/2, where dropping a response closes only its stream.
    pub(super) fn of(version: Version) -> Self {
        let left_bytes = if version <= Version::HTTP_11 { MAX_DRAINED_BYTES } else { 0 };
        Self { left_bytes, timer: None }
    }

    /// Ready once `body` has ended or failed, or the budget is spent.
    pub(super) fn poll<R>(&mut self, body: &mut R, cx: &mut Context<'_>) -> Poll<()>
    where
        R: Body + Unpin,
    {
        while self.left_bytes > 0 && !body.is_end_stream() {
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let length = frame.data_ref().map_or(0, Buf::remaining);
                    self.left_bytes = self.left_bytes.saturating_sub(length.max(MIN_FRAME_BYTES));
                }
                Poll::Ready(Some(Err(_)) | None) => break,
                Poll::Pending => return self.poll_timer(cx),
            }
        }
        Poll::Ready(())
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let end = || clock::sleep_until(clock::now() + MAX_DRAIN_TIME);
        self.timer.get_or_insert_with(end).as_mut().poll(cx)
    }
}

/// About the time to connect to a region nearby: a longer wait saves nothing.
const MAX_DRAIN_TIME: Duration = Duration::from_millis(50);
/// A failed response repeats the request once more; the largest seen had 61 KB.
const MAX_DRAINED_BYTES: usize = 64 << 10;
/// The least that a frame counts, since a peer can send any number of empty ones.
const MIN_FRAME_BYTES: usize = 16;
