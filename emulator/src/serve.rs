//! Serves the emulator on a socket: HTTP/1.1 and HTTP/2 without TLS, with connection resets.

use std::{
    fmt, io, iter,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};
use tower_service::Service;

use crate::{EmulatorError, EmulatorService, realtime::Session};

/// A running server. Dropping it closes the listener and its connections.
pub struct Serving {
    addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Serving {
    pub(crate) fn start(service: EmulatorService, listener: TcpListener) -> Self {
        let addr = listener.local_addr().expect("a listener that is bound has an address");
        Self { addr, task: tokio::spawn(accept(service, listener)) }
    }

    /// The address of the listener.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The endpoint for a client: `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Closes the listener and its connections, and waits until that is done.
    pub async fn shutdown(mut self) {
        self.task.abort();
        // An aborted task ends with an error, which is expected here.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving").field("addr", &self.addr).finish_non_exhaustive()
    }
}

async fn accept(service: EmulatorService, listener: TcpListener) {
    let clock = service.clock();
    let addr = listener.local_addr();
    let mut listener = Some(listener);
    // Dropping this task drops all its connections.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if let Some((end, cuts)) = service.outages().now(clock.now()) {
            for stream in listener.take().map(close).into_iter().flatten() {
                connections.spawn(connection(service.clone(), stream));
            }
            if cuts {
                connections.abort_all();
            }
            clock.sleep_until(end).await;
            continue;
        }
        let Some(open) = &listener else {
            // The port may be in use briefly as the source port of another connection.
            match &addr {
                Ok(addr) => listener = TcpListener::bind(addr).await.ok(),
                Err(_) => return,
            }
            if listener.is_none() {
                clock.sleep_until(clock.now().saturating_add(PORT_PAUSE)).await;
            }
            continue;
        };
        let accepted = match service.outages().next(clock.now()) {
            None => open.accept().await,
            Some(outage) => tokio::select! {
                accepted = open.accept() => accepted,
                () = clock.sleep_until(outage) => continue,
            },
        };
        match accepted {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                connections.spawn(connection(service.clone(), stream));
            }
            // The peer has already left, or there are no descriptors: pause before the next
            // attempt.
            Err(_) => clock.sleep_until(clock.now().saturating_add(ACCEPT_PAUSE)).await,
        }
    }
}

/// Closes the listener. Returns the connections in its backlog, which would be reset, not refused.
fn close(listener: TcpListener) -> Vec<TcpStream> {
    let Ok(listener) = listener.into_std() else { return Vec::new() };
    let accept = || {
        let (stream, _) = listener.accept().ok()?;
        stream.set_nonblocking(true).ok()?;
        TcpStream::from_std(stream).ok()
    };
    iter::from_fn(accept).collect()
}

async fn connection(service: EmulatorService, stream: TcpStream) {
    let fuse = Arc::new(AtomicBool::new(false));
    let stream = ResetOnDrop { stream, fuse: Arc::clone(&fuse) };
    let mut server = auto::Builder::new(TokioExecutor::new());
    if let Some(place) = service.place() {
        server.http1().keep_alive(place.keep_alive);
        if let Some(streams) = place.http2_streams {
            server.http2().max_concurrent_streams(streams);
        }
    }
    let session = Arc::<Mutex<Option<Session>>>::default();
    let opened = Arc::clone(&session);
    let answer = service_fn(move |request: http::Request<Incoming>| {
        let answer = service.clone().call(request);
        let (fuse, opened) = (Arc::clone(&fuse), Arc::clone(&opened));
        async move {
            let mut answer = answer.await;
            if let Ok(answer) = &mut answer {
                let session = answer.extensions_mut().remove();
                *opened.lock().unwrap_or_else(PoisonError::into_inner) = session;
            }
            if matches!(answer, Err(EmulatorError::Reset)) {
                fuse.store(true, Relaxed);
            }
            answer
        }
    });
    // An error at the end of a connection only concerns its client.
    let _ = server.serve_connection_with_upgrades(TokioIo::new(stream), answer).await;
    let session = session.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(session) = session {
        session.talk().await;
    }
}

/// A stream that stops sending once its fuse is set, and closes with a reset (RST).
struct ResetOnDrop {
    stream: TcpStream,
    fuse: Arc<AtomicBool>,
}

impl ResetOnDrop {
    fn check(&self) -> io::Result<()> {
        if self.fuse.load(Relaxed) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

impl Drop for ResetOnDrop {
    fn drop(&mut self) {
        if self.fuse.load(Relaxed) {
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for ResetOnDrop {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for ResetOnDrop {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // An orderly end (FIN) would precede the reset.
        self.check()?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(10);
const PORT_PAUSE: Duration = Duration::from_millis(1);
