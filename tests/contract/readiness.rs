//! Tower's contract: a service that is called is ready, and one that is ready and unused is released.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::{sync::Semaphore, time::advance};
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tower::{
    Layer, Service, ServiceBuilder, ServiceExt,
    buffer::Buffer,
    limit::{GlobalConcurrencyLimitLayer, concurrency::ConcurrencyLimit},
    retry::RetryLayer,
};
use tower_spillover::{
    Backend, BackendPool, MaxWait, RegionRotateLayer, ReplayLayer, RetryAfterPolicy, SmartFallback,
    SmartFallbackLayer, backend::DeploymentLayer, replay::ReplayBody,
};
use tower_test::mock::{self, Handle};

use crate::{
    clock::{ms, pass},
    leaf::{Answer, Leaf, Put, account, every_error, readied, request, through},
};

type Ask<B = Full<Bytes>> = Request<B>;
type Reply = Response<Full<Bytes>>;

fn refused(ms: u64) -> Reply {
    Answer::refused(ms).into_response()
}

fn ok() -> Reply {
    Answer::ok().into_response()
}

fn pool<const N: usize>(names: [&str; N]) -> BackendPool {
    let backends = names
        .map(|name| Backend::new(name, format!("https://{name}.example")).unwrap().api_key("key"));
    let pool = BackendPool::new(backends).unwrap();
    pool.force_start(names[0]).unwrap();
    pool
}

/// A request must have arrived; it gets this answer.
fn answer<B>(handle: &mut Handle<Ask<B>, Reply>, reply: Reply) {
    let mut next = task::spawn(handle.next_request());
    let (_, send) = assert_ready!(next.poll()).expect("a request");
    send.send_response(reply);
}

/// No request must have arrived.
fn silent<B>(handle: &mut Handle<Ask<B>, Reply>) {
    let mut next = task::spawn(handle.next_request());
    assert!(next.poll().is_pending(), "nothing may be sent before the service is ready");
}

#[tokio::test(start_paused = true)]
async fn smart_fallback_readies_its_primary_again_for_every_attempt() {
    let (primary, mut ptu) = mock::pair::<Ask, Reply>();
    let (fallback, mut standard) = mock::pair::<Ask, Reply>();
    ptu.allow(0);
    standard.allow(0);
    let mut service = mock::Spawn::new(SmartFallback::new(primary, fallback));
    assert_pending!(service.poll_ready::<Ask>());
    ptu.allow(1);
    assert_ready_ok!(service.poll_ready::<Ask>());
    let mut call = task::spawn(service.call(request()));
    assert_pending!(call.poll());
    for _ in 0..3 {
        answer(&mut ptu, refused(1_000));
        assert!(call.is_woken());
        assert_pending!(call.poll(), "waiting");
        advance(ms(1_000)).await;
        assert_pending!(call.poll(), "not ready yet");
        silent(&mut ptu);
        ptu.allow(1);
        assert!(call.is_woken(), "wakes when the primary is ready again");
        assert_pending!(call.poll(), "attempting");
    }
    answer(&mut ptu, refused(1_001));
    assert_pending!(call.poll(), "spilled, and the fallback is not ready");
    standard.allow(1);
    assert!(call.is_woken());
    assert_pending!(call.poll());
    answer(&mut standard, ok());
    let response = assert_ready_ok!(call.poll());
    assert_eq!(account(&response).attempts().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn region_rotate_readies_its_service_again_for_every_backend() {
    let (client, mut azure) = mock::pair::<Ask, Reply>();
    azure.allow(1);
    let mut service = RegionRotateLayer::new(pool(["a", "b", "c", "d"])).layer(client);
    service.ready().await.unwrap();
    let mut call = task::spawn(service.call(request()));
    assert_pending!(call.poll());
    for _ in 0..3 {
        answer(&mut azure, refused(1_000));
        assert_pending!(call.poll(), "not ready yet");
        silent(&mut azure);
        azure.allow(1);
        assert_pending!(call.poll(), "attempting");
    }
    answer(&mut azure, ok());
    assert_eq!(account(&assert_ready_ok!(call.poll())).attempts().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn the_retry_policy_has_its_service_readied_again_for_every_attempt() {
    let (client, mut azure) = mock::pair::<Ask, Reply>();
    azure.allow(1);
    let mut service = RetryLayer::new(RetryAfterPolicy::new().jitter(0.0)).layer(client);
    service.ready().await.unwrap();
    let mut call = task::spawn(service.call(request()));
    assert_pending!(call.poll());
    for _ in 0..3 {
        answer(&mut azure, refused(1_000));
        assert_pending!(call.poll(), "waiting");
        advance(ms(1_000)).await;
        assert_pending!(call.poll(), "not ready yet");
        azure.allow(1);
        assert_pending!(call.poll(), "attempting");
    }
    answer(&mut azure, ok());
    assert_ready_ok!(call.poll());
}

#[tokio::test(start_paused = true)]
async fn replay_and_with_deployment_use_the_service_that_was_polled() {
    let (client, mut azure) = mock::pair::<Ask<ReplayBody<Full<Bytes>>>, Reply>();
    azure.allow(3);
    let mut service =
        ReplayLayer::new(100).layer(DeploymentLayer::new("other").unwrap().layer(client));
    for _ in 0..3 {
        service.ready().await.unwrap();
        let mut call = task::spawn(service.call(request()));
        assert_pending!(call.poll());
        let (sent, send) = azure.next_request().await.unwrap();
        assert!(sent.uri().path().contains("/other/"));
        send.send_response(ok());
        assert_ready_ok!(call.poll());
    }
    assert_pending!(mock::Spawn::new(service).poll_ready::<Ask>(), "three were allowed");
}

#[tokio::test(start_paused = true)]
async fn the_whole_stack_readies_every_attempt() {
    let (client, mut azure) = mock::pair::<Ask<ReplayBody<Full<Bytes>>>, Reply>();
    azure.allow(1);
    let tiers = SmartFallbackLayer::new(
        RegionRotateLayer::new(pool(["ptu"])),
        RegionRotateLayer::new(pool(["east", "west"])),
    );
    let mut service = ServiceBuilder::new()
        .layer(ReplayLayer::new(100))
        .layer(RetryLayer::new(RetryAfterPolicy::new().jitter(0.0)))
        .layer(tiers)
        .service(client);
    service.ready().await.unwrap();
    let mut call = task::spawn(service.call(request()));
    assert_pending!(call.poll());
    // Waits for the PTU once, spills to both regions; the retry waits for the first to reopen, the
    // PTU, which refuses for long, so that it waits for a region.
    for (hint, wait) in [(1_000, 1_000), (5_000, 0), (9_000, 0), (7_000, 5_000), (9_999, 2_000)] {
        answer(&mut azure, refused(hint));
        assert_pending!(call.poll());
        advance(ms(wait)).await;
        assert_pending!(call.poll());
        silent(&mut azure);
        azure.allow(1);
        assert_pending!(call.poll());
    }
    answer(&mut azure, ok());
    assert_ready_ok!(call.poll());
}

#[tokio::test(start_paused = true)]
async fn an_error_of_readiness_ends_the_request() {
    let (primary, mut ptu) = mock::pair::<Ask, Reply>();
    let (fallback, mut standard) = mock::pair::<Ask, Reply>();
    let mut service = SmartFallback::new(primary, fallback);
    ptu.allow(1);
    service.ready().await.unwrap();
    let mut call = task::spawn(service.call(request()));
    assert_pending!(call.poll());
    answer(&mut ptu, refused(100));
    assert_pending!(call.poll());
    ptu.send_error("gone");
    advance(ms(100)).await;
    assert_eq!(assert_ready_err!(call.poll()).to_string(), "gone");
    ptu.allow(1);
    service.ready().await.unwrap();
    let mut call = task::spawn(service.call(request()));
    assert_pending!(call.poll());
    answer(&mut ptu, refused(60_000));
    standard.send_error("gone too");
    assert_eq!(assert_ready_err!(call.poll()).to_string(), "gone too");
    ptu.send_error("at first");
    assert_ready_err!(mock::Spawn::new(service).poll_ready::<Ask>());
}

#[tokio::test(start_paused = true)]
async fn an_error_of_readiness_ends_a_rotation() {
    let (client, mut azure) = mock::pair::<Ask, Reply>();
    let mut service = RegionRotateLayer::new(pool(["a", "b"]))
        .move_on(every_error::<tower::BoxError>())
        .layer(client);
    azure.allow(1);
    service.ready().await.unwrap();
    let mut call = task::spawn(service.call(request()));
    assert_pending!(call.poll());
    azure.send_error("gone");
    answer(&mut azure, refused(100));
    assert_eq!(assert_ready_err!(call.poll()).to_string(), "gone");
}

fn limited(leaf: &Leaf, permits: &Arc<Semaphore>) -> ConcurrencyLimit<Leaf> {
    GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(permits)).layer(leaf.clone())
}

#[tokio::test(start_paused = true)]
async fn a_readied_primary_that_is_not_used_gives_its_permit_back_within_the_call() {
    let (ptu, standard) =
        (Leaf::playing([Answer::refused(300), Answer::ok()]), Leaf::playing([Answer::ok()]));
    let permits = Arc::new(Semaphore::new(1));
    let mut service = SmartFallback::new(limited(&ptu, &permits), standard);
    let hasty = || {
        let mut request = request();
        request.extensions_mut().insert(MaxWait(ms(100)));
        request
    };
    through(&mut service, hasty()).await.unwrap();
    readied(&mut service).await;
    assert_eq!(permits.available_permits(), 0, "readiness holds it");
    let spilling = service.call(hasty());
    assert_eq!(permits.available_permits(), 1, "the primary is closed until 300 ms");
    drop(spilling);
    readied(&mut service).await;
    let waiting = service.call(request());
    assert_eq!(permits.available_permits(), 1, "and waits for it without");
    waiting.await.unwrap();
    assert_eq!((ptu.times(), permits.available_permits()), (vec![0, 300], 1));
}

#[tokio::test(start_paused = true)]
async fn a_readied_service_of_a_closed_pool_gives_its_permit_back_within_the_call() {
    let leaf = Leaf::playing([Answer::refused(10_000)]);
    let permits = Arc::new(Semaphore::new(1));
    let mut service = RegionRotateLayer::new(pool(["a"])).layer(limited(&leaf, &permits));
    through(&mut service, request()).await.unwrap();
    readied(&mut service).await;
    let answered = service.call(request());
    assert_eq!(permits.available_permits(), 1);
    drop(answered);
}

#[tokio::test(start_paused = true)]
async fn waiting_holds_no_permit_and_neither_does_a_refusal_that_is_passed_on() {
    let ptu =
        Leaf::playing([Answer::refused(300).after(100), Answer::refused(9_000), Answer::ok()]);
    let standard = Leaf::playing([Answer::ok().after(1_000)]);
    let (on_ptu, on_standard) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(1)));
    let service = SmartFallback::new(limited(&ptu, &on_ptu), limited(&standard, &on_standard));
    let watch = async {
        // Attempting until 100, waiting until 300, then on the fallback until 1300.
        for (time, free) in [(50, [0, 1]), (200, [1, 1]), (299, [1, 1]), (800, [1, 0])] {
            pass(ms(time) - ptu.elapsed()).await;
            let seen = [&on_ptu, &on_standard].map(|permits| permits.available_permits());
            assert_eq!(seen, free, "at {time}");
        }
    };
    let (response, ()) = futures::join!(service.oneshot(request()), watch);
    assert!(account(&response.unwrap()).spilled());
    assert_eq!([on_ptu.available_permits(), on_standard.available_permits()], [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_closed_while_it_was_readied_is_not_asked() {
    // Two requests wait; one permit lets the first one through, which is refused for long.
    let ptu = Leaf::new(|seen| match seen.index {
        0 => Answer::refused(100),
        // Soon enough that silence does not let the other one go.
        _ => Answer::refused(30_000).after(15),
    });
    let permits = Arc::new(Semaphore::new(1));
    let standard = Leaf::playing([Answer::ok().after(1_000)]);
    let service = SmartFallback::new(limited(&ptu, &permits), standard.clone());
    let first = service.clone().oneshot(request());
    let second = async {
        pass(ms(10)).await;
        service.clone().oneshot(request()).await
    };
    let watch = async {
        pass(ms(500)).await;
        assert_eq!(permits.available_permits(), 1, "both are on the fallback");
    };
    let (first, second, ()) = futures::join!(first, second, watch);
    assert!([first, second].iter().all(|answer| account(answer.as_ref().unwrap()).spilled()));
    assert_eq!((ptu.times(), standard.len()), (vec![0, 100], 2));
    assert_eq!(permits.available_permits(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_layers_work_over_a_buffer_of_one_place_and_leave_it_free() {
    let ptu = Leaf::playing([Answer::refused(300), Answer::refused(30_000), Answer::ok()]);
    let standard = Leaf::playing([Answer::ok()]);
    let tier = |leaf: &Leaf| Put(Buffer::<Ask, _>::new(leaf.clone(), 1));
    let service = SmartFallbackLayer::new(tier(&ptu), tier(&standard)).layer(());
    for _ in 0..3 {
        let response = service.clone().oneshot(request()).await.unwrap();
        assert!(account(&response).spilled());
    }
    assert_eq!((ptu.times(), standard.len()), (vec![0, 300], 3));
    let client = Buffer::<Ask, _>::new(Leaf::playing([Answer::refused(500)]), 1);
    let service = RegionRotateLayer::new(pool(["a", "b", "c"])).layer(client);
    for _ in 0..5 {
        let response = service.clone().oneshot(request()).await.unwrap();
        assert_eq!(response.status().as_u16(), 429);
    }
}
