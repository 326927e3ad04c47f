//! The paths of a request, each as a closure that sends one request.

use std::{
    cell::Cell,
    convert::Infallible,
    future::{Ready, ready},
    hint::black_box,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Either, Full};
use tower::{
    Layer, Service, ServiceBuilder,
    layer::layer_fn,
    retry::{Policy, Retry, RetryLayer},
    util::MapResponseLayer,
};
use tower_spillover::{
    Backend, BackendPool, FirstTokenLayer, Fleet, Gate, InspectLayer, RegionRotateLayer,
    ReplayLayer, ResponseBody, RetryAfterPolicy, SmartFallbackLayer, Sticky, WaitLayer,
    events::{Event, EventSink, MetricsSink, RequestSpanLayer, Source, TracingSink},
    first_token::Limit,
    fleet::Local,
    gate::cost::{EstimateCost, Head, TokenWeights},
    policy::CooldownPolicy,
    region_rotate::RegionRotate,
    sticky::CacheAffinity,
};

use super::leaf::{Leaf, Parked, send, template};
use crate::prompts::{chat_of_bytes, response_of_bytes};

/// Sends one request.
pub type Send = Box<dyn FnMut()>;

/// One path of a request.
pub struct Path {
    pub group: &'static str,
    pub name: &'static str,
    /// Builds the services over a given leaf.
    pub build: fn(Leaf) -> Send,
}

const fn path(group: &'static str, name: &'static str, build: fn(Leaf) -> Send) -> Path {
    Path { group, name, build }
}

/// Every path, after its baselines.
pub const PATHS: &[Path] = &[
    // The first attempt is answered.
    path("served", "bare", |leaf| over(&leaf, leaf.clone())),
    path("served", "bare + clone", bare_and_clone),
    path("served", "tower::retry", |leaf| over(&leaf, Retry::new(HandPolicy(1), leaf.clone()))),
    path("served", "tower::retry, RetryAfterPolicy", |leaf| {
        over(&leaf, RetryLayer::new(RetryAfterPolicy::new()).layer(leaf.clone()))
    }),
    path("served", "Replay", |leaf| over(&leaf, ReplayLayer::new(4 << 20).layer(leaf.clone()))),
    path("served", "Fallback", |leaf| over(&leaf, two_tiers(&leaf, &leaf).layer(()))),
    path("served", "Fallback with a fleet", |leaf| {
        let fleet = Fleet::new("bench", Local::new()).expect("a name");
        let gate = Gate::new().fleet(&fleet, "ptu");
        over(&leaf, two_tiers(&leaf, &leaf).gate(gate).layer(()))
    }),
    path("served", "Rotate 2", |leaf| rotating(&leaf, &pool(2))),
    path("served", "Rotate 100", |leaf| rotating(&leaf, &pool(100))),
    path("served", "Rotate 1000", |leaf| rotating(&leaf, &pool(1000))),
    path("served", "Rotate 2, one resting", |leaf| rotating(&leaf, &one_resting(2))),
    path("served", "Rotate 100, one resting", |leaf| rotating(&leaf, &one_resting(100))),
    path("served", "Rotate 1000, one resting", |leaf| rotating(&leaf, &one_resting(1000))),
    path("served", "Wait", |leaf| over(&leaf, WaitLayer::new().layer(leaf.clone()))),
    path("served", "Wait(Rotate 2)", |leaf| {
        over(&leaf, WaitLayer::new().layer(rotate(pool(2), &leaf)))
    }),
    path("served", "Fallback(Rotate 1, Rotate 2)", |leaf| {
        over(&leaf, two_tiers(&rotate(pool(1), &leaf), &rotate(pool(2), &leaf)).layer(()))
    }),
    path("served", "Replay(Fallback(Rotate 1, Rotate 2))", |leaf| {
        over(&leaf, stack(pool(1), pool(2), &leaf))
    }),
    path("served", "Replay(Fallback(Rotate 2, Rotate 2))", |leaf| {
        over(&leaf, stack(pool(2), pool(2), &leaf))
    }),
    path("served", "the same, deployments named", |leaf| {
        let (parked, mut service) = (leaf.parked(), stack(named("ptu"), named("standard"), &leaf));
        Box::new(move || parked.reclaim(send(&mut service, parked.restored_request())))
    }),
    path("served", "FirstToken(Rotate 2)", |leaf| {
        let limit = Limit::hedge_after(HOUR);
        over(&leaf, FirstTokenLayer::new(limit).layer(rotate(pool(2), &leaf)))
    }),
    // What is reported, to what takes no notice of it.
    path("events", "Rotate 2", |leaf| rotating(&leaf, &pool(2))),
    path("events", "Rotate 2, a sink", |leaf| reporting(&leaf, Deaf)),
    path("events", "Rotate 2, MetricsSink", |leaf| reporting(&leaf, MetricsSink::new())),
    path("events", "Rotate 2, TracingSink", |leaf| reporting(&leaf, TracingSink)),
    path("events", "RequestSpan(Rotate 2), TracingSink", |leaf| {
        let rotate = RegionRotateLayer::new(pool(2)).events(TracingSink).layer(leaf.clone());
        over(&leaf, RequestSpanLayer::new().layer(rotate))
    }),
    path("events", "Fallback(Rotate 1, Rotate 2)", |leaf| {
        over(&leaf, two_tiers(&rotate(pool(1), &leaf), &rotate(pool(2), &leaf)).layer(()))
    }),
    path("events", "RequestSpan(Fallback(Rotate 1, Rotate 2)), both sinks", |leaf| {
        let sink = Arc::new((MetricsSink::new(), TracingSink));
        let tier = |count| {
            let layer = RegionRotateLayer::new(pool(count)).events(Arc::clone(&sink));
            layer.layer(leaf.clone())
        };
        let tiers = two_tiers(&tier(1), &tier(2)).events(Arc::clone(&sink)).layer(());
        over(&leaf, RequestSpanLayer::new().layer(tiers))
    }),
    // The cost of a response that is not inspected.
    path("inspect", "bare", |leaf| over(&leaf, leaf.clone())),
    // The cost of any layer that changes the body's type.
    path("inspect", "bare, body wrapped", |leaf| {
        over(&leaf, MapResponseLayer::new(wrap).layer(leaf.clone()))
    }),
    path("inspect", "Inspect", |leaf| over(&leaf, InspectLayer::new().layer(leaf.clone()))),
    path("inspect", "Rotate 2", |leaf| rotating(&leaf, &pool(2))),
    path("inspect", "Rotate 2(body wrapped)", |leaf| {
        let wrapped = MapResponseLayer::new(wrap).layer(leaf.clone());
        over(&leaf, RegionRotateLayer::new(pool(2)).layer(wrapped))
    }),
    path("inspect", "Rotate 2(Inspect)", |leaf| {
        let inspect = InspectLayer::new().layer(leaf.clone());
        over(&leaf, RegionRotateLayer::new(pool(2)).layer(inspect))
    }),
    // The first attempt is refused, the second is answered.
    path("refused", "bare, twice", |leaf| {
        let (parked, mut first, mut second) = (leaf.parked(), leaf.refusing(), leaf);
        Box::new(move || {
            parked.reclaim(send(&mut first, parked.request()));
            parked.reclaim(send(&mut second, parked.request()));
        })
    }),
    path("refused", "tower::retry", |leaf| {
        over(&leaf, Retry::new(HandPolicy(1), Alternating::new(&leaf)))
    }),
    path("refused", "Fallback", |leaf| {
        over(&leaf, two_tiers(&leaf.refusing(), &leaf).forgetful().layer(()))
    }),
    path("refused", "Rotate 2", |leaf| restless(&leaf, pool(2))),
    path("refused", "Rotate 100", |leaf| restless(&leaf, pool(100))),
    path("refused", "Fallback(Rotate 1, Rotate 2)", |leaf| {
        let ptu = RegionRotateLayer::new(pool(1)).cooldowns(no_rests()).layer(leaf.refusing());
        over(
            &leaf,
            two_tiers(&ptu, &rotate(pool(2), &leaf)).forgetful().max_wait(NOTHING).layer(()),
        )
    }),
    // The first tier, or every backend, is known to refuse.
    path("closed", "bare", |leaf| over(&leaf, leaf.clone())),
    path("closed", "tower::retry", |leaf| over(&leaf, Retry::new(HandPolicy(1), leaf.clone()))),
    path("closed", "Fallback", |leaf| closed(&leaf, &leaf.refusing(), &leaf)),
    path("closed", "Fallback, chat of 2 KiB", |leaf| closed_chat(&leaf, 2 << 10)),
    path("closed", "Fallback, chat of 32 KiB", |leaf| closed_chat(&leaf, 32 << 10)),
    path("closed", "Fallback, chat of 256 KiB", |leaf| closed_chat(&leaf, 256 << 10)),
    path("closed", "Fallback(Rotate 1, Rotate 1)", |leaf| {
        closed(&leaf, &rotate(pool(1), &leaf.refusing()), &rotate(pool(1), &leaf))
    }),
    path("closed", "Fallback(Rotate 1, Rotate 2)", |leaf| {
        closed(&leaf, &rotate(pool(1), &leaf.refusing()), &rotate(pool(2), &leaf))
    }),
    path("closed", "bare + clone", bare_and_clone),
    path("closed", "Rotate 2, all resting", |leaf| rotating(&leaf, &resting(2, 2))),
    path("closed", "Rotate 100, all resting", |leaf| rotating(&leaf, &resting(100, 100))),
    path("closed", "Rotate 1000, half resting", |leaf| rotating(&leaf, &resting(1000, 500))),
    path("closed", "Rotate 1000, all but one resting", |leaf| rotating(&leaf, &resting(1000, 999))),
    path("closed", "Rotate 1000, all resting", |leaf| rotating(&leaf, &resting(1000, 1000))),
    // What a body costs, before it is known whether its request may go.
    path("weighed", "chat of 2 KiB", |_| weighed(2 << 10)),
    path("weighed", "chat of 32 KiB", |_| weighed(32 << 10)),
    path("weighed", "chat of 256 KiB", |_| weighed(256 << 10)),
    // The body names the model, and the backends another one.
    path("v1", "Rotate 2, chat of 2 KiB", |leaf| renamed(&leaf, 2 << 10)),
    path("v1", "Rotate 2, chat of 32 KiB", |leaf| renamed(&leaf, 32 << 10)),
    path("v1", "Rotate 2, chat of 256 KiB", |leaf| renamed(&leaf, 256 << 10)),
    // The backend that may have the start of the prompt in its cache.
    path("affinity", "Rotate 4", |leaf| by_prompt(&leaf, 4)),
    path("affinity", "Rotate 100", |leaf| by_prompt(&leaf, 100)),
    path("affinity", "Rotate 1000", |leaf| by_prompt(&leaf, 1000)),
    // An answer is read to its end, for ids that only its resource knows.
    path("sticky", "Rotate 2, a response of 2 KiB read", |leaf| answered(&leaf, None)),
    path("sticky", "Rotate 2, a response of 2 KiB read, sticky", |leaf| {
        answered(&leaf, Some(Sticky::new()))
    }),
];

fn over<S, R>(leaf: &Leaf, mut service: S) -> Send
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>, Error = Infallible> + 'static,
{
    let parked = leaf.parked();
    Box::new(move || parked.reclaim(send(&mut service, parked.request())))
}

fn bare_and_clone(leaf: Leaf) -> Send {
    let (parked, mut service) = (leaf.parked(), leaf);
    Box::new(move || {
        let request = parked.request();
        let spare = request.clone();
        parked.reclaim(send(&mut service, request));
        drop(spare);
    })
}

fn rotate(pool: BackendPool, leaf: &Leaf) -> RegionRotate<Leaf> {
    RegionRotateLayer::new(pool).layer(leaf.clone())
}

fn rotating(leaf: &Leaf, pool: &BackendPool) -> Send {
    over(leaf, rotate(pool.clone(), leaf))
}

/// The first answer to every request is a refusal, after which no backend cools down.
fn restless(leaf: &Leaf, pool: BackendPool) -> Send {
    let layer = RegionRotateLayer::new(pool).cooldowns(no_rests());
    over(leaf, layer.layer(Alternating::new(leaf)))
}

fn reporting(leaf: &Leaf, sink: impl EventSink) -> Send {
    over(leaf, RegionRotateLayer::new(pool(2)).events(sink).layer(leaf.clone()))
}

/// A sink that does nothing.
struct Deaf;

impl EventSink for Deaf {
    fn on_event(&self, source: Source, event: &Event<'_>) {
        _ = black_box((source, event));
    }
}

fn two_tiers<P: Clone, F: Clone>(
    primary: &P,
    fallback: &F,
) -> SmartFallbackLayer<impl Layer<(), Service = P>, impl Layer<(), Service = F>> {
    let (primary, fallback) = (primary.clone(), fallback.clone());
    SmartFallbackLayer::new(
        layer_fn(move |()| primary.clone()),
        layer_fn(move |()| fallback.clone()),
    )
    .longest_cooldown(HOUR)
}

/// Two tiers, of which the first has refused one request for longer than this runs.
fn closed<P, F, R>(leaf: &Leaf, primary: &P, fallback: &F) -> Send
where
    P: Service<Request<Full<Bytes>>, Response = Response<R>, Error = Infallible> + Clone + 'static,
    F: Service<Request<Full<Bytes>>, Response = Response<R>, Error = Infallible> + Clone + 'static,
{
    let mut service = two_tiers(primary, fallback).max_wait(TICK).layer(());
    leaf.parked().reclaim(send(&mut service, leaf.parked().request()));
    over(leaf, service)
}

/// The same with a body that is weighed, since it is a conversation.
fn closed_chat(leaf: &Leaf, bytes: usize) -> Send {
    let (refusing, parked) = (leaf.refusing(), leaf.parked());
    let mut service = two_tiers(&refusing, leaf).max_wait(TICK).layer(());
    let body = Bytes::from(chat_of_bytes(bytes));
    let request = move |parked: &Parked| parked.request().map(|_| Full::new(body.clone()));
    parked.reclaim(send(&mut service, request(&parked)));
    Box::new(move || parked.reclaim(send(&mut service, request(&parked))))
}

/// Weighs a conversation.
fn weighed(bytes: usize) -> Send {
    let body = chat_of_bytes(bytes);
    let (uri, headers) = (template().uri, HeaderMap::new());
    let weights = TokenWeights::new();
    Box::new(move || {
        let head = Head::new(&uri, &headers);
        black_box(weights.estimate(&head, Some(black_box(body.as_bytes()))));
    })
}

/// A request of the v1 API, whose body names a model that the backends call otherwise.
fn renamed(leaf: &Leaf, bytes: usize) -> Send {
    let named = |backend: Backend| backend.deployment("standard");
    let pool = BackendPool::new(backends(2).map(named)).expect("a valid pool");
    let (parked, mut service) = (leaf.parked(), rotate(pool, leaf));
    let body = Bytes::from(chat_of_bytes(bytes));
    let uri = Uri::from_static("https://gateway.contoso.example/openai/v1/chat/completions");
    Box::new(move || {
        let mut request = parked.request().map(|_| Full::new(body.clone()));
        *request.uri_mut() = uri.clone();
        parked.reclaim(send(&mut service, request));
    })
}

/// A conversation whose prompt decides where it starts.
fn by_prompt(leaf: &Leaf, count: usize) -> Send {
    let layer = RegionRotateLayer::new(pool(count)).cache_affinity(CacheAffinity::KeyOrPrompt);
    let (parked, mut service) = (leaf.parked(), layer.layer(leaf.clone()));
    let body = Bytes::from(chat_of_bytes(2 << 10));
    Box::new(move || {
        let request = parked.request().map(|_| Full::new(body.clone()));
        parked.reclaim(send(&mut service, request));
    })
}

/// A request of the Responses API, whose answer is read.
fn answered(leaf: &Leaf, sticky: Option<Sticky>) -> Send {
    let answer = Bytes::from(response_of_bytes(2 << 10));
    let with_body =
        move |response: Response<Full<Bytes>>| response.map(|_| Full::new(answer.clone()));
    let mut layer = RegionRotateLayer::new(pool(2));
    if let Some(sticky) = sticky {
        layer = layer.sticky(sticky);
    }
    let mut service = layer.layer(MapResponseLayer::new(with_body).layer(leaf.clone()));
    let parked = leaf.parked();
    let uri = Uri::from_static("https://gateway.contoso.example/openai/v1/responses");
    Box::new(move || {
        let mut request = parked.request().map(|_| Full::new(Bytes::from_static(ASKED)));
        *request.uri_mut() = uri.clone();
        let (head, body) = send(&mut service, request).into_parts();
        let read = body.collect().now_or_never().expect("it is here").expect("it is whole");
        black_box(read.to_bytes());
        parked.reclaim(Response::from_parts(head, ()));
    })
}

const ASKED: &[u8] = br#"{"model":"gpt-4o","input":"What did the tide leave behind?"}"#;

/// What a gateway has in front of its client.
fn stack(
    ptu: BackendPool,
    standard: BackendPool,
    leaf: &Leaf,
) -> impl Service<
    Request<Full<Bytes>>,
    Response = Response<ResponseBody<Full<Bytes>>>,
    Error = Infallible,
> + use<> {
    ServiceBuilder::new()
        .layer(ReplayLayer::new(4 << 20))
        .layer(SmartFallbackLayer::new(
            RegionRotateLayer::new(ptu),
            RegionRotateLayer::new(standard),
        ))
        .service(leaf.clone())
}

fn backends(count: usize) -> impl Iterator<Item = Backend> {
    (0..count).map(|index| {
        let endpoint = format!("https://backend-{index}.openai.azure.com");
        let backend = Backend::new(format!("backend-{index}"), endpoint).expect("an endpoint");
        backend.api_key(format!("{index:032x}"))
    })
}

fn pool(count: usize) -> BackendPool {
    BackendPool::new(backends(count)).expect("a valid pool")
}

/// Two backends, each with its own deployment and api-version.
fn named(deployment: &str) -> BackendPool {
    let named = |backend: Backend| backend.deployment(deployment).api_version("2025-04-01-preview");
    BackendPool::new(backends(2).map(named)).expect("a valid pool")
}

fn one_resting(count: usize) -> BackendPool {
    let pool = pool(count);
    pool.force_start("backend-0").expect("the first of them");
    close(&pool, 1);
    pool.force_start(None).expect("nothing to be forced");
    pool
}

/// A pool of `count` backends, of which some rest.
fn resting(count: usize, resting: usize) -> BackendPool {
    let pool = pool(count);
    close(&pool, resting);
    pool
}

/// Sends a request that every backend it reaches refuses for an hour.
fn close(pool: &BackendPool, attempts: usize) {
    let refusing = Leaf::new().refusing();
    let mut service = RegionRotateLayer::new(pool.clone())
        .cooldowns(CooldownPolicy::default().longest(HOUR))
        .max_attempts(attempts)
        .layer(refusing.clone());
    send(&mut service, refusing.parked().request());
}

fn no_rests() -> CooldownPolicy {
    CooldownPolicy::default().longest(NOTHING)
}

/// A handwritten policy: this many immediate retries of a 429.
#[derive(Clone)]
struct HandPolicy(u32);

impl<B: Clone, R, E> Policy<Request<B>, Response<R>, E> for HandPolicy {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request<B>,
        result: &mut Result<Response<R>, E>,
    ) -> Option<Ready<()>> {
        let refused = matches!(result, Ok(r) if r.status() == StatusCode::TOO_MANY_REQUESTS);
        self.0 = self.0.checked_sub(u32::from(refused))?;
        refused.then(|| ready(()))
    }

    fn clone_request(&mut self, request: &Request<B>) -> Option<Request<B>> {
        (self.0 > 0).then(|| request.clone())
    }
}

/// A leaf that refuses and answers alternately.
#[derive(Clone)]
struct Alternating {
    refusing: Leaf,
    answering: Leaf,
    turn: Rc<Cell<bool>>,
}

impl Alternating {
    fn new(leaf: &Leaf) -> Self {
        Self { refusing: leaf.refusing(), answering: leaf.clone(), turn: Rc::default() }
    }
}

impl<B> Service<Request<B>> for Alternating {
    type Response = <Leaf as Service<Request<B>>>::Response;
    type Error = Infallible;
    type Future = <Leaf as Service<Request<B>>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if self.turn.replace(!self.turn.get()) {
            self.answering.call(request)
        } else {
            self.refusing.call(request)
        }
    }
}

const NOTHING: Duration = Duration::ZERO;
/// A request may wait, so that a copy is kept, but does not, on however slow a machine.
const TICK: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3_600);

/// Changes the type of a body, and does nothing else.
#[inline]
fn wrap(response: Response<Full<Bytes>>) -> Response<Either<Full<Bytes>, Full<Bytes>>> {
    response.map(Either::Left)
}
