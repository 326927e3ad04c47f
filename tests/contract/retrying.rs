//! How long `RetryAfterPolicy` waits inside tower's `RetryLayer`, and when it gives up.

use std::time::Duration;

use http::StatusCode;
use tower::{
    Layer, ServiceExt,
    retry::{Retry, RetryLayer},
};
use tower_spillover::{
    Deadline, ReplayLayer, RetryAfterPolicy,
    retry_after::{Backoff, RetryBudget},
};

use crate::{
    clock::{self, ms, pass, timed},
    leaf::{Answer, Broken, Leaf, header, request, text, through},
};

fn retrying(policy: RetryAfterPolicy, leaf: &Leaf) -> Retry<RetryAfterPolicy, Leaf> {
    RetryLayer::new(policy).layer(leaf.clone())
}

/// The status of the answer, and when it came.
async fn ask(policy: RetryAfterPolicy, leaf: &Leaf) -> (StatusCode, u128) {
    let (result, took) = timed(retrying(policy, leaf).oneshot(request())).await;
    (result.unwrap().status(), took.as_millis())
}

fn exact() -> RetryAfterPolicy {
    RetryAfterPolicy::new().jitter(0.0)
}

#[tokio::test(start_paused = true)]
async fn a_hint_is_obeyed_to_the_millisecond() {
    let answers = [Answer::refused(43), Answer::refused(1_000), Answer::refused(7), Answer::ok()];
    let leaf = Leaf::playing(answers);
    assert_eq!(ask(exact(), &leaf).await, (StatusCode::OK, 1_050));
    assert_eq!(leaf.times(), [0, 43, 1_043, 1_050]);
    assert!(leaf.seen().iter().all(|seen| seen.body == r#"{"messages":[]}"#));
}

#[tokio::test(start_paused = true)]
async fn retries_are_counted_and_the_last_refusal_is_the_callers_untouched() {
    for retries in [0, 1, 3] {
        let leaf = Leaf::playing([Answer::refused(100).with("x-ms-region", "West US")]);
        let service = retrying(exact().max_retries(retries), &leaf);
        let response = service.oneshot(request()).await.unwrap();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(header(&response, "retry-after-ms"), Some("100"));
        assert_eq!(header(&response, "x-ms-region"), Some("West US"));
        assert_eq!(text(response).await, "the answer");
        assert_eq!(leaf.len(), retries as usize + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_allowed_is_counted_from_the_arrival_of_each_request() {
    // A service that is kept: tower's `Retry` calls the policy of the service itself.
    let leaf = Leaf::new(|seen| match seen.index % 2 {
        0 => Answer::refused(3_000),
        _ => Answer::ok(),
    });
    let mut service = retrying(exact().max_wait(ms(4_000)), &leaf);
    for _ in 0..3 {
        let (result, took) = timed(through(&mut service, request())).await;
        assert_eq!((result.unwrap().status(), took), (StatusCode::OK, ms(3_000)));
        pass(ms(2_000)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_one_request_is_not_that_of_the_next() {
    let leaf = Leaf::new(|seen| match seen.index {
        0 | 1 => Answer::refused(3_000),
        _ => Answer::ok(),
    });
    let mut service = retrying(exact(), &leaf);
    let mut hurried = request();
    hurried.extensions_mut().insert(Deadline((clock::now() + ms(2_999)).into_std()));
    let (result, took) = timed(through(&mut service, hurried)).await;
    assert_eq!(result.unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(took, Duration::ZERO);
    let (result, took) = timed(through(&mut service, request())).await;
    assert_eq!((result.unwrap().status(), took), (StatusCode::OK, ms(3_000)));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_ends_at_the_deadline_is_made() {
    let leaf = Leaf::playing([Answer::refused(3_000), Answer::ok()]);
    let mut exactly = request();
    exactly.extensions_mut().insert(Deadline((clock::now() + ms(3_000)).into_std()));
    let (result, took) = timed(retrying(exact(), &leaf).oneshot(exactly)).await;
    assert_eq!((result.unwrap().status(), took), (StatusCode::OK, ms(3_000)));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_would_end_after_max_wait_is_not_begun() {
    let leaf = Leaf::playing([Answer::refused(1_000)]);
    let policy = || exact().max_wait(ms(3_000));
    assert_eq!(ask(policy(), &leaf).await, (StatusCode::TOO_MANY_REQUESTS, 3_000));
    assert_eq!(leaf.times(), [0, 1_000, 2_000, 3_000]);
    let leaf = Leaf::playing([Answer::refused(3_001)]);
    assert_eq!(ask(policy(), &leaf).await, (StatusCode::TOO_MANY_REQUESTS, 0));
}

#[tokio::test(start_paused = true)]
async fn the_reference_block_waits_0_4_6_10_18_20_seconds_within_its_jitter() {
    let leaf = Leaf::playing([Answer::status(429)]);
    let (status, took) = ask(RetryAfterPolicy::api_management(), &leaf).await;
    let times = leaf.times();
    assert_eq!((status, times.len()), (StatusCode::TOO_MANY_REQUESTS, 31));
    let waits: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let bounds = [(0, 0), (4_000, 4_000), (5_600, 6_401), (8_800, 11_201), (15_200, 20_000)];
    for (wait, (low, high)) in waits.iter().zip(bounds) {
        assert!((low..=high).contains(wait), "{wait} in {waits:?}");
    }
    assert!(waits[5..].iter().all(|&wait| wait == 20_000), "{waits:?}");
    // 25 waits of 20 s, and 0 + 4 + 6 + 10 + 18 within the jitter of each.
    assert!((533_600..=541_610).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn the_reference_script_waits_exactly_the_hint_for_four_seconds() {
    let leaf = Leaf::playing([Answer::refused(500)]);
    let (status, took) = ask(RetryAfterPolicy::smart_retry(), &leaf).await;
    assert_eq!((status, took, leaf.len()), (StatusCode::TOO_MANY_REQUESTS, 4_000, 9));
    let leaf = Leaf::playing([Answer::refused(0)]);
    let (_, took) = ask(RetryAfterPolicy::smart_retry(), &leaf).await;
    assert!(took <= 4_000 && leaf.len() < 20, "{} attempts in {took} ms", leaf.len());
}

#[tokio::test(start_paused = true)]
async fn refusals_without_a_hint_follow_the_backoff_of_ones_own() {
    let backoff = Backoff::new(ms(100), Duration::ZERO).longest(ms(100));
    let leaf = Leaf::playing([Answer::status(429), Answer::refused(0), Answer::ok()]);
    assert_eq!(ask(exact().backoff(backoff), &leaf).await, (StatusCode::OK, 200));
}

#[tokio::test(start_paused = true)]
async fn an_empty_budget_ends_the_retries_of_all_requests_and_successes_refill_it() {
    let leaf = Leaf::playing([Answer::refused(10)]);
    let policy = exact().budget(RetryBudget::new(3, 1.0));
    assert_eq!(ask(policy.clone(), &leaf).await.1, 30);
    assert_eq!(ask(policy.clone(), &leaf).await.1, 0, "nothing is left");
    let good = Leaf::playing([Answer::ok()]);
    ask(policy.clone(), &good).await;
    assert_eq!(ask(policy, &leaf).await.1, 10, "one success, one retry");
    let leaf = Leaf::playing([Answer::refused(10)]);
    let unlimited = exact().budget(None).max_retries(2_000);
    assert_eq!(ask(unlimited, &leaf).await.1, 20_000);
}

#[tokio::test(start_paused = true)]
async fn a_grpc_server_dictates_the_wait_or_forbids_the_retry() {
    let grpc = |status: &str, pushback: &str| {
        Answer::status(200)
            .with("content-type", "application/grpc")
            .with("grpc-status", status)
            .with("grpc-retry-pushback-ms", pushback)
    };
    let leaf = Leaf::playing([grpc("8", "40"), grpc("14", "60"), Answer::ok()]);
    assert_eq!(ask(exact(), &leaf).await, (StatusCode::OK, 100));
    let leaf = Leaf::playing([grpc("8", "-1")]);
    assert_eq!(ask(exact(), &leaf).await, (StatusCode::OK, 0));
    assert_eq!(leaf.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn failures_and_errors_are_not_retried() {
    for status in [200, 400, 401, 408, 500, 502, 503, 504] {
        let leaf = Leaf::playing([Answer::status(status)]);
        assert_eq!(ask(exact(), &leaf).await.0, status);
        assert_eq!(leaf.len(), 1);
    }
    let leaf = Leaf::playing([Answer::broken()]);
    let error = retrying(exact(), &leaf).oneshot(request()).await.unwrap_err();
    assert_eq!((error, leaf.len()), (Broken("reset by peer"), 1));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_cannot_be_replayed_gets_one_attempt() {
    let leaf = Leaf::playing([Answer::refused(10), Answer::ok()]);
    let service = ReplayLayer::new(3).layer(retrying(exact(), &leaf));
    let response = service.oneshot(request()).await.unwrap();
    assert_eq!((response.status(), leaf.len()), (StatusCode::TOO_MANY_REQUESTS, 1));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_no_success_refills_no_budget() {
    let policy = exact().budget(RetryBudget::new(1, 1.0));
    let refused = || Leaf::playing([Answer::refused(10)]);
    let (before, after) = (refused(), refused());
    ask(policy.clone(), &before).await;
    assert_eq!(before.len(), 2, "the one retry");
    for status in [500, 401] {
        ask(policy.clone(), &Leaf::playing([Answer::status(status)])).await;
    }
    ask(policy.clone(), &after).await;
    assert_eq!(after.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_is_given_up_while_it_waits_goes_back_to_the_budget() {
    let policy = exact().budget(RetryBudget::new(1, 0.0));
    let leaf = Leaf::playing([Answer::refused(1_000), Answer::refused(1_000), Answer::ok()]);
    let waiting = retrying(policy.clone(), &leaf).oneshot(request());
    tokio::select! { _ = waiting => unreachable!(), () = pass(ms(100)) => {} }
    assert_eq!(ask(policy.clone(), &leaf).await, (StatusCode::OK, 1_000));
    let refused = Leaf::playing([Answer::refused(1_000)]);
    ask(policy, &refused).await;
    assert_eq!(refused.len(), 1, "that one was spent");
}
