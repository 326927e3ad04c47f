//! Failures that move a request, their budget, and what a pool remembers of them.

use std::{
    iter,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use http::{Response, StatusCode};
use tower::{Layer, ServiceExt};
use tower_spillover::{
    Backend, BackendPool, RegionRotateLayer,
    policy::{ClassifyError, MoveOn, RetryBudget},
};

use crate::{
    clock::{ms, pass},
    leaf::{Answer, Broken, Leaf, account, asked, every_connect, every_error, request},
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

/// A backend `a` that plays these answers, repeating the last one, and others that serve.
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

/// Makes the pool find `a` failing, with as many requests as that takes.
async fn fail_a(layer: &RegionRotateLayer<impl ClassifyError<Broken> + Clone>, leaf: &Leaf) {
    for _ in 0..5 {
        let response = layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
        assert_eq!(account(&response).backend(), Some("b"));
    }
}

fn deferred_a(pool: &BackendPool) -> Option<Duration> {
    pool.deferred().next().unwrap().1
}

/// So many times this answer.
fn times(count: usize, answer: Answer) -> impl Iterator<Item = Answer> {
    iter::repeat_n(answer, count)
}

fn asked_a(leaf: &Leaf) -> usize {
    leaf.hosts().iter().filter(|host| *host == "a.example").count()
}

#[tokio::test(start_paused = true)]
async fn only_the_kinds_that_are_switched_on_move_a_request() {
    for (code, failures) in [
        (408, MoveOn::none().request_timeout()),
        (409, MoveOn::none().conflict()),
        (500, MoveOn::none().internal_error()),
        (502, MoveOn::none().bad_gateway()),
        (503, MoveOn::none().unavailable()),
        (504, MoveOn::none().gateway_timeout()),
    ] {
        for (failures, expected) in [(MoveOn::none(), code), (failures, 200)] {
            let layer = RegionRotateLayer::new(pool(["a", "b"])).move_on(failures);
            let leaf = leaf([Answer::status(code)]);
            let response = layer.layer(leaf).oneshot(request()).await.unwrap();
            assert_eq!(status(&response), expected, "{code}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_service_can_forbid_a_move_and_ask_for_one() {
    let failures = MoveOn::none().unavailable();
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
    let failures = MoveOn::new().gateway_timeout().budget(budget);
    // A new pool for each request, so that no cooldown interferes.
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
    let failures = MoveOn::new().gateway_timeout().budget(RetryBudget::new(1, 0.0));
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
        let failures = MoveOn::none().unavailable().budget(RetryBudget::new(1, 1.0));
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
        let failures = MoveOn::none().unavailable();
        let layer = RegionRotateLayer::new(pool.clone()).move_on(failures);
        let then = [error.clone(), error.after(5_000)];
        let leaf = leaf(times(5, Answer::status(503)).chain(then).collect::<Vec<_>>());
        fail_a(&layer, &leaf).await;
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
async fn an_answer_forgets_the_failures_before_it() {
    // A refusal counts like an answer: the backend is there.
    for answer in [Answer::ok(), Answer::refused(20)] {
        let pool = pool(["a", "b"]);
        let layer = RegionRotateLayer::new(pool.clone()).move_on(MoveOn::new().gateway_timeout());
        let down = Answer::status(500);
        let leaf = leaf(times(6, down.clone()).chain([answer, down]).collect::<Vec<_>>());
        fail_a(&layer, &leaf).await;
        for seconds in [1, 2] {
            assert_eq!(deferred_a(&pool), Some(ms(seconds * 1_000)));
            pass(ms(seconds * 1_000)).await;
            layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
        }
        assert_eq!((deferred_a(&pool), pool.failures().next().unwrap().1), (None, 0));
        pass(ms(20)).await;
        layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
        assert_eq!(deferred_a(&pool), None, "the first of another five");
    }
}

#[tokio::test(start_paused = true)]
async fn one_request_finds_out_whether_a_backend_is_back_and_the_others_go_elsewhere() {
    let pool = pool(["a", "b"]);
    let layer = RegionRotateLayer::new(pool.clone()).move_on(MoveOn::new().gateway_timeout());
    let back = Answer::ok().after(5_000);
    let leaf = leaf(times(5, Answer::status(500)).chain([back]).collect::<Vec<_>>());
    fail_a(&layer, &leaf).await;
    pass(ms(1_000)).await;
    let probing = tokio::spawn(layer.layer(leaf.clone()).oneshot(request()));
    pass(ms(1)).await;
    for _ in 0..10 {
        let response = layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
        assert_eq!(account(&response).backend(), Some("b"));
    }
    assert_eq!(asked_a(&leaf), 6);
    let response = probing.await.unwrap().unwrap();
    assert_eq!(account(&response).backend(), Some("a"));
    layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
    assert_eq!(asked_a(&leaf), 7, "it is back for all");
}

#[tokio::test(start_paused = true)]
async fn with_nowhere_else_to_go_all_ask_the_backend_that_fails() {
    let pool = pool(["a"]);
    let layer = RegionRotateLayer::new(pool.clone()).move_on(every_connect());
    let leaf =
        leaf(times(5, Answer::broken()).chain([Answer::ok().after(5_000)]).collect::<Vec<_>>());
    for _ in 0..5 {
        assert!(layer.layer(leaf.clone()).oneshot(request()).await.is_err());
    }
    assert_eq!(deferred_a(&pool), Some(ms(1_000)), "it is deferred to nobody");
    for _ in 0..2 {
        let asks = (0..20).map(|_| layer.layer(leaf.clone()).oneshot(request()));
        for answer in futures::future::join_all(asks).await {
            assert_eq!(answer.unwrap().status(), StatusCode::OK);
        }
        assert_eq!(deferred_a(&pool), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_gives_up_leaves_it_to_the_next_to_find_out() {
    let pool = pool(["a", "b"]);
    let layer = RegionRotateLayer::new(pool.clone()).move_on(MoveOn::new().gateway_timeout());
    let then = [Answer::ok().after(5_000), Answer::ok()];
    let leaf = leaf(times(5, Answer::status(500)).chain(then).collect::<Vec<_>>());
    fail_a(&layer, &leaf).await;
    pass(ms(1_000)).await;
    let probing = tokio::spawn(layer.layer(leaf.clone()).oneshot(request()));
    pass(ms(1)).await;
    probing.abort();
    assert!(probing.await.is_err());
    let response = layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
    assert_eq!(account(&response).backend(), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_cannot_be_connected_to_is_found_by_three_requests() {
    let pool = pool(["a", "b"]);
    let layer = RegionRotateLayer::new(pool.clone()).move_on(every_connect());
    let leaf = leaf([Answer::broken()]);
    for asked in 1..=10 {
        let response = layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
        assert_eq!(account(&response).backend(), Some("b"));
        assert_eq!(asked_a(&leaf), asked.min(3));
    }
    for seconds in [1, 2, 4] {
        assert_eq!(deferred_a(&pool), Some(ms(seconds * 1_000)));
        pass(ms(seconds * 1_000)).await;
        layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_that_is_the_callers_does_not_keep_the_others_away() {
    let pool = pool(["a", "b"]);
    let layer = RegionRotateLayer::new(pool.clone()).move_on(MoveOn::new().gateway_timeout());
    let then = [Answer::broken(), Answer::ok()];
    let leaf = leaf(times(5, Answer::status(500)).chain(then).collect::<Vec<_>>());
    fail_a(&layer, &leaf).await;
    pass(ms(1_000)).await;
    let mut kept = Box::pin(layer.layer(leaf.clone()).oneshot(request()));
    assert!(kept.as_mut().await.is_err());
    let response = layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
    assert_eq!(account(&response).backend(), Some("a"), "the finished future is still there");
    drop(kept);
}

#[tokio::test(start_paused = true)]
async fn requests_that_fail_together_are_one_outage_even_while_it_rests_for_a_refusal() {
    let pool = pool(["a", "b"]);
    let layer = RegionRotateLayer::new(pool.clone()).move_on(MoveOn::new().gateway_timeout());
    let leaf = leaf([Answer::refused(30_000).after(5), Answer::status(503).after(10)]);
    let asks = (0..11).map(|_| layer.layer(leaf.clone()).oneshot(request()));
    futures::future::join_all(asks).await;
    assert_eq!(pool.failures().next().unwrap(), ("a", 1));
}

#[tokio::test(start_paused = true)]
async fn a_late_failure_of_an_old_request_does_not_void_a_probe() {
    let pool = pool(["a", "b"]);
    let layer = RegionRotateLayer::new(pool.clone()).move_on(MoveOn::new().gateway_timeout());
    // The probe takes from 1.2 s to 3.7 s.
    let probe = Answer::ok().after(2_500);
    let old = [Answer::status(503).after(3_000)];
    let leaf = leaf(
        old.into_iter().chain(times(5, Answer::status(503))).chain([probe]).collect::<Vec<_>>(),
    );
    let send = |at: u64| {
        let service = layer.layer(leaf.clone());
        async move {
            pass(ms(at)).await;
            service.oneshot(request()).await.unwrap()
        }
    };
    let down = async {
        pass(ms(100)).await;
        fail_a(&layer, &leaf).await;
    };
    futures::future::join3(send(0), down, send(1_200)).await;
    assert_eq!(pool.failures().next().unwrap(), ("a", 0), "its last answer is a success");
}

#[tokio::test(start_paused = true)]
async fn what_fails_on_every_backend_is_the_requests_own_fault() {
    let pool = pool(["a", "b"]);
    let layer = RegionRotateLayer::new(pool.clone()).move_on(MoveOn::new().gateway_timeout());
    let poison = Leaf::playing([Answer::status(500)]);
    for _ in 0..100 {
        let response = layer.layer(poison.clone()).oneshot(request()).await.unwrap();
        assert_eq!(status(&response), 500);
    }
    assert!(pool.failures().all(|(_, failures)| failures == 0));
    assert_eq!(poison.len(), 200, "nobody is deferred");
}

#[tokio::test(start_paused = true)]
async fn failures_among_many_more_answers_defer_no_backend() {
    for (failure, kinds) in
        [(Answer::status(500), every_error()), (Answer::broken(), every_connect())]
    {
        let pool = pool(["a", "b"]);
        let layer = RegionRotateLayer::new(pool.clone()).move_on(kinds.internal_error());
        let leaf = Leaf::new(move |seen| match seen.host() {
            "a.example" if seen.index % 20 == 0 => failure.clone(),
            _ => Answer::ok(),
        });
        for _ in 0..1_000 {
            layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
            assert_eq!(deferred_a(&pool), None);
            pass(ms(10)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_of_a_later_priority_is_asked_before_one_that_fails() {
    let pool = pool(["a", "b", "c"]);
    let layer = RegionRotateLayer::new(pool.clone()).move_on(MoveOn::new().gateway_timeout());
    let leaf = Leaf::new(|seen| match seen.host() {
        "a.example" => Answer::status(500),
        "b.example" if seen.at.as_millis() > 0 => Answer::refused(60_000),
        _ => Answer::ok(),
    });
    fail_a(&layer, &leaf).await;
    pass(ms(1)).await;
    let response = layer.layer(leaf).oneshot(request()).await.unwrap();
    assert_eq!(asked(account(&response)), [("b", 0), ("c", 0)]);
}
