//! Watches backend connections: whether a reused one broke before any byte of an answer, and
//! whether a backend answered a request without reading all of it.
//! requests that a backend read no further.

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use http::{Extensions, Uri};
use hyper_util::{
    client::legacy::{
        self,
        connect::{Connected, Connection},
    },
    rt::TokioIo,
};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower::Service;

use super::preface::Preface;
use crate::serve::clock;

/// A connector whose HTTP/1.1 connections record how far their last exchange got, and whose HTTP/2
/// connections record whether the server ever sent anything.
#[derive(Clone, Debug)]
pub(super) struct WatchReuse<C> {
    pub(super) connector: C,
    /// Whether all connections are HTTP/2, even without TLS.
    pub(super) is_always_h2: bool,
    /// How long a connection may take, including the server's first HTTP/2 frame.
    pub(super) longest: Duration,
}

/// The last thing seen on a connection: one of the constants below.
#[derive(Clone, Debug, Default)]
struct Last(Arc<AtomicU8>);

/// Nothing yet, or a first request.
const FIRST_REQUEST: u8 = 0;
/// Bytes of an answer.
const ANSWER: u8 = 1;
/// A request, after an earlier answer.
const NEXT_REQUEST: u8 = 2;

/// Whether the connection of a failed attempt had served before, and closed before any byte of this
/// answer.
pub(super) fn closed_on_reuse(error: &legacy::Error) -> bool {
    let Some(connected) = error.connect_info() else { return false };
    let mut extras = Extensions::new();
    connected.get_extras(&mut extras);
    extras.get::<Last>().is_some_and(|last| last.0.load(Relaxed) == NEXT_REQUEST)
}

impl<C: Service<Uri, Response: Connection>> Service<Uri> for WatchReuse<C> {
    type Response = TokioIo<Watched<TokioIo<C::Response>>>;
    type Error = C::Error;
    type Future = Connecting<C::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), C::Error>> {
        self.connector.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Connecting<C::Future> {
        let (is_always_h2, longest) = (self.is_always_h2, self.longest);
        let connecting = self.connector.call(uri);
        Connecting { connecting, is_always_h2, longest, begun: clock::now() }
    }
}

pin_project! {
    pub(super) struct Connecting<F> {
        #[pin]
        connecting: F,
        is_always_h2: bool,
        longest: Duration,
        begun: Instant,
    }
}

impl<F, T, E> Future for Connecting<F>
where
    F: Future<Output = Result<T, E>>,
    T: Connection,
{
    type Output = Result<TokioIo<Watched<TokioIo<T>>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let io = TokioIo::new(ready!(this.connecting.poll(cx))?);
        let is_h2 = *this.is_always_h2 || io.connected().is_negotiated_h2();
        Poll::Ready(Ok(TokioIo::new(Watched {
            io,
            last: Last(Arc::new(FIRST_REQUEST.into())),
            preface: is_h2.then(|| Preface::new(*this.begun, *this.longest)),
            is_write_broken: false,
        })))
    }
}

pin_project! {
    /// A connection that records the last thing seen.
    ///
    /// A backend may answer the beginning of a request and close the connection. hyper gives up on
    /// a failed write before it has read what there is, so failed writes are discarded, and the
    /// reader reports how the connection ended.
    #[derive(Debug)]
    pub(super) struct Watched<T> {
        #[pin]
        io: T,
        last: Last,
        // For HTTP/2.
        preface: Option<Preface>,
        is_write_broken: bool,
    }
}

impl<T> Watched<T> {
    fn sends(last: &Last) {
        if last.0.load(Relaxed) == ANSWER {
            last.0.store(NEXT_REQUEST, Relaxed);
        }
    }
}

impl<T: Connection> Connection for Watched<T> {
    fn connected(&self) -> Connected {
        let connected = self.io.connected();
        // On HTTP/2, requests and answers overlap, and its own errors are more precise.
        match &self.preface {
            Some(preface) => connected.extra(preface.state()),
            None => connected.extra(self.last.clone()),
        }
    }
}

impl<T: AsyncRead> AsyncRead for Watched<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        let filled = buf.filled().len();
        let result = this.io.poll_read(cx, buf);
        if buf.filled().len() > filled {
            this.last.0.store(ANSWER, Relaxed);
            this.preface.iter_mut().for_each(Preface::heard);
        }
        if let (Poll::Pending, Some(preface)) = (&result, this.preface) {
            return preface.poll_late(cx).map(Err);
        }
        result
    }
}

impl<T: AsyncWrite> AsyncWrite for Watched<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        if *this.is_write_broken {
            return Poll::Ready(Ok(buf.len()));
        }
        Self::sends(this.last);
        let written = this.io.poll_write(cx, buf);
        or_discarded(written, buf.len(), this.is_write_broken)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let length = bufs.iter().map(|buf| buf.len()).sum();
        if *this.is_write_broken {
            return Poll::Ready(Ok(length));
        }
        Self::sends(this.last);
        let written = this.io.poll_write_vectored(cx, bufs);
        or_discarded(written, length, this.is_write_broken)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        let flushed =
            if *this.is_write_broken { Poll::Ready(Ok(())) } else { this.io.poll_flush(cx) };
        or_discarded(flushed, (), this.is_write_broken)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_shutdown(cx)
    }
}

/// What was written, or everything if the other side accepts nothing more.
fn or_discarded<T>(
    written: Poll<io::Result<T>>,
    all: T,
    is_write_broken: &mut bool,
) -> Poll<io::Result<T>> {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    match written {
        Poll::Ready(Err(error))
            if matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset) =>
        {
            *is_write_broken = true;
            Poll::Ready(Ok(all))
        }
        written => written,
    }
}
