//! What `SmartFallback` treats as a refusal, what it returns, and whose rule it follows.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{Layer, ServiceExt};
use tower_spillover::{
    MaxWait, SmartFallbackLayer,
    classify::{Hint, Reason},
    policy::{FallbackFacts, FallbackPolicy, Next, WaitThenSpill},
};

use crate::{
    clock::{ms, pass, timed},
    leaf::{Answer, Broken, Leaf, Put, account, asked, header, request, text},
};

async fn through<K: FallbackPolicy + Clone>(
    policy: K,
    ptu: &Leaf,
    standard: &Leaf,
    request: Request<Full<Bytes>>,
) -> (Result<Response<Full<Bytes>>, Broken>, u128) {
    let layer = SmartFallbackLayer::new(Put(ptu.clone()), Put(standard.clone()));
    let (result, took) = timed(layer.policy(policy).layer(()).oneshot(request)).await;
    (result, took.as_millis())
}

/// A request that must not wait.
fn impatient() -> Request<Full<Bytes>> {
    let mut request = request();
    request.extensions_mut().insert(MaxWait(Duration::ZERO));
    request
}

/// A policy that always decides the same.
#[derive(Clone, Debug)]
struct Always(Next);

impl FallbackPolicy for Always {
    fn next(&self, _: &FallbackFacts) -> Next {
        self.0
    }
}

// Microsoft Learn, "Manage traffic with spillover for provisioned deployments".
#[tokio::test(start_paused = true)]
async fn what_azures_own_spillover_moves_spills_by_default() {
    let too_long = Answer::status(400).because(Reason::ContextLength, Hint::None);
    for answer in [too_long, Answer::status(500), Answer::status(502), Answer::status(503)] {
        let (ptu, standard) = (Leaf::playing([answer]), Leaf::playing([Answer::ok()]));
        let (result, took) = through(WaitThenSpill, &ptu, &standard, request()).await;
        let response = result.unwrap();
        assert_eq!((response.status().as_u16(), took, ptu.len()), (200, 0, 1));
        assert!(account(&response).spilled());
    }
}

#[tokio::test(start_paused = true)]
async fn any_other_answer_of_the_primary_is_the_callers_untouched() {
    for status in [200, 201, 302, 400, 401, 403, 404, 408, 409, 501, 504] {
        let ptu = Leaf::playing([Answer::status(status).with("x-ms-region", "East US 2")]);
        let standard = Leaf::playing([Answer::ok()]);
        let (result, _) = through(WaitThenSpill, &ptu, &standard, request()).await;
        let response = result.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.headers().len(), 1);
        assert_eq!(header(&response, "x-ms-region"), Some("East US 2"));
        assert_eq!(asked(account(&response)), [("primary", 0)]);
        assert_eq!(text(response).await, "the answer");
        assert_eq!((ptu.len(), standard.len()), (1, 0), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hint_beside_a_status_that_is_no_refusal_or_server_error_moves_nothing() {
    for status in [200, 302, 400, 408] {
        let ptu = Leaf::playing([Answer::status(status).with("retry-after", "1")]);
        let standard = Leaf::playing([Answer::ok()]);
        let (result, took) = through(WaitThenSpill, &ptu, &standard, request()).await;
        assert_eq!((result.unwrap().status().as_u16(), took), (status, 0));
        assert_eq!(standard.len(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_error_with_a_hint_is_a_refusal() {
    for status in [500, 502, 503, 504, 529] {
        let ptu = Leaf::playing([Answer::status(status).with("retry-after", "2"), Answer::ok()]);
        let standard = Leaf::playing([Answer::ok()]);
        let (result, took) = through(WaitThenSpill, &ptu, &standard, request()).await;
        assert_eq!((result.unwrap().status().as_u16(), took, standard.len()), (200, 2_000, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_of_either_tier_is_the_callers() {
    let standard = Leaf::playing([Answer::ok()]);
    let ptu = Leaf::playing([Answer::broken()]);
    let (result, _) = through(WaitThenSpill, &ptu, &standard, request()).await;
    assert_eq!((result.unwrap_err(), standard.len()), (Broken("reset by peer"), 0));
    let ptu = Leaf::playing([Answer::refused(5_000)]);
    let standard = Leaf::playing([Answer::broken()]);
    let (result, _) = through(WaitThenSpill, &ptu, &standard, request()).await;
    assert_eq!((result.unwrap_err(), standard.len()), (Broken("reset by peer"), 1));
}

#[tokio::test(start_paused = true)]
async fn a_spilled_429_carries_the_soonest_hint_over_both_tiers() {
    let seconds = |seconds: &str| Answer::status(429).with("retry-after", seconds);
    for (ptu, standard, announced) in [
        (10_000, Answer::refused(2_500), ("2500", "3")),
        (10_000, Answer::refused(30_000), ("10000", "10")),
        (10_000, seconds("86400"), ("10000", "10")),
        (10_000, seconds("99999999"), ("10000", "10")),
        (10_000, Answer::status(429), ("10000", "10")),
        (10_000, Answer::refused(30_000).after(4_000), ("6000", "6")),
        (86_400_000, seconds("86400"), ("86400000", "86400")),
        (60_000, seconds("86400"), ("60000", "60")),
        (10_000, Answer::status(503).with("retry-after", "7"), ("7000", "7")),
    ] {
        let ptu = Leaf::playing([Answer::refused(ptu)]);
        let standard = Leaf::playing([standard.with("x-ms-region", "West US")]);
        let (result, _) = through(WaitThenSpill, &ptu, &standard, impatient()).await;
        let response = result.unwrap();
        let told = ["retry-after-ms", "retry-after"].map(|name| header(&response, name));
        assert_eq!(told, [Some(announced.0), Some(announced.1)]);
        assert_eq!(header(&response, "x-ms-region"), Some("West US"));
        assert!(account(&response).spilled());
        assert_eq!((ptu.len(), standard.len()), (1, 1));
        assert_eq!(text(response).await, "the answer");
    }
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_reopened_meanwhile_is_asked_at_once() {
    for (request, status, told) in [(request(), 200, None), (impatient(), 429, Some("1"))] {
        let ptu = Leaf::playing([Answer::refused(5_000), Answer::ok()]);
        let standard = Leaf::playing([Answer::refused(30_000).after(6_000)]);
        let (result, took) = through(WaitThenSpill, &ptu, &standard, request).await;
        let response = result.unwrap();
        assert_eq!((response.status().as_u16(), took), (status, 6_000));
        assert_eq!(header(&response, "retry-after-ms"), told);
    }
}

#[tokio::test(start_paused = true)]
async fn a_forgetful_layer_tells_the_soonest_hint_as_well() {
    let ptu = Leaf::playing([Answer::refused(10_000)]);
    let standard = Leaf::playing([Answer::refused(30_000).after(1_000)]);
    let layer = SmartFallbackLayer::new(Put(ptu), Put(standard)).forgetful();
    let response = layer.layer(()).oneshot(request()).await.unwrap();
    assert_eq!(header(&response, "retry-after-ms"), Some("9000"));
}

#[tokio::test(start_paused = true)]
async fn the_fallback_is_asked_once_and_an_answer_of_its_own_is_untouched() {
    let ptu = Leaf::playing([Answer::refused(9_000)]);
    let standard = Leaf::playing([Answer::status(500).with("x-ms-region", "West US")]);
    let (result, took) = through(WaitThenSpill, &ptu, &standard, request()).await;
    let response = result.unwrap();
    assert_eq!((response.status().as_u16(), took), (500, 0));
    assert_eq!(header(&response, "x-ms-region"), Some("West US"));
    assert_eq!(standard.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_policy_may_return_the_refusal_and_is_given_one_by_a_closed_primary() {
    let ptu = Leaf::playing([Answer::refused(9_000)]);
    let standard = Leaf::playing([Answer::ok()]);
    let layer = SmartFallbackLayer::new(Put(ptu.clone()), Put(standard.clone()));
    let service = layer.policy(Always(Next::Return)).layer(());
    for _ in 0..3 {
        let response = service.clone().oneshot(request()).await.unwrap();
        assert_eq!(response.status().as_u16(), 429);
        assert_eq!(header(&response, "retry-after-ms"), Some("9000"));
        assert!(account(&response).replayable());
    }
    assert_eq!((ptu.len(), standard.len()), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_policy_may_move_on_whatever_the_hint() {
    let ptu = Leaf::playing([Answer::refused(1)]);
    let standard = Leaf::playing([Answer::ok()]);
    let (result, took) = through(Always(Next::Spill), &ptu, &standard, request()).await;
    assert_eq!((account(&result.unwrap()).spilled(), took), (true, 0));
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_would_wait_past_max_wait_spills() {
    for wait in [ms(4_001), Duration::MAX] {
        let ptu = Leaf::playing([Answer::refused(1)]);
        let standard = Leaf::playing([Answer::ok()]);
        let (result, took) = through(Always(Next::Wait(wait)), &ptu, &standard, request()).await;
        assert_eq!((account(&result.unwrap()).spilled(), took), (true, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn an_endless_wait_within_an_endless_max_wait_does_not_overflow() {
    let ptu = Leaf::playing([Answer::refused(1)]);
    let standard = Leaf::playing([Answer::ok()]);
    let mut request = request();
    request.extensions_mut().insert(MaxWait(Duration::MAX));
    let asked = through(Always(Next::Wait(Duration::MAX)), &ptu, &standard, request);
    futures::future::select(Box::pin(asked), Box::pin(pass(ms(1_000)))).await;
    assert_eq!(ptu.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_always_wants_to_wait_for_nothing_is_held_to_max_wait_without_spinning() {
    let ptu = Leaf::new(|seen| {
        assert!(seen.index < 10_000, "a busy loop");
        Answer::refused(100)
    });
    let standard = Leaf::playing([Answer::ok()]);
    let (result, took) =
        through(Always(Next::Wait(Duration::ZERO)), &ptu, &standard, request()).await;
    assert!(account(&result.unwrap()).spilled());
    assert_eq!(took, 4_000);
}

#[tokio::test(start_paused = true)]
async fn a_first_wait_of_nothing_is_no_wait() {
    let ptu = Leaf::playing([Answer::refused(100), Answer::ok()]);
    let standard = Leaf::playing([Answer::ok()]);
    let (result, took) =
        through(Always(Next::Wait(Duration::ZERO)), &ptu, &standard, request()).await;
    assert_eq!((result.unwrap().status().as_u16(), took, ptu.len()), (200, 0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_policy_is_told_the_facts() {
    #[derive(Clone)]
    struct Telling(std::sync::Arc<std::sync::Mutex<Vec<FallbackFacts>>>);
    impl FallbackPolicy for Telling {
        fn next(&self, facts: &FallbackFacts) -> Next {
            self.0.lock().unwrap().push(*facts);
            WaitThenSpill.next(facts)
        }
    }
    let facts = std::sync::Arc::default();
    let ptu = Leaf::playing([Answer::refused(1_500).after(50), Answer::refused(3_000)]);
    let (policy, standard) =
        (Telling(std::sync::Arc::clone(&facts)), Leaf::playing([Answer::ok()]));
    through(policy, &ptu, &standard, request()).await.0.unwrap();
    let told: Vec<_> = facts
        .lock()
        .unwrap()
        .iter()
        .map(|facts| (facts.hint.duration(), facts.elapsed, facts.max_wait, facts.refusals))
        .collect();
    let max_wait = ms(4_000);
    assert_eq!(
        told,
        [(Some(ms(1_500)), ms(50), max_wait, 1), (Some(ms(3_000)), ms(1_550), max_wait, 2)]
    );
}
