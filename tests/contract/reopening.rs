//! When `Wait` waits, which request goes when a service reopens, and what remains afterwards.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::join_all;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tokio::{sync::Semaphore, time::advance};
use tokio_test::{assert_pending, assert_ready_ok, task};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, limit::GlobalConcurrencyLimitLayer};
use tower_spillover::{
    AttemptBudget, Backend, BackendPool, Deadline, LimitAttemptsLayer, MaxWait, Priority,
    RegionRotateLayer, ReplayLayer, WaitLayer,
    classify::{Hint, Reason},
    region_rotate::RegionRotate,
    wait::{Class, Wait, WaitQueue},
};
use tower_test::mock;

use crate::{
    clock::{self, ms, pass, timed},
    leaf::{Answer, Leaf, account, asked, header, request},
};

type Ask = Request<Full<bytes::Bytes>>;

fn pool<const N: usize>(names: [&str; N]) -> RegionRotateLayer {
    let backends = names
        .map(|name| Backend::new(name, format!("https://{name}.example")).unwrap().api_key("key"));
    RegionRotateLayer::new(BackendPool::new(backends).unwrap())
}

/// A service that answers `200` once it is `open`, and refuses before with the time that is left.
fn reopening_at(open: u64) -> Leaf {
    Leaf::new(move |seen| match open.saturating_sub(seen.at.as_millis() as u64) {
        0 => Answer::ok(),
        left => Answer::refused(left),
    })
}

/// Takes one request in each period, and refuses the others until the next one.
fn one_per(period: u64) -> Leaf {
    let last = Mutex::new(None);
    Leaf::new(move |seen| {
        let at = seen.at.as_millis() as u64;
        match last.lock().unwrap().replace(at / period) {
            Some(before) if before == at / period => Answer::refused(period - at % period),
            _ => Answer::ok(),
        }
    })
}

fn with(extension: impl Clone + Send + Sync + 'static) -> Ask {
    let mut request = request();
    request.extensions_mut().insert(extension);
    request
}

/// Sends requests one after the other in the same instant; when each was served, or `None`.
async fn crowd<S>(service: &S, requests: Vec<Ask>) -> Vec<Option<u128>>
where
    S: Service<Ask, Response = Response<Full<bytes::Bytes>>> + Clone,
    S::Error: std::fmt::Debug,
{
    let start = clock::now();
    let answers = requests.into_iter().map(|request| async {
        let response = service.clone().oneshot(request).await.unwrap();
        response.status().is_success().then(|| start.elapsed().as_millis())
    });
    join_all(answers).await
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_until_the_service_reopens_and_the_account_says_so() {
    let leaf = reopening_at(300);
    let service = WaitLayer::new().name("standard").layer(leaf.clone());
    let (response, took) = timed(service.oneshot(request())).await;
    let response = response.unwrap();
    assert_eq!((response.status(), took, leaf.times()), (StatusCode::OK, ms(300), vec![0, 300]));
    let served = account(&response);
    assert_eq!(asked(served), [("standard", 0), ("standard", 300)]);
    assert_eq!((served.waited(), served.backend()), (ms(300), Some("standard")));
}

#[tokio::test(start_paused = true)]
async fn a_patient_pool_waits_for_the_first_of_its_backends_to_reopen() {
    let leaf = Leaf::new(|seen| match (seen.host(), seen.at.as_millis()) {
        ("a.example", at @ 0..10_000) => Answer::refused(10_000 - at as u64),
        ("b.example", at @ 0..300) => Answer::refused(300 - at as u64),
        _ => Answer::ok(),
    });
    let service = WaitLayer::new().layer(pool(["a", "b"]).layer(leaf.clone()));
    for _ in 0..2 {
        let start = leaf.elapsed();
        let response = service.clone().oneshot(request()).await.unwrap();
        assert_eq!(account(&response).backend(), Some("b"));
        assert_eq!(account(&response).waited(), ms(300).saturating_sub(start));
    }
    assert_eq!(leaf.len(), 4, "each once, and then the one that is open");
}

#[tokio::test(start_paused = true)]
async fn a_failure_beside_a_refusal_does_not_end_the_wait_whichever_comes_first() {
    for failing in ["a.example", "b.example"] {
        // One fails for good, the other refuses for 187 ms.
        let leaf = Leaf::new(move |seen| match seen.at.as_millis() as u64 {
            _ if seen.host() == failing => Answer::status(500),
            at if at < 187 => Answer::refused(187 - at),
            _ => Answer::ok(),
        });
        let pool = pool(["a", "b"]);
        let (response, took) =
            timed(WaitLayer::new().layer(pool.layer(leaf)).oneshot(request())).await;
        assert_eq!(response.unwrap().status(), StatusCode::OK, "{failing}");
        assert!((ms(187)..ms(250)).contains(&took), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_fits_exactly_is_made_and_a_longer_one_is_refused_at_once() {
    for (opens, limit, took) in [(300, 300, 300), (300, 299, 0), (300, 0, 0)] {
        for request in [|limit| with(MaxWait(ms(limit))), |limit| with(deadline(limit))] {
            let service = WaitLayer::new().layer(reopening_at(opens));
            let (response, waited) = timed(service.oneshot(request(limit))).await;
            let response = response.unwrap();
            assert_eq!((response.status().is_success(), waited), (took > 0, ms(took)), "{limit}");
            if took == 0 {
                assert_eq!(header(&response, "retry-after-ms"), Some("300"));
            }
        }
    }
}

fn deadline(left: u64) -> Deadline {
    Deadline((clock::now() + ms(left)).into_std())
}

#[tokio::test(start_paused = true)]
async fn what_time_does_not_help_is_not_waited_for() {
    let refusals = [
        Answer::refused(10).because(Reason::Quota, Hint::After(ms(10))),
        Answer::refused(10).with("x-should-retry", "false"),
        Answer::refused(86_400_000),
        Answer::status(500),
        Answer::status(400),
    ];
    for refusal in refusals {
        let leaf = Leaf::playing([refusal]);
        let service = WaitLayer::new().layer(leaf.clone());
        let (response, took) = timed(service.oneshot(request())).await;
        assert!(!response.unwrap().status().is_success());
        assert_eq!((leaf.len(), took), (1, Duration::ZERO));
    }
    let leaf = Leaf::playing([Answer::broken()]);
    assert!(WaitLayer::new().layer(leaf).oneshot(request()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn refusals_without_a_time_never_make_a_busy_loop() {
    for refusal in [Answer::status(429), Answer::refused(0)] {
        let leaf = Leaf::playing([refusal]);
        let (response, took) = timed(WaitLayer::new().layer(leaf.clone()).oneshot(request())).await;
        assert_eq!(response.unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(leaf.len() <= 14 && took <= ms(4_000), "{} in {took:?}", leaf.len());
    }
}

#[tokio::test(start_paused = true)]
async fn newcomers_to_a_service_without_a_memory_wait_unasked_and_in_order() {
    let leaf = reopening_at(300);
    let service = WaitLayer::new().layer(leaf.clone());
    let first = tokio::spawn(service.clone().oneshot(request()));
    pass(ms(100)).await;
    assert!(crowd(&service, vec![request(); 5]).await.iter().all(|&at| at == Some(200)));
    first.await.unwrap().unwrap();
    assert_eq!(leaf.times(), [0, 300, 300, 300, 300, 300, 300]);
}

#[tokio::test(start_paused = true)]
async fn an_opening_for_one_meets_few_refusals_whoever_waits() {
    for (service, leaf) in [one_per(100), one_per(100)].map(|leaf| (leaf.clone(), leaf)) {
        let service = WaitLayer::new().max_wait(ms(60_000)).layer(service);
        let served = crowd(&service, vec![request(); 40]).await;
        let order: Vec<_> = (0..40).map(|index| Some(index * 100)).collect();
        assert_eq!(served, order, "first come, first served");
        assert!(leaf.len() <= 40 * 3, "{} attempts at 40 openings", leaf.len());
    }
}

#[tokio::test(start_paused = true)]
async fn an_opening_for_all_empties_the_queue_while_answers_take_long() {
    let leaf = Leaf::new(|seen| match 300_u64.saturating_sub(seen.at.as_millis() as u64) {
        0 => Answer::ok().after(30_000),
        left => Answer::refused(left),
    });
    let service = WaitLayer::new().layer(leaf.clone());
    crowd(&service, vec![request(); 40]).await;
    // The first request found it closed, and the others made no attempt.
    let mut at_once: Vec<u128> = leaf.times().split_off(1);
    assert_eq!(at_once.len(), 40);
    at_once.dedup();
    assert_eq!(
        at_once,
        [300, 400, 500, 600, 700, 800],
        "silence for a round trip is service: 1, 2, 4, 8, 16, 9"
    );
}

#[tokio::test(start_paused = true)]
async fn urgent_ranks_go_first_and_a_class_has_its_own_wait() {
    let leaf = one_per(100);
    let service = WaitLayer::new()
        .class(Class::new("batch").rank(1).max_wait(ms(60_000)))
        .class(Class::new("hasty").max_wait(Duration::ZERO))
        .layer(leaf.clone());
    let of = |name: &'static str| with(Priority::from(name));
    let requests = vec![request(), of("batch"), of("hasty"), request(), of("batch"), request()];
    let served = crowd(&service, requests).await;
    assert_eq!(served, [Some(0), Some(300), None, Some(100), Some(400), Some(200)]);
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_in_vain_leaves_at_once_when_that_is_known() {
    // Closed for 100 ms, then for a minute.
    let leaf = Leaf::new(|seen| match seen.at.as_millis() as u64 {
        at @ 0..100 => Answer::refused(100 - at),
        _ => Answer::refused(60_000),
    });
    let service = WaitLayer::new().max_wait(ms(1_000)).layer(leaf.clone());
    let (_, took) = timed(crowd(&service, vec![request(); 5])).await;
    assert_eq!(took, ms(100));
    assert_eq!(leaf.len(), 6, "one when nothing was known, and each for its refusal");
}

#[tokio::test(start_paused = true)]
async fn one_whose_time_is_up_while_others_are_tried_is_tried_too() {
    let leaf = Leaf::new(|seen| match 300_u64.saturating_sub(seen.at.as_millis() as u64) {
        0 => Answer::ok().after(5_000),
        left => Answer::refused(left),
    });
    let service = WaitLayer::new().max_wait(ms(310)).layer(leaf);
    let served = crowd(&service, vec![request(); 3]).await;
    assert_eq!(served, [Some(5_300), Some(5_310), Some(5_310)]);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_is_closed_to_one_request_serves_the_others_meanwhile() {
    let pools = pool(["a", "b"]).max_attempts(2);
    let leaf = Leaf::new(|seen| match seen.header("x-only") {
        Some(_) => Answer::refused(1_000),
        None => Answer::ok(),
    });
    // Closed to one request for as long as it waits, and open to others: the inner layer knows.
    let pool = pools.layer(leaf.clone());
    let inner = tower::service_fn(move |request: Ask| {
        let (pool, leaf) = (pool.clone(), leaf.clone());
        async move {
            match request.headers().contains_key("x-only") {
                true => {
                    let mut response = leaf.oneshot(request).await?.map(Into::into);
                    let served = account(&pool.oneshot(crate::leaf::request()).await?).clone();
                    response.extensions_mut().insert(served);
                    Ok(response)
                }
                false => pool.oneshot(request).await,
            }
        }
    });
    let service = WaitLayer::new().layer(inner);
    let mut only = request();
    only.headers_mut().insert("x-only", "a".parse().unwrap());
    let only = tokio::spawn(service.clone().oneshot(only));
    pass(ms(100)).await;
    let (response, took) = timed(service.oneshot(request())).await;
    assert_eq!((response.unwrap().status(), took), (StatusCode::OK, Duration::ZERO));
    only.abort();
}

#[tokio::test(start_paused = true)]
async fn a_request_dropped_at_any_point_leaves_nothing_and_passes_its_turn_on() {
    for drop_at in (0..400).step_by(20) {
        let leaf = one_per(100);
        let queue = WaitQueue::new();
        let service = WaitLayer::new().queue(queue.clone()).layer(leaf.clone());
        let calls: Vec<_> =
            (0..4).map(|_| tokio::spawn(service.clone().oneshot(request()))).collect();
        pass(ms(drop_at)).await;
        calls[1].abort();
        let mut answers = join_all(calls).await;
        let given_up = answers.remove(1);
        assert!(drop_at > 100 || given_up.is_err());
        for answer in answers {
            assert!(answer.unwrap().unwrap().status().is_success(), "dropped at {drop_at}");
        }
        let last = leaf.times().pop().unwrap();
        assert!(last <= if drop_at > 100 { 300 } else { 200 }, "{last} for {drop_at}");
        assert_eq!((queue.waiting(), leaf.under_way()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_is_dropped_before_its_attempt_is_another_s() {
    let (client, mut azure) = mock::pair::<Ask, Response<Full<bytes::Bytes>>>();
    azure.allow(2);
    let service = WaitLayer::new().layer(client);
    let (mut one, mut other) = (service.clone(), service);
    let mut first = task::spawn(one.ready().await.unwrap().call(request()));
    let mut second = task::spawn(other.ready().await.unwrap().call(request()));
    for call in [&mut first, &mut second] {
        assert_pending!(call.poll());
        let (_, send) = azure.next_request().await.unwrap();
        send.send_response(Answer::refused(100).into_response());
    }
    for call in [&mut first, &mut second] {
        assert_pending!(call.poll(), "waiting");
    }
    advance(ms(100)).await;
    assert_pending!(first.poll(), "its turn, and not ready yet");
    assert_pending!(second.poll(), "one goes at a time");
    drop(first);
    azure.allow(1);
    assert!(second.is_woken());
    assert_pending!(second.poll(), "attempting");
    let (_, send) = azure.next_request().await.unwrap();
    send.send_response(Answer::ok().into_response());
    assert_ready_ok!(second.poll());
}

#[tokio::test(start_paused = true)]
async fn it_readies_its_service_again_for_every_attempt() {
    let (client, mut azure) = mock::pair::<Ask, Response<Full<bytes::Bytes>>>();
    azure.allow(1);
    let mut service = WaitLayer::new().layer(client);
    let mut call = task::spawn(service.ready().await.unwrap().call(request()));
    assert_pending!(call.poll());
    for _ in 0..3 {
        let (_, send) = azure.next_request().await.unwrap();
        send.send_response(Answer::refused(1_000).into_response());
        assert_pending!(call.poll(), "waiting");
        advance(ms(1_000)).await;
        assert_pending!(call.poll(), "not ready yet");
        azure.allow(1);
        assert!(call.is_woken());
        assert_pending!(call.poll(), "attempting");
    }
    let (_, send) = azure.next_request().await.unwrap();
    send.send_response(Answer::ok().into_response());
    assert_eq!(account(&assert_ready_ok!(call.poll())).attempts().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_permit_of_the_service_inside_is_free_while_requests_wait() {
    let permits = Arc::new(Semaphore::new(1));
    let limit = GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(&permits));
    let service = ServiceBuilder::new().layer(WaitLayer::new()).layer(limit);
    let service = service.service(reopening_at(300));
    // Two refused requests, and one that arrives while it is closed.
    let waiting: Vec<_> =
        (0..2).map(|_| tokio::spawn(service.clone().oneshot(request()))).collect();
    pass(ms(10)).await;
    let newcomer = tokio::spawn(service.clone().oneshot(request()));
    pass(ms(10)).await;
    assert_eq!(permits.available_permits(), 1);
    for call in waiting.into_iter().chain([newcomer]) {
        assert!(call.await.unwrap().unwrap().status().is_success());
    }
    assert_eq!(permits.available_permits(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_cannot_be_sent_again_gets_one_attempt() {
    let leaf = reopening_at(300);
    let service = ReplayLayer::new(4).layer(WaitLayer::new().layer(leaf.clone()));
    let (response, took) = timed(service.oneshot(request())).await;
    let response = response.unwrap();
    assert_eq!((response.status(), took), (StatusCode::TOO_MANY_REQUESTS, Duration::ZERO));
    assert!(!account(&response).replayable());
    assert_eq!(leaf.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_attempts_that_are_left_bound_the_waits() {
    let leaf = Leaf::playing([Answer::refused(100)]);
    let service = LimitAttemptsLayer::new(3).layer(WaitLayer::new().layer(leaf.clone()));
    let (response, took) = timed(service.oneshot(request())).await;
    assert_eq!(account(&response.unwrap()).attempts().len(), 3);
    assert_eq!((leaf.len(), took), (3, ms(200)));
    // A pool that answers itself has called no backend.
    let leaf = Leaf::playing([Answer::refused(100), Answer::ok()]);
    let budget = AttemptBudget::at_most(2);
    let service = WaitLayer::new().layer(pool(["a"]).layer(leaf.clone()));
    let response = service.oneshot(with(budget.clone())).await.unwrap();
    assert_eq!((response.status(), budget.left()), (StatusCode::OK, 0));
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_the_layer_s_and_shared_by_all_that_it_makes() {
    let (leaf, queue) = (reopening_at(300), WaitQueue::new());
    let layer = WaitLayer::new().queue(queue.clone());
    let calls: Vec<_> = (0..3)
        .map(|_| tokio::spawn(layer.clone().layer(leaf.clone()).oneshot(request())))
        .collect();
    pass(ms(100)).await;
    assert_eq!(queue.waiting(), 3);
    join_all(calls).await;
    assert_eq!(queue.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn two_waiting_layers_share_one_max_wait_from_the_arrival() {
    let leaf = Leaf::playing([Answer::refused(3_000)]);
    let inner: Wait<RegionRotate<Leaf>> = WaitLayer::new().layer(pool(["a"]).layer(leaf.clone()));
    let (response, took) = timed(WaitLayer::new().layer(inner).oneshot(request())).await;
    assert_eq!(response.unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!((leaf.times(), took), (vec![0, 3_000], ms(3_000)));
}
