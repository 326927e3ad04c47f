//! Connections for more streams than one HTTP/2 connection takes.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// Clients side by side. Each has its own connections, and no more streams at a time than a server
/// takes on one of them.
///
/// A client keeps one HTTP/2 connection to a host. What is sent when all its streams are taken
/// would wait, uncounted, until one of them ends.
pub(crate) struct ClientPool<C> {
    make: Box<dyn Fn() -> C + Send + Sync>,
    clients: Box<[PooledClient<C>]>,
}

#[derive(Debug)]
struct PooledClient<C> {
    client: OnceLock<C>,
    streams: Arc<AtomicUsize>,
}

/// A stream on a client, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct StreamPermit(Arc<AtomicUsize>);

impl<C> ClientPool<C> {
    pub(crate) fn new(make: impl Fn() -> C + Send + Sync + 'static) -> Self {
        let client = || PooledClient { client: OnceLock::new(), streams: Arc::default() };
        Self { make: Box::new(make), clients: (0..MAX_CLIENTS).map(|_| client()).collect() }
    }

    /// The first client, for connections that take one request at a time.
    pub(crate) fn first(&self) -> &C {
        self.clients[0].client.get_or_init(&self.make)
    }

    /// The first client with room for a stream; when none has any, the one with the fewest.
    pub(crate) fn enter(&self) -> (&C, StreamPermit) {
        let has_room =
            |client: &&PooledClient<C>| client.streams.load(Relaxed) < MAX_STREAMS_PER_CLIENT;
        let fewest = || self.clients.iter().min_by_key(|client| client.streams.load(Relaxed));
        let client = self.clients.iter().find(has_room).or_else(fewest).expect("there are clients");
        client.streams.fetch_add(1, Relaxed);
        (client.client.get_or_init(&self.make), StreamPermit(Arc::clone(&client.streams)))
    }
}

impl<C: fmt::Debug> fmt::Debug for ClientPool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = self.clients.iter().take_while(|client| client.client.get().is_some());
        f.debug_list().entries(used).finish()
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// An answer's body, which releases its permit at its end.
#[derive(Debug)]
pub(crate) struct Download {
    incoming: Incoming,
    _permit: Option<StreamPermit>,
}

impl Download {
    pub(crate) const fn new(incoming: Incoming, permit: Option<StreamPermit>) -> Self {
        Self { incoming, _permit: permit }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.incoming).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// Streams on one connection. RFC 9113 section 6.5.2 recommends that servers take no fewer, and
/// that is what many take.
const MAX_STREAMS_PER_CLIENT: usize = 100;
/// As many streams as there is room for requests, and more.
const MAX_CLIENTS: usize = 256;
