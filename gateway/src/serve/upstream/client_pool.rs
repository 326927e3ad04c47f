//! Pools clients, to have more streams than one HTTP/2 connection allows.

use std::{
    fmt,
    ops::Deref,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// Parallel clients. Each has its own connections, and at most as many concurrent streams as a
/// server allows on one of them.
///
/// A client keeps one HTTP/2 connection to a host. Requests beyond its stream limit would wait,
/// uncounted, until a stream ends. A client is replaced at a certain age: its connections end with
/// the requests in flight on them, and new ones resolve the host names again.
pub(crate) struct ClientPool<C> {
    make: Box<dyn Fn() -> C + Send + Sync>,
    age: Duration,
    clients: Box<[PooledClient<C>]>,
}

#[derive(Debug)]
struct PooledClient<C> {
    client: ArcSwapOption<AgingClient<C>>,
    streams: Arc<AtomicUsize>,
}

/// A client that accepts new requests until an instant.
#[derive(Debug)]
pub(crate) struct AgingClient<C> {
    client: C,
    until: Instant,
}

/// A stream on a client, counted until dropped.
#[derive(Debug)]
pub(crate) struct StreamPermit(Arc<AtomicUsize>);

impl<C> ClientPool<C> {
    pub(crate) fn new(make: impl Fn() -> C + Send + Sync + 'static, age: Duration) -> Self {
        let client = || PooledClient { client: ArcSwapOption::empty(), streams: Arc::default() };
        Self { make: Box::new(make), age, clients: (0..MAX_CLIENTS).map(|_| client()).collect() }
    }

    /// The first client, for connections that carry one request at a time.
    pub(crate) fn first(&self, now: Instant) -> Arc<AgingClient<C>> {
        self.young(&self.clients[0], now)
    }

    /// The first client with room for a stream, or the one with the fewest streams.
    pub(crate) fn enter(&self, now: Instant) -> (Arc<AgingClient<C>>, StreamPermit) {
        let has_room =
            |client: &&PooledClient<C>| client.streams.load(Relaxed) < MAX_STREAMS_PER_CLIENT;
        let fewest = || self.clients.iter().min_by_key(|client| client.streams.load(Relaxed));
        let client = self.clients.iter().find(has_room).or_else(fewest).expect("there are clients");
        client.streams.fetch_add(1, Relaxed);
        (self.young(client, now), StreamPermit(Arc::clone(&client.streams)))
    }

    fn young(&self, place: &PooledClient<C>, now: Instant) -> Arc<AgingClient<C>> {
        match place.client.load_full() {
            Some(client) if now < client.until => client,
            _ => {
                let client = AgingClient { client: (self.make)(), until: now + self.age };
                let client = Arc::new(client);
                place.client.store(Some(Arc::clone(&client)));
                client
            }
        }
    }
}

impl<C> Deref for AgingClient<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.client
    }
}

impl<C: fmt::Debug> fmt::Debug for ClientPool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clients.iter().map_while(|it| it.client.load_full())).finish()
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

/// Streams on one connection. RFC 9113 section 6.5.2 recommends at least this limit to servers, and
/// many use exactly this one.
const MAX_STREAMS_PER_CLIENT: usize = 100;
/// More streams than there can be requests.
const MAX_CLIENTS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_of_age_gives_way_to_another() {
        #[expect(clippy::disallowed_methods, reason = "an instant to count from")]
        let now = Instant::now();
        let made = Arc::new(AtomicUsize::new(0));
        let pool = ClientPool::new(move || made.fetch_add(1, Relaxed), Duration::from_secs(600));
        let second = Duration::from_secs(1);
        assert_eq!([**pool.first(now), **pool.first(now + 599 * second)], [0, 0]);
        let (old, permit) = pool.enter(now + 599 * second);
        assert_eq!([**pool.first(now + 600 * second), **old], [1, 0], "what is under way goes on");
        assert_eq!(**pool.enter(now + 601 * second).0, 1);
        drop(permit);
    }
}
