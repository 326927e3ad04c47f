//! `SmartFallback` waits for the tier that reopens first, or for its only one.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tower::{Layer, Service, ServiceExt};
use tower_spillover::{
    AttemptBudget, Backend, BackendPool, Deadline, Gate, MaxWait, Priority, RegionRotateLayer,
    SmartFallbackLayer,
    classify::{Hint, Reason},
    gate::Mode,
    smart_fallback::{Class, SpillBudget, WhenSpent},
    wait::WaitQueue,
};

use crate::{
    clock::{self, ms, pass, timed},
    leaf::{Answer, Leaf, Put, account, asked, header, request},
};

type Ask = Request<Full<Bytes>>;

/// A service that refuses before `open`, with the remaining time as its hint.
fn reopening_at(open: u64) -> Leaf {
    Leaf::new(move |seen| match open.saturating_sub(seen.at.as_millis() as u64) {
        0 => Answer::ok(),
        left => Answer::refused(left),
    })
}

fn pool<const N: usize>(names: [&str; N]) -> RegionRotateLayer {
    let backends = names
        .map(|name| Backend::new(name, format!("https://{name}.example")).unwrap().api_key("key"));
    RegionRotateLayer::new(BackendPool::new(backends).unwrap())
}

fn with(extension: impl Clone + Send + Sync + 'static) -> Ask {
    let mut request = request();
    request.extensions_mut().insert(extension);
    request
}

/// Two bare services, or two pools over one client, by when they reopen.
fn tiers(ptu: u64, standard: u64) -> SmartFallbackLayer<Put<Leaf>, Put<Leaf>> {
    SmartFallbackLayer::new(Put(reopening_at(ptu)), Put(reopening_at(standard)))
}

fn pools(
    ptu: u64,
    standard: u64,
) -> (SmartFallbackLayer<RegionRotateLayer, RegionRotateLayer>, Leaf) {
    let leaf = Leaf::new(move |seen| {
        let open = if seen.host().starts_with("ptu") { ptu } else { standard };
        match open.saturating_sub(seen.at.as_millis() as u64) {
            0 => Answer::ok(),
            left => Answer::refused(left),
        }
    });
    (SmartFallbackLayer::new(pool(["ptu"]), pool(["standard"])), leaf)
}

async fn ask<S, R>(service: &S, request: Ask) -> (Response<R>, u128)
where
    S: Service<Ask, Response = Response<R>> + Clone,
    S::Error: std::fmt::Debug,
{
    let (result, took) = timed(service.clone().oneshot(request)).await;
    (result.unwrap(), took.as_millis())
}

#[tokio::test(start_paused = true)]
async fn a_tier_that_reopens_just_after_max_wait_gets_no_request_late() {
    for opens in (3_900..4_000).step_by(5) {
        // It opens for others only.
        let ptu = Leaf::new(move |seen| {
            let left = opens - (seen.at.as_millis() as i64);
            Answer::refused(u64::try_from(left).unwrap_or(43)).after(30)
        });
        let standard = reopening_at(4_005);
        let layer = SmartFallbackLayer::new(Put(ptu.clone()), Put(standard.clone()));
        let service = layer.max_wait(ms(4_000)).layer(());
        // The first request shows how long a refusal takes.
        let calls = (0..4).map(|number: u64| {
            let service = service.clone();
            async move {
                pass(ms(number)).await;
                service.oneshot(request()).await.unwrap()
            }
        });
        join_all(calls).await;
        let late = ptu.times().into_iter().chain(standard.times()).max();
        assert!(late <= Some(4_004), "{late:?}, if the PTU opens at {opens} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_whichever_tier_reopens_first() {
    for mode in [Mode::Adaptive, Mode::Shared, Mode::Plain] {
        for (ptu, standard, took, backend) in [
            (10_000, 300, 300, "fallback"),
            (5_000, 4_500, 0, "fallback"),
            (43, 300, 43, "primary"),
            (4_001, 4_000, 4_000, "fallback"),
        ] {
            let service = tiers(ptu, standard).gate(Gate::new().mode(mode)).layer(());
            let (response, waited) = ask(&service, request()).await;
            assert_eq!(waited, took, "{mode:?}: {ptu} and {standard}");
            assert_eq!(response.status().is_success(), took > 0);
            assert_eq!(account(&response).backend(), Some(backend));
            assert_eq!(account(&response).waited(), ms(took as u64));
            assert_eq!(account(&response).spilled(), backend == "fallback");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn pools_are_waited_for_as_services_are_and_newcomers_go_with_the_others() {
    let (layer, leaf) = pools(10_000, 300);
    let service = layer.layer(leaf.clone());
    let early = tokio::spawn({
        let service = service.clone();
        async move { ask(&service, request()).await }
    });
    pass(ms(100)).await;
    let (response, took) = ask(&service, request()).await;
    assert_eq!((response.status(), took), (StatusCode::OK, 200));
    assert_eq!(asked(account(&response)), [("standard", 200)]);
    assert_eq!(early.await.unwrap().1, 300);
    assert_eq!(leaf.times(), [0, 0, 300, 300]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_spill_makes_the_primary_when_that_reopens_first() {
    // The primary is predicted to be too late by the queue before it, not by its hint.
    let ptu = Leaf::new(|seen| match seen.at.as_millis() {
        0..5_000 => Answer::refused(5_000 - seen.at.as_millis() as u64),
        _ => Answer::ok(),
    });
    let standard = Leaf::playing([Answer::refused(60_000)]);
    let service = SmartFallbackLayer::new(Put(ptu), Put(standard)).layer(());
    let (response, took) = ask(&service, request()).await;
    assert_eq!((response.status(), took), (StatusCode::TOO_MANY_REQUESTS, 0));
    pass(ms(2_000)).await;
    // 3 s are left: it waits, and is served.
    let (response, took) = ask(&service, request()).await;
    assert_eq!((response.status(), took), (StatusCode::OK, 3_000));
    assert_eq!(account(&response).backend(), Some("primary"));
}

#[tokio::test(start_paused = true)]
async fn no_wait_is_a_refusal_at_once_with_the_soonest_time() {
    let service = tiers(10_000, 300).layer(());
    let past = Deadline((clock::now() + ms(299)).into_std());
    for request in [with(MaxWait(Duration::ZERO)), with(MaxWait(ms(299))), with(past)] {
        let (response, took) = ask(&service, request).await;
        assert_eq!((response.status(), took), (StatusCode::TOO_MANY_REQUESTS, 0));
        assert_eq!(header(&response, "retry-after-ms"), Some("300"));
    }
}

#[tokio::test(start_paused = true)]
async fn one_ptu_alone_is_waited_for() {
    for mode in [Mode::Adaptive, Mode::Shared, Mode::Plain] {
        let leaf = reopening_at(43);
        let layer = SmartFallbackLayer::alone(Put(leaf.clone())).gate(Gate::new().mode(mode));
        let (response, took) = ask(&layer.layer(()), request()).await;
        assert_eq!((response.status(), took, leaf.times()), (StatusCode::OK, 43, vec![0, 43]));
        assert_eq!(account(&response).waited(), ms(43));
        let layer = SmartFallbackLayer::alone(Put(reopening_at(4_001)));
        let (response, took) = ask(&layer.layer(()), request()).await;
        assert_eq!((response.status(), took), (StatusCode::TOO_MANY_REQUESTS, 0));
        assert_eq!(header(&response, "retry-after-ms"), Some("4001"));
    }
}

#[tokio::test(start_paused = true)]
async fn of_several_ptus_the_first_that_reopens_is_waited_for() {
    let leaf = Leaf::new(|seen| {
        let open: u64 = if seen.host() == "ptu-1.example" { 9_000 } else { 300 };
        match open.saturating_sub(seen.at.as_millis() as u64) {
            0 => Answer::ok(),
            left => Answer::refused(left),
        }
    });
    let service = SmartFallbackLayer::alone(pool(["ptu-1", "ptu-2"])).layer(leaf.clone());
    let (response, took) = ask(&service, request()).await;
    assert_eq!((response.status(), took, leaf.len()), (StatusCode::OK, 300, 3));
    assert_eq!(account(&response).backend(), Some("ptu-2"));
}

#[tokio::test(start_paused = true)]
async fn a_queue_at_a_ptu_alone_is_first_come_first_served_and_meets_few_refusals() {
    // One request each 100 ms.
    let leaf = Leaf::new({
        let last = std::sync::Mutex::new(None);
        move |seen| {
            let at = seen.at.as_millis() as u64;
            match last.lock().unwrap().replace(at / 100) {
                Some(before) if before == at / 100 => Answer::refused(100 - at % 100),
                _ => Answer::ok(),
            }
        }
    });
    let service = SmartFallbackLayer::alone(Put(leaf.clone())).max_wait(ms(60_000)).layer(());
    let start = clock::now();
    let calls = (0..40).map(|_| async {
        assert!(service.clone().oneshot(request()).await.unwrap().status().is_success());
        start.elapsed().as_millis()
    });
    let served = join_all(calls).await;
    assert!(served.is_sorted(), "{served:?}");
    assert!(leaf.len() < 40 * 4, "{} attempts", leaf.len());
}

#[tokio::test(start_paused = true)]
async fn classes_wait_as_long_as_they_may_for_where_they_may_go() {
    let layer = tiers(10_000, 300)
        .class(Class::new("hasty").max_wait(Duration::ZERO))
        .class(Class::new("batch").rank(1).max_wait(ms(30_000)).never_spill());
    let service = layer.layer(());
    let of = |name: &'static str| ask(&service, with(Priority::from(name)));
    let (hasty, batch, plain) = futures::join!(of("hasty"), of("batch"), ask(&service, request()));
    assert_eq!((hasty.0.status(), hasty.1), (StatusCode::TOO_MANY_REQUESTS, 0));
    assert_eq!((account(&batch.0).backend(), batch.1), (Some("primary"), 10_000));
    assert_eq!((account(&plain.0).backend(), plain.1), (Some("fallback"), 300));
}

#[tokio::test(start_paused = true)]
async fn a_spill_is_paid_for_once_however_often_the_fallback_is_asked() {
    let standard = Leaf::playing([Answer::refused(100), Answer::refused(100), Answer::ok()]);
    let budget = SpillBudget::requests(2, ms(60_000));
    let layer = SmartFallbackLayer::new(Put(reopening_at(10_000)), Put(standard.clone()));
    let service = layer.spill_budget(budget.clone()).layer(());
    let (response, took) = ask(&service, request()).await;
    assert_eq!((response.status(), took, standard.len()), (StatusCode::OK, 200, 3));
    assert_eq!(budget.left(), 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_the_budget_keeps_from_spilling_waits_for_the_primary() {
    for when_spent in [WhenSpent::Refuse, WhenSpent::Wait] {
        let budget = SpillBudget::requests(0, ms(60_000)).when_spent(when_spent);
        let service = tiers(3_000, 0).spill_budget(budget).layer(());
        let (response, took) = ask(&service, request()).await;
        assert_eq!((account(&response).backend(), took), (Some("primary"), 3_000));
        assert!(response.status().is_success());
    }
}

#[tokio::test(start_paused = true)]
async fn what_time_does_not_help_is_waited_for_in_neither_tier() {
    let quota = || Answer::refused(10).because(Reason::Quota, Hint::After(ms(10)));
    let last = || Answer::refused(10).with("x-should-retry", "false");
    for (ptu, standard, took) in [
        (quota(), quota(), 0),
        (last(), last(), 0),
        (quota(), last(), 0),
        (Answer::refused(10_000), quota(), 0),
        (Answer::refused(10_000), last(), 0),
    ] {
        let (ptu, standard) = (Leaf::playing([ptu]), Leaf::playing([standard]));
        let layer = SmartFallbackLayer::new(Put(ptu.clone()), Put(standard.clone()));
        let (response, waited) = ask(&layer.layer(()), request()).await;
        assert_eq!((response.status(), waited), (StatusCode::TOO_MANY_REQUESTS, took));
        assert_eq!((ptu.len(), standard.len()), (1, 1));
    }
    // The other tier is worth waiting for.
    let standard = Leaf::playing([Answer::refused(300), Answer::ok()]);
    let layer = SmartFallbackLayer::new(Put(Leaf::playing([quota()])), Put(standard));
    let (response, took) = ask(&layer.layer(()), request()).await;
    assert_eq!((response.status(), took), (StatusCode::OK, 300));
}

#[tokio::test(start_paused = true)]
async fn a_waiting_request_that_is_dropped_leaves_both_queues() {
    let (gate, queue) = (Gate::new(), WaitQueue::new());
    let service = tiers(3_900, 300).gate(gate.clone()).fallback_queue(queue.clone()).layer(());
    // Its class never waits so long for the primary: both tiers are closed to it.
    let calls: Vec<_> =
        (0..3).map(|_| tokio::spawn(service.clone().oneshot(with(MaxWait(ms(3_000)))))).collect();
    pass(ms(100)).await;
    assert_eq!((gate.waiting(), queue.waiting()), (0, 3), "the primary reopens too late");
    calls[0].abort();
    pass(ms(1)).await;
    assert_eq!(queue.waiting(), 2);
    for call in calls.into_iter().skip(1) {
        assert!(call.await.unwrap().unwrap().status().is_success());
    }
    assert_eq!((gate.waiting(), queue.waiting()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_attempts_that_are_left_bound_the_waits_for_both() {
    let (ptu, standard) =
        (Leaf::playing([Answer::refused(10_000)]), Leaf::playing([Answer::refused(100)]));
    let service = SmartFallbackLayer::new(Put(ptu), Put(standard.clone())).layer(());
    let (response, took) = ask(&service, with(AttemptBudget::at_most(4))).await;
    assert_eq!((account(&response).attempts().len(), standard.len(), took), (4, 3, 200));
}

#[tokio::test(start_paused = true)]
async fn waiters_for_the_fallback_are_served_in_order_and_newcomers_behind_them() {
    let standard = Leaf::new(|seen| match 300_u64.saturating_sub(seen.at.as_millis() as u64) {
        0 => Answer::ok().after(1_000),
        left => Answer::refused(left),
    });
    let layer = SmartFallbackLayer::new(Put(reopening_at(60_000)), Put(standard.clone()));
    let service = layer.layer(());
    let start = clock::now();
    let calls = (0..8_u64).map(|index| {
        let service = service.clone();
        async move {
            pass(ms(index * 50)).await;
            assert!(service.oneshot(request()).await.unwrap().status().is_success());
            start.elapsed().as_millis()
        }
    });
    let served = join_all(calls).await;
    assert!(served.is_sorted(), "{served:?}");
    assert_eq!(standard.times(), [0, 300, 400, 400, 500, 500, 500, 500, 600]);
}

#[tokio::test(start_paused = true)]
async fn a_fallback_that_is_asked_first_and_refuses_is_waited_for_too() {
    for then in [Answer::refused(10_000), Answer::status(500)] {
        let ptu = Leaf::new(move |seen| match seen.index {
            0..5 => Answer::status(500),
            _ => then.clone(),
        });
        let standard = Leaf::new(|seen| match seen.index {
            5 => Answer::refused(300),
            _ => Answer::ok(),
        });
        let layer = SmartFallbackLayer::new(Put(ptu.clone()), Put(standard.clone()));
        let service = layer.layer(());
        for _ in 0..5 {
            assert!(ask(&service, request()).await.0.status().is_success());
        }
        let (response, took) = ask(&service, request()).await;
        assert_eq!((response.status(), took), (StatusCode::OK, 300));
        assert_eq!(asked(account(&response)), [("fallback", 0), ("primary", 0), ("fallback", 300)]);
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_may_not_pay_when_the_fallback_reopens_keeps_its_place_at_the_primary() {
    // With a distant primary, a request that must spill in time cannot wait for it.
    let ptu = Leaf::new(|seen| match 2_000_u64.saturating_sub(seen.at.as_millis() as u64) {
        0 => Answer::ok(),
        left => Answer::refused(left).after(100),
    });
    let (gate, queue) = (Gate::new(), WaitQueue::new());
    let layer = SmartFallbackLayer::new(Put(ptu.clone()), Put(reopening_at(500)));
    let layer = layer.gate(gate.clone()).fallback_queue(queue.clone());
    let service = layer.spill_budget(SpillBudget::requests(2, ms(60_000))).layer(());
    // The first one pays, and finds the fallback closed. The second one will pay.
    let brief = || tokio::spawn(service.clone().oneshot(with(MaxWait(ms(1_000)))));
    let first = brief();
    pass(ms(200)).await;
    let second = brief();
    pass(ms(1)).await;
    let unpaid = tokio::spawn({
        let service = service.clone();
        async move { ask(&service, with(MaxWait(ms(1_850)))).await }
    });
    pass(ms(1)).await;
    assert_eq!((gate.waiting(), queue.waiting()), (1, 3), "it waits for both");
    for paid in [first, second] {
        assert!(paid.await.unwrap().unwrap().status().is_success());
    }
    pass(ms(200)).await;
    assert_eq!((gate.waiting(), queue.waiting()), (1, 0));
    let (response, took) = unpaid.await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{}", account(&response));
    assert_eq!((account(&response).backend(), took), (Some("primary"), 1_799));
}

/// Refusals that take longer than a request may wait: the next step is immediate, without a wait.
#[tokio::test(start_paused = true)]
async fn a_refusal_that_comes_after_max_wait_is_followed_at_once_or_not_at_all() {
    let slow = |ms| Answer::refused(ms).after(6_000);
    let ok = Answer::ok;
    for mode in [Mode::Adaptive, Mode::Shared, Mode::Plain] {
        for (ptu, standard, times, status) in [
            // The primary's hint is short, but the request spills nevertheless.
            ([slow(10), ok()], [ok(), ok()], [vec![0], vec![6_000]], 200),
            ([slow(60_000), ok()], [ok(), ok()], [vec![0], vec![6_000]], 200),
            // Without a wait, the primary is tried once more if it is open by now.
            ([Answer::refused(5_000), ok()], [slow(10), ok()], [vec![0, 6_000], vec![0]], 200),
            ([Answer::refused(9_000), ok()], [slow(10), ok()], [vec![0], vec![0]], 429),
            ([slow(9_000), ok()], [slow(10), ok()], [vec![0], vec![6_000]], 429),
        ] {
            let [ptu, standard] = [ptu, standard].map(Leaf::playing);
            let layer = SmartFallbackLayer::new(Put(ptu.clone()), Put(standard.clone()));
            let service = layer.gate(Gate::new().mode(mode)).layer(());
            let (response, _) = ask(&service, request()).await;
            let asked = [ptu.times(), standard.times()];
            assert_eq!((asked, response.status().as_u16()), (times, status), "{mode:?}");
            assert_eq!(account(&response).waited(), Duration::ZERO, "{mode:?}");
        }
        let alone = Leaf::playing([slow(10), ok()]);
        let layer = SmartFallbackLayer::alone(Put(alone.clone())).gate(Gate::new().mode(mode));
        let (response, took) = ask(&layer.layer(()), request()).await;
        assert_eq!((account(&response).waited(), took), (Duration::ZERO, 6_000));
        // A gate may take the primary for open by then, and tries it immediately, if at all.
        assert!([vec![0], vec![0, 6_000]].contains(&alone.times()), "{:?}", alone.times());
    }
}

#[tokio::test(start_paused = true)]
async fn each_ptu_of_a_pool_is_asked_once_however_slowly_they_refuse() {
    let leaf = Leaf::new(|seen| match seen.host() {
        "standard.example" => Answer::ok(),
        _ => Answer::refused(10).after(3_000),
    });
    let layer = SmartFallbackLayer::new(pool(["ptu-1", "ptu-2"]), pool(["standard"]));
    let (response, took) = ask(&layer.layer(leaf.clone()), request()).await;
    assert_eq!(
        (response.status(), took, leaf.times()),
        (StatusCode::OK, 6_000, vec![0, 3_000, 6_000])
    );
    assert_eq!(account(&response).waited(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn after_a_slow_refusal_of_what_may_not_be_spilled_nothing_is_waited_for() {
    let slow = || Leaf::playing([Answer::refused(10).after(6_000), Answer::ok()]);
    let of_class = with(Priority::from("batch"));
    let spent = SpillBudget::requests(0, ms(60_000));
    for (request, budget) in [(of_class, None), (request(), Some(spent))] {
        let (ptu, standard) = (slow(), Leaf::playing([Answer::ok()]));
        let mut layer = SmartFallbackLayer::new(Put(ptu.clone()), Put(standard.clone()))
            .class(Class::new("batch").never_spill());
        if let Some(budget) = budget {
            layer = layer.spill_budget(budget);
        }
        let (response, took) = ask(&layer.layer(()), request).await;
        assert_eq!((account(&response).waited(), took), (Duration::ZERO, 6_000));
        assert!([vec![0], vec![0, 6_000]].contains(&ptu.times()), "{:?}", ptu.times());
        assert_eq!(standard.len(), 0);
        if ptu.len() == 1 {
            assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
            assert_eq!(header(&response, "retry-after-ms"), Some("10"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_may_not_be_spilled_does_not_wait_for_the_fallback() {
    let budget = SpillBudget::requests(1, ms(60_000));
    let queue = WaitQueue::new();
    let layer = tiers(10_000, 3_000).spill_budget(budget).fallback_queue(queue.clone());
    let service = layer.layer(());
    let paid = tokio::spawn(service.clone().oneshot(request()));
    pass(ms(100)).await;
    assert_eq!(queue.waiting(), 1);
    let (response, took) = ask(&service, request()).await;
    assert_eq!((response.status(), took), (StatusCode::TOO_MANY_REQUESTS, 0));
    assert_eq!(header(&response, "retry-after-ms"), Some("9900"));
    assert!(paid.await.unwrap().unwrap().status().is_success());
}
