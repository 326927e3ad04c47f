//! A request whose first token is late is sent a second time: once, elsewhere, and only if that is
//! allowed.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, Either, join_all, select},
    stream::{self, BoxStream},
};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use proptest::prelude::*;
use tokio::{sync::Semaphore, time::advance};
use tokio_test::{assert_pending, assert_ready_ok, task};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, limit::GlobalConcurrencyLimitLayer};
use tower_spillover::{
    AttemptBudget, Backend, BackendPool, Deadline, FirstTokenLayer, Gate, InspectLayer, Priority,
    RegionRotateLayer, ResponseBody, Served, SmartFallbackLayer, StickTo, Sticky, WaitLayer,
    backend::{AccessToken, TokenFuture, TokenSource},
    classify::Outcome,
    first_token::Limit,
    policy::{MoveOn, RetryBudget},
    served::Late,
    smart_fallback::{Class, SpillBudget},
};
use tower_test::mock;

use crate::{
    clock::{ms, now, pass, paused, timed},
    leaf::{Answer, Broken, Leaf, account, asked, every_error, header, request, through},
};

type Ask = Request<Full<Bytes>>;
type Reply = Response<ResponseBody<Full<Bytes>>>;

const AFTER: u64 = 8_000;
/// Time in flight after which a request counts as accepted, in ms.
const ACCEPTED: u64 = 1_000;
const MOVES_ON: Limit = Limit::move_on_after(ms(AFTER));
const HEDGES: Limit = Limit::hedge_after(ms(AFTER));

fn backend(name: &str) -> Backend {
    Backend::new(name, format!("https://{name}.example")).unwrap().api_key("key")
}

/// A pool that starts with its first backend.
fn pool<const N: usize>(names: [&str; N]) -> BackendPool {
    let pool = BackendPool::new(names.map(backend)).unwrap();
    pool.force_start(names[0]).unwrap();
    pool
}

fn rotate<const N: usize>(names: [&str; N]) -> RegionRotateLayer {
    RegionRotateLayer::new(pool(names))
}

/// A leaf whose backends answer after so many milliseconds each.
fn leaf<const N: usize>(answers: [(&'static str, Answer); N]) -> Leaf {
    Leaf::new(move |seen| {
        let host = seen.host().strip_suffix(".example").expect("a backend").to_owned();
        answers.iter().find(|(name, _)| *name == host).expect("a scripted one").1.clone()
    })
}

fn slow(ms: u64) -> Answer {
    Answer::ok().after(ms)
}

async fn send<S>(service: &S, request: Ask) -> Reply
where
    S: Service<Ask, Response = Reply, Error = Broken> + Clone,
{
    service.clone().oneshot(request).await.expect("an answer")
}

fn outcomes(served: &Served) -> Vec<(&str, Outcome)> {
    served.attempts().map(|attempt| (attempt.backend(), attempt.outcome())).collect()
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_time_is_the_callers_and_nothing_is_sent_twice() {
    for limit in [MOVES_ON, HEDGES] {
        let leaf = leaf([("a", slow(AFTER - 1)), ("b", slow(0))]);
        let service = FirstTokenLayer::new(limit).layer(rotate(["a", "b"]).layer(leaf.clone()));
        let response = send(&service, request()).await;
        assert_eq!(asked(account(&response)), [("a", 0)]);
        assert_eq!(account(&response).late(), None);
        assert_eq!(leaf.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_request_moves_on_to_another_backend_and_says_so() {
    let leaf = leaf([("a", slow(60_000)), ("b", slow(2_500))]);
    let service = FirstTokenLayer::new(MOVES_ON).layer(rotate(["a", "b"]).layer(leaf.clone()));
    let (response, took) = timed(send(&service, request())).await;
    assert_eq!(took, ms(AFTER + 2_500));
    let served = account(&response);
    assert_eq!(asked(served), [("a", 0), ("b", u128::from(AFTER))]);
    assert_eq!(outcomes(served), [("a", Outcome::Late), ("b", Outcome::Answered)]);
    assert_eq!(served.to_string(), "a late, b 200");
    assert_eq!((served.backend(), served.late()), (Some("b"), Some(Late::MovedOn)));
    assert!(served.rotated() && !served.spilled());
    assert_eq!(leaf.under_way(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_first_attempt_is_given_up_once_the_second_is_accepted_and_not_before() {
    let leaf = leaf([("a", slow(60_000)), ("b", slow(20_000))]);
    let service = FirstTokenLayer::new(MOVES_ON).layer(rotate(["a", "b"]).layer(leaf.clone()));
    let call = tokio::spawn(service.oneshot(request()));
    for (at, under_way) in [
        (1, 1),
        (AFTER - 1, 1),
        (AFTER + 10, 2),
        (AFTER + ACCEPTED - 10, 2),
        (AFTER + ACCEPTED + 10, 1),
        (AFTER + 19_000, 1),
    ] {
        pass(ms(at).saturating_sub(leaf.elapsed())).await;
        assert_eq!(leaf.under_way(), under_way, "after {at} ms");
    }
    let response = call.await.unwrap().unwrap();
    assert_eq!(account(&response).backend(), Some("b"));
    assert_eq!(leaf.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_is_won_by_whichever_answers_first() {
    for (first, second, winner, late, took) in [
        (20_000, 3_000, "b", Late::HedgeWon, 11_000),
        (12_000, 5_000, "a", Late::HedgeLost, 12_000),
    ] {
        let leaf = leaf([("a", slow(first)), ("b", slow(second))]);
        let service = FirstTokenLayer::new(HEDGES).layer(rotate(["a", "b"]).layer(leaf.clone()));
        let (response, time) = timed(send(&service, request())).await;
        let served = account(&response);
        assert_eq!((served.backend(), served.late()), (Some(winner), Some(late)));
        assert_eq!(time, ms(took));
        let loser = if winner == "a" { "b" } else { "a" };
        assert_eq!(outcomes(served), [(loser, Outcome::Late), (winner, Outcome::Answered)]);
        assert_eq!(served.rotated(), winner == "b", "the first attempt is no rotation");
        assert_eq!(leaf.under_way(), 0, "the other one is dropped");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_or_failure_of_the_second_leaves_the_first_running() {
    let others = [Answer::refused(500), Answer::status(500), Answer::status(404), Answer::broken()];
    for other in others {
        for limit in [MOVES_ON, HEDGES] {
            let leaf = leaf([("a", slow(AFTER + 5_000)), ("b", other.clone().after(50))]);
            let rotate = rotate(["a", "b"]);
            let service = FirstTokenLayer::new(limit).layer(rotate.layer(leaf.clone()));
            let response = send(&service, request()).await;
            let served = account(&response);
            assert_eq!((served.backend(), response.status().as_u16()), (Some("a"), 200));
            assert_eq!(served.late(), Some(Late::HedgeLost));
            let [second, first] = served.attempts().collect::<Vec<_>>()[..] else {
                panic!("{served}")
            };
            assert_ne!(second.outcome(), Outcome::Late, "{served}");
            assert_eq!((second.backend(), first.backend()), ("b", "a"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_the_first_leaves_the_second_running() {
    for limit in [MOVES_ON, HEDGES] {
        let failing = Answer::status(500).after(AFTER + 500);
        let leaf = leaf([("a", failing), ("b", slow(3_000))]);
        let service = FirstTokenLayer::new(limit).layer(rotate(["a", "b"]).layer(leaf.clone()));
        let response = send(&service, request()).await;
        assert_eq!(account(&response).to_string(), "a 500, b 200");
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_that_are_not_served_the_caller_gets_the_better_one() {
    let cases = [
        (Answer::status(500), Answer::refused(700), 429, Some("700")),
        (Answer::refused(700), Answer::status(500), 429, Some("700")),
        (Answer::broken(), Answer::status(502), 502, None),
        (Answer::status(400), Answer::refused(700), 400, None),
    ];
    for (first, second, status, hint) in cases {
        let leaf = leaf([("a", first.after(AFTER + 600)), ("b", second.after(700))]);
        let service = FirstTokenLayer::new(HEDGES).layer(rotate(["a", "b"]).layer(leaf.clone()));
        let response = send(&service, request()).await;
        assert_eq!(response.status(), status);
        // The other backend is open, though not to this request.
        let hint = hint.map(|_| "1");
        assert_eq!(header(&response, "retry-after-ms"), hint, "{}", account(&response));
        assert_eq!(account(&response).attempts().len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_second_went_through_is_told_too() {
    let leaf =
        leaf([("a", slow(60_000)), ("b", Answer::refused(30_000).after(40)), ("c", slow(2_000))]);
    let service =
        FirstTokenLayer::new(MOVES_ON).layer(ordered(["a", "b", "c"]).layer(leaf.clone()));
    let response = send(&service, request()).await;
    let served = account(&response);
    assert_eq!(served.to_string(), "a late, b 429 (30000 ms), c 200");
    let at = [0, AFTER, AFTER + 40].map(u128::from);
    assert_eq!(asked(served), [("a", at[0]), ("b", at[1]), ("c", at[2])]);
}

#[tokio::test(start_paused = true)]
async fn what_the_first_went_through_is_told_too() {
    let leaf =
        leaf([("a", Answer::refused(30_000).after(40)), ("b", slow(60_000)), ("c", slow(2_000))]);
    let service =
        FirstTokenLayer::new(MOVES_ON).layer(ordered(["a", "b", "c"]).layer(leaf.clone()));
    let response = send(&service, request()).await;
    assert_eq!(account(&response).to_string(), "a 429 (30000 ms), b late, c 200");
    let moved = u128::from(AFTER + 40);
    assert_eq!(asked(account(&response)), [("a", 0), ("b", 40), ("c", moved)], "anew with b");
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_only_the_tiers_move_is_told_of_both_sendings() {
    let leaf = leaf([("a", Answer::status(500)), ("b", slow(60_000)), ("c", slow(2_000))]);
    let primary = rotate(["a"]).move_on(MoveOn::none());
    let tiers = SmartFallbackLayer::new(primary, ordered(["b", "c"]));
    let service = FirstTokenLayer::new(MOVES_ON).layer(tiers.layer(leaf.clone()));
    let response = send(&service, request()).await;
    assert_eq!(account(&response).to_string(), "a 500, b late, a 500, c 200; spilled: failed");
}

/// One priority for each backend.
fn ordered<const N: usize>(names: [&str; N]) -> RegionRotateLayer {
    let backends = names.iter().zip(1..).map(|(name, place)| backend(name).priority(place));
    RegionRotateLayer::new(BackendPool::new(backends).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_late_again_and_again_is_asked_after_its_neighbours() {
    let leaf = leaf([("a", slow(60_000)), ("b", slow(1_000))]);
    let layer = FirstTokenLayer::new(MOVES_ON).budget(RetryBudget::new(1_000, 0.0));
    let service = layer.layer(ordered(["a", "b"]).layer(leaf.clone()));
    // Four in a second, for a minute and a half.
    let mut calls = Vec::new();
    for _ in 0..360 {
        calls.push(tokio::spawn(service.clone().oneshot(request())));
        pass(ms(250)).await;
    }
    let mut late = Vec::new();
    for call in calls {
        late.push(account(&call.await.unwrap().unwrap()).late().is_some());
    }
    let of = |part: &[bool]| part.iter().filter(|late| **late).count();
    assert!(of(&late[120..]) <= 6, "one at a time finds out: {late:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_is_sent_a_second_time_once() {
    for limit in [MOVES_ON, HEDGES] {
        let leaf = leaf([("a", slow(90_000)), ("b", slow(90_000)), ("c", slow(0))]);
        let service =
            FirstTokenLayer::new(limit).layer(ordered(["a", "b", "c"]).layer(leaf.clone()));
        send(&service, request()).await;
        assert_eq!(leaf.hosts(), ["a.example", "b.example"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_tier_without_another_backend_spills() {
    let leaf = leaf([("ptu", slow(60_000)), ("std", slow(2_000))]);
    let tiers = SmartFallbackLayer::new(rotate(["ptu"]), rotate(["std"]));
    let service = FirstTokenLayer::new(MOVES_ON).layer(tiers.layer(leaf.clone()));
    let response = send(&service, request()).await;
    let served = account(&response);
    assert_eq!(served.to_string(), "ptu late, std 200; spilled: first-token-late");
    assert!(served.spilled() && !served.rotated());
    assert_eq!(served.late(), Some(Late::MovedOn));
}

#[tokio::test(start_paused = true)]
async fn the_gate_of_a_tier_that_has_no_other_backend_learns_nothing_from_it() {
    let leaf = leaf([("ptu", slow(60_000)), ("std", slow(2_000))]);
    let tiers = SmartFallbackLayer::new(rotate(["ptu"]), rotate(["std"]));
    let service = FirstTokenLayer::new(MOVES_ON).layer(tiers.layer(leaf.clone()));
    let mut late = task::spawn(service.clone().oneshot(request()));
    assert_pending!(late.poll());
    advance(ms(AFTER)).await;
    assert_pending!(late.poll());
    // The tier refused it for a moment, but no other request.
    let mut next = [(); 3].map(|()| task::spawn(service.clone().oneshot(request())));
    next.iter_mut().for_each(|next| assert_pending!(next.poll()));
    let hosts = ["ptu", "std", "ptu", "ptu", "ptu"].map(|name| format!("{name}.example"));
    assert_eq!(leaf.hosts(), hosts);
}

#[tokio::test(start_paused = true)]
async fn another_backend_of_the_tier_comes_before_the_other_tier() {
    let leaf = leaf([("ptu-1", slow(60_000)), ("ptu-2", slow(2_000)), ("std", slow(0))]);
    let tiers = SmartFallbackLayer::new(rotate(["ptu-1", "ptu-2"]), rotate(["std"]));
    let service = FirstTokenLayer::new(MOVES_ON).layer(tiers.layer(leaf.clone()));
    assert_eq!(account(&send(&service, request()).await).to_string(), "ptu-1 late, ptu-2 200");
}

#[tokio::test(start_paused = true)]
async fn a_spilled_request_that_is_late_goes_to_another_backend_of_its_tier_or_back() {
    // The PTU refused it long ago.
    let ptu = |seen: usize| if seen == 0 { Answer::refused(6_000) } else { slow(100) };
    let leaf = Leaf::new(move |seen| match seen.host() {
        "ptu.example" => ptu(seen.index),
        _ => slow(60_000),
    });
    let tiers = SmartFallbackLayer::new(rotate(["ptu"]), rotate(["std"])).max_wait(ms(0));
    let service = FirstTokenLayer::new(MOVES_ON).layer(tiers.layer(leaf.clone()));
    let response = send(&service, request()).await;
    let served = account(&response);
    assert_eq!(served.to_string(), "ptu 429 (6000 ms), std late, ptu 200");
    assert!(!served.spilled());
}

#[tokio::test(start_paused = true)]
async fn a_spilled_request_that_is_late_with_nowhere_else_goes_on_and_closes_no_tier() {
    let leaf = leaf([("ptu", Answer::refused(60_000)), ("std", slow(AFTER + 5_000))]);
    let tiers = SmartFallbackLayer::new(rotate(["ptu"]), rotate(["std"]));
    let service = FirstTokenLayer::new(HEDGES).layer(tiers.layer(leaf.clone()));
    let mut late = task::spawn(service.clone().oneshot(request()));
    assert_pending!(late.poll());
    advance(ms(AFTER)).await;
    assert_pending!(late.poll());
    let mut next = task::spawn(service.oneshot(request()));
    assert_pending!(next.poll());
    let hosts = ["ptu", "std", "ptu", "std"].map(|name| format!("{name}.example"));
    assert_eq!(leaf.hosts(), hosts, "the next one spills at once");
    advance(ms(5_000)).await;
    let served = assert_ready_ok!(late.poll());
    let asked = "ptu 429 (60000 ms), ptu 429 (60000 ms), std 200; spilled: hint (60s > 4s)";
    assert_eq!(
        account(&served).to_string(),
        asked,
        "its second sending asked whether that is true"
    );
}

#[tokio::test(start_paused = true)]
async fn where_there_is_nowhere_to_go_the_first_goes_on_and_the_budget_is_left() {
    let budget = RetryBudget::new(1, 0.0);
    let late = || FirstTokenLayer::new(MOVES_ON).budget(budget.clone());
    let leaf = leaf([("a", slow(30_000)), ("std", slow(1_000))]);
    let mut never = request();
    never.extensions_mut().insert(Priority::from("batch"));
    let tiers = SmartFallbackLayer::new(rotate(["a"]), rotate(["std"]))
        .class(Class::new("batch").never_spill());
    let response = send(&late().layer(tiers.layer(leaf.clone())), never).await;
    assert_eq!(account(&response).to_string(), "a 200");

    let spent = SpillBudget::requests(0, ms(3_600_000));
    let tiers = SmartFallbackLayer::new(rotate(["a"]), rotate(["std"])).spill_budget(spent);
    let response = send(&late().layer(tiers.layer(leaf.clone())), request()).await;
    assert_eq!(account(&response).to_string(), "a 200");

    let service = late().layer(rotate(["a"]).layer(leaf.clone()));
    let response = send(&service, request()).await;
    assert_eq!((account(&response).to_string(), account(&response).late()), ("a 200".into(), None));
    assert_eq!(leaf.len(), 3);

    // The retry that was not spent is available to another request.
    let service = late().layer(rotate(["a", "std"]).layer(leaf.clone()));
    assert_eq!(account(&send(&service, request()).await).backend(), Some("std"));
    assert_eq!(account(&send(&service, request()).await).backend(), Some("a"), "now it is spent");
}

#[tokio::test(start_paused = true)]
async fn it_is_sent_a_second_time_later_where_something_opens_meanwhile() {
    let leaf = leaf([("a", slow(60_000)), ("b", Answer::refused(10_000))]);
    let service = rotate(["b", "a"]).layer(leaf.clone());
    // `b` cools down for ten seconds, and is called after that.
    let service = FirstTokenLayer::new(MOVES_ON).layer(service);
    let response = send(&service, request()).await;
    assert_eq!(leaf.times(), [0, 0, u128::from(2 * AFTER)]);
    assert_eq!(account(&response).to_string(), "b 429 (10000 ms), b 429 (10000 ms), a 200");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_belongs_to_one_resource_stays_there() {
    let leaf = leaf([("a", slow(30_000)), ("b", slow(0))]);
    let sticky = Sticky::new();
    let service =
        FirstTokenLayer::new(HEDGES).layer(rotate(["a", "b"]).sticky(sticky).layer(leaf.clone()));
    let mut named = request();
    named.extensions_mut().insert(StickTo::from("a"));
    assert_eq!(account(&send(&service, named).await).to_string(), "a 200; held by name");
    assert_eq!(leaf.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_waits_is_not_waited_for_twice_and_nobody_else_waits_for_it() {
    let leaf = leaf([("a", slow(AFTER + 3_000))]);
    let service = ServiceBuilder::new()
        .layer(FirstTokenLayer::new(HEDGES))
        .layer(WaitLayer::new().max_wait(ms(60_000)))
        .layer(rotate(["a"]))
        .service(leaf.clone());
    let mut late = task::spawn(service.clone().oneshot(request()));
    assert_pending!(late.poll());
    advance(ms(AFTER)).await;
    assert_pending!(late.poll());
    let mut next = task::spawn(service.oneshot(request()));
    assert_pending!(next.poll());
    assert_eq!(leaf.times(), [0, u128::from(AFTER)], "the next one is sent at once");
    advance(ms(3_000)).await;
    assert_eq!(account(&assert_ready_ok!(late.poll())).to_string(), "a 200");
}

#[tokio::test(start_paused = true)]
async fn waiting_at_the_gate_or_for_a_token_does_not_count() {
    // The PTU is full for longer than the limit, and answers within it.
    let limit = Limit::move_on_after(ms(1_000));
    let leaf = Leaf::new(|seen| match seen.index {
        0 => Answer::refused(1_500),
        _ => slow(900),
    });
    let tiers = SmartFallbackLayer::new(rotate(["ptu"]), rotate(["std"]));
    let service = FirstTokenLayer::new(limit).layer(tiers.layer(leaf.clone()));
    let response = send(&service, request()).await;
    assert_eq!(account(&response).late(), None);
    assert_eq!(leaf.hosts(), ["ptu.example"; 2]);

    struct Slow;
    impl TokenSource for Slow {
        fn token(&self) -> TokenFuture {
            TokenFuture::fetching(async {
                pass(ms(1_500)).await;
                AccessToken::new("token")
            })
        }
    }
    let leaf = Leaf::playing([slow(900)]);
    let slow = Backend::new("a", "https://a.example").unwrap().bearer(Slow);
    let pool = BackendPool::new([slow, backend("b").priority(2)]).unwrap();
    let service = FirstTokenLayer::new(limit).layer(RegionRotateLayer::new(pool).layer(leaf));
    assert_eq!(account(&send(&service, request()).await).to_string(), "a 200");
}

#[tokio::test(start_paused = true)]
async fn a_refused_attempt_is_no_late_one_however_slow_it_is_and_the_time_starts_anew() {
    let leaf = leaf([
        ("a", Answer::refused(60_000).after(AFTER - 10)),
        ("b", slow(AFTER - 10)),
        ("c", slow(0)),
    ]);
    let service =
        FirstTokenLayer::new(MOVES_ON).layer(ordered(["a", "b", "c"]).layer(leaf.clone()));
    let response = send(&service, request()).await;
    assert_eq!(account(&response).to_string(), "a 429 (60000 ms), b 200");
}

#[tokio::test(start_paused = true)]
async fn an_empty_budget_or_the_last_attempt_or_a_deadline_keeps_a_late_request_where_it_is() {
    let leaf = leaf([("a", slow(30_000)), ("b", slow(0))]);
    let stack = |layer: FirstTokenLayer| layer.layer(rotate(["a", "b"]).layer(leaf.clone()));
    let none = stack(FirstTokenLayer::new(MOVES_ON).budget(RetryBudget::new(0, 0.0)));
    assert_eq!(account(&send(&none, request()).await).backend(), Some("a"));

    let service = stack(FirstTokenLayer::new(MOVES_ON));
    let mut last = request();
    last.extensions_mut().insert(AttemptBudget::at_most(1));
    assert_eq!(account(&send(&service, last).await).backend(), Some("a"));

    let mut late = request();
    late.extensions_mut().insert(Deadline((now() + ms(AFTER - 1)).into_std()));
    assert_eq!(account(&send(&service, late).await).backend(), Some("a"));
    let mut soon = request();
    soon.extensions_mut().insert(Deadline((now() + ms(AFTER + 100)).into_std()));
    assert_eq!(account(&send(&service, soon).await).backend(), Some("b"));
}

#[tokio::test(start_paused = true)]
async fn every_attempt_is_counted_once() {
    let leaf = leaf([("ptu", slow(30_000)), ("std", slow(1_000))]);
    let attempts = AttemptBudget::at_most(5);
    let tiers = SmartFallbackLayer::new(rotate(["ptu"]), rotate(["std"]));
    let service = FirstTokenLayer::new(MOVES_ON).layer(tiers.layer(leaf.clone()));
    let mut counted = request();
    counted.extensions_mut().insert(attempts.clone());
    send(&service, counted).await;
    assert_eq!((leaf.len(), attempts.left()), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn a_class_has_a_limit_of_its_own_or_none() {
    let leaf = leaf([("a", slow(30_000)), ("b", slow(0))]);
    let layer = FirstTokenLayer::new(MOVES_ON)
        .class("hurry", Limit::hedge_after(ms(2_000)))
        .class("batch", None)
        .class("hurry", None);
    let service = layer.layer(rotate(["a", "b"]).layer(leaf.clone()));
    let of_class = |class: &'static str| {
        let mut request = request();
        request.extensions_mut().insert(Priority::from(class));
        request
    };
    for (class, took) in [("hurry", 2_000), ("batch", 30_000), ("other", AFTER)] {
        assert_eq!(timed(send(&service, of_class(class))).await.1, ms(took), "{class}");
    }
    let of_hurry = FirstTokenLayer::new(None).class("hurry", HEDGES);
    let service = of_hurry.layer(rotate(["a", "b"]).layer(leaf.clone()));
    assert_eq!(timed(send(&service, request())).await.1, ms(30_000));
    assert_eq!(timed(send(&service, of_class("hurry"))).await.1, ms(AFTER));
}

#[tokio::test(start_paused = true)]
async fn what_would_be_there_twice_is_not_sent_twice() {
    let leaf = leaf([("a", slow(30_000)), ("b", slow(0))]);
    let service = FirstTokenLayer::new(MOVES_ON).layer(rotate(["a", "b"]).layer(leaf.clone()));
    let post = |path: &str, body: &'static str| {
        Request::post(path).body(Full::<Bytes>::from(body)).unwrap()
    };
    for ask in [
        post("/openai/v1/files", "{}"),
        post("/openai/v1/responses", r#"{"background":true}"#),
        Request::get("/openai/v1/models").body(Full::default()).unwrap(),
    ] {
        assert_eq!(account(&send(&service, ask).await).backend(), Some("a"));
    }
    let plain = post("/openai/v1/responses", r#"{"model":"m","input":"x"}"#);
    assert_eq!(account(&send(&service, plain).await).backend(), Some("b"));
    assert_eq!(leaf.len(), 5);
}

/// A client whose streams start immediately, send nothing that counts for this long, and then their
/// output.
#[derive(Clone)]
struct Streams(Leaf, u64);

impl Service<Ask> for Streams {
    type Response = Response<StreamBody<BoxStream<'static, Result<Frame<Bytes>, Broken>>>>;
    type Error = Broken;
    type Future = BoxFuture<'static, Result<Self::Response, Broken>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        Service::<Ask>::poll_ready(&mut self.0, cx)
    }

    fn call(&mut self, request: Ask) -> Self::Future {
        let is_silent = request.uri().host() == Some("a.example");
        let silence = if is_silent { self.1 } else { 500 };
        let answer = self.0.call(request);
        async move {
            let (head, _) = answer.await?.into_parts();
            let beats = silence / 100;
            let events = stream::unfold(0, move |sent| async move {
                if sent > 0 {
                    pass(ms(100)).await;
                }
                let event = match sent {
                    0 => "event: response.created\ndata: {\"response\":{\"status\":\"in_progress\"}}\n\n",
                    it if it < beats && it % 2 == 0 => ": still here\n\n",
                    it if it < beats => "event: keepalive\ndata: {\"type\":\"keepalive\"}\n\n",
                    _ => "event: response.output_text.delta\ndata: {\"delta\":\"Hello\"}\n\n",
                };
                let frame = Ok(Frame::data(Bytes::from_static(event.as_bytes())));
                (sent <= beats).then_some((frame, sent + 1))
            });
            let mut head = head;
            head.headers.insert("content-type", "text/event-stream".parse().unwrap());
            Ok(Response::from_parts(head, StreamBody::new(events.boxed())))
        }
        .boxed()
    }
}

fn streaming(body: &'static str) -> Ask {
    Request::post("/openai/v1/responses").body(Full::from(body)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_only_keeps_itself_alive_is_late_and_one_with_output_is_not() {
    let ask = || streaming(r#"{"model":"m","input":"x","stream":true}"#);
    for (silence, backend) in [(AFTER + 5_000, "b"), (AFTER - 500, "a")] {
        let leaf = Leaf::playing([Answer::ok()]);
        let service = ServiceBuilder::new()
            .layer(FirstTokenLayer::new(MOVES_ON))
            .layer(rotate(["a", "b"]))
            .layer(InspectLayer::new())
            .service(Streams(leaf.clone(), silence));
        let response = service.oneshot(ask()).await.unwrap();
        assert_eq!(account(&response).backend(), Some(backend), "silent for {silence} ms");
        let text = response.into_body().collect().await.unwrap().to_bytes();
        let text = std::str::from_utf8(&text).unwrap();
        assert_eq!(text.matches("response.created").count(), 1, "of one answer alone");
        assert_eq!(text.matches("Hello").count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_has_begun_is_never_sent_again_however_it_stalls() {
    let leaf = Leaf::playing([Answer::ok()]);
    let service = ServiceBuilder::new()
        .layer(FirstTokenLayer::new(HEDGES))
        .layer(rotate(["a", "b"]))
        .service(Streams(leaf.clone(), 60_000));
    // Without a layer that reads it, its head counts as its start.
    let response = service.oneshot(streaming("{}")).await.unwrap();
    pass(ms(3 * AFTER)).await;
    assert_eq!(account(&response).backend(), Some("a"));
    assert_eq!(leaf.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn successes_refill_the_budget() {
    let leaf = Leaf::new(|seen| match seen.host() {
        "a.example" if seen.index.is_multiple_of(2) => slow(30_000),
        _ => slow(0),
    });
    let layer = FirstTokenLayer::new(MOVES_ON).budget(RetryBudget::new(1, 0.5));
    let service = layer.layer(rotate(["a", "b"]).layer(leaf.clone()));
    let mut backends = Vec::new();
    for _ in 0..4 {
        backends.push(account(&send(&service, request()).await).backend().unwrap().to_owned());
    }
    // Spent, half a success; not enough; in time, another half; enough again.
    assert_eq!(backends, ["b", "a", "a", "b"], "{:?}", leaf.hosts());
}

#[tokio::test(start_paused = true)]
async fn the_second_attempt_readies_the_service_again_and_does_not_wait_for_it_in_the_way() {
    let (client, mut handle) = mock::pair::<Ask, Response<Full<Bytes>>>();
    handle.allow(1);
    let service = FirstTokenLayer::new(HEDGES).layer(rotate(["a", "b"]).layer(client));
    let mut service = mock::Spawn::new(service);
    assert_ready_ok!(service.poll_ready::<Ask>());
    let mut call = task::spawn(service.call(request()));
    assert_pending!(call.poll());
    let (_, first) = handle.next_request().await.unwrap();
    pass(ms(AFTER + 1)).await;
    assert_pending!(call.poll(), "not ready for a second request");
    assert!(task::spawn(handle.next_request()).poll().is_pending());
    handle.allow(1);
    assert!(call.is_woken());
    assert_pending!(call.poll());
    let (second, _respond) = handle.next_request().await.unwrap();
    assert_eq!(second.uri().host(), Some("b.example"));
    first.send_response(Answer::ok().into_response());
    let response = assert_ready_ok!(call.poll());
    assert_eq!(account(&response).late(), Some(Late::HedgeLost));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_while_the_second_is_readied_costs_nothing() {
    let budget = RetryBudget::new(1, 0.0);
    let (client, mut handle) = mock::pair::<Ask, Response<Full<Bytes>>>();
    let layer = FirstTokenLayer::new(MOVES_ON).budget(budget.clone());
    let mut service = mock::Spawn::new(layer.layer(rotate(["a", "b"]).layer(client)));
    for _ in 0..2 {
        handle.allow(1);
        assert_ready_ok!(service.poll_ready::<Ask>());
        let mut call = task::spawn(service.call(request()));
        assert_pending!(call.poll());
        let (_, first) = handle.next_request().await.unwrap();
        pass(ms(AFTER + 1)).await;
        assert_pending!(call.poll());
        first.send_response(Answer::ok().into_response());
        assert_eq!(account(&assert_ready_ok!(call.poll())).to_string(), "a 200");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_request_drops_both_attempts_with_their_permits_and_places() {
    for limit in [MOVES_ON, HEDGES] {
        for at in [0, 1, AFTER - 1, AFTER + 1, AFTER + ACCEPTED + 1, AFTER + 5_000] {
            let client = leaf([("ptu", slow(60_000)), ("std", slow(60_000))]);
            let permits = Arc::new(Semaphore::new(2));
            let gate = Gate::new();
            let tiers =
                SmartFallbackLayer::new(rotate(["ptu"]), rotate(["std"])).gate(gate.clone());
            let mut service = ServiceBuilder::new()
                .layer(FirstTokenLayer::new(limit))
                .layer(tiers)
                .layer(GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(&permits)))
                .service(client.clone());
            {
                let call = pin!(through(&mut service, request()));
                let time = pin!(pass(ms(at)));
                assert!(matches!(select(call, time).await, Either::Right(_)));
                assert!(client.under_way() <= 2);
            }
            drop(service);
            assert_eq!((client.under_way(), gate.waiting()), (0, 0), "after {at} ms");
            assert_eq!(permits.available_permits(), 2, "after {at} ms");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn many_late_requests_take_no_more_than_the_budget() {
    let leaf = leaf([("a", slow(60_000)), ("b", slow(1_000))]);
    let service = FirstTokenLayer::new(MOVES_ON).layer(rotate(["a", "b"]).layer(leaf.clone()));
    let calls = (0..40).map(|_| send(&service, request()));
    let moved = join_all(calls).await;
    let moved = moved.iter().filter(|it| account(it).late() == Some(Late::MovedOn)).count();
    assert_eq!(moved, 10, "the default");
}

#[derive(Clone, Copy, Debug)]
enum Course {
    Answers,
    Refuses,
    Fails,
    Breaks,
}

fn courses() -> impl Strategy<Value = Vec<(Course, u64)>> {
    let course = prop_oneof![
        3 => Just(Course::Answers),
        1 => Just(Course::Refuses),
        1 => Just(Course::Fails),
        1 => Just(Course::Breaks),
    ];
    prop::collection::vec((course, 0u64..30_000), 4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn two_attempts_run_at_most_never_at_one_backend_and_each_is_told_once(
        courses in courses(),
        hedges: bool,
        has_tiers: bool,
        moves_on: bool,
    ) {
        paused(async {
            let names = ["a", "b", "c", "d"];
            let script = courses.clone();
            let leaf = Leaf::new(move |seen| {
                let place = usize::from(seen.host().as_bytes()[0] - b'a');
                let (course, after) = script[place];
                match course {
                    Course::Answers => Answer::ok(),
                    Course::Refuses => Answer::refused(2_000),
                    Course::Fails => Answer::status(500),
                    Course::Breaks => Answer::broken(),
                }
                .after(after)
            });
            let limit = if hedges { HEDGES } else { MOVES_ON };
            let rotate = |names: &[&str]| {
                let pool = BackendPool::new(names.iter().map(|name| backend(name))).unwrap();
                let none = every_error::<Broken>();
                RegionRotateLayer::new(pool).move_on(if moves_on { none.internal_error() } else { none })
            };
            let late = FirstTokenLayer::new(limit);
            let call = if has_tiers {
                let tiers = SmartFallbackLayer::new(rotate(&names[..2]), rotate(&names[2..]));
                tokio::spawn(late.layer(tiers.layer(leaf.clone())).oneshot(request()))
            } else {
                tokio::spawn(late.layer(rotate(&names).layer(leaf.clone())).oneshot(request()))
            };
            let mut most = 0;
            while !call.is_finished() {
                pass(ms(50)).await;
                most = most.max(leaf.under_way());
            }
            prop_assert!(most <= 2, "{most} at once");
            prop_assert_eq!(leaf.under_way(), 0);
            let seen = leaf.seen();
            for (index, one) in seen.iter().enumerate() {
                let place = usize::from(one.host().as_bytes()[0] - b'a');
                let end = one.at + ms(courses[place].1);
                let again = seen[index + 1..].iter().find(|it| it.host() == one.host());
                prop_assert!(again.is_none_or(|it| it.at >= end), "{} twice at once", one.host());
            }
            let Ok(response) = call.await.unwrap() else { return Ok(()) };
            let served = account(&response);
            let told = served.attempts().len();
            prop_assert_eq!(told, leaf.len(), "{} of {:?}", served, leaf.hosts());
            let late: Vec<&str> = served
                .attempts()
                .filter(|attempt| attempt.outcome() == Outcome::Late)
                .map(|attempt| attempt.backend())
                .collect();
            prop_assert!(late.len() <= 1, "{}", served);
            prop_assert!(late.iter().all(|name| Some(*name) != served.backend()), "{}", served);
            Ok(())
        })?;
    }
}
