//! How the layers treat a refusal whose reason an inner layer has read from its body.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use tower::{Layer, ServiceExt, retry::RetryLayer};
use tower_spillover::{
    Backend, BackendPool, Gate, MaxWait, RegionRotateLayer, ResponseBody, RetryAfterPolicy,
    SmartFallback, SmartFallbackLayer,
    classify::{Hint, Outcome, Reason, Refusal},
    gate::Mode,
    policy::{CooldownPolicy, MoveOn},
    smart_fallback::{Class, SpillBudget},
};

use crate::{
    clock::{ms, pass, timed},
    leaf::{Answer, Leaf, Put, account, asked, header, request},
};

fn backend(name: &str) -> Backend {
    Backend::new(name, format!("https://{name}.example")).unwrap().api_key("key")
}

fn pool<const N: usize>(backends: [Backend; N]) -> BackendPool {
    let pool = BackendPool::new(backends).unwrap();
    let first = pool.names().next().unwrap().to_owned();
    pool.force_start(&*first).unwrap();
    pool
}

/// A client whose backends answer by name; those not named serve.
fn regions<const N: usize>(answers: [(&'static str, Answer); N]) -> Leaf {
    Leaf::new(move |seen| {
        let name = seen.host().trim_end_matches(".example");
        let answer = answers.iter().find(|(other, _)| *other == name);
        answer.map_or_else(Answer::ok, |(_, answer)| answer.clone())
    })
}

async fn rotate(pool: &BackendPool, leaf: &Leaf) -> Response<ResponseBody<Full<Bytes>>> {
    let layer = RegionRotateLayer::new(pool.clone());
    layer.layer(leaf.clone()).oneshot(request()).await.unwrap()
}

fn rests(pool: &BackendPool) -> Vec<Option<u128>> {
    pool.cooldowns().map(|(_, rest)| rest.map(|rest| rest.as_millis())).collect()
}

fn no_quota() -> Answer {
    Answer::refused(20).because(Reason::Quota, Hint::None)
}

fn too_long() -> Answer {
    Answer::status(400).because(Reason::ContextLength, Hint::None)
}

#[tokio::test(start_paused = true)]
async fn a_used_up_quota_does_not_hide_a_backend_that_is_worth_waiting_for() {
    let pool = pool([backend("a"), backend("b").priority(2)]);
    rotate(&pool, &regions([("a", no_quota())])).await;
    pass(ms(50_000)).await;
    let later = regions([("a", no_quota()), ("b", Answer::refused(12_000))]);
    let response = rotate(&pool, &later).await;
    assert_eq!(header(&response, "retry-after-ms"), Some("12000"), "not in the 10 s of `a`");
    assert_eq!(header(&response, "x-should-retry"), Some("true"));
    assert!(response.extensions().get::<Refusal>().is_none());
}

#[tokio::test(start_paused = true)]
async fn behind_a_used_up_quota_a_ptu_that_is_free_in_a_moment_is_waited_for() {
    let ptus = pool([backend("a"), backend("b").priority(2)]);
    let client = Leaf::new(|seen| match (seen.host(), seen.index) {
        ("a.example", _) => no_quota(),
        ("b.example", 2) => Answer::refused(1_500),
        _ => Answer::ok(),
    });
    let standard = pool([backend("standard")]);
    let layer =
        SmartFallbackLayer::new(RegionRotateLayer::new(ptus), RegionRotateLayer::new(standard));
    let service = layer.layer(client);
    service.clone().oneshot(request()).await.unwrap();
    pass(ms(59_000)).await;
    let response = service.oneshot(request()).await.unwrap();
    assert!(!account(&response).spilled(), "{}", account(&response));
}

#[tokio::test(start_paused = true)]
async fn a_region_is_the_same_however_it_is_written() {
    let at = |name: &str, region: &str| backend(name).region(region).deployment("gpt-4o");
    let pool = pool([at("a", "East US 2"), at("b", "eastus2"), at("c", "East US")]);
    let full = Answer::status(429).because(Reason::Capacity, Hint::None);
    rotate(&pool, &regions([("a", full)])).await;
    assert_eq!(rests(&pool), [Some(1_000), Some(1_000), None]);
}

#[tokio::test(start_paused = true)]
async fn a_used_up_quota_rests_as_long_as_any_and_another_backend_answers() {
    let pool = pool([backend("a"), backend("b")]);
    let leaf = regions([("a", no_quota())]);
    let response = rotate(&pool, &leaf).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(rests(&pool), [Some(60_000), None]);
    let refused = account(&response).attempts().next().unwrap().clone();
    assert_eq!(refused.reason(), Some(Reason::Quota));
    assert_eq!(refused.outcome(), Outcome::Throttled(Hint::After(ms(20))));
}

#[tokio::test(start_paused = true)]
async fn a_pool_of_used_up_quotas_says_so_and_one_that_reopens_sooner_speaks_otherwise() {
    let spent = pool([backend("a"), backend("b")]);
    let leaf = regions([("a", no_quota()), ("b", no_quota())]);
    for _ in 0..2 {
        let response = rotate(&spent, &leaf).await;
        assert_eq!(header(&response, "retry-after"), Some("60"));
        assert_eq!(header(&response, "x-should-retry"), Some("false"));
        let refusal = response.extensions().get::<Refusal>().unwrap();
        assert_eq!(refusal.reason(), Reason::Quota);
    }
    assert_eq!(leaf.len(), 2, "the second request asked nobody");

    let mixed = pool([backend("b"), backend("a")]);
    let leaf = regions([("a", no_quota()), ("b", Answer::refused(500))]);
    let response = rotate(&mixed, &leaf).await;
    assert_eq!(header(&response, "retry-after-ms"), Some("500"));
    assert_eq!(header(&response, "x-should-retry"), Some("true"));
    assert_eq!(response.extensions().get::<Refusal>().unwrap().reason(), Reason::Rate);
}

#[tokio::test(start_paused = true)]
async fn backends_of_one_quota_rest_together_after_a_rate_limit_and_only_then() {
    let make = || pool([backend("a").quota("sub-1"), backend("b").quota("sub-1"), backend("c")]);
    let shared = make();
    assert_eq!(
        shared.quotas().collect::<Vec<_>>(),
        [("a", Some("sub-1")), ("b", Some("sub-1")), ("c", None)]
    );
    let leaf = regions([("a", Answer::refused(500))]);
    let response = rotate(&shared, &leaf).await;
    assert_eq!(asked(account(&response)), [("a", 0), ("c", 0)], "b would say the same");
    assert_eq!(rests(&shared), [Some(500), Some(500), None]);

    for (answer, expected) in [
        (no_quota(), [Some(60_000), Some(60_000), None]),
        (
            Answer::status(429).because(Reason::Rate, Hint::After(ms(70))),
            [Some(70), Some(70), None],
        ),
        (Answer::status(503).with("retry-after", "2"), [Some(2_000), None, None]),
        (Answer::refused(80).because(Reason::Capacity, Hint::None), [Some(80), None, None]),
    ] {
        let shared = make();
        rotate(&shared, &regions([("a", answer)])).await;
        assert_eq!(rests(&shared), expected);
    }
    let failing = make();
    let layer = RegionRotateLayer::new(failing.clone()).move_on(MoveOn::new().gateway_timeout());
    let leaf = regions([("a", Answer::status(500))]);
    layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
    assert_eq!(rests(&failing), [None; 3], "a failure is no refusal");
}

#[tokio::test(start_paused = true)]
async fn a_sharer_is_not_asked_even_when_nothing_rests() {
    let pool = pool([backend("a").quota("one"), backend("b").quota("one")]);
    let leaf = regions([("a", Answer::status(429)), ("b", Answer::status(429))]);
    let layer =
        RegionRotateLayer::new(pool).cooldowns(CooldownPolicy::default().unknown(Duration::ZERO));
    layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
    assert_eq!(leaf.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_capacity_concerns_the_deployments_of_its_region() {
    let full = Answer::status(429).because(Reason::Capacity, Hint::None);
    let east = |name: &str| backend(name).region("East US 2").deployment("gpt-4o");
    let pool = pool([
        east("a"),
        east("b"),
        east("c").deployment("gpt-4o-mini"),
        backend("d").region("Sweden Central").deployment("gpt-4o"),
    ]);
    let response = rotate(&pool, &regions([("a", full)])).await;
    assert_eq!(rests(&pool), [Some(1_000), Some(1_000), None, None]);
    assert!(matches!(account(&response).backend(), Some("c" | "d")));
}

type Tiers = SmartFallbackLayer<Put<Leaf>, Put<Leaf>>;

fn tiers(primary: &Leaf, fallback: &Leaf) -> Tiers {
    SmartFallbackLayer::new(Put(primary.clone()), Put(fallback.clone()))
}

fn both_modes(primary: &Leaf, fallback: &Leaf) -> [Tiers; 2] {
    [tiers(primary, fallback), tiers(primary, fallback).gate(Gate::new().mode(Mode::Shared))]
}

async fn ask(service: &SmartFallback<Leaf, Leaf>, max_wait: u64) -> (Response<Full<Bytes>>, u128) {
    let mut request = request();
    request.extensions_mut().insert(MaxWait(ms(max_wait)));
    let (result, took) = timed(service.clone().oneshot(request)).await;
    (result.unwrap(), took.as_millis())
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_used_up_quota_however_long_he_may() {
    for mode in 0..2 {
        let (ptu, standard) = (Leaf::playing([no_quota()]), Leaf::playing([Answer::ok()]));
        let service = both_modes(&ptu, &standard)[mode].clone().layer(());
        for requests in 1..=2 {
            let (response, took) = ask(&service, 600_000).await;
            assert_eq!((response.status(), took), (StatusCode::OK, 0), "mode {mode}");
            assert_eq!((ptu.len(), standard.len()), (1, requests), "it is remembered");
        }
        pass(ms(60_001)).await;
        ask(&service, 600_000).await;
        assert_eq!(ptu.len(), 2, "an account may have been refilled");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pool_with_a_used_up_quota_is_not_waited_for_either() {
    let leaf = regions([("ptu", no_quota())]);
    let layer = SmartFallbackLayer::new(
        RegionRotateLayer::new(pool([backend("ptu")])),
        RegionRotateLayer::new(pool([backend("standard")])),
    )
    .max_wait(Duration::from_secs(600));
    let service = layer.layer(leaf.clone());
    for _ in 0..3 {
        let (response, took) = timed(service.clone().oneshot(request())).await;
        assert_eq!((response.unwrap().status(), took), (StatusCode::OK, Duration::ZERO));
    }
    assert_eq!(leaf.hosts().iter().filter(|host| *host == "ptu.example").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_may_not_spill_gets_the_refusal_of_a_used_up_quota_at_once() {
    let (ptu, standard) = (Leaf::playing([no_quota()]), Leaf::playing([Answer::ok()]));
    let layer = tiers(&ptu, &standard).class(Class::new("batch").never_spill());
    let mut request = request();
    request.extensions_mut().insert(tower_spillover::Priority::from("batch"));
    request.extensions_mut().insert(MaxWait(Duration::from_secs(600)));
    let (response, took) = timed(layer.layer(()).oneshot(request)).await;
    let response = response.unwrap();
    assert_eq!((response.status().as_u16(), took), (429, Duration::ZERO));
    assert_eq!(header(&response, "x-should-retry"), Some("false"), "nor is its client to wait");
}

#[tokio::test(start_paused = true)]
async fn a_retry_around_both_tiers_is_left_out_only_where_both_forbid_it() {
    let forbidden = || Answer::refused(20).with("x-should-retry", "false");
    for (ptu, standard, asked) in [
        (Answer::refused(20), forbidden(), 2),
        (forbidden(), Answer::refused(20), 2),
        (forbidden(), forbidden(), 1),
    ] {
        let (ptu, standard) = (Leaf::playing([ptu]), Leaf::playing([standard]));
        let retry = RetryLayer::new(RetryAfterPolicy::new().max_retries(1));
        let tiers = tiers(&ptu, &standard).max_wait(Duration::ZERO).forgetful();
        let response = retry.layer(tiers.layer(())).oneshot(request()).await.unwrap();
        let said = if asked == 1 { "false" } else { "true" };
        assert_eq!(header(&response, "x-should-retry"), Some(said));
        assert_eq!((ptu.len(), standard.len()), (asked, asked));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_is_told_of_the_tier_that_time_helps() {
    let (ptu, standard) = (Leaf::playing([no_quota()]), Leaf::playing([Answer::refused(700)]));
    let (response, _) = ask(&tiers(&ptu, &standard).layer(()), 0).await;
    assert_eq!(header(&response, "retry-after-ms"), Some("700"));
    assert_eq!(header(&response, "x-should-retry"), Some("true"));

    let (ptu, standard) = (Leaf::playing([Answer::refused(900)]), Leaf::playing([no_quota()]));
    let (response, _) = ask(&tiers(&ptu, &standard).layer(()), 0).await;
    assert_eq!(header(&response, "retry-after-ms"), Some("900"));
    assert_eq!(response.extensions().get::<Refusal>().unwrap().reason(), Reason::Rate);

    let (ptu, standard) = (Leaf::playing([no_quota()]), Leaf::playing([no_quota()]));
    let (response, _) = ask(&tiers(&ptu, &standard).layer(()), 0).await;
    assert_eq!(header(&response, "retry-after"), Some("60"));
    assert_eq!(header(&response, "x-should-retry"), Some("false"));
}

#[tokio::test(start_paused = true)]
async fn the_hint_of_the_body_is_obeyed_where_the_head_has_none() {
    let asks = Answer::status(429).because(Reason::Rate, Hint::After(ms(300)));
    let (ptu, standard) =
        (Leaf::playing([asks.clone(), Answer::ok()]), Leaf::playing([Answer::ok()]));
    let (_, took) = ask(&tiers(&ptu, &standard).layer(()), 4_000).await;
    assert_eq!((took, standard.len()), (300, 0));

    let policy = RetryAfterPolicy::new().jitter(0.0);
    let leaf = Leaf::playing([asks, Answer::ok()]);
    let retry = RetryLayer::new(policy).layer(leaf.clone());
    let (response, took) = timed(retry.oneshot(request())).await;
    assert_eq!((response.unwrap().status(), took), (StatusCode::OK, ms(300)));
}

#[tokio::test(start_paused = true)]
async fn the_retry_policy_leaves_a_used_up_quota_and_a_forbidden_retry_to_the_caller() {
    for answer in [no_quota(), Answer::refused(20).with("x-should-retry", "false")] {
        let leaf = Leaf::playing([answer, Answer::ok()]);
        let retry = RetryLayer::new(RetryAfterPolicy::smart_retry()).layer(leaf.clone());
        let (response, took) = timed(retry.oneshot(request())).await;
        assert_eq!((response.unwrap().status().as_u16(), took), (429, Duration::ZERO));
        assert_eq!(leaf.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_forbids_to_come_back_spills_its_own_request_only() {
    let forbidden = Answer::refused(20).with("x-should-retry", "false");
    for mode in 0..2 {
        let ptu = Leaf::playing([forbidden.clone(), Answer::ok()]);
        let standard = Leaf::playing([Answer::ok()]);
        let service = both_modes(&ptu, &standard)[mode].clone().layer(());
        let (response, took) = ask(&service, 4_000).await;
        assert!(account(&response).spilled() && took == 0);
        let (response, took) = ask(&service, 4_000).await;
        assert!(!account(&response).spilled() && took >= 19, "it waits its 20 ms: {took}");
    }
    let leaf = Leaf::new(move |seen| match seen.host() {
        "ptu.example" => Answer::refused(20).with("x-should-retry", "false"),
        _ => Answer::ok(),
    });
    let layer = SmartFallbackLayer::new(
        RegionRotateLayer::new(pool([backend("ptu")])),
        RegionRotateLayer::new(pool([backend("standard")])),
    );
    let (response, took) = timed(layer.layer(leaf.clone()).oneshot(request())).await;
    assert!(account(&response.unwrap()).spilled() && took.is_zero(), "through a pool too");
}

#[tokio::test(start_paused = true)]
async fn a_request_too_long_for_the_ptu_spills_at_once_and_closes_nothing() {
    let as_413 = Answer::status(413).because(Reason::ContextLength, Hint::None);
    for refused in [too_long(), as_413] {
        too_long_for_the_ptu_spills_at_once_and_closes_nothing(refused).await;
    }
}

async fn too_long_for_the_ptu_spills_at_once_and_closes_nothing(refused: Answer) {
    let (ptu, standard) = (Leaf::playing([refused]), Leaf::playing([Answer::ok()]));
    let service = tiers(&ptu, &standard).layer(());
    for requests in 1..=2 {
        let (response, took) = ask(&service, 4_000).await;
        let served = account(&response);
        assert_eq!((response.status(), took), (StatusCode::OK, 0));
        assert_eq!((served.backend(), served.spilled()), (Some("fallback"), true));
        let first = served.attempts().next().unwrap();
        assert_eq!(first.outcome(), Outcome::ContextTooLong);
        assert_eq!(first.reason(), Some(Reason::ContextLength));
        assert_eq!((ptu.len(), standard.len()), (requests, requests));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_too_long_is_the_callers_where_it_may_not_spill() {
    let (ptu, standard) = (Leaf::playing([too_long()]), Leaf::playing([too_long()]));
    let switched_off = tiers(&ptu, &standard).move_on(MoveOn::new().context_length(false));
    let spent = tiers(&ptu, &standard).spill_budget(SpillBudget::requests(0, ms(60_000)));
    for layer in [switched_off, spent] {
        let (response, took) = ask(&layer.layer(()), 4_000).await;
        assert_eq!((response.status().as_u16(), took, standard.len()), (400, 0, 0));
        assert_eq!(header(&response, "retry-after-ms"), None);
    }
    let (response, _) = ask(&tiers(&ptu, &standard).layer(()), 4_000).await;
    assert_eq!((response.status().as_u16(), standard.len()), (400, 1), "too long for both");
}

#[tokio::test(start_paused = true)]
async fn a_request_too_long_rotates_only_when_told_to() {
    let as_413 = Answer::status(413).because(Reason::ContextLength, Hint::None);
    for (answer, rotates, status, asked) in [
        (too_long(), false, 400, 1),
        (too_long(), true, 200, 2),
        (as_413.clone(), false, 413, 1),
        (as_413, true, 200, 2),
    ] {
        let leaf = regions([("a", answer)]);
        let pool = pool([backend("a"), backend("b")]);
        let layer =
            RegionRotateLayer::new(pool.clone()).move_on(MoveOn::new().context_length(rotates));
        let response = layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        let served = account(&response);
        assert_eq!(served.attempts().len(), asked);
        assert_eq!(served.attempts().next().unwrap().outcome(), Outcome::ContextTooLong);
        assert_eq!(rests(&pool), [None, None], "the backend is well");
    }
}
