//! When `SmartFallback` waits for its primary, when it spills, and what it remembers.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tower::{Layer, ServiceExt};
use tower_spillover::{
    Backend, BackendPool, Deadline, Gate, MaxWait, RegionRotateLayer, ReplayLayer, SmartFallback,
    SmartFallbackLayer,
    classify::{Hint, Outcome},
    gate::Mode,
};

use crate::{
    clock::{self, ms, pass, timed},
    leaf::{Answer, Leaf, Put, account, asked, header, request, text},
};

fn tiers(primary: &Leaf, fallback: &Leaf) -> SmartFallbackLayer<Put<Leaf>, Put<Leaf>> {
    SmartFallbackLayer::new(Put(primary.clone()), Put(fallback.clone()))
}

/// The rule of the reference script, without an allowance for the round trip.
fn by_the_rule(primary: &Leaf, fallback: &Leaf) -> SmartFallbackLayer<Put<Leaf>, Put<Leaf>> {
    tiers(primary, fallback).gate(Gate::new().mode(Mode::Shared))
}

async fn ask(
    service: &SmartFallback<Leaf, Leaf>,
    request: Request<Full<Bytes>>,
) -> (Response<Full<Bytes>>, u128) {
    let (result, took) = timed(service.clone().oneshot(request)).await;
    (result.unwrap(), took.as_millis())
}

fn with<T: Clone + Send + Sync + 'static>(extension: T) -> Request<Full<Bytes>> {
    let mut request = request();
    request.extensions_mut().insert(extension);
    request
}

#[tokio::test(start_paused = true)]
async fn waits_exactly_as_long_as_the_primary_asks_and_asks_it_again() {
    let (ptu, standard) =
        (Leaf::playing([Answer::refused(300), Answer::ok()]), Leaf::playing([Answer::ok()]));
    let (response, took) = ask(&tiers(&ptu, &standard).layer(()), request()).await;
    assert_eq!((response.status(), took), (StatusCode::OK, 300));
    assert_eq!((ptu.times(), standard.len()), (vec![0, 300], 0));
    let served = account(&response);
    assert_eq!(asked(served), [("primary", 0), ("primary", 300)]);
    assert_eq!((served.waited(), served.spilled(), served.rotated()), (ms(300), false, false));
    let first = served.attempts().next().unwrap();
    assert_eq!(first.outcome(), Outcome::Throttled(Hint::After(ms(300))));
    assert_eq!(
        (first.status(), first.hint()),
        (Some(StatusCode::TOO_MANY_REQUESTS), Hint::After(ms(300)))
    );
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_fits_exactly_is_made_and_one_a_millisecond_longer_is_not() {
    // After how long the refusal comes, its hint, when the answer comes, who gives it.
    for (delay, hint, took, spilled) in [
        (0, 4_000, 4_000, false),
        (0, 4_001, 0, true),
        (1_000, 3_000, 4_000, false),
        (1_000, 3_001, 1_000, true),
        (4_000, 1, 4_000, true),
        (5_000, 1, 5_000, true),
    ] {
        let ptu = Leaf::playing([Answer::refused(hint).after(delay), Answer::ok()]);
        let standard = Leaf::playing([Answer::ok()]);
        let (response, actual) = ask(&by_the_rule(&ptu, &standard).layer(()), request()).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(actual, took, "{delay} + {hint}");
        assert_eq!(account(&response).spilled(), spilled, "{delay} + {hint}");
        assert_eq!(standard.len(), usize::from(spilled));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_refused_again_after_waiting_counts_from_its_arrival() {
    let ptu = Leaf::playing([Answer::refused(1_500)]);
    let standard = Leaf::playing([Answer::ok()]);
    let (response, took) = ask(&by_the_rule(&ptu, &standard).layer(()), request()).await;
    assert_eq!((took, ptu.times()), (3_000, vec![0, 1_500, 3_000]), "3000 + 1500 > 4000");
    let served = account(&response);
    assert_eq!(
        asked(served),
        [("primary", 0), ("primary", 1_500), ("primary", 3_000), ("fallback", 3_000)]
    );
    assert_eq!((served.waited(), served.spilled()), (ms(3_000), true));
}

#[tokio::test(start_paused = true)]
async fn two_services_have_the_settings_of_the_layer_that_they_come_from() {
    for (max_wait, spilled) in [(1_500, false), (1_499, true)] {
        let ptu = Leaf::playing([Answer::refused(1_500), Answer::ok()]);
        let standard = Leaf::playing([Answer::ok()]);
        let layer = SmartFallbackLayer::new(ptu, standard).max_wait(ms(max_wait)).names("p", "s");
        let (response, _) = ask(&layer.into_service(), request()).await;
        assert_eq!(account(&response).spilled(), spilled);
        assert_eq!(account(&response).backend(), Some(if spilled { "s" } else { "p" }));
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_find_the_primary_closed_do_not_touch_it() {
    let ptu = Leaf::playing([Answer::refused(300), Answer::ok()]);
    let standard = Leaf::playing([Answer::ok()]);
    let service = tiers(&ptu, &standard).max_wait(ms(200)).layer(());
    ask(&service, request()).await;
    pass(ms(50)).await;
    let (response, took) = ask(&service, request()).await;
    assert_eq!((took, ptu.len(), standard.len()), (0, 1, 2), "250 are left");
    assert_eq!(asked(account(&response)), [("fallback", 0)]);
    pass(ms(49)).await;
    let (response, took) = ask(&service, request()).await;
    assert_eq!((took, account(&response).spilled()), (0, true), "201 are left");
    pass(ms(1)).await;
    let (response, took) = ask(&service, request()).await;
    assert_eq!((took, account(&response).spilled()), (200, false), "200 are left");
    assert_eq!(ptu.times(), [0, 300]);
    assert_eq!(asked(account(&response)), [("primary", 200)]);
    let (_, took) = ask(&service, request()).await;
    assert_eq!(took, 0, "it is open again");
}

#[tokio::test(start_paused = true)]
async fn now_and_then_a_request_asks_whether_a_long_hint_is_true() {
    let ptu = Leaf::new(|seen| match 10_000_u64.saturating_sub(seen.at.as_millis() as u64) {
        0 => Answer::ok(),
        left => Answer::refused(left),
    });
    let service = tiers(&ptu, &Leaf::playing([Answer::ok()])).layer(());
    for _ in 0..600 {
        let (response, took) = ask(&service, request()).await;
        assert_eq!((took, account(&response).spilled()), (0, true));
        pass(ms(10)).await;
    }
    assert!((6..=12).contains(&ptu.len()), "{:?} in six seconds", ptu.times());
}

#[tokio::test(start_paused = true)]
async fn the_memory_is_the_layers_and_shared_by_all_that_it_makes() {
    let ptu = Leaf::playing([Answer::refused(10_000)]);
    let layer = tiers(&ptu, &Leaf::playing([Answer::ok()]));
    for _ in 0..5 {
        ask(&layer.clone().layer(()), request()).await;
    }
    assert_eq!(ptu.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_request_goes_on_waiting_when_another_learns_of_a_longer_rest() {
    let ptu = Leaf::new(|seen| match seen.index {
        0 => Answer::refused(500).after(10),
        1 => Answer::refused(3_000).after(100),
        _ => Answer::ok(),
    });
    let service = by_the_rule(&ptu, &Leaf::playing([Answer::ok()])).layer(());
    let (first, second) = futures::join!(ask(&service, request()), ask(&service, request()));
    assert_eq!(ptu.times(), [0, 0, 3_100, 3_100], "closed at 510 to the first one as well");
    assert_eq!((first.1, second.1), (3_100, 3_100));
    assert_eq!(account(&first.0).waited(), ms(3_090));
}

#[tokio::test(start_paused = true)]
async fn an_absurd_hint_spills_at_once_and_the_primary_is_looked_at_after_the_longest_cooldown() {
    for hint in ["86400000", "99999999999999999999999999999999999"] {
        let ptu = Leaf::playing([Answer::status(429).with("retry-after-ms", hint), Answer::ok()]);
        let service = tiers(&ptu, &Leaf::playing([Answer::ok()])).layer(());
        let (_, took) = ask(&service, request()).await;
        assert_eq!(took, 0);
        pass(ms(55_999)).await;
        assert!(account(&ask(&service, request()).await.0).spilled(), "4001 are left of 60 s");
        pass(ms(4_001)).await;
        let (response, took) = ask(&service, request()).await;
        assert_eq!((account(&response).spilled(), took), (false, 0));
        assert_eq!(ptu.times(), [0, 60_000]);
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_without_a_time_never_make_a_busy_loop() {
    for refusal in [
        Answer::status(429),
        Answer::refused(0),
        Answer::status(429).with("retry-after", "-1"),
        Answer::status(429).with("retry-after-ms", "soon"),
    ] {
        let ptu = Leaf::playing([refusal]);
        let (response, took) =
            ask(&tiers(&ptu, &Leaf::playing([Answer::ok()])).layer(()), request()).await;
        assert!(account(&response).spilled());
        // 25 + 50 + 100 + 200 + 400, then 400 each: eight times in four seconds at most.
        assert_eq!((ptu.len(), took), (8, 1_575));
    }
}

#[tokio::test(start_paused = true)]
async fn a_pool_whose_backend_refuses_for_no_time_is_not_asked_in_a_busy_loop_either() {
    let leaf = Leaf::new(|seen| match seen.host() {
        "ptu.example" => Answer::refused(0),
        _ => Answer::ok(),
    });
    let tier = |name: &str| {
        let backend = Backend::new(name, format!("https://{name}.example")).unwrap();
        RegionRotateLayer::new(BackendPool::new([backend.api_key("key")]).unwrap())
    };
    let service = SmartFallbackLayer::new(tier("ptu"), tier("standard")).layer(leaf.clone());
    let (response, took) = timed(service.oneshot(request())).await;
    assert!(account(&response.unwrap()).spilled() && took <= ms(4_000));
    assert!(leaf.len() <= 42, "{} attempts in 4 s", leaf.len());
}

#[tokio::test(start_paused = true)]
async fn one_request_may_have_a_max_wait_of_its_own() {
    let ptu = Leaf::playing([Answer::refused(300), Answer::ok()]);
    let service = tiers(&ptu, &Leaf::playing([Answer::ok()])).layer(());
    let (response, took) = ask(&service, with(MaxWait(Duration::ZERO))).await;
    assert_eq!((account(&response).spilled(), took), (true, 0));
    let (response, took) = ask(&service, with(MaxWait(ms(299)))).await;
    assert_eq!((account(&response).spilled(), took), (true, 0));
    let (response, took) = ask(&service, with(MaxWait(Duration::MAX))).await;
    assert_eq!((account(&response).spilled(), took), (false, 300));
}

#[tokio::test(start_paused = true)]
async fn no_wait_would_end_after_the_deadline() {
    for (deadline, took, spilled) in [(300, 300, false), (299, 0, true), (0, 0, true)] {
        let ptu = Leaf::playing([Answer::refused(300), Answer::ok()]);
        let service = tiers(&ptu, &Leaf::playing([Answer::ok()])).layer(());
        let deadline = Deadline((clock::now() + ms(deadline)).into_std());
        let (response, actual) = ask(&service, with(deadline)).await;
        assert_eq!((actual, account(&response).spilled()), (took, spilled), "{deadline:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_does_not_lengthen_max_wait_and_one_in_the_past_is_none() {
    let ptu = Leaf::playing([Answer::refused(4_001)]);
    let service = tiers(&ptu, &Leaf::playing([Answer::ok()])).forgetful().layer(());
    pass(ms(60_000)).await;
    for deadline in [clock::now() + ms(60_000), clock::now() - ms(30_000)] {
        let (response, took) = ask(&service, with(Deadline(deadline.into_std()))).await;
        assert_eq!((account(&response).spilled(), took), (true, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn nested_tiers_share_one_max_wait_from_the_arrival() {
    let first = Leaf::playing([Answer::refused(3_000), Answer::refused(2_000)]);
    let second = Leaf::playing([Answer::refused(1_000), Answer::refused(1)]);
    let standard = Leaf::playing([Answer::ok()]);
    let inner = SmartFallbackLayer::new(Put(second.clone()), Put(standard.clone()))
        .names("ptu-2", "standard")
        .gate(Gate::new().mode(Mode::Shared));
    let service = SmartFallbackLayer::new(Put(first), inner)
        .names("ptu-1", "")
        .gate(Gate::new().mode(Mode::Shared))
        .layer(());
    let (response, took) = timed(service.oneshot(request())).await;
    let response = response.unwrap();
    assert_eq!(took, ms(4_000));
    assert_eq!(second.times(), [3_000, 4_000], "3000 + 1000 fits exactly");
    let served = account(&response);
    assert_eq!(
        asked(served),
        [("ptu-1", 0), ("ptu-1", 3_000), ("ptu-2", 3_000), ("ptu-2", 4_000), ("standard", 4_000)]
    );
    assert_eq!((served.waited(), served.spilled()), (ms(4_000), true));
}

#[tokio::test(start_paused = true)]
async fn a_tier_nested_as_the_primary_shares_max_wait_too() {
    let first = Leaf::playing([Answer::refused(1_000)]);
    let second = Leaf::playing([Answer::refused(2_500)]);
    let standard = Leaf::playing([Answer::ok()]);
    let inner = SmartFallbackLayer::new(Put(first.clone()), Put(second.clone()));
    let service = SmartFallbackLayer::new(inner, Put(standard.clone())).layer(());
    let (response, took) = timed(service.oneshot(request())).await;
    assert!(account(&response.unwrap()).spilled());
    assert!(took <= ms(4_000), "{took:?}");
    assert_eq!(*standard.times().last().unwrap(), took.as_millis());
}

#[tokio::test(start_paused = true)]
async fn a_forgetful_layer_lets_every_request_find_out_by_itself() {
    let ptu = Leaf::playing([Answer::refused(10_000)]);
    let service = tiers(&ptu, &Leaf::playing([Answer::ok()])).forgetful().layer(());
    for _ in 0..5 {
        assert!(account(&ask(&service, request()).await.0).spilled());
    }
    assert_eq!(ptu.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_cannot_be_replayed_gets_one_attempt_and_the_account_says_so() {
    let ptu = Leaf::playing([Answer::refused(100)]);
    let standard = Leaf::playing([Answer::ok()]);
    let service = ReplayLayer::new(4).layer(tiers(&ptu, &standard).layer(()));
    let (response, took) = timed(service.oneshot(request())).await;
    let response = response.unwrap();
    assert_eq!((response.status(), took), (StatusCode::TOO_MANY_REQUESTS, Duration::ZERO));
    assert_eq!(header(&response, "retry-after-ms"), Some("100"));
    assert_eq!((ptu.len(), standard.len()), (1, 0));
    let served = account(&response);
    assert!(!served.replayable() && !served.spilled());
    assert_eq!(ptu.seen()[0].body, request().into_body().into_inner().unwrap());
    assert_eq!(text(response).await, "the answer");
}
