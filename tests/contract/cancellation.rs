//! A future that is dropped at any point leaves nothing behind.

use std::{
    convert::Infallible,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{future::join_all, stream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use tokio::sync::Semaphore;
use tokio_test::task;
use tower::{
    Layer, Service, ServiceBuilder, ServiceExt, limit::GlobalConcurrencyLimitLayer,
    retry::RetryLayer, util::BoxCloneService,
};
use tower_spillover::{
    Backend, BackendPool, RegionRotateLayer, ReplayLayer, ResponseBody, RetryAfterPolicy,
    SmartFallbackLayer,
    backend::{AccessToken, TokenFuture, TokenSource},
};

use crate::{
    clock::{ms, pass},
    leaf::{Answer, Broken, CLASSIC, Leaf, Put, every_error, request},
};

type Body = UnsyncBoxBody<Bytes, Infallible>;
type Reply = Response<ResponseBody<Full<Bytes>>>;

/// A stack in which a request goes through every state: it arrives in pieces, waits for a token,
/// attempts, waits, readies, rotates and spills, over a client with a few permits.
struct World {
    stack: BoxCloneService<Request<Body>, Reply, Broken>,
    client: Leaf,
    permits: Arc<Semaphore>,
}

const PERMITS: usize = 3;

impl World {
    /// A PTU that refuses twice for 20 ms and then for a minute, east, which refuses, and west.
    fn new() -> Self {
        let client = Leaf::new(|seen| match (seen.host(), seen.index) {
            ("ptu.example", 0 | 1) => Answer::refused(20).after(3),
            ("ptu.example", _) => Answer::refused(60_000).after(3),
            ("east.example", _) => Answer::refused(60_000).after(2),
            _ => Answer::ok().after(4),
        });
        let permits = Arc::new(Semaphore::new(PERMITS));
        let limit = GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(&permits));
        let ptu = pool([backend("ptu").bearer(Slow)]);
        let standard = pool([backend("east").api_key("e"), backend("west").bearer(Slow)]);
        let tiers =
            SmartFallbackLayer::new(RegionRotateLayer::new(ptu), RegionRotateLayer::new(standard));
        let stack = ServiceBuilder::new()
            .layer(ReplayLayer::new(1 << 10))
            .layer(RetryLayer::new(RetryAfterPolicy::new()))
            .layer(tiers)
            .layer(limit)
            .service(client.clone());
        Self { stack: BoxCloneService::new(stack), client, permits }
    }

    #[track_caller]
    fn nothing_is_left(&self) {
        assert_eq!(self.permits.available_permits(), PERMITS);
        assert_eq!(self.client.under_way(), 0);
    }
}

/// A token takes its time.
struct Slow;

impl TokenSource for Slow {
    fn token(&self) -> TokenFuture {
        TokenFuture::fetching(async {
            pass(ms(5)).await;
            AccessToken::new("token")
        })
    }
}

fn backend(name: &str) -> Backend {
    Backend::new(name, format!("https://{name}.example")).unwrap()
}

fn pool<const N: usize>(backends: [Backend; N]) -> BackendPool {
    let first = backends[0].name().to_owned();
    let pool = BackendPool::new(backends).unwrap();
    pool.force_start(&*first).unwrap();
    pool
}

/// A request whose body arrives in three pieces.
fn trickling() -> Request<Body> {
    let pieces = stream::unfold(0, |sent| async move {
        pass(ms(2)).await;
        (sent < 3).then(|| (Ok(Frame::data(Bytes::from("piece"))), sent + 1))
    });
    Request::post(CLASSIC).body(StreamBody::new(Box::pin(pieces)).boxed_unsync()).unwrap()
}

/// Polls `future` `polls` times, each time when it is woken, and drops it; returns whether it
/// finished.
async fn drop_after<F: Future>(polls: usize, future: F) -> bool {
    let mut future = task::spawn(future);
    for _ in 0..polls {
        if future.poll().is_ready() {
            return true;
        }
        for _ in 0..1_000 {
            if future.is_woken() {
                break;
            }
            pass(ms(1)).await;
        }
        assert!(future.is_woken(), "a pending future is woken");
    }
    false
}

#[tokio::test(start_paused = true)]
async fn a_request_dropped_after_any_number_of_polls_leaves_nothing() {
    for polls in 0.. {
        let world = World::new();
        let finished = drop_after(polls, world.stack.clone().oneshot(trickling())).await;
        world.nothing_is_left();
        let after = world.stack.clone().oneshot(trickling()).await.unwrap();
        assert!(after.status().is_success(), "others go on, after {polls} polls");
        world.nothing_is_left();
        if finished {
            assert!(polls > 15, "body, tokens, attempts and waits: {polls}");
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_dropped_while_ready_leaves_nothing() {
    let world = World::new();
    let mut readied = world.stack.clone();
    readied.ready().await.unwrap();
    assert_eq!(world.permits.available_permits(), PERMITS - 1);
    drop(readied);
    world.nothing_is_left();
    let mut readied = world.stack.clone();
    drop(readied.ready().await.unwrap().call(trickling()));
    drop(readied);
    world.nothing_is_left();
}

#[tokio::test(start_paused = true)]
async fn many_requests_dropped_at_many_points_do_not_disturb_the_others() {
    let world = World::new();
    let tasks: Vec<_> = (0..300)
        .map(|index| {
            let stack = world.stack.clone();
            let task = tokio::spawn(async move {
                pass(ms(index % 7)).await;
                stack.oneshot(trickling()).await
            });
            let give_up = task.abort_handle();
            if index % 3 == 0 {
                tokio::spawn(async move {
                    pass(ms(index)).await;
                    give_up.abort();
                });
            }
            task
        })
        .collect();
    let mut served = 0;
    for (index, answer) in join_all(tasks).await.into_iter().enumerate() {
        match answer {
            Ok(answer) => {
                assert!(answer.unwrap().status().is_success());
                served += 1;
            }
            Err(dropped) => assert!(dropped.is_cancelled() && index % 3 == 0),
        }
    }
    assert!((200..290).contains(&served), "{served}");
    pass(ms(400)).await;
    world.nothing_is_left();
}

#[tokio::test(start_paused = true)]
async fn a_request_that_panics_in_the_client_leaves_the_others_alone() {
    let client = Leaf::new(|seen| match seen.index {
        1 => panic!("a client's bug"),
        _ => Answer::ok(),
    });
    let service = RegionRotateLayer::new(pool([backend("a").api_key("key")])).layer(client.clone());
    for index in 0..4 {
        let asked = tokio::spawn(service.clone().oneshot(request()));
        assert_eq!(asked.await.is_err(), index == 1);
    }
    assert_eq!(client.under_way(), 0);
}

/// A client that counts the futures of its calls.
#[derive(Clone)]
struct Counting {
    client: Leaf,
    futures: Arc<AtomicUsize>,
}

/// A future of [`Counting`], counted until it is dropped.
struct Counted {
    answer: <Leaf as Service<Ask>>::Future,
    futures: Arc<AtomicUsize>,
}

type Ask = Request<Full<Bytes>>;

impl Service<Ask> for Counting {
    type Response = Response<Full<Bytes>>;
    type Error = Broken;
    type Future = Counted;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Service::<Ask>::poll_ready(&mut self.client, cx)
    }

    fn call(&mut self, request: Ask) -> Counted {
        self.futures.fetch_add(1, Ordering::Relaxed);
        Counted { answer: self.client.call(request), futures: Arc::clone(&self.futures) }
    }
}

impl Future for Counted {
    type Output = Result<Response<Full<Bytes>>, Broken>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.answer.as_mut().poll(cx)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.futures.fetch_sub(1, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_finished_future_that_is_kept_keeps_no_attempt_that_was_refused() {
    async fn assert_none_is_left(mut service: impl Service<Ask>, futures: &AtomicUsize) {
        let mut call = pin!(service.ready().await.ok().unwrap().call(request()));
        _ = call.as_mut().await;
        assert_eq!(futures.load(Ordering::Relaxed), 0);
    }
    for refusal in [Answer::refused(60_000), Answer::broken()] {
        let futures = Arc::default();
        let client = Counting { client: Leaf::playing([refusal]), futures: Arc::clone(&futures) };
        let tiers = SmartFallbackLayer::new(Put(client.clone()), Put(client.clone()));
        assert_none_is_left(tiers.move_on(every_error()).layer(()), &futures).await;
        let layer = RegionRotateLayer::new(pool([backend("a").api_key("key")]));
        assert_none_is_left(layer.move_on(every_error()).layer(client), &futures).await;
    }
}
