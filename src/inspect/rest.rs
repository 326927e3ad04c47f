//! Reads on what nobody wants of a refused answer, so that its connection serves the next request.

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

/// How much may still be read of a refused answer, and for how long.
///
/// Of HTTP/1.1 a connection whose answer was not read to its end is closed (hyper 1.12,
/// `poll_drain_or_close_read`). The service ends its answer with the event that refuses, or one
/// event later.
#[derive(Debug)]
pub(super) struct Rest {
    left: usize,
    /// Made when the body is first waited for.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Rest {
    /// Nothing of HTTP/2, where an answer that is dropped takes no more than its own stream with
    /// it.
    pub(super) fn of(version: Version) -> Self {
        let left = if version <= Version::HTTP_11 { MOST } else { 0 };
        Self { left, timer: None }
    }

    /// Ready once `body` has ended or failed, or no more is to be read of it.
    pub(super) fn poll<R>(&mut self, body: &mut R, cx: &mut Context<'_>) -> Poll<()>
    where
        R: Body + Unpin,
    {
        while self.left > 0 && !body.is_end_stream() {
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let length = frame.data_ref().map_or(0, Buf::remaining);
                    self.left = self.left.saturating_sub(length.max(LIGHTEST));
                }
                Poll::Ready(Some(Err(_)) | None) => break,
                Poll::Pending => return self.poll_timer(cx),
            }
        }
        Poll::Ready(())
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let end = || clock::sleep_until(clock::now() + LONGEST);
        self.timer.get_or_insert_with(end).as_mut().poll(cx)
    }
}

/// As long as it takes to open a new connection to a region that is not far: whoever waits longer
/// saves nothing.
const LONGEST: Duration = Duration::from_millis(50);
/// In bytes: a failed response repeats the request once more, which had 61 KB at most.
const MOST: usize = 64 << 10;
/// What an empty frame counts, in bytes: there is no end to those that a peer can send.
const LIGHTEST: usize = 16;
