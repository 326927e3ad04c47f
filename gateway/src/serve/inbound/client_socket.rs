//! A client's socket, whose end is detected even while nothing is read from it.

use std::{
    io::{self, IoSlice},
    net::Shutdown,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

/// A socket that is shared: hyper reads and writes it, beneath TLS or not, and a watcher observes
/// it.
///
/// hyper stops reading while it holds bytes that it cannot use yet: a body that its backend does
/// not accept, or a pipelined request. Behind these bytes it would not see that the client has
/// disconnected.
#[derive(Clone, Debug)]
pub(super) struct ClientSocket(Arc<TcpStream>);

impl ClientSocket {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self(Arc::new(stream))
    }

    /// Returns when the connection was reset or timed out, so that no write arrives any more.
    pub(super) async fn reset(&self) {
        if self.0.ready(Interest::ERROR).await.is_err() {
            // The runtime is shutting down.
            std::future::pending().await
        }
    }

    /// Returns when the client has half closed the connection, even if not everything has been
    /// read.
    pub(super) async fn finished(&self) {
        // This interest reports a half close, as no urgent data is registered. On other systems the
        // end is seen only after all data before it has been read.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if self.0.ready(Interest::PRIORITY).await.is_ok() {
            return;
        }
        std::future::pending().await
    }
}

impl AsyncRead for ClientSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            match self.read(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read.map(drop)),
            }
        }
    }
}

impl ClientSocket {
    /// Reads once. If that leaves room in the buffer, nothing is left to read, and the next call waits
    /// without a system call that would only say so. (`TcpStream` reads in this way too, but only where
    /// it is not shared.)
    fn read(&self, buf: &mut ReadBuf<'_>) -> io::Result<usize> {
        let mut read = 0;
        let end = self.0.try_io(Interest::READABLE, || {
            read = self.0.try_read_buf(buf)?;
            // Clears the readiness from before the read.
            match IS_EDGE_TRIGGERED && read > 0 && buf.remaining() > 0 {
                true => Err(io::ErrorKind::WouldBlock.into()),
                false => Ok(()),
            }
        });
        if read > 0 { Ok(read) } else { end.map(|()| 0) }
    }

    fn poll_writing(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match write(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }
}

impl AsyncWrite for ClientSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_writing(cx, |stream| stream.try_write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_writing(cx, |stream| stream.try_write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.0).shutdown(Shutdown::Write))
    }
}

/// Whether the system reports what arrives after a read, even if not everything was read before.
const IS_EDGE_TRIGGERED: bool = cfg!(any(target_os = "linux", target_os = "android"));
