//! Which backend `RegionRotate` chooses, when it goes on to the next, and what it answers itself.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use http::{HeaderName, Response, StatusCode};
use http_body_util::Full;
use tower::{Layer, ServiceExt};
use tower_spillover::{
    Backend, BackendPool, RegionRotateLayer, ReplayLayer, ResponseBody,
    classify::{Hint, Outcome},
    policy::{CooldownPolicy, ErrorKind, MoveOn},
};

use crate::{
    clock::{ms, pass, timed},
    leaf::{Answer, Broken, Leaf, account, asked, every_error, header, request, text},
};

/// A backend called `name` at `name.example`.
fn backend(name: &str) -> Backend {
    Backend::new(name, format!("https://{name}.example")).unwrap().api_key(format!("key-of-{name}"))
}

fn pool<const N: usize>(names: [&str; N]) -> BackendPool {
    let pool = BackendPool::new(names.map(backend)).unwrap();
    pool.force_start(names[0]).unwrap();
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

type Answered = Result<Response<ResponseBody<Full<Bytes>>>, Broken>;

async fn ask(layer: &RegionRotateLayer, leaf: &Leaf) -> Answered {
    layer.layer(leaf.clone()).oneshot(request()).await
}

#[tokio::test(start_paused = true)]
async fn the_start_is_random_by_weight_and_of_the_first_priority_only() {
    let pool = BackendPool::new([
        backend("one"),
        backend("four").weight(4),
        backend("five").weight(5),
        backend("later").priority(2).weight(100),
    ])
    .unwrap();
    let (layer, leaf) = (RegionRotateLayer::new(pool), regions([]));
    for _ in 0..5_000 {
        ask(&layer, &leaf).await.unwrap();
    }
    let mut counts = HashMap::<String, i32>::new();
    leaf.hosts().into_iter().for_each(|host| *counts.entry(host).or_default() += 1);
    // Seven standard deviations of the widest one.
    for (host, expected) in [("one", 500), ("four", 2_000), ("five", 2_500)] {
        let count = counts[&format!("{host}.example")];
        assert!((count - expected).abs() < 250, "{host}: {count}");
    }
    assert_eq!(counts.len(), 3, "the second priority is not asked");
}

#[tokio::test(start_paused = true)]
async fn a_refused_region_rests_exactly_as_long_as_it_asked_and_the_next_one_answers() {
    let pool = pool(["a", "b"]);
    let leaf = Leaf::new(|seen| match (seen.host(), seen.index) {
        ("a.example", 0) => Answer::refused(500),
        _ => Answer::ok(),
    });
    let layer = RegionRotateLayer::new(pool.clone());
    let (response, took) = timed(ask(&layer, &leaf)).await;
    let response = response.unwrap();
    assert_eq!((response.status().as_u16(), took), (200, Duration::ZERO));
    let served = account(&response);
    assert_eq!(asked(served), [("a", 0), ("b", 0)]);
    assert_eq!((served.backend(), served.rotated(), served.spilled()), (Some("b"), true, false));
    let refused = served.attempts().next().unwrap();
    assert_eq!(refused.outcome(), Outcome::Throttled(Hint::After(ms(500))));
    assert_eq!(pool.cooldowns().collect::<Vec<_>>(), [("a", Some(ms(500))), ("b", None)]);
    pass(ms(499)).await;
    ask(&layer, &leaf).await.unwrap();
    pass(ms(1)).await;
    ask(&layer, &leaf).await.unwrap();
    assert_eq!(leaf.hosts(), ["a", "b", "b", "a"].map(|name| format!("{name}.example")));
}

#[tokio::test(start_paused = true)]
async fn overload_and_any_server_error_that_asks_for_a_wait_are_refusals() {
    for (answer, rest) in [
        (Answer::status(529), 1_000),
        (Answer::status(529).with("retry-after", "2"), 2_000),
        (Answer::status(500).with("retry-after-ms", "43"), 43),
        (Answer::status(501).with("retry-after", "3"), 3_000),
        (Answer::status(504).with("retry-after", "4"), 4_000),
    ] {
        let pool = pool(["a", "b"]);
        let leaf = regions([("a", answer)]);
        let layer = RegionRotateLayer::new(pool.clone()).move_on(MoveOn::none());
        let response = layer.layer(leaf).oneshot(request()).await.unwrap();
        assert_eq!(asked(account(&response)), [("a", 0), ("b", 0)]);
        assert_eq!(pool.cooldowns().collect::<Vec<_>>(), [("a", Some(ms(rest))), ("b", None)]);
        assert_eq!(pool.failures().next(), Some(("a", 0)), "it was no failure");
    }
}

#[tokio::test(start_paused = true)]
async fn every_backend_is_asked_at_most_once_and_the_last_refusal_speaks_for_the_pool() {
    let leaf = Leaf::new(|seen| {
        let ms = match seen.host() {
            "a.example" => 1_001,
            "b.example" => 86_400_000,
            _ => 30_000,
        };
        Answer::refused(ms).with("x-ms-region", seen.host())
    });
    let layer = RegionRotateLayer::new(pool(["a", "b", "c"]));
    let response = ask(&layer, &leaf).await.unwrap();
    assert_eq!(response.status().as_u16(), 429);
    assert_eq!(header(&response, "retry-after-ms"), Some("1001"));
    assert_eq!(header(&response, "retry-after"), Some("2"));
    let last = leaf.hosts().pop().unwrap();
    assert_eq!(header(&response, "x-ms-region"), Some(&*last), "the last one's own headers");
    assert_eq!(account(&response).attempts().len(), 3);
    assert_eq!(text(response).await, "the answer", "and its own body");
    let mut hosts = leaf.hosts();
    hosts.sort();
    hosts.dedup();
    assert_eq!((leaf.len(), hosts.len()), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn a_later_priority_is_asked_only_while_all_before_it_rest() {
    let pool = BackendPool::new([
        backend("later").priority(2),
        backend("a").weight(1_000_000),
        backend("b"),
        backend("last").priority(u32::MAX),
    ])
    .unwrap();
    let leaf = regions([("a", Answer::refused(1_000)), ("b", Answer::refused(2_000))]);
    let layer = RegionRotateLayer::new(pool);
    let response = ask(&layer, &leaf).await.unwrap();
    assert_eq!(account(&response).backend(), Some("later"));
    assert_eq!((leaf.len(), leaf.hosts().pop().as_deref()), (3, Some("later.example")));
    for _ in 0..20 {
        ask(&layer, &leaf).await.unwrap();
    }
    assert!(leaf.hosts()[3..].iter().all(|host| host == "later.example"));
    pass(ms(1_000)).await;
    ask(&layer, &leaf).await.unwrap();
    assert_eq!(leaf.hosts()[23..], ["a.example", "later.example"], "the first group opens again");
}

#[tokio::test(start_paused = true)]
async fn max_attempts_bounds_the_attempts_and_one_at_least_is_made() {
    for (attempts, made) in [(0, 1), (1, 1), (2, 2), (9, 3)] {
        let leaf = regions(["a", "b", "c"].map(|name| (name, Answer::refused(100))));
        let layer = RegionRotateLayer::new(pool(["a", "b", "c"])).max_attempts(attempts);
        let response = ask(&layer, &leaf).await.unwrap();
        assert_eq!((leaf.len(), response.status().as_u16()), (made, 429));
        assert!(account(&response).replayable());
        let soonest = if made < 3 { "1" } else { "100" };
        assert_eq!(header(&response, "retry-after-ms"), Some(soonest), "others are open");
    }
}

#[tokio::test(start_paused = true)]
async fn the_answer_of_a_large_closed_pool_is_short_and_still_json() {
    let names: Vec<_> = (0..200).map(|index| format!("r{index}-{{}}[],:'<>.")).collect();
    let backends =
        names.iter().map(|name| Backend::new(&**name, "https://r.example").unwrap().api_key("key"));
    let layer = RegionRotateLayer::new(BackendPool::new(backends).unwrap());
    let leaf = Leaf::playing([Answer::refused(9_000)]);
    ask(&layer, &leaf).await.unwrap();
    let text = text(ask(&layer, &leaf).await.unwrap()).await;
    assert_eq!(leaf.len(), 200);
    let body: serde_json::Value = serde_json::from_str(&text).unwrap();
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.ends_with(", and 192 more.") && message.len() < 1_000, "{message}");
}

#[tokio::test(start_paused = true)]
async fn rests_are_capped_and_a_refusal_without_a_hint_rests_as_configured() {
    let pool = pool(["a", "b", "c"]);
    let leaf = regions([
        ("a", Answer::status(429).with("retry-after", "86400")),
        ("b", Answer::status(429)),
        ("c", Answer::status(429).with("retry-after-ms", "99999999999999999999999")),
    ]);
    let rests = CooldownPolicy::default().longest(ms(7_000)).unknown(ms(300));
    ask(&RegionRotateLayer::new(pool.clone()).cooldowns(rests), &leaf).await.unwrap();
    let resting = [("a", Some(ms(7_000))), ("b", Some(ms(300))), ("c", Some(ms(7_000)))];
    assert_eq!(pool.cooldowns().collect::<Vec<_>>(), resting);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_does_not_rest_is_not_asked_twice_by_one_request_either() {
    let leaf = Leaf::playing([Answer::status(429)]);
    let layer = RegionRotateLayer::new(pool(["a", "b", "c"]));
    let rests = CooldownPolicy::default().unknown(Duration::ZERO);
    for lap in 1..20 {
        ask(&layer.clone().cooldowns(rests), &leaf).await.unwrap();
        let mut hosts = leaf.hosts().split_off(lap * 3 - 3);
        hosts.sort();
        assert_eq!(hosts, ["a.example", "b.example", "c.example"]);
    }
}

#[tokio::test(start_paused = true)]
async fn failures_move_a_request_as_far_as_they_are_in_the_set() {
    for (failure, set, moves) in [
        (500, MoveOn::new(), true),
        (502, MoveOn::new(), true),
        (503, MoveOn::new(), true),
        (504, MoveOn::new(), false),
        (500, MoveOn::none(), false),
        (504, MoveOn::none(), false),
        (501, MoveOn::new().gateway_timeout(), false),
        (504, MoveOn::new().gateway_timeout(), true),
        (424, MoveOn::new().gateway_timeout(), false),
        (424, MoveOn::none().status(StatusCode::FAILED_DEPENDENCY), true),
    ] {
        let leaf = regions([("a", Answer::status(failure))]);
        let layer = RegionRotateLayer::new(pool(["a", "b"])).move_on(set);
        let response = ask(&layer, &leaf).await.unwrap();
        let (expected, attempts) = if moves { ("b", 2) } else { ("a", 1) };
        assert_eq!((account(&response).backend(), leaf.len()), (Some(expected), attempts));
        let first = account(&response).attempts().next().unwrap().outcome();
        assert_eq!(first == Outcome::Failed, moves, "{failure}");
    }
    for (failure, expected) in [(500, "b"), (502, "b"), (503, "b"), (504, "a")] {
        let leaf = regions([("a", Answer::status(failure))]);
        let response = ask(&RegionRotateLayer::new(pool(["a", "b"])), &leaf).await.unwrap();
        assert_eq!(account(&response).backend(), Some(expected), "{failure} by default");
    }
    for kept in [200, 301, 400, 404, 408, 409] {
        let leaf = regions([("a", Answer::status(kept).with("retry-after", "1"))]);
        let layer =
            RegionRotateLayer::new(pool(["a", "b"])).move_on(MoveOn::new().gateway_timeout());
        assert_eq!(ask(&layer, &leaf).await.unwrap().status().as_u16(), kept);
        assert_eq!(leaf.len(), 1, "{kept}");
    }
}

#[tokio::test(start_paused = true)]
async fn errors_move_a_request_only_when_told_to() {
    let leaf = regions([("a", Answer::broken())]);
    let error = ask(&RegionRotateLayer::new(pool(["a", "b"])), &leaf).await.unwrap_err();
    assert_eq!((error, leaf.len()), (Broken("reset by peer"), 1));
    let layer = RegionRotateLayer::new(pool(["a", "b"])).move_on(
        MoveOn::none()
            .errors(|error: &Broken| match error.0 {
                "reset by peer" => ErrorKind::Reset,
                _ => ErrorKind::Other,
            })
            .reset(),
    );
    let response = layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
    let attempt = account(&response).attempts().next().unwrap().clone();
    assert_eq!((attempt.backend(), attempt.status()), ("a", None));
    let leaf = regions([("a", Answer::broken())]);
    let layer = RegionRotateLayer::new(pool(["a"])).move_on(every_error());
    let error = layer.layer(leaf.clone()).oneshot(request()).await.unwrap_err();
    assert_eq!((error, leaf.len()), (Broken("reset by peer"), 1), "the last error is the caller's");
}

#[tokio::test(start_paused = true)]
async fn the_header_names_the_backend_that_really_served() {
    let leaf = regions([("a", Answer::refused(100))]);
    let name = HeaderName::from_static("backend-service-url");
    let layer = RegionRotateLayer::new(pool(["a", "b"])).name_header(name);
    let response = ask(&layer, &leaf).await.unwrap();
    assert_eq!(header(&response, "backend-service-url"), Some("b"));
}

#[tokio::test(start_paused = true)]
async fn a_forced_start_holds_for_every_clone_while_it_is_open_and_can_be_lifted() {
    let names: Vec<_> = (0..20).map(|index| format!("r{index}")).collect();
    let pool = BackendPool::new(names.iter().map(|name| backend(name))).unwrap();
    let (layer, leaf) = (RegionRotateLayer::new(pool.clone()), regions([]));
    pool.clone().force_start("r7").unwrap();
    for _ in 0..10 {
        ask(&layer, &leaf).await.unwrap();
    }
    assert!(leaf.hosts().iter().all(|host| host == "r7.example"));
    assert!(pool.force_start("r20").unwrap_err().to_string().contains("r19"));
    pool.force_start(None).unwrap();
    for _ in 0..40 {
        ask(&layer, &leaf).await.unwrap();
    }
    assert!(leaf.hosts()[10..].iter().any(|host| host != "r7.example"));
}

#[tokio::test(start_paused = true)]
async fn one_pool_in_two_layers_shares_what_it_learned() {
    let pool = pool(["a", "b"]);
    let leaf = regions([("a", Answer::refused(60_000))]);
    ask(&RegionRotateLayer::new(pool.clone()), &leaf).await.unwrap();
    ask(&RegionRotateLayer::new(pool).max_attempts(1), &leaf).await.unwrap();
    assert_eq!(leaf.hosts(), ["a.example", "b.example", "b.example"]);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_cannot_be_replayed_gets_one_attempt_and_the_account_says_so() {
    let leaf = regions([("a", Answer::refused(100))]);
    let layer = RegionRotateLayer::new(pool(["a", "b"]));
    let service = ReplayLayer::new(1).layer(layer.layer(leaf.clone()));
    let response = service.oneshot(request()).await.unwrap();
    assert_eq!((response.status().as_u16(), leaf.len()), (429, 1));
    assert!(!account(&response).replayable());
    assert_eq!(header(&response, "retry-after-ms"), Some("1"), "the other one is open");
}

#[tokio::test(start_paused = true)]
async fn requests_of_a_thousand_clones_find_the_open_backend() {
    let names: Vec<_> = (0..130).map(|index| format!("r{index}")).collect();
    let pool = BackendPool::new(names.iter().map(|name| backend(name))).unwrap();
    let leaf = Leaf::new(|seen| match seen.host() {
        "r129.example" => Answer::ok(),
        _ => Answer::refused(30_000),
    });
    let service = RegionRotateLayer::new(pool).layer(leaf.clone());
    let asked = (0..1_000).map(|_| service.clone().oneshot(request()));
    let answers = futures::future::join_all(asked).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap().status().is_success()));
    assert!(leaf.len() <= 1_000 + 129, "{}", leaf.len());
}
