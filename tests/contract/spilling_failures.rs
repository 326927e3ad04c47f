//! Failures of the primary that spill, and a primary that is down.

use http::StatusCode;
use tower::{Layer, ServiceExt};
use tower_spillover::{
    Backend, BackendPool, Gate, Priority, RegionRotateLayer, SmartFallbackLayer,
    classify::{Hint, Reason},
    gate::Class,
    policy::{ErrorFn, Failures, RetryBudget, WaitThenSpill},
};

use crate::{
    clock::{ms, pass},
    leaf::{Answer, Broken, Leaf, Put, account, asked, header, request},
};

fn tiers(primary: &Leaf, fallback: &Leaf) -> SmartFallbackLayer<Put<Leaf>, Put<Leaf>> {
    SmartFallbackLayer::new(Put(primary.clone()), Put(fallback.clone()))
}

fn playing(answer: Answer) -> Leaf {
    Leaf::playing([answer])
}

type Always = ErrorFn<fn(&Broken) -> bool>;
type Pools =
    SmartFallbackLayer<RegionRotateLayer<Always>, RegionRotateLayer<Always>, WaitThenSpill, Always>;

/// Two pools of one backend each, which rotate on every error, as they spill on it.
fn pools() -> Pools {
    let always: fn(&Broken) -> bool = |_| true;
    let tier = |name: &str| {
        let backend = Backend::new(name, format!("https://{name}.example")).unwrap().api_key("k");
        RegionRotateLayer::new(BackendPool::new([backend]).unwrap()).rotate_on_error(always)
    };
    SmartFallbackLayer::new(tier("ptu"), tier("standard")).spill_on_error(always)
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_the_callers_unless_its_kind_spills() {
    for (code, failures, expected) in [
        (503, Failures::new(), 503),
        (503, Failures::new().unavailable(), 200),
        (500, Failures::new().unavailable(), 500),
        (404, Failures::of_servers(), 404),
    ] {
        let (primary, fallback) = (playing(Answer::status(code)), playing(Answer::ok()));
        let layer = tiers(&primary, &fallback).failures(failures);
        let response = layer.layer(()).oneshot(request()).await.unwrap();
        assert_eq!(response.status().as_u16(), expected, "{code}");
        assert_eq!(account(&response).spilled(), expected == 200, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_transport_error_is_the_callers_unless_it_spills() {
    let (primary, fallback) = (playing(Answer::broken()), playing(Answer::ok()));
    let layer = tiers(&primary, &fallback);
    assert!(layer.clone().layer(()).oneshot(request()).await.is_err());
    for (spills, is_served) in [(true, true), (false, false)] {
        let layer = layer.clone().spill_on_error(move |_: &Broken| spills);
        let answer = layer.layer(()).oneshot(request()).await;
        assert_eq!(answer.is_ok(), is_served);
        let Ok(response) = answer else { continue };
        assert_eq!(asked(account(&response)), [("primary", 0), ("fallback", 0)]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_fallback_fails_with_is_the_callers() {
    let (primary, fallback) = (playing(Answer::status(503)), playing(Answer::status(503)));
    let layer = tiers(&primary, &fallback).failures(Failures::of_servers());
    let response = layer.layer(()).oneshot(request()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((primary.len(), fallback.len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn failures_spill_as_far_as_their_budget_goes_and_successes_refill_it() {
    let primary = Leaf::new(|seen| match seen.index {
        2 => Answer::ok(),
        _ => Answer::status(503),
    });
    let budget = RetryBudget::new(1, 1.0);
    let layer = tiers(&primary, &playing(Answer::status(500)))
        .failures(Failures::of_servers().budget(budget));
    let service = layer.layer(());
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(service.clone().oneshot(request()).await.unwrap().status().as_u16());
    }
    assert_eq!(statuses, [500, 503, 200, 500, 503]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_primary_is_nothing_to_come_back_for() {
    let (primary, fallback) = (playing(Answer::status(503)), playing(Answer::refused(20_000)));
    let layer = tiers(&primary, &fallback).failures(Failures::of_servers());
    let response = layer.layer(()).oneshot(request()).await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(header(&response, "retry-after-ms"), Some("20000"));

    let too_long = Answer::status(400).because(Reason::ContextLength, Hint::None);
    let layer = tiers(&playing(too_long.clone()), &fallback);
    let response = layer.layer(()).oneshot(request()).await.unwrap();
    assert_eq!(header(&response, "retry-after-ms"), Some("20000"));
    assert_eq!(header(&response, "x-should-retry"), Some("true"));

    let spent = Answer::refused(7_000).because(Reason::Quota, Hint::None);
    let layer = tiers(&playing(too_long), &playing(spent));
    let response = layer.layer(()).oneshot(request()).await.unwrap();
    assert_eq!(header(&response, "x-should-retry"), Some("false"));
    assert_eq!(header(&response, "retry-after-ms"), Some("60000"));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_must_not_spill_gets_the_failure_and_the_time_of_a_failing_pool() {
    let broken = Leaf::new(|seen| match seen.host() {
        "ptu.example" => Answer::broken(),
        _ => Answer::ok(),
    });
    let layer = pools().class(Class::new("stay").never_spill());
    let service = layer.layer(broken.clone());
    let stay = || {
        let mut request = request();
        request.extensions_mut().insert(Priority::from("stay"));
        request
    };
    assert!(service.clone().oneshot(stay()).await.is_err());
    let response = service.oneshot(stay()).await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(header(&response, "retry-after-ms"), Some("1000"));
    assert_eq!(broken.len(), 1);
}

/// Requests come ten times a second; gives which of them were not served by the PTU at once.
async fn load(leaf: Leaf, gate: Gate, requests: u64) -> Vec<u64> {
    let layer = pools().gate(gate);
    let service = layer.layer(leaf);
    let asks = (0..requests).map(|number| {
        let service = service.clone();
        async move {
            pass(ms(number * 100)).await;
            let response = service.oneshot(request()).await.expect("Standard serves");
            let served = account(&response);
            assert_eq!(served.waited(), ms(0), "{number}");
            served.spilled().then_some(number)
        }
    });
    futures::future::join_all(asks).await.into_iter().flatten().collect()
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_is_down_costs_no_request_and_no_wait() {
    let leaf = Leaf::new(|seen| match seen.host() {
        "ptu.example" => Answer::broken(),
        _ => Answer::ok(),
    });
    let gate = Gate::new();
    let spilled = load(leaf.clone(), gate.clone(), 600).await;
    assert_eq!(spilled.len(), 600);
    let asked = leaf.hosts().iter().filter(|host| *host == "ptu.example").count();
    assert!(asked <= 7, "one probe each time, ever more seldom: {asked}");
    assert!(!gate.is_pacing(), "it learned nothing");
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_the_primary_is_used_as_before() {
    let leaf = Leaf::new(|seen| match seen.host() {
        "ptu.example" if (10_000..20_000).contains(&seen.at.as_millis()) => Answer::broken(),
        _ => Answer::ok().after(50),
    });
    let spilled = load(leaf, Gate::new(), 1_200).await;
    // It rests at most twice as long as the outage took until then.
    assert!(spilled.iter().all(|number| (100..300).contains(number)), "{spilled:?}");
}
