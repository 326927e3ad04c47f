//! The stream of an inbound connection, which notes what happens on it.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{half_closed::HalfClosed, linger::Linger};
use crate::serve::activity::Activity;

/// A stream that notes what happens on it.
pub(super) struct Watched<I> {
    io: I,
    activity: Arc<Activity>,
    half_closed: Option<HalfClosed>,
    linger: Option<Linger>,
}

impl<I> Watched<I> {
    pub(super) fn new(io: I, activity: Arc<Activity>) -> Self {
        Self { io, activity, half_closed: None, linger: None }
    }

    fn note<T>(&self, written: Poll<T>) -> Poll<T> {
        self.activity.note_written(written.is_pending());
        written
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { io, activity, half_closed, .. } = &mut *self;
        if half_closed.is_none() {
            let before = buf.filled().len();
            let read = ready!(Pin::new(&mut *io).poll_read(cx, buf));
            activity.note_read();
            let is_end = read.is_ok() && buf.filled().len() == before && buf.remaining() > 0;
            if !is_end || !activity.is_exchange() {
                return Poll::Ready(read);
            }
            activity.half_close();
        }
        if !activity.is_exchange() {
            return Poll::Ready(Ok(()));
        }
        half_closed.get_or_insert_with(HalfClosed::new).poll(io, activity, cx).map(Err)
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.activity.note_answer();
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.activity.note_answer();
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TLS keeps what it was given, and writes it here.
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.note(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { io, activity, linger, .. } = &mut *self;
        if linger.is_none() {
            ready!(Pin::new(&mut *io).poll_shutdown(cx))?;
            if !activity.is_cut_short() {
                return Poll::Ready(Ok(()));
            }
        }
        linger.get_or_insert_with(Linger::new).poll(io, cx).map(Ok)
    }
}
