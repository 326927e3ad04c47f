//! The stream of an inbound connection, which records its activity.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{burst::Burst, linger::Linger, probe::Probe};
use crate::serve::{activity::Activity, clock};

/// A stream that records its activity.
pub(super) struct Watched<I> {
    io: I,
    activity: Arc<Activity>,
    /// Whether the client's end of stream was read.
    has_ended: bool,
    reads: usize,
    probe: Option<Probe>,
    burst: Burst,
    linger: Option<Linger>,
}

impl<I> Watched<I> {
    pub(super) fn new(io: I, activity: Arc<Activity>) -> Self {
        Self {
            io,
            activity,
            has_ended: false,
            reads: 0,
            probe: None,
            burst: Burst::default(),
            linger: None,
        }
    }

    fn note<T>(&self, written: Poll<T>) -> Poll<T> {
        self.activity.note_written(written.is_pending());
        written
    }

    /// Pending while the events to be written wait for the next ones. The task is woken after those
    /// that can bring them.
    fn poll_burst(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.burst.waits(self.activity.take_event(), clock::now) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

impl<I: AsyncWrite + Unpin> Watched<I> {
    /// Ready with an error when the client has disconnected.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Self { io, activity, reads, probe, .. } = self;
        if !activity.may_have_gone() {
            return Poll::Pending;
        }
        probe.get_or_insert_with(|| Probe::new(*reads)).poll(io, activity, *reads, cx)
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.has_ended {
            let Self { io, activity, .. } = &mut *self;
            let before = buf.filled().len();
            let read = Pin::new(io).poll_read(cx, buf);
            activity.note_read(read.is_pending());
            let read = ready!(read);
            let is_end = read.is_ok() && buf.filled().len() == before && buf.remaining() > 0;
            if !is_end || !activity.is_exchange() {
                self.reads = self.reads.wrapping_add(1);
                return Poll::Ready(read);
            }
            activity.half_close();
            self.has_ended = true;
        }
        if !self.activity.is_exchange() {
            return Poll::Ready(Ok(()));
        }
        self.poll_gone(cx).map(Err)
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_burst(cx));
        self.activity.note_answer();
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        if written.is_ready() {
            self.activity.note_taken();
        }
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_burst(cx));
        self.activity.note_answer();
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        if written.is_ready() {
            self.activity.note_taken();
        }
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes whenever it is polled, but reads only what it can use.
        if let Poll::Ready(error) = self.poll_gone(cx) {
            return Poll::Ready(Err(error));
        }
        // TLS buffers written data and writes it here.
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
