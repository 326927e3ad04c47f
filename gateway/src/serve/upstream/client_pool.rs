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
/// would wait, unseen by anybody, until one of them ends.
pub(crate) struct Lanes<C> {
    make: Box<dyn Fn() -> C + Send + Sync>,
    lanes: Box<[Lane<C>]>,
}

#[derive(Debug)]
struct Lane<C> {
    client: OnceLock<C>,
    streams: Arc<AtomicUsize>,
}

/// A stream's place on a lane, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl<C> Lanes<C> {
    pub(crate) fn new(make: impl Fn() -> C + Send + Sync + 'static) -> Self {
        let lane = || Lane { client: OnceLock::new(), streams: Arc::default() };
        Self { make: Box::new(make), lanes: (0..MOST).map(|_| lane()).collect() }
    }

    /// The client of the first lane, for connections that take one request at a time.
    pub(crate) fn first(&self) -> &C {
        self.lanes[0].client.get_or_init(&self.make)
    }

    /// The first client with room for a stream; when none has any, the one with the fewest.
    pub(crate) fn enter(&self) -> (&C, Place) {
        let has_room = |lane: &&Lane<C>| lane.streams.load(Relaxed) < STREAMS;
        let fewest = || self.lanes.iter().min_by_key(|lane| lane.streams.load(Relaxed));
        let lane = self.lanes.iter().find(has_room).or_else(fewest).expect("there are lanes");
        lane.streams.fetch_add(1, Relaxed);
        (lane.client.get_or_init(&self.make), Place(Arc::clone(&lane.streams)))
    }
}

impl<C: fmt::Debug> fmt::Debug for Lanes<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = self.lanes.iter().take_while(|lane| lane.client.get().is_some());
        f.debug_list().entries(used).finish()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// An answer's body, which gives its place back with its end.
#[derive(Debug)]
pub(crate) struct Download {
    incoming: Incoming,
    _place: Option<Place>,
}

impl Download {
    pub(crate) const fn new(incoming: Incoming, place: Option<Place>) -> Self {
        Self { incoming, _place: place }
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
const STREAMS: usize = 100;
/// As many streams as there is room for requests, and more.
const MOST: usize = 256;
