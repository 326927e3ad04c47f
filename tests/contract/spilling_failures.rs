//! Failures of the primary that spill, and a primary that is down.

use std::{future, pin::pin};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tower::{Layer, Service, ServiceExt};
use tower_spillover::{
    AttemptBudget, Backend, BackendPool, Gate, MaxWait, Priority, RegionRotateLayer, ResponseBody,
    SmartFallbackLayer,
    classify::{Hint, Reason},
    gate::Mode,
    policy::{ErrorKind, MoveOn, RetryBudget},
    smart_fallback::{Class, SpillBudget},
};

use crate::{
    clock::{ms, pass, timed},
    leaf::{Answer, Broken, Kind, Leaf, Put, account, asked, every_error, header, request},
};

fn tiers(primary: &Leaf, fallback: &Leaf) -> SmartFallbackLayer<Put<Leaf>, Put<Leaf>> {
    SmartFallbackLayer::new(Put(primary.clone()), Put(fallback.clone()))
}

fn playing(answer: Answer) -> Leaf {
    Leaf::playing([answer])
}

type Ask = Request<Full<Bytes>>;
type Answered = Response<ResponseBody<Full<Bytes>>>;
type Pools = SmartFallbackLayer<RegionRotateLayer<Kind>, RegionRotateLayer<Kind>, Kind>;

/// Two pools of one backend each, which rotate on every error, as they spill on it.
fn pools() -> Pools {
    SmartFallbackLayer::new(tier(&["ptu"]), tier(&["standard"])).move_on(every_error())
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_the_callers_unless_its_kind_spills() {
    for (code, failures, expected) in [
        (503, MoveOn::none(), 503),
        (503, MoveOn::none().unavailable(), 200),
        (500, MoveOn::none().unavailable(), 500),
        (404, MoveOn::new().gateway_timeout(), 404),
    ] {
        let (primary, fallback) = (playing(Answer::status(code)), playing(Answer::ok()));
        let layer = tiers(&primary, &fallback).move_on(failures);
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
        let errors = MoveOn::none().errors(move |_: &Broken| match spills {
            true => ErrorKind::Connect,
            false => ErrorKind::Other,
        });
        let layer = layer.clone().move_on(errors.connect());
        let answer = layer.layer(()).oneshot(request()).await;
        assert_eq!(answer.is_ok(), is_served);
        let Ok(response) = answer else { continue };
        assert_eq!(asked(account(&response)), [("primary", 0), ("fallback", 0)]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_fallback_fails_with_is_the_callers() {
    let (primary, fallback) = (playing(Answer::status(503)), playing(Answer::status(503)));
    let layer = tiers(&primary, &fallback).move_on(MoveOn::new().gateway_timeout());
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
        .move_on(MoveOn::new().gateway_timeout().budget(budget));
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
    let layer = tiers(&primary, &fallback).move_on(MoveOn::new().gateway_timeout());
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
async fn a_request_that_must_not_spill_gets_the_failure_every_time() {
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
    for asked in 1..=10 {
        assert!(service.clone().oneshot(stay()).await.is_err());
        assert_eq!(broken.len(), asked);
    }
}

/// Sends ten requests a second; returns those that the PTU did not serve immediately.
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
    assert!(asked <= 12, "five, then one probe each time, ever more seldom: {asked}");
    assert!(!gate.is_pacing(), "it learned nothing");
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_the_primary_is_used_as_before() {
    let leaf = Leaf::new(|seen| match seen.host() {
        "ptu.example" if (10_000..20_000).contains(&seen.at.as_millis()) => Answer::broken(),
        _ => Answer::ok().after(50),
    });
    let spilled = load(leaf, Gate::new(), 1_200).await;
    // It is deferred for at most twice the length of the outage so far.
    assert!(spilled.iter().all(|number| (100..300).contains(number)), "{spilled:?}");
}

/// Makes the layer find the primary failing: it fails five times, and the fallback answers.
async fn fail<S, R>(service: &S)
where
    S: Service<Ask, Response = Response<R>, Error = Broken> + Clone,
{
    for _ in 0..5 {
        service.clone().oneshot(request()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_fails_is_asked_after_the_fallback_and_by_one_request_at_a_time() {
    for mode in [Mode::Adaptive, Mode::Shared, Mode::Plain] {
        let primary = Leaf::playing([Answer::status(500).after(10)]);
        let layer =
            tiers(&primary, &playing(Answer::ok())).move_on(MoveOn::new().gateway_timeout());
        let service = layer.gate(Gate::new().mode(mode)).layer(());
        fail(&service).await;
        assert_eq!(primary.len(), 5);
        for number in 0..20 {
            let (response, took) = timed(service.clone().oneshot(request())).await;
            let response = response.unwrap();
            assert_eq!(asked(account(&response)), [("fallback", 0)], "{mode:?} {number}");
            assert!(account(&response).spilled() && took.is_zero());
        }
        pass(ms(1_000)).await;
        let asks = (0..20).map(|_| service.clone().oneshot(request()));
        let served = futures::future::join_all(asks).await;
        assert_eq!(primary.len(), 6, "{mode:?}");
        assert!(served.iter().all(|served| served.as_ref().unwrap().status().is_success()));
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_fallback_refuses_or_fails_too_a_primary_that_fails_is_still_asked() {
    for answer in [Answer::refused(30_000), Answer::status(500)] {
        let primary = Leaf::new(|seen| match seen.index {
            0..5 => Answer::status(500),
            _ => Answer::ok(),
        });
        let fallback = Leaf::new(move |seen| match seen.index {
            0..5 => Answer::ok(),
            _ => answer.clone(),
        });
        let service = tiers(&primary, &fallback).move_on(MoveOn::new().gateway_timeout()).layer(());
        fail(&service).await;
        let response = service.clone().oneshot(request()).await.unwrap();
        assert_eq!(asked(account(&response)), [("fallback", 0), ("primary", 0)]);
        assert!(!account(&response).spilled());
        let response = service.clone().oneshot(request()).await.unwrap();
        assert_eq!(asked(account(&response)), [("primary", 0)], "it is back");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fallback_that_refuses_for_a_moment_is_waited_for_beside_a_primary_that_fails() {
    let primary = playing(Answer::status(500));
    let fallback = Leaf::new(|seen| match (seen.index, seen.at.as_millis()) {
        (0..5, _) | (_, 300..) => Answer::ok(),
        _ => Answer::refused(300),
    });
    let service = tiers(&primary, &fallback).move_on(MoveOn::new().gateway_timeout()).layer(());
    fail(&service).await;
    let (response, took) = timed(service.oneshot(request())).await;
    let response = response.unwrap();
    assert_eq!((response.status(), took), (StatusCode::OK, ms(300)), "{}", account(&response));
    assert_eq!((primary.len(), account(&response).spilled()), (6, true));
}

#[tokio::test(start_paused = true)]
async fn what_both_tiers_fail_with_is_the_callers_and_the_primary_s_no_fault() {
    let primary = playing(Answer::status(500));
    let fallback = playing(Answer::status(503));
    let service = tiers(&primary, &fallback).move_on(MoveOn::new().gateway_timeout()).layer(());
    for number in 1..=50 {
        let response = service.clone().oneshot(request()).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!((primary.len(), fallback.len()), (number, number), "in this order");
    }
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_is_known_to_fail_takes_nothing_from_the_budget_of_failures() {
    let failures = MoveOn::new().gateway_timeout().budget(RetryBudget::new(6, 0.0));
    let layer = tiers(&playing(Answer::status(500)), &playing(Answer::ok())).move_on(failures);
    let service = layer.layer(());
    fail(&service).await;
    for _ in 0..100 {
        let response = service.clone().oneshot(request()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    pass(ms(1_000)).await;
    let response = service.clone().oneshot(request()).await.unwrap();
    assert_eq!(asked(account(&response)), [("primary", 0), ("fallback", 0)], "the sixth move");
}

#[tokio::test(start_paused = true)]
async fn a_spill_that_is_not_paid_for_or_not_wanted_asks_a_primary_that_fails() {
    let dollars = SpillBudget::requests(5, ms(60_000));
    let stay = Class::new("stay").never_spill();
    for (class, budget) in [("any", Some(dollars)), ("stay", None)] {
        let primary = playing(Answer::status(500));
        let mut layer =
            tiers(&primary, &playing(Answer::ok())).move_on(MoveOn::new().gateway_timeout());
        layer = layer.class(stay.clone());
        if let Some(budget) = budget {
            layer = layer.spill_budget(budget);
        }
        let service = layer.layer(());
        fail(&service).await;
        let mut request = request();
        request.extensions_mut().insert(Priority::from(class));
        let response = service.clone().oneshot(request).await.unwrap();
        assert_eq!((response.status().as_u16(), primary.len()), (500, 6), "{class}");
    }
}

#[tokio::test(start_paused = true)]
async fn failures_among_many_more_answers_make_no_primary_come_second() {
    let primary = Leaf::new(|seen| match seen.index % 20 {
        0 => Answer::status(500),
        _ => Answer::ok(),
    });
    let service =
        tiers(&primary, &playing(Answer::ok())).move_on(MoveOn::new().gateway_timeout()).layer(());
    for number in 1..=1_000 {
        service.clone().oneshot(request()).await.unwrap();
        assert_eq!(primary.len(), number);
        pass(ms(10)).await;
    }
}

fn tier(names: &[&str]) -> RegionRotateLayer<Kind> {
    let backend = |name: &&str| {
        Backend::new(*name, format!("https://{name}.example")).unwrap().api_key("key")
    };
    let pool = BackendPool::new(names.iter().map(backend)).unwrap();
    RegionRotateLayer::new(pool).move_on(every_error())
}

/// A pair of tiers inside another, whose fallback serves.
fn pair(leaf: Leaf) -> impl Service<Ask, Response = Answered, Error = Broken> + Clone {
    let inner = SmartFallbackLayer::new(tier(&["one"]), tier(&["two"]));
    let inner = inner.max_wait(ms(0)).move_on(every_error());
    SmartFallbackLayer::new(inner, tier(&["standard"])).move_on(every_error()).layer(leaf)
}

#[tokio::test(start_paused = true)]
async fn a_pair_that_refuses_and_fails_spills_at_once() {
    let leaf = Leaf::new(|seen| match (seen.host(), seen.at.as_millis()) {
        ("one.example", 0..=142) => Answer::refused(143),
        ("two.example", _) => Answer::broken(),
        _ => Answer::ok(),
    });
    let service = pair(leaf);
    let (response, took) = timed(service.oneshot(request())).await;
    assert_eq!(account(&response.unwrap()).backend(), Some("standard"));
    assert_eq!(took, ms(0));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_pair_whose_primary_is_down() {
    let leaf = Leaf::new(|seen| match seen.host() {
        "one.example" => Answer::broken(),
        "two.example" if !seen.at.is_zero() => Answer::refused(30_000),
        _ => Answer::ok(),
    });
    let service = pair(leaf);
    service.clone().oneshot(request()).await.unwrap();
    pass(ms(100)).await;
    let (response, took) = timed(service.oneshot(request())).await;
    assert!(account(&response.unwrap()).spilled());
    assert_eq!(took, ms(0));
}

#[tokio::test(start_paused = true)]
async fn beside_a_backend_that_fails_one_that_refuses_is_waited_for() {
    let layer = SmartFallbackLayer::new(tier(&["down", "full"]), tier(&["standard"]));
    let layer = layer.move_on(every_error()).class(Class::new("stay").never_spill());
    let leaf = Leaf::new(|seen| match (seen.host(), seen.at.as_millis()) {
        ("down.example", _) => Answer::broken(),
        ("full.example", at @ 0..=1_499) => Answer::refused(u64::try_from(1_500 - at).unwrap()),
        _ => Answer::ok(),
    });
    for class in ["stay", "any"] {
        let mut request = request();
        request.extensions_mut().insert(Priority::from(class));
        let response = layer.layer(leaf.clone()).oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{class}");
        assert!(!account(&response).spilled(), "{}", account(&response));
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_cannot_be_sent_again_holds_no_place_at_the_gate() {
    for failures in [MoveOn::new().gateway_timeout(), MoveOn::none()] {
        let primary = Leaf::new(|seen| match seen.index {
            0 => Answer::refused(1_000),
            1 => Answer::status(503),
            _ => Answer::ok(),
        });
        let layer = tiers(&primary, &playing(Answer::ok())).move_on(failures);
        let mut service = layer.layer(());
        let mut first = request();
        first.extensions_mut().insert(MaxWait(ms(0)));
        service.clone().oneshot(first).await.unwrap();
        pass(ms(1_000)).await;
        let mut last = request();
        last.extensions_mut().insert(AttemptBudget::at_most(1));
        future::poll_fn(|cx| Service::<Ask>::poll_ready(&mut service, cx)).await.unwrap();
        let mut kept = pin!(service.call(last));
        assert_eq!(kept.as_mut().await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
        let (_, took) = timed(service.clone().oneshot(request())).await;
        assert_eq!(took, ms(0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_may_not_be_paid_for_takes_nothing_from_the_budget_of_failures() {
    let dollar = SpillBudget::requests(1, ms(1_000));
    let layer = |failures: MoveOn| {
        let layer = tiers(&playing(Answer::status(503)), &playing(Answer::ok()));
        layer.move_on(failures).spill_budget(dollar.clone()).layer(())
    };
    let another = layer(MoveOn::new().gateway_timeout());
    assert_eq!(another.oneshot(request()).await.unwrap().status(), StatusCode::OK);
    let service = layer(MoveOn::new().gateway_timeout().budget(RetryBudget::new(1, 0.0)));
    let refused = service.clone().oneshot(request()).await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    pass(ms(1_001)).await;
    assert_eq!(service.oneshot(request()).await.unwrap().status(), StatusCode::OK);
}
