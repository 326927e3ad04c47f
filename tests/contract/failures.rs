//! Failures that move a request, their budget, and what a pool remembers of them.

use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Response, StatusCode};
use tower::{Layer, ServiceExt};
use tower_spillover::{
    Backend, BackendPool, RegionRotateLayer,
    policy::{MoveOn, RetryBudget},
};

use crate::{
    clock::{ms, pass},
    leaf::{Answer, Leaf, account, every_error, request},
};

fn pool<const N: usize>(names: [&str; N]) -> BackendPool {
    let backend = |(name, priority)| {
        let backend = Backend::new(name, format!("https://{name}.example")).unwrap();
        backend.api_key("key").priority(priority)
    };
    let mut priority = 0;
    BackendPool::new(names.map(|name| {
        priority += 1;
        backend((name, priority))
    }))
    .unwrap()
}

fn status<R>(response: &Response<R>) -> u16 {
    response.status().as_u16()
}

/// A backend `a` that plays these answers, the last one for good, and others that serve.
fn leaf(answers: impl Into<Vec<Answer>>) -> Leaf {
    let (answers, played) = (answers.into(), AtomicUsize::new(0));
    Leaf::new(move |seen| match seen.host() {
        "a.example" => {
            let played = played.fetch_add(1, Ordering::Relaxed);
            answers[played.min(answers.len() - 1)].clone()
        }
        _ => Answer::ok(),
    })
}

fn asked_a(leaf: &Leaf) -> usize {
    leaf.hosts().iter().filter(|host| *host == "a.example").count()
}

#[tokio::test(start_paused = true)]
async fn only_the_kinds_that_are_switched_on_move_a_request() {
    for (code, failures) in [
        (408, MoveOn::new().request_timeout()),
        (409, MoveOn::new().conflict()),
        (500, MoveOn::new().internal_error()),
        (502, MoveOn::new().bad_gateway()),
        (503, MoveOn::new().unavailable()),
        (504, MoveOn::new().gateway_timeout()),
    ] {
        for (failures, expected) in [(MoveOn::new(), code), (failures, 200)] {
            let layer = RegionRotateLayer::new(pool(["a", "b"])).move_on(failures);
            let leaf = leaf([Answer::status(code)]);
            let response = layer.layer(leaf).oneshot(request()).await.unwrap();
            assert_eq!(status(&response), expected, "{code}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_service_can_forbid_a_move_and_ask_for_one() {
    let failures = MoveOn::new().unavailable();
    for (code, word, expected) in
        [(503, "false", 503), (500, "true", 200), (500, "false", 500), (400, "true", 400)]
    {
        let layer = RegionRotateLayer::new(pool(["a", "b"])).move_on(failures.clone());
        let leaf = leaf([Answer::status(code).with("x-should-retry", word)]);
        let response = layer.layer(leaf).oneshot(request()).await.unwrap();
        assert_eq!(status(&response), expected, "{code} {word}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_budget_leaves_failures_to_the_caller_until_successes_refill_it() {
    let budget = RetryBudget::new(1, 0.5);
    let failures = MoveOn::of_servers().budget(budget);
    // A pool for each request, so that no rest is in the way.
    let ask = |answer: Answer| {
        let layer = RegionRotateLayer::new(pool(["a", "b"])).move_on(failures.clone());
        layer.layer(leaf([answer])).oneshot(request())
    };
    assert_eq!(status(&ask(Answer::status(502)).await.unwrap()), 200, "which gives half back");
    assert_eq!(status(&ask(Answer::status(502)).await.unwrap()), 502);
    assert_eq!(status(&ask(Answer::ok()).await.unwrap()), 200);
    assert_eq!(status(&ask(Answer::status(502)).await.unwrap()), 200);
}

#[tokio::test(start_paused = true)]
async fn a_failure_with_nowhere_to_go_takes_nothing_from_the_budget() {
    let failures = MoveOn::of_servers().budget(RetryBudget::new(1, 0.0));
    let ask = |pool: BackendPool| {
        let layer = RegionRotateLayer::new(pool).move_on(failures.clone());
        layer.layer(leaf([Answer::status(502)])).oneshot(request())
    };
    for _ in 0..3 {
        assert_eq!(status(&ask(pool(["a"])).await.unwrap()), 502);
    }
    assert_eq!(status(&ask(pool(["a", "b"])).await.unwrap()), 200);
    assert_eq!(status(&ask(pool(["a", "b"])).await.unwrap()), 502, "that was the last move");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_no_success_refills_no_budget() {
    for answer in [
        Answer::status(500),
        Answer::status(504),
        Answer::status(503).with("x-should-retry", "false"),
        Answer::status(401),
    ] {
        let failures = MoveOn::new().unavailable().budget(RetryBudget::new(1, 1.0));
        let ask = |answer: Answer| {
            let layer = RegionRotateLayer::new(pool(["a", "b"])).move_on(failures.clone());
            layer.layer(Leaf::playing([answer])).oneshot(request())
        };
        assert_eq!(account(&ask(Answer::status(503)).await.unwrap()).attempts().len(), 2);
        ask(answer.clone()).await.unwrap();
        let after = ask(Answer::status(503)).await.unwrap();
        assert_eq!(account(&after).attempts().len(), 1, "the one move is spent: {answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_error_that_moves_no_request_shows_no_backend_that_is_well() {
    for error in [Answer::status(500), Answer::status(503).with("x-should-retry", "false")] {
        let pool = pool(["a", "b"]);
        let failures = MoveOn::new().unavailable();
        let layer = RegionRotateLayer::new(pool.clone()).move_on(failures);
        let leaf = leaf([Answer::status(503), error.clone(), error.after(5_000)]);
        layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
        pass(ms(1_000)).await;
        let probe = layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
        assert_eq!(account(&probe).backend(), Some("a"));
        assert_eq!(pool.failures().next().unwrap().1, 1);
        let probing = tokio::spawn(layer.layer(leaf.clone()).oneshot(request()));
        pass(ms(1)).await;
        let beside = layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
        assert_eq!(account(&beside).backend(), Some("b"), "one request at a time goes on asking");
        probing.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_success_forgets_the_failures_before_it() {
    let pool = pool(["a", "b"]);
    let layer = RegionRotateLayer::new(pool.clone()).move_on(MoveOn::of_servers());
    let down = Answer::status(500);
    let leaf = leaf([down.clone(), down.clone(), Answer::ok(), down]);
    for (rest, seconds) in [(Some(1), 1), (Some(2), 2), (None, 0), (Some(1), 0)] {
        layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
        assert_eq!(pool.cooldowns().next().unwrap().1, rest.map(|rest| ms(rest * 1_000)));
        pass(ms(seconds * 1_000)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_forgets_the_failures_too_for_the_backend_is_there() {
    let pool = pool(["a", "b"]);
    let layer = RegionRotateLayer::new(pool.clone()).move_on(MoveOn::of_servers());
    let leaf = leaf([Answer::status(500), Answer::refused(20), Answer::status(500)]);
    for rest in [1_000, 20, 1_000] {
        layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
        assert_eq!(pool.cooldowns().next().unwrap().1, Some(ms(rest)));
        pass(ms(rest)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_request_finds_out_whether_a_backend_is_back_and_the_others_go_elsewhere() {
    let pool = pool(["a", "b"]);
    let layer = RegionRotateLayer::new(pool.clone()).move_on(MoveOn::of_servers());
    let leaf = leaf([Answer::status(500), Answer::ok().after(5_000)]);
    layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
    pass(ms(1_000)).await;
    let probing = tokio::spawn(layer.layer(leaf.clone()).oneshot(request()));
    pass(ms(1)).await;
    for _ in 0..10 {
        let response = layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
        assert_eq!(account(&response).backend(), Some("b"));
    }
    assert_eq!(asked_a(&leaf), 2);
    let response = probing.await.unwrap().unwrap();
    assert_eq!(account(&response).backend(), Some("a"));
    layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
    assert_eq!(asked_a(&leaf), 3, "it is back for all");
}

#[tokio::test(start_paused = true)]
async fn with_nowhere_else_to_go_the_others_are_answered() {
    let pool = pool(["a"]);
    let layer = RegionRotateLayer::new(pool.clone()).move_on(MoveOn::of_servers());
    let leaf = leaf([Answer::status(500), Answer::ok().after(5_000)]);
    layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
    pass(ms(1_000)).await;
    let probing = tokio::spawn(layer.layer(leaf.clone()).oneshot(request()));
    pass(ms(1)).await;
    let response = layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
    assert_eq!((status(&response), account(&response).backend()), (429, None));
    assert_eq!(crate::leaf::header(&response, "retry-after"), Some("1"));
    assert_eq!(probing.await.unwrap().unwrap().status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_gives_up_leaves_it_to_the_next_to_find_out() {
    let pool = pool(["a", "b"]);
    let layer = RegionRotateLayer::new(pool.clone()).move_on(MoveOn::of_servers());
    let leaf = leaf([Answer::status(500), Answer::ok().after(5_000), Answer::ok()]);
    layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
    pass(ms(1_000)).await;
    let probing = tokio::spawn(layer.layer(leaf.clone()).oneshot(request()));
    pass(ms(1)).await;
    probing.abort();
    assert!(probing.await.is_err());
    let response = layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
    assert_eq!(account(&response).backend(), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn errors_that_move_a_request_are_remembered_like_failures() {
    let pool = pool(["a", "b"]);
    let layer = RegionRotateLayer::new(pool.clone()).move_on(every_error());
    let leaf = leaf([Answer::broken()]);
    for seconds in [1, 2, 4] {
        let response = layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
        assert_eq!(account(&response).backend(), Some("b"));
        assert_eq!(pool.cooldowns().next().unwrap().1, Some(ms(seconds * 1_000)));
        pass(ms(seconds * 1_000)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_that_is_the_callers_does_not_keep_the_others_away() {
    let pool = pool(["a", "b"]);
    let layer = RegionRotateLayer::new(pool.clone()).move_on(MoveOn::of_servers());
    let leaf = leaf([Answer::status(500), Answer::broken(), Answer::ok()]);
    layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
    pass(ms(1_000)).await;
    let mut kept = Box::pin(layer.layer(leaf.clone()).oneshot(request()));
    assert!(kept.as_mut().await.is_err());
    let response = layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
    assert_eq!(account(&response).backend(), Some("a"), "the finished future is still there");
    drop(kept);
}

#[tokio::test(start_paused = true)]
async fn failures_that_come_together_are_one_even_while_it_rests_for_a_refusal() {
    let pool = pool(["a", "b"]);
    let layer = RegionRotateLayer::new(pool.clone()).move_on(MoveOn::of_servers());
    let leaf = leaf([Answer::refused(30_000).after(5), Answer::status(503).after(10)]);
    let asks = (0..11).map(|_| layer.layer(leaf.clone()).oneshot(request()));
    futures::future::join_all(asks).await;
    assert_eq!(pool.failures().next().unwrap(), ("a", 1));
}

#[tokio::test(start_paused = true)]
async fn a_late_failure_of_an_old_request_does_not_void_a_probe() {
    let pool = pool(["a", "b"]);
    let layer = RegionRotateLayer::new(pool.clone()).move_on(MoveOn::of_servers());
    let leaf = leaf([
        Answer::status(503).after(3_000),
        Answer::status(503),
        // The probe, from 1.2 s to 3.7 s.
        Answer::ok().after(2_500),
    ]);
    let send = |at: u64| {
        let service = layer.layer(leaf.clone());
        async move {
            pass(ms(at)).await;
            service.oneshot(request()).await.unwrap()
        }
    };
    futures::future::join3(send(0), send(100), send(1_200)).await;
    assert_eq!(pool.failures().next().unwrap(), ("a", 0), "its last answer is a success");
}
