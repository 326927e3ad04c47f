//! Counts what a request allocates on each path, and fails when it is more than it was.

use std::{
    convert::Infallible,
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use spillover_testing::measured::{
    leaf::{self, Leaf},
    paths::{PATHS, Path},
};
use tower::{Layer, Service, service_fn};
use tower_spillover::{Backend, BackendPool, RegionRotateLayer, Served, SmartFallbackLayer};

/// The most allocations of one request, where the response has extensions already, as hyper-util's
/// client gives it one, and where it has none. Then `Served` takes two more, for the map.
///
/// Where the first attempt is answered they are the copy of the head and `Served`. A head is copied
/// as text, in one allocation; its clone takes two.
const LIMITS: &[(&str, u64, u64)] = &[
    ("served/bare", 0, 0),
    ("served/bare + clone", 2, 2),
    ("served/tower::retry", 2, 2),
    ("served/tower::retry, RetryAfterPolicy", 2, 2),
    ("served/Replay", 0, 0),
    ("served/Fallback", 2, 4),
    ("served/Fallback with a fleet", 2, 4),
    ("served/Rotate 2", 2, 4),
    ("served/Rotate 100", 2, 4),
    ("served/Rotate 1000", 2, 4),
    ("served/Rotate 2, one resting", 2, 4),
    ("served/Rotate 100, one resting", 2, 4),
    ("served/Rotate 1000, one resting", 2, 4),
    ("served/Wait", 2, 4),
    // Each keeps a copy of its own.
    ("served/Wait(Rotate 2)", 3, 5),
    ("served/Fallback(Rotate 1, Rotate 2)", 2, 4),
    ("served/Replay(Fallback(Rotate 1, Rotate 2))", 2, 4),
    // A pool with two backends keeps a copy of its own.
    ("served/Replay(Fallback(Rotate 2, Rotate 2))", 3, 5),
    // The new path is known.
    ("served/the same, deployments named", 3, 5),
    // A second copy of the head, and of two extensions in every copy.
    ("served/FirstToken(Rotate 2)", 19, 21),
    // What counts or traces makes nothing for a request that is served at once.
    ("events/Rotate 2", 2, 4),
    ("events/Rotate 2, a sink", 2, 4),
    ("events/Rotate 2, MetricsSink", 2, 4),
    ("events/Rotate 2, TracingSink", 2, 4),
    ("events/RequestSpan(Rotate 2), TracingSink", 2, 4),
    ("events/Fallback(Rotate 1, Rotate 2)", 2, 4),
    ("events/RequestSpan(Fallback(Rotate 1, Rotate 2)), both sinks", 2, 4),
    // An answer that is not read.
    ("inspect/bare", 0, 0),
    ("inspect/bare, body wrapped", 0, 0),
    ("inspect/Inspect", 0, 0),
    ("inspect/Rotate 2", 2, 4),
    ("inspect/Rotate 2(body wrapped)", 2, 4),
    ("inspect/Rotate 2(Inspect)", 2, 4),
    ("refused/bare, twice", 4, 2),
    ("refused/tower::retry", 6, 4),
    // Five more than a rotation takes: the account so far is boxed, to be kept out of the future; the
    // second sending carries its arrival, in extensions of its own; and its head is copied as well.
    ("refused/Fallback", 13, 13),
    ("refused/Rotate 2", 8, 8),
    ("refused/Rotate 100", 9, 9),
    // The rest is cut short there, so that its time is an assumption, which an extension says.
    ("refused/Fallback(Rotate 1, Rotate 2)", 23, 25),
    ("closed/bare", 0, 0),
    ("closed/tower::retry", 2, 2),
    // The fallback may refuse too, and reopen in time; one with another backend to go on to keeps a copy
    // of its own.
    ("closed/Fallback", 2, 4),
    ("closed/Fallback, chat of 2 KiB", 2, 4),
    ("closed/Fallback, chat of 32 KiB", 2, 4),
    ("closed/Fallback, chat of 256 KiB", 2, 4),
    ("closed/Fallback(Rotate 1, Rotate 1)", 2, 4),
    ("closed/Fallback(Rotate 1, Rotate 2)", 3, 5),
    ("closed/bare + clone", 2, 2),
    ("closed/Rotate 1000, half resting", 2, 4),
    ("closed/Rotate 1000, all but one resting", 2, 4),
    // Two are the request's, which no leaf parks.
    ("closed/Rotate 2, all resting", 12, 12),
    ("closed/Rotate 100, all resting", 12, 12),
    ("closed/Rotate 1000, all resting", 12, 12),
    ("weighed/chat of 2 KiB", 0, 0),
    ("weighed/chat of 32 KiB", 0, 0),
    ("weighed/chat of 256 KiB", 0, 0),
    // The body is written anew, a long one in pieces.
    ("v1/Rotate 2, chat of 2 KiB", 5, 7),
    ("v1/Rotate 2, chat of 32 KiB", 5, 7),
    ("v1/Rotate 2, chat of 256 KiB", 7, 9),
    // Where it belongs is boxed, to be kept out of the future.
    ("affinity/Rotate 4", 3, 5),
    ("affinity/Rotate 100", 3, 5),
    ("affinity/Rotate 1000", 3, 5),
    ("sticky/Rotate 2, a response of 2 KiB read", 3, 5),
    ("sticky/Rotate 2, a response of 2 KiB read, sticky", 14, 16),
];

#[test]
fn no_path_allocates_more_than_it_did() {
    let mut risen = Vec::new();
    for path in PATHS {
        let name = format!("{}/{}", path.group, path.name);
        let limit = LIMITS.iter().find(|(limited, ..)| *limited == name);
        let (_, extended, plain) = limit.unwrap_or_else(|| panic!("{name} has no limit"));
        for (leaf, limit, kind) in
            [(Leaf::extended(), extended, "extended"), (Leaf::new(), plain, "plain")]
        {
            let counted = allocations(path, leaf);
            if counted > *limit {
                risen.push(format!("{name}, {kind} leaf: {counted} allocations, not {limit}"));
            }
        }
    }
    assert!(risen.is_empty(), "{risen:#?}");
}

fn allocations(path: &Path, leaf: Leaf) -> u64 {
    let mut send = (path.build)(leaf);
    // The first request at each backend makes what the others share.
    let counts = (0..200).map(|_| allocation_counter::measure(&mut send).count_total);
    counts.min().expect("200 requests")
}

#[test]
fn a_pool_without_an_open_backend_answers_without_a_clone_of_the_request() {
    let mut service = RegionRotateLayer::new(pool("a")).layer(azure());
    let refused = leaf::send(&mut service, request(&Clones::default()));
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let clones = Clones::default();
    let closed = leaf::send(&mut service, request(&clones));
    assert_eq!(closed.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(clones.count(), 0);
}

#[test]
fn a_request_that_waits_for_nothing_spills_past_a_closed_tier_without_a_clone() {
    let (ptu, standard) = (pool("ptu"), pool("standard"));
    let layer =
        SmartFallbackLayer::new(RegionRotateLayer::new(ptu), RegionRotateLayer::new(standard));
    let mut service = layer.max_wait(Duration::ZERO).layer(azure());
    leaf::send(&mut service, request(&Clones::default()));
    let clones = Clones::default();
    let response = leaf::send(&mut service, request(&clones));
    assert!(response.extensions().get().is_some_and(Served::spilled));
    assert_eq!(clones.count(), 0);
}

/// An extension that counts how often its request is cloned.
#[derive(Default)]
struct Clones(Arc<AtomicUsize>);

impl Clones {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Clone for Clones {
    fn clone(&self) -> Self {
        self.0.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

fn request(clones: &Clones) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::default());
    request.extensions_mut().insert(Clones(Arc::clone(&clones.0)));
    request
}

fn pool(name: &'static str) -> BackendPool {
    let backend = Backend::new(name, format!("https://{name}.example")).expect("an endpoint");
    BackendPool::new([backend.api_key("key")]).expect("a valid pool")
}

/// Only the host of the Standard deployment answers; the others refuse for a minute.
fn azure() -> impl Service<
    Request<Full<Bytes>>,
    Response = Response<Full<Bytes>>,
    Error = Infallible,
    Future: Unpin,
> + Clone {
    service_fn(|request: Request<Full<Bytes>>| {
        let mut response = Response::new(Full::default());
        if request.uri().host() != Some("standard.example") {
            *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            response.headers_mut().insert("retry-after", 60.into());
        }
        ready(Ok(response))
    })
}
