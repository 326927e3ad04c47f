//! Lessons 8 to 11, 22 and 25: what is remembered of a refusal, and how often a backend is called.

use http::StatusCode;
use spillover_testing::corpus::Sample;
use tower::{Layer, ServiceBuilder, ServiceExt, retry::RetryLayer};
use tower_spillover::{
    InspectLayer, LimitAttemptsLayer, RegionRotateLayer, RetryAfterPolicy, SmartFallbackLayer,
    policy::{CooldownPolicy, MoveOn},
};

use crate::{
    clock::{ms, pass, timed},
    leaf::{Answer, Leaf, account, asked, header, request},
    scene::{ask, pool, regions, rests},
};

// A second refusal keeps the first, shorter deadline; cool-downs that are late or not shared.
#[tokio::test(start_paused = true)]
async fn lesson_08_a_later_refusal_with_a_longer_wait_extends_the_rest_for_all() {
    let pool = pool(["a"]);
    let leaf = Leaf::playing([Answer::refused(500).after(100), Answer::refused(9_000).after(200)]);
    let one = RegionRotateLayer::new(pool.clone());
    let other = RegionRotateLayer::new(pool.clone()).max_attempts(1);
    let (first, second) = tokio::join!(ask(&one, &leaf), ask(&other, &leaf));
    assert!(first.is_ok() && second.is_ok());
    assert_eq!(rests(&pool), [Some(9_000)]);
    for layer in [one, other] {
        let response = ask(&layer, &leaf).await.unwrap();
        assert_eq!(header(&response, "retry-after-ms"), Some("9000"));
    }
    assert_eq!(leaf.len(), 2, "both know of it");
}

// Retries of `insufficient_quota` and of billing limits.
#[tokio::test(start_paused = true)]
async fn lesson_09_a_used_up_quota_is_asked_once_and_never_waited_for() {
    let samples = Sample::all();
    for name in ["body-insufficient-quota.http", "body-billing.http"] {
        let sample = samples.iter().find(|sample| sample.name == name).unwrap();
        let spent = Answer::refused(20).telling(sample.body.clone());
        let leaf = Leaf::playing([spent]);
        let service = ServiceBuilder::new()
            .layer(RetryLayer::new(RetryAfterPolicy::new()))
            .layer(SmartFallbackLayer::new(
                RegionRotateLayer::new(pool(["ptu"])),
                RegionRotateLayer::new(pool(["a", "b"])),
            ))
            .layer(InspectLayer::new())
            .service(leaf.clone());
        for _ in 0..3 {
            let (response, took) = timed(service.clone().oneshot(request())).await;
            let response = response.unwrap();
            assert_eq!((response.status().as_u16(), took), (429, ms(0)), "{name}");
            assert_eq!(header(&response, "x-should-retry"), Some("false"), "{name}");
        }
        assert_eq!(leaf.hosts(), ["ptu", "a", "b"].map(|name| format!("{name}.example")));
    }
}

// Retries that multiply across layers.
#[tokio::test(start_paused = true)]
async fn lesson_10_three_layers_together_make_as_many_attempts_as_they_may() {
    let rests = CooldownPolicy::default().longest(ms(1));
    for limit in 1..12 {
        let leaf = Leaf::playing([Answer::refused(1)]);
        let service = ServiceBuilder::new()
            .layer(LimitAttemptsLayer::new(limit))
            .layer(RetryLayer::new(RetryAfterPolicy::new().max_retries(9).jitter(0.0)))
            .layer(SmartFallbackLayer::new(
                RegionRotateLayer::new(pool(["a", "b"])).cooldowns(rests),
                RegionRotateLayer::new(pool(["c", "d", "e"])).cooldowns(rests),
            ))
            .service(leaf.clone());
        let response = service.oneshot(request()).await.unwrap();
        assert_eq!(response.status().as_u16(), 429);
        assert_eq!(leaf.len(), limit as usize);
        assert!(account(&response).backend().is_some(), "it is a backend's refusal");
    }
}

// A, A, A, B: retries exhausted on the busy one; an expired cool-down does not restore it.
#[tokio::test(start_paused = true)]
async fn lesson_11_the_busy_one_is_asked_once_and_first_again_when_its_rest_is_over() {
    let pool = pool(["a", "b"]);
    let leaf = Leaf::new(|seen| match (seen.host(), seen.at < ms(50)) {
        ("a.example", true) => Answer::refused(50),
        _ => Answer::ok(),
    });
    let layer = RegionRotateLayer::new(pool);
    let (response, took) = timed(ask(&layer, &leaf)).await;
    assert_eq!(asked(account(&response.unwrap())), [("a", 0), ("b", 0)]);
    assert_eq!(took, ms(0));
    pass(ms(49)).await;
    assert_eq!(asked(account(&ask(&layer, &leaf).await.unwrap())), [("b", 0)]);
    pass(ms(1)).await;
    assert_eq!(asked(account(&ask(&layer, &leaf).await.unwrap())), [("a", 0)]);
}

// Eviction times multiplied without a cap.
#[tokio::test(start_paused = true)]
async fn lesson_22_a_backend_that_goes_on_failing_is_deferred_longer_and_longer_up_to_the_cap() {
    let pool = pool(["a", "b"]);
    let layer = RegionRotateLayer::new(pool.clone()).move_on(MoveOn::new().gateway_timeout());
    let leaf = regions([("a", Answer::status(500))]);
    let fail = async || {
        let response = layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(asked(account(&response)), [("a", 0), ("b", 0)]);
    };
    for _ in 0..4 {
        fail().await;
    }
    for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
        fail().await;
        assert_eq!(pool.deferred().next(), Some(("a", Some(ms(seconds * 1_000)))));
        pass(ms(seconds * 1_000)).await;
    }
}

// `retry-after: 0` loops.
#[tokio::test(start_paused = true)]
async fn lesson_25_a_hint_of_zero_never_makes_a_busy_loop() {
    let leaf = Leaf::playing([Answer::refused(0)]);
    let layer = RegionRotateLayer::new(pool(["a", "b"]));
    for _ in 0..100 {
        let response = ask(&layer, &leaf).await.unwrap();
        let told: u64 = header(&response, "retry-after-ms").unwrap().parse().unwrap();
        assert!(told > 0 && header(&response, "retry-after") == Some("1"));
    }
    assert_eq!(leaf.len(), 2);

    let leaf = Leaf::playing([Answer::refused(0)]);
    let service = RetryLayer::new(RetryAfterPolicy::smart_retry()).layer(leaf.clone());
    let (_, took) = timed(service.oneshot(request())).await;
    assert!(leaf.len() < 20, "{} attempts in {took:?}", leaf.len());
}
