//! Lessons 1 to 7: when a refused request returns, and until when.

use std::time::Duration;

use futures::future::join_all;
use http::StatusCode;
use tokio::time::advance;
use tower::{Layer, ServiceExt, retry::RetryLayer};
use tower_spillover::{
    Deadline, Gate, MaxWait, RegionRotateLayer, RetryAfterPolicy, SmartFallbackLayer, gate::Mode,
};

use crate::{
    clock::{self, ms, timed},
    leaf::{Answer, Leaf, account, header, request},
    scene::{ask, pool, rests, tiers},
};

fn exact() -> RetryLayer<RetryAfterPolicy> {
    RetryLayer::new(RetryAfterPolicy::new().jitter(0.0).max_wait(Duration::MAX))
}

// Thundering herd: everyone wakes at the hint.
#[tokio::test(start_paused = true)]
async fn lesson_01_a_crowd_refused_together_does_not_return_together() {
    let leaf =
        Leaf::new(|seen| if seen.index < 64 { Answer::refused(10_000) } else { Answer::ok() });
    let service = RetryLayer::new(RetryAfterPolicy::new()).layer(leaf.clone());
    join_all((0..64).map(|_| service.clone().oneshot(request()))).await;
    let mut times = leaf.times().split_off(64);
    assert!(times.iter().all(|time| (10_000..=11_001).contains(time)), "{times:?}");
    times.dedup();
    assert!(times.len() > 40, "{times:?}");
}

// All in cool-down: an error at once though one is free soon.
#[tokio::test(start_paused = true)]
async fn lesson_02_a_pool_that_is_closed_for_a_moment_is_waited_for() {
    let answers = || {
        let refused = [Answer::refused(300), Answer::refused(400)];
        Leaf::playing([refused.to_vec(), vec![Answer::ok()]].concat())
    };
    let rotate = || RegionRotateLayer::new(pool(["a", "b"]));
    let service = exact().layer(rotate().layer(answers()));
    let (response, took) = timed(service.oneshot(request())).await;
    assert_eq!((response.unwrap().status(), took), (StatusCode::OK, ms(300)));

    let standard = RegionRotateLayer::new(pool(["c"]));
    let layer = SmartFallbackLayer::new(rotate(), standard);
    let (response, took) = timed(layer.layer(answers()).oneshot(request())).await;
    let response = response.unwrap();
    assert!(!account(&response).spilled() && took >= ms(300) && took < ms(310), "{took:?}");
}

// Rounding to seconds, fixed windows.
#[tokio::test(start_paused = true)]
async fn lesson_03_milliseconds_stay_milliseconds() {
    for hint in [1, 43, 51, 999, 1_001] {
        let refused_once = || Leaf::playing([Answer::refused(hint), Answer::ok()]);
        let (_, took) = timed(exact().layer(refused_once()).oneshot(request())).await;
        assert_eq!(took, ms(hint), "a retry");
        for (mode, wait) in [(Mode::Shared, hint), (Mode::Adaptive, hint.min(360))] {
            let tiers = tiers(&refused_once(), &Leaf::playing([Answer::ok()]));
            let service = tiers.gate(Gate::new().mode(mode)).layer(());
            let (_, took) = timed(service.oneshot(request())).await;
            assert_eq!(took, ms(wait), "a tier, which checks long hints: {mode:?}");
        }

        let pool = pool(["a"]);
        let response = ask(&RegionRotateLayer::new(pool.clone()), &refused_once()).await.unwrap();
        assert_eq!(rests(&pool), [Some(hint.into())]);
        assert_eq!(header(&response, "retry-after-ms"), Some(&*hint.to_string()), "to the caller");
    }
}

// A hint without a cap: hours of sleep, or a backend parked for a day.
#[tokio::test(start_paused = true)]
async fn lesson_04_no_hint_parks_a_backend_or_a_request_for_hours() {
    for seconds in ["86400", "15372", "410400", "99999999999999999999999999"] {
        let absurd = || Answer::status(429).with("retry-after", seconds);
        let pool = pool(["a"]);
        ask(&RegionRotateLayer::new(pool.clone()), &Leaf::playing([absurd()])).await.unwrap();
        assert_eq!(rests(&pool), [Some(60_000)], "{seconds}");

        let ptu = Leaf::playing([absurd(), Answer::ok()]);
        let service = tiers(&ptu, &Leaf::playing([Answer::ok()])).layer(());
        let mut request = request();
        request.extensions_mut().insert(MaxWait(Duration::MAX));
        let (response, took) = timed(service.oneshot(request)).await;
        assert!(!account(&response.unwrap()).spilled());
        assert_eq!(took, ms(60_000), "whoever would wait for ever looks again after a minute");
    }
}

// A hint over the cap silently becomes a short backoff.
#[tokio::test(start_paused = true)]
async fn lesson_05_a_hint_longer_than_the_longest_wait_is_returned_at_once() {
    for refusal in [
        Answer::refused(120_001),
        Answer::status(429).with("retry-after", "86400"),
        Answer::status(429).with("retry-after", "9".repeat(40)),
    ] {
        let leaf = Leaf::playing([refusal]);
        let (response, took) = timed(exact().layer(leaf.clone()).oneshot(request())).await;
        assert_eq!((response.unwrap().status().as_u16(), took), (429, Duration::ZERO));
        assert_eq!(leaf.len(), 1);
    }
    let leaf = Leaf::playing([Answer::refused(120_000), Answer::ok()]);
    let (response, took) = timed(exact().layer(leaf).oneshot(request())).await;
    assert_eq!((response.unwrap().status(), took), (StatusCode::OK, ms(120_000)));
}

// The wait overshoots the total deadline, or each hop has a deadline of its own.
#[tokio::test(start_paused = true)]
async fn lesson_06_all_layers_together_keep_to_one_deadline() {
    for (hint, deadline) in [(7, 100), (43, 42), (900, 2_000), (900, 2_700), (3_000, 2_999)] {
        let leaf = Leaf::playing([Answer::refused(hint)]);
        let inner = SmartFallbackLayer::new(
            RegionRotateLayer::new(pool(["ptu-2"])),
            RegionRotateLayer::new(pool(["a", "b"])),
        );
        let tiers = SmartFallbackLayer::new(RegionRotateLayer::new(pool(["ptu-1"])), inner);
        let service = exact().layer(tiers.layer(leaf.clone()));
        let mut request = request();
        let end = clock::now() + ms(deadline);
        request.extensions_mut().insert(Deadline(end.into_std()));
        let (response, took) = timed(service.oneshot(request)).await;
        assert_eq!(response.unwrap().status().as_u16(), 429);
        assert!(took <= ms(deadline), "{hint} within {deadline}: {took:?}");
        let waits = hint <= deadline;
        assert_eq!(!took.is_zero(), waits, "{hint} within {deadline}: it waits where that fits");
    }
}

// It fires early, by less than the timer's granularity.
#[tokio::test(start_paused = true)]
async fn lesson_07_no_attempt_is_a_moment_early() {
    for hint in ["0.4", "1.2", "12.5", "43.001", "351.999"] {
        let wait = Duration::from_secs_f64(hint.parse::<f64>().unwrap() / 1_000.0);
        let refusal = Answer::status(429).with("retry-after-ms", hint);
        let playing = || Leaf::playing([refusal.clone(), Answer::ok()]);
        let standard = Leaf::playing([Answer::ok()]);
        let (retried, shared, adaptive) = (playing(), playing(), playing());
        // Between two ticks of the timer.
        advance(Duration::from_micros(300)).await;
        exact().layer(retried.clone()).oneshot(request()).await.unwrap();
        advance(Duration::from_micros(300)).await;
        let layer = tiers(&shared, &standard).gate(Gate::new().mode(Mode::Shared));
        layer.layer(()).oneshot(request()).await.unwrap();
        advance(Duration::from_micros(300)).await;
        tiers(&adaptive, &standard).layer(()).oneshot(request()).await.unwrap();
        for leaf in [retried, shared, adaptive] {
            let seen = leaf.seen();
            let waited = seen[1].at - seen[0].at;
            assert!(waited >= wait, "{waited:?} is less than {wait:?}");
            assert!(waited <= wait + ms(2), "{waited:?} is much more than {wait:?}");
        }
    }
}
