//! What a spilled request takes out of a budget, and what it returns.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::future::{join_all, poll_immediate};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::json;
use spillover_emulator::{
    Deployment, Emulator, EmulatorService, Fault, Pace, Ptu, Resource, Standard,
};
use tower::{Layer, ServiceExt, service_fn};
use tower_spillover::{
    Backend, BackendPool, Deadline, MaxWait, RegionRotateLayer, ReplayLayer, SmartFallback,
    SmartFallbackLayer,
    body::{OnUsage, UsageSink},
    gate::cost::Usage,
    region_rotate::RegionRotate,
    replay::Replay,
    smart_fallback::{SpillBudget, WhenSpent},
};

use crate::{
    clock::{self, ms, pass, timed},
    leaf::{Answer, Broken, Leaf, Put, account, request},
};

type Ask = Request<Full<Bytes>>;

/// The use and the estimate of one answer of the fallback.
const USED: f64 = 50.0 + 3.0 * 20.0;
const ESTIMATE: f64 = 1.0 + 3.0 * 1_000.0;
const LIMIT: u64 = 10_000;
const MINUTE: Duration = Duration::from_secs(60);

fn ask() -> Ask {
    let body = r#"{"messages":[],"max_tokens":1000}"#;
    request().map(|_| Full::from(body))
}

fn answer() -> Answer {
    let usage = r#"{"prompt_tokens":50,"completion_tokens":20,"prompt_tokens_details":{"cached_tokens":40}}"#;
    Answer::ok().telling(format!("{{\"usage\":{usage}}}"))
}

fn tier(name: &str) -> RegionRotateLayer {
    let backend = Backend::new(name, format!("https://{name}.example")).unwrap().api_key("key");
    RegionRotateLayer::new(BackendPool::new([backend]).unwrap())
}

fn tokens() -> SpillBudget {
    SpillBudget::tokens(LIMIT, MINUTE)
}

type Pools = SmartFallback<RegionRotate<Leaf>, RegionRotate<Leaf>>;

/// A PTU that refuses for a minute, and a fallback that gives these answers in turn.
fn pools(budget: &SpillBudget, answers: impl Into<Vec<Answer>>) -> Pools {
    let (answers, next) = (answers.into(), AtomicUsize::new(0));
    let leaf = Leaf::new(move |seen| match seen.host() {
        "ptu.example" => Answer::refused(60_000),
        _ => answers[next.fetch_add(1, Ordering::Relaxed).min(answers.len() - 1)].clone(),
    });
    let layer = SmartFallbackLayer::new(tier("ptu"), tier("standard"));
    layer.spill_budget(budget.clone()).layer(leaf)
}

/// The amount used, and the part of requests in flight.
fn books(budget: &SpillBudget) -> (f64, f64) {
    (LIMIT as f64 - budget.left() - budget.under_way(), budget.under_way())
}

#[tokio::test(start_paused = true)]
async fn the_estimate_counts_until_the_answer_has_told_its_usage() {
    let budget = tokens();
    let service = pools(&budget, [answer().after(1_000)]);
    let call = tokio::spawn(service.clone().oneshot(ask()));
    pass(ms(500)).await;
    assert_eq!(books(&budget), (0.0, ESTIMATE));
    let response = call.await.unwrap().unwrap();
    assert_eq!((response.status(), books(&budget)), (StatusCode::OK, (0.0, ESTIMATE)));
    response.into_body().collect().await.unwrap();
    assert_eq!(books(&budget), (USED, 0.0), "cached tokens are billed, too");
}

#[tokio::test(start_paused = true)]
async fn a_budget_serves_what_it_says_and_not_what_was_estimated() {
    let budget = tokens();
    let service = pools(&budget, [answer()]);
    let mut served = 0;
    loop {
        let response = service.clone().oneshot(ask()).await.unwrap();
        if !response.status().is_success() {
            break;
        }
        response.into_body().collect().await.unwrap();
        served += 1;
    }
    assert_eq!(f64::from(served), (LIMIT as f64 / USED).ceil(), "by estimates it were 4");
    assert_eq!(budget.left(), 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_the_fallback_does_not_serve_gives_its_charge_back() {
    let refused = Answer::refused(60_000);
    for (budget, charge) in
        [(tokens(), ESTIMATE), (SpillBudget::requests(LIMIT as u32, MINUTE), 1.0)]
    {
        for end in [refused.clone(), Answer::status(400), Answer::status(500), Answer::broken()] {
            let call = pools(&budget, [end.after(1_000)]).oneshot(ask());
            // The caller keeps the finished future.
            let mut call = Box::pin(call);
            assert!(poll_immediate(&mut call).await.is_none());
            assert_eq!(books(&budget), (0.0, charge));
            let result = (&mut call).await;
            assert_eq!(books(&budget), (0.0, 0.0), "{result:?}");
        }
        // It is cancelled before it is answered, or while it waits for the fallback to reopen.
        for end in [answer().after(1_000), Answer::refused(2_000)] {
            let service = pools(&budget, [end]);
            let call = tokio::spawn(service.oneshot(ask()));
            pass(ms(500)).await;
            assert_eq!(books(&budget), (0.0, charge));
            call.abort();
            pass(ms(1)).await;
            assert_eq!(books(&budget), (0.0, 0.0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_the_primary_serves_in_the_end_gives_its_charge_back() {
    for budget in [tokens(), SpillBudget::requests(LIMIT as u32, MINUTE)] {
        let ptu = Leaf::new(|seen| match 2_000_u64.saturating_sub(seen.at.as_millis() as u64) {
            0 => Answer::ok(),
            left => Answer::refused(left).after(100),
        });
        let standard = Leaf::playing([Answer::refused(60_000)]);
        let layer = SmartFallbackLayer::new(Put(ptu), Put(standard.clone()));
        let service = layer.spill_budget(budget.clone()).layer(());
        let first = tokio::spawn(service.clone().oneshot(ask()));
        pass(ms(200)).await;
        // Given the time reserved for a spill, the primary reopens too late.
        let mut request = ask();
        request.extensions_mut().insert(MaxWait(ms(1_850)));
        let call = tokio::spawn(service.oneshot(request));
        pass(ms(1_000)).await;
        assert_eq!(standard.len(), 1);
        assert!(budget.under_way() > 0.0, "it may be sent there again");
        let response = call.await.unwrap().unwrap();
        assert_eq!((response.status(), books(&budget)), (StatusCode::OK, (0.0, 0.0)));
        assert_eq!(first.await.unwrap().unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_sent_to_the_fallback_again_is_charged_once() {
    let budget = tokens();
    let service = pools(&budget, [Answer::refused(100), Answer::refused(100), answer()]);
    let response = service.oneshot(ask()).await.unwrap();
    assert_eq!((response.status(), books(&budget)), (StatusCode::OK, (0.0, ESTIMATE)));
    response.into_body().collect().await.unwrap();
    assert_eq!(books(&budget), (USED, 0.0));
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_a_usage_counts_as_the_part_that_others_used_of_theirs() {
    let budget = tokens();
    let service = pools(&budget, [Answer::ok(), answer(), Answer::ok(), answer()]);
    let mut used = 0.0;
    for more in [ESTIMATE, USED, USED] {
        let response = service.clone().oneshot(ask()).await.unwrap();
        response.into_body().collect().await.unwrap();
        used += more;
        assert!((books(&budget).0 - used).abs() < 1e-6, "{:?}", books(&budget));
    }
    // Nor has an answer that is not read.
    drop(service.oneshot(ask()).await.unwrap());
    assert!((books(&budget).0 - used - USED).abs() < 1e-6);
}

#[tokio::test(start_paused = true)]
async fn what_is_used_after_the_window_is_no_charge_of_the_next() {
    let budget = tokens();
    let service = pools(&budget, [answer()]);
    let late = service.clone().oneshot(ask()).await.unwrap();
    pass(MINUTE).await;
    assert_eq!(books(&budget), (0.0, 0.0), "the window is over");
    let next = service.oneshot(ask()).await.unwrap();
    late.into_body().collect().await.unwrap();
    assert_eq!(books(&budget), (0.0, ESTIMATE));
    next.into_body().collect().await.unwrap();
    assert_eq!(books(&budget), (USED, 0.0));
}

#[tokio::test(start_paused = true)]
async fn a_fallback_without_pools_has_no_usage() {
    let budget = tokens();
    let layer = SmartFallbackLayer::new(
        Put(Leaf::playing([Answer::refused(60_000)])),
        Put(Leaf::playing([answer()])),
    );
    let service = layer.spill_budget(budget.clone()).layer(());
    let response = service.oneshot(ask()).await.unwrap();
    assert_eq!((response.status(), books(&budget)), (StatusCode::OK, (ESTIMATE, 0.0)));
}

#[tokio::test(start_paused = true)]
async fn tiers_inside_of_the_fallback_are_of_its_budget() {
    let budget = tokens();
    let leaf = Leaf::new(|seen| match seen.host() {
        "standard.example" => answer(),
        _ => Answer::refused(60_000),
    });
    let inner = SmartFallbackLayer::new(tier("ptu-2"), tier("standard"));
    let layer = SmartFallbackLayer::new(tier("ptu"), inner).spill_budget(budget.clone());
    let response = layer.layer(leaf.clone()).oneshot(ask()).await.unwrap();
    assert_eq!((leaf.len(), books(&budget)), (3, (0.0, ESTIMATE)));
    response.into_body().collect().await.unwrap();
    assert_eq!(books(&budget), (USED, 0.0));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_of_an_answer_where_no_tokens_are_counted() {
    let requests = SpillBudget::requests(9, MINUTE);
    for budget in [None, Some(requests)] {
        let standard = service_fn(|request: Ask| async move {
            assert!(request.extensions().get::<OnUsage>().is_none());
            Ok::<_, Broken>(Answer::ok().into_response())
        });
        let ptu = Leaf::playing([Answer::refused(60_000)]);
        let mut layer = SmartFallbackLayer::new(Put(ptu), Put(standard));
        if let Some(budget) = budget {
            layer = layer.spill_budget(budget);
        }
        assert!(layer.layer(()).oneshot(ask()).await.unwrap().status().is_success());
    }
}

#[tokio::test(start_paused = true)]
async fn the_caller_is_told_the_usage_as_well() {
    #[derive(Default)]
    struct Told(std::sync::Mutex<Vec<Option<Usage>>>);
    impl UsageSink for Told {
        fn ended(&self, usage: Option<Usage>) {
            self.0.lock().unwrap().push(usage);
        }
    }
    let (budget, told) = (tokens(), Arc::<Told>::default());
    let mut request = ask();
    OnUsage::subscribe(request.extensions_mut(), Arc::clone(&told));
    let response = pools(&budget, [answer()]).oneshot(request).await.unwrap();
    response.into_body().collect().await.unwrap();
    assert_eq!(*told.0.lock().unwrap(), [None, Some(Usage::new(50, 40, 20))]);
    assert_eq!(books(&budget), (USED, 0.0));
}

/// Tiers over the emulator, whose PTU is full.
fn emulated(budget: &SpillBudget) -> (Replay<Emulated>, Emulator) {
    let resource = |name, deployment| Resource::new(name).key("key").deployment(deployment);
    let standard = Deployment::standard("gpt-4o", Standard::unlimited()).pace(Pace::default());
    let emulator = Emulator::new([
        resource("ptu", Deployment::ptu("gpt-4o", Ptu::new(1e5))),
        resource("standard", standard),
    ]);
    let refusals = vec![Fault::status(429).header("retry-after-ms", "60000"); 9];
    emulator.script("ptu", "gpt-4o", refusals);
    let backend = |name: &str| {
        let backend = Backend::new(name, format!("https://{name}.openai.azure.com")).unwrap();
        RegionRotateLayer::new(BackendPool::new([backend.api_key("key")]).unwrap())
    };
    let layer = SmartFallbackLayer::new(backend("ptu"), backend("standard"));
    let layer = layer.spill_budget(budget.clone());
    (ReplayLayer::new(1 << 20).layer(layer.layer(emulator.service())), emulator)
}

type Emulated = SmartFallback<RegionRotate<EmulatorService>, RegionRotate<EmulatorService>>;

fn stream(has_usage: bool) -> Ask {
    let body = json!({"messages": [{"role": "user", "content": "Count"}], "max_tokens": 1000,
        "stream": true, "stream_options": {"include_usage": has_usage},
        "metadata": {"emulator_prompt_tokens": "50", "emulator_completion_tokens": "20"}});
    request().map(|_| Full::from(body.to_string()))
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_under_way_until_its_last_event_tells_the_usage() {
    let budget = tokens();
    let (service, emulator) = emulated(&budget);
    let response = service.oneshot(stream(true)).await.unwrap();
    assert_eq!(emulator.stats().of("standard", "gpt-4o").ok, 1);
    let mut body = Box::pin(response.into_body());
    assert!(body.frame().await.unwrap().is_ok());
    let (used, under_way) = books(&budget);
    assert!(used == 0.0 && under_way > ESTIMATE, "{used} {under_way}");
    while let Some(frame) = body.frame().await {
        assert!(frame.is_ok());
    }
    assert_eq!(books(&budget), (USED, 0.0));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_dropped_or_without_a_usage_keeps_a_part_of_its_estimate() {
    let budget = tokens();
    let (service, _emulator) = emulated(&budget);
    let whole = service.clone().oneshot(stream(true)).await.unwrap();
    whole.into_body().collect().await.unwrap();
    assert_eq!(books(&budget), (USED, 0.0));
    let mut dropped = Box::pin(service.clone().oneshot(stream(true)).await.unwrap().into_body());
    assert!(dropped.frame().await.unwrap().is_ok());
    drop(dropped);
    let silent = service.oneshot(stream(false)).await.unwrap();
    silent.into_body().collect().await.unwrap();
    let (used, under_way) = books(&budget);
    assert!((used - 3.0 * USED).abs() < 2.0 && under_way == 0.0, "{used} {under_way}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_may_not_wait_is_charged_like_others() {
    let budget = tokens();
    let mut request = ask();
    request.extensions_mut().insert(MaxWait(Duration::ZERO));
    let response = pools(&budget, [answer()]).oneshot(request).await.unwrap();
    response.into_body().collect().await.unwrap();
    assert_eq!(books(&budget), (USED, 0.0));
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_for_the_budget_spill_in_order_when_others_give_it_back() {
    let budget = SpillBudget::tokens(1_000, MINUTE).when_spent(WhenSpent::Wait);
    let service = pools(&budget, [answer().after(1_000)]);
    let start = clock::now();
    let calls = (0..4_u64).map(|number| {
        let service = service.clone();
        async move {
            pass(ms(number * 10)).await;
            let mut request = ask();
            request.extensions_mut().insert(MaxWait(Duration::ZERO));
            let response = service.oneshot(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            let spilled = account(&response).attempts().next_back().unwrap().at() + ms(number * 10);
            response.into_body().collect().await.unwrap();
            (spilled.as_millis(), start.elapsed().as_millis())
        }
    });
    let served = join_all(calls).await;
    let expected = [(0, 1_000), (1_000, 2_000), (2_000, 3_000), (3_000, 4_000)];
    assert_eq!(served, expected, "each estimate is more than is left");
    assert_eq!(budget.under_way(), 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_is_renewed_just_after_max_wait_sends_no_request_late() {
    for when_spent in [WhenSpent::Refuse, WhenSpent::Wait] {
        for opens in (900..1_060).step_by(5) {
            let budget = SpillBudget::requests(1, ms(1_005)).when_spent(when_spent);
            // It opens for others only.
            let ptu = Leaf::new(move |seen| {
                let left = opens - (seen.at.as_millis() as i64);
                Answer::refused(u64::try_from(left).unwrap_or(43)).after(30)
            });
            let standard = Leaf::playing([Answer::ok()]);
            let layer = SmartFallbackLayer::new(Put(ptu.clone()), Put(standard.clone()));
            let service = layer.max_wait(ms(1_000)).spill_budget(budget).layer(());
            let mut first = ask();
            first.extensions_mut().insert(MaxWait(Duration::ZERO));
            let first = service.clone().oneshot(first).await.unwrap();
            assert_eq!(first.status(), StatusCode::OK, "it spends the budget");
            let start = ptu.elapsed().as_millis();
            let mut second = ask();
            second.extensions_mut().insert(Deadline((clock::now() + ms(1_000)).into()));
            service.oneshot(second).await.unwrap();
            let late = ptu.times().into_iter().chain(standard.times()).max();
            assert!(late <= Some(start + 1_001), "{when_spent:?}, {opens} ms: {late:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_the_budget_is_served_by_a_primary_that_reopens_before() {
    let budget = SpillBudget::requests(0, MINUTE).when_spent(WhenSpent::Wait);
    let ptu = Leaf::new(|seen| match 9_000_u64.saturating_sub(seen.at.as_millis() as u64) {
        0 => Answer::ok(),
        left => Answer::refused(left),
    });
    let standard = Leaf::playing([Answer::ok()]);
    let layer = SmartFallbackLayer::new(Put(ptu), Put(standard.clone())).spill_budget(budget);
    let (response, took) = timed(layer.layer(()).oneshot(ask())).await;
    assert_eq!((response.unwrap().status(), took, standard.len()), (StatusCode::OK, ms(9_000), 0));
}
