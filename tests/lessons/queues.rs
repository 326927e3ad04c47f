//! Lessons 15 to 17 and 23: which requests wait for which, and what cancelled ones leave behind.

use std::sync::{Arc, Mutex};

use futures::future::{join_all, poll_immediate};
use http::Request;
use http_body_util::Full;
use tokio::{sync::Semaphore, task::JoinHandle};
use tower::{
    Layer, ServiceExt,
    limit::{GlobalConcurrencyLimitLayer, concurrency::ConcurrencyLimit},
};
use tower_spillover::{Gate, SmartFallback};

use crate::{
    clock::{ms, pass, soon, timed},
    leaf::{Answer, Leaf, account, asked, request},
    scene::tiers,
};

/// At most `most` concurrent requests to `leaf`.
fn limited(leaf: &Leaf, most: usize) -> ConcurrencyLimit<Leaf> {
    GlobalConcurrencyLimitLayer::with_semaphore(Arc::new(Semaphore::new(most))).layer(leaf.clone())
}

// The client is gone: upstream goes on burning, or the queue still holds its place.
#[tokio::test(start_paused = true)]
async fn lesson_15_who_leaves_leaves_the_queue_and_the_backend() {
    let ptu = Leaf::new(|seen| match ms(350).checked_sub(seen.at) {
        Some(left) if !left.is_zero() => Answer::refused(left.as_millis() as u64),
        _ => Answer::ok().after(60_000),
    });
    let gate = Gate::new().standing_queue_interval(None);
    let service = tiers(&ptu, &Leaf::playing([Answer::ok()])).gate(gate.clone()).layer(());
    let waiting: Vec<_> =
        (0..20).map(|_| tokio::spawn(service.clone().oneshot(request()))).collect();
    pass(ms(200)).await;
    assert_eq!(gate.waiting(), 20);
    waiting[..19].iter().for_each(|gone| gone.abort());
    pass(ms(1)).await;
    let before = ptu.len();
    assert_eq!(gate.waiting(), 1);
    pass(ms(1_000)).await;
    assert_eq!((ptu.len() - before, ptu.under_way()), (1, 1), "the one that stayed");
    waiting[19].abort();
    pass(ms(1)).await;
    assert_eq!((ptu.under_way(), gate.waiting()), (0, 0), "what it asked for is given up");
}

// Parked retries starve while newcomers keep hitting the deployment.
#[tokio::test(start_paused = true)]
async fn lesson_16_newcomers_queue_behind_those_who_wait() {
    let (served, open_at) = (Arc::<Mutex<Vec<u32>>>::default(), Mutex::new(ms(1_000)));
    let log = Arc::clone(&served);
    // Closed until 1 s, then for one request in each 100 ms.
    let ptu = Leaf::new(move |seen| {
        let mut open_at = open_at.lock().unwrap();
        if seen.at < *open_at {
            return Answer::refused((*open_at - seen.at).as_micros().div_ceil(1_000) as u64);
        }
        *open_at = seen.at + ms(100);
        log.lock().unwrap().push(seen.header("x-number").unwrap().parse().unwrap());
        Answer::ok()
    });
    let service = tiers(&ptu, &Leaf::playing([Answer::ok()]))
        .max_wait(ms(60_000))
        .gate(Gate::new().standing_queue_interval(None))
        .layer(());
    let send = |number: u32| {
        let request = Request::post("/openai/deployments/a/chat/completions");
        let request = request.header("x-number", number).body(Full::default()).unwrap();
        begun(service.clone().oneshot(request))
    };
    let mut requests = Vec::new();
    for number in 0..5 {
        requests.push(send(number).await);
    }
    // From the very moment on at which it opens.
    pass(ms(1_000)).await;
    for number in 5..40 {
        requests.push(send(number).await);
        pass(ms(50)).await;
    }
    assert!(join_all(requests).await.into_iter().all(|answer| answer.unwrap().is_ok()));
    assert_eq!(*served.lock().unwrap(), (0..40).collect::<Vec<_>>());
}

/// Sends immediately, before any request whose wait ends at the same moment.
async fn begun<F>(asking: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let mut asking = Box::pin(asking);
    let answer = poll_immediate(&mut asking).await;
    tokio::spawn(async { if let Some(answer) = answer { answer } else { asking.await } })
}

// tower's contract: calls without readiness, all backends polled ready, one lock around the spare.
#[tokio::test(start_paused = true)]
async fn lesson_17_what_is_called_is_ready_and_nothing_else_is_waited_for() {
    // The client panics if it is called without having been readied.
    let ptu = Leaf::playing([Answer::refused(10), Answer::refused(20), Answer::ok()]);
    let service = SmartFallback::new(limited(&ptu, 1), limited(&Leaf::playing([Answer::ok()]), 0));
    let (response, took) = timed(soon(service.oneshot(request()))).await;
    assert_eq!(asked(account(&response.unwrap())).len(), 3);
    assert_eq!(took, ms(30), "a fallback that is never ready holds nobody up");

    let ptu = Leaf::playing([Answer::refused(60_000)]);
    let standard = Leaf::playing([Answer::ok().after(1_000)]);
    let service = SmartFallback::new(ptu, standard);
    let both = join_all((0..8).map(|_| service.clone().oneshot(request())));
    let (answers, took) = timed(both).await;
    assert!(answers.iter().all(|answer| account(answer.as_ref().unwrap()).spilled()));
    assert_eq!(took, ms(1_000), "all at the same time");
}

// The slow spill lane takes all permits.
#[tokio::test(start_paused = true)]
async fn lesson_23_a_slow_standard_deployment_holds_up_no_request_of_the_ptu() {
    let ptu = Leaf::playing([Answer::refused(5_000), Answer::ok()]);
    let standard = Leaf::playing([Answer::ok().after(60_000)]);
    let service = SmartFallback::new(limited(&ptu, 1), limited(&standard, 2));
    let spilled: Vec<_> =
        (0..10).map(|_| tokio::spawn(service.clone().oneshot(request()))).collect();
    pass(ms(5_000)).await;
    assert_eq!(standard.under_way(), 2, "as many as it may have");
    for _ in 0..5 {
        let (response, took) = timed(soon(service.clone().oneshot(request()))).await;
        assert!(!account(&response.unwrap()).spilled());
        assert_eq!(took, ms(0), "while ten requests have not been answered");
    }
    spilled.iter().for_each(|request| request.abort());
}
