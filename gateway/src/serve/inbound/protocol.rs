//! HTTP on an inbound connection, by its protocol.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    rt::bounds::Http2ServerConnExec,
    server::conn::{http1, http2},
    service::Service,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{response_body::ResponseBody, streams::Streams};
use crate::config::Limits;

/// The protocol of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Protocol {
    Http1,
    Http2,
    /// Detected from the first bytes.
    Either,
}

pin_project! {
    /// A connection, ready when it has ended.
    ///
    /// `hyper-util`'s would detect the protocol again, and pass the bytes that it read for that
    /// through a reader of its own, which doubles hyper's buffer.
    #[project = HttpProj]
    pub(super) enum Http<I, S>
    where
        S: Service<Request<Incoming>, Response = Response<ResponseBody>, Error = Infallible>,
    {
        Http1 { #[pin] connection: http1::UpgradeableConnection<TokioIo<I>, S> },
        // Boxed, so that the task of each connection need not be as large as the largest of these.
        Http2 { connection: Pin<Box<http2::Connection<TokioIo<I>, S, Streams>>> },
        Either { connection: Pin<Box<auto::UpgradeableConnection<'static, TokioIo<I>, S, Streams>>> },
    }
}

impl<I, S> Http<I, S>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<ResponseBody>, Error = Infallible>,
    S::Future: 'static,
    Streams: Http2ServerConnExec<S::Future, ResponseBody>,
{
    pub(super) fn new(
        io: I,
        service: S,
        protocol: Protocol,
        limits: &Limits,
        streams: Streams,
    ) -> Self {
        let io = TokioIo::new(io);
        match protocol {
            Protocol::Http1 => {
                let mut builder = http1::Builder::new();
                // hyper's timeout would include the idle time between requests; see `silence`.
                builder.timer(TokioTimer::new()).header_read_timeout(None);
                builder.max_buf_size(limits.head.max(MIN_BUFFER_BYTES));
                if let Some(headers) = raised_headers(limits) {
                    builder.max_headers(headers);
                }
                Self::Http1 { connection: builder.serve_connection(io, service).with_upgrades() }
            }
            Protocol::Http2 => {
                let mut builder = http2::Builder::new(streams);
                builder
                    .timer(TokioTimer::new())
                    .max_header_list_size(max_header_list(limits))
                    .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
                    .keep_alive_interval(PING_INTERVAL)
                    .keep_alive_timeout(PING_INTERVAL);
                Self::Http2 { connection: Box::pin(builder.serve_connection(io, service)) }
            }
            Protocol::Either => {
                let mut builder = auto::Builder::new(streams);
                let mut http1 = builder.http1();
                http1.timer(TokioTimer::new()).header_read_timeout(None);
                http1.max_buf_size(limits.head.max(MIN_BUFFER_BYTES));
                if let Some(headers) = raised_headers(limits) {
                    http1.max_headers(headers);
                }
                builder
                    .http2()
                    .timer(TokioTimer::new())
                    .max_header_list_size(max_header_list(limits))
                    .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION)
                    .keep_alive_interval(PING_INTERVAL)
                    .keep_alive_timeout(PING_INTERVAL);
                let connection = builder.serve_connection_with_upgrades(io, service).into_owned();
                Self::Either { connection: Box::pin(connection) }
            }
        }
    }

    /// Ends the connection after the requests in flight.
    pub(super) fn shut_down(self: Pin<&mut Self>) {
        match self.project() {
            HttpProj::Http1 { connection } => connection.graceful_shutdown(),
            HttpProj::Http2 { connection } => connection.as_mut().graceful_shutdown(),
            HttpProj::Either { connection } => connection.as_mut().graceful_shutdown(),
        }
    }
}

impl<I, S> Future for Http<I, S>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<ResponseBody>, Error = Infallible>,
    S::Future: 'static,
    Streams: Http2ServerConnExec<S::Future, ResponseBody>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // An error at the end of a connection only concerns its client.
        match self.project() {
            HttpProj::Http1 { connection } => connection.poll(cx).map(drop),
            HttpProj::Http2 { connection } => connection.as_mut().poll(cx).map(drop),
            HttpProj::Either { connection } => connection.as_mut().poll(cx).map(drop),
        }
    }
}

/// The limit of header lines if it is above hyper's: with a lower one hyper allocates its own array.
fn raised_headers(limits: &Limits) -> Option<usize> {
    Some(limits.headers).filter(|&headers| headers > DEFAULT_HEADER_LINES)
}

fn max_header_list(limits: &Limits) -> u32 {
    u32::try_from(limits.head).unwrap_or(u32::MAX)
}

/// hyper's minimum.
const MIN_BUFFER_BYTES: usize = 8 * 1024;
/// hyper's default capacity; requests with more headers than the limit are refused later.
const DEFAULT_HEADER_LINES: usize = 100;
const MAX_STREAMS_PER_CONNECTION: u32 = 1_000;
const PING_INTERVAL: Duration = Duration::from_secs(30);
