//! What a refusal applies to: weights, operations, service tiers. It closes nothing else.

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use tower::{Layer, ServiceExt};
use tower_spillover::{
    Backend, BackendPool, RegionRotateLayer, ResponseBody,
    classify::{Hint, Limit, Outcome, Reason, Refusal},
};

use crate::{
    clock::{ms, pass},
    leaf::{Answer, CLASSIC, Leaf, Seen, account, asked, header, text},
};

const DAY_MS: u64 = 86_400_000;

fn backend(name: &str) -> Backend {
    Backend::new(name, format!("https://{name}.example")).unwrap().api_key("key")
}

fn pool<const N: usize>(names: [&str; N]) -> BackendPool {
    let pool = BackendPool::new(names.map(backend)).unwrap();
    pool.force_start(names[0]).unwrap();
    pool
}

fn chat(tokens: u64) -> Request<Full<Bytes>> {
    let body = format!(r#"{{"messages":[],"max_tokens":{tokens}}}"#);
    Request::post(CLASSIC).body(Full::from(body)).unwrap()
}

fn of_tier(tier: &str) -> Request<Full<Bytes>> {
    let body = format!(r#"{{"input":"Hi","max_output_tokens":100,"service_tier":"{tier}"}}"#);
    Request::post("/openai/v1/responses").body(Full::from(body)).unwrap()
}

fn plain(method: Method, path: &str) -> Request<Full<Bytes>> {
    Request::builder().method(method).uri(path).body(Full::default()).unwrap()
}

async fn ask(
    pool: &BackendPool,
    leaf: &Leaf,
    request: Request<Full<Bytes>>,
) -> Response<ResponseBody<Full<Bytes>>> {
    RegionRotateLayer::new(pool.clone()).layer(leaf.clone()).oneshot(request).await.unwrap()
}

/// The `max_tokens` of a request.
fn tokens(seen: &Seen) -> u64 {
    let body: serde_json::Value = serde_json::from_slice(&seen.body).unwrap();
    body["max_tokens"].as_u64().unwrap()
}

/// A client that refuses with `answer` the requests selected by `refuses`.
fn refusing(refuses: impl Fn(&Seen) -> bool + Send + Sync + 'static, answer: Answer) -> Leaf {
    Leaf::new(move |seen| if refuses(seen) { answer.clone() } else { Answer::ok() })
}

#[tokio::test(start_paused = true)]
async fn a_day_for_a_huge_request_leaves_lighter_ones_alone_and_not_those_about_as_heavy() {
    for names in [&["a"][..], &["a", "b"]] {
        let pool = BackendPool::new(names.iter().map(|name| backend(name))).unwrap();
        let leaf = refusing(|seen| tokens(seen) > 50_000, Answer::refused(DAY_MS));
        assert_eq!(ask(&pool, &leaf, chat(100_000)).await.status(), 429);
        assert_eq!(leaf.len(), names.len());
        for light in [1, 1_000, 50_000] {
            assert_eq!(ask(&pool, &leaf, chat(light)).await.status(), 200, "{light}");
        }
        let before = leaf.len();
        for heavy in [65_000, 100_000, 1_000_000] {
            assert_eq!(ask(&pool, &leaf, chat(heavy)).await.status(), 429, "{heavy}");
        }
        assert_eq!(leaf.len(), before, "they are known to be refused");
    }
}

#[tokio::test(start_paused = true)]
async fn the_huge_one_is_told_the_truth() {
    let pool = pool(["a"]);
    let leaf = refusing(|seen| tokens(seen) > 50_000, Answer::refused(DAY_MS));
    let refused = ask(&pool, &leaf, chat(100_000)).await;
    assert_eq!(header(&refused, "retry-after"), Some("86400"));
    assert_eq!(header(&refused, "x-should-retry"), Some("false"));
    pass(ms(20_000)).await;
    let closed = ask(&pool, &leaf, chat(100_000)).await;
    assert_eq!(header(&closed, "retry-after"), Some("86380"));
    let from = account(&closed).why_refused().unwrap().tokens().unwrap();
    assert!((50_001..=67_000).contains(&from), "{from}");
    assert!(
        text(closed).await.contains(&format!("a is closed for 86380000 ms from {from} tokens up"))
    );
    pass(ms(40_000)).await;
    ask(&pool, &leaf, chat(100_000)).await;
    assert_eq!(leaf.len(), 2, "after a minute one of them looks again");
}

#[tokio::test(start_paused = true)]
async fn lighter_and_lighter_requests_meet_as_many_refusals_as_the_spread_has_powers_of_two() {
    let pool = pool(["a"]);
    let leaf = refusing(
        |_| true,
        Answer::status(429).with("x-ratelimit-type", "Tokens").with("retry-after", "60"),
    );
    for tokens in (1..=1_000).rev() {
        ask(&pool, &leaf, chat(tokens * 128)).await;
    }
    // From 128,000 tokens down to 128.
    assert!((7..=12).contains(&leaf.len()), "{}", leaf.len());
}

#[tokio::test(start_paused = true)]
async fn each_weight_keeps_its_own_hint() {
    let pool = pool(["a"]);
    let leaf = Leaf::new(|seen| match tokens(seen) {
        100_000.. => Answer::refused(DAY_MS),
        10_000.. => Answer::refused(2_000).with("x-ratelimit-type", "Tokens"),
        _ => Answer::ok(),
    });
    for heavy in [100_000, 10_000, 10_000] {
        assert_eq!(ask(&pool, &leaf, chat(heavy)).await.status(), 429);
    }
    assert_eq!(leaf.len(), 2);
    let light = ask(&pool, &leaf, chat(20_000)).await;
    assert_eq!(header(&light, "retry-after-ms"), Some("2000"), "not a day");
    let heavy = ask(&pool, &leaf, chat(100_000)).await;
    assert_eq!(header(&heavy, "retry-after"), Some("86400"), "nor is that two seconds");
    pass(ms(2_000)).await;
    ask(&pool, &leaf, chat(20_000)).await;
    assert_eq!(leaf.len(), 3);
    ask(&pool, &leaf, chat(100_000)).await;
    assert_eq!(leaf.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn only_the_limit_of_tokens_tells_weights_apart() {
    let sane = || Answer::refused(5_000);
    let said = |limit| {
        let refusal = Refusal::new(Reason::Rate, Hint::After(ms(5_000))).of_limit(limit);
        sane().leaving(refusal)
    };
    for (name, answer, closes_all) in [
        ("its type", sane().with("x-ratelimit-type", "Tokens"), false),
        ("its words", said(Limit::Tokens), false),
        ("what is left", sane().with("x-ratelimit-remaining-tokens", "0"), false),
        ("a day", Answer::refused(DAY_MS), false),
        ("nothing", sane(), true),
        ("its type", sane().with("x-ratelimit-type", "Requests"), true),
        ("its words", said(Limit::Calls), true),
        ("what is left", sane().with("x-ratelimit-remaining-requests", "0"), true),
        ("a day", Answer::refused(DAY_MS).with("x-ratelimit-type", "Requests"), true),
        (
            "its words",
            Answer::refused(DAY_MS).leaving(
                Refusal::new(Reason::Rate, Hint::After(ms(DAY_MS))).of_limit(Limit::Calls),
            ),
            true,
        ),
        ("capacity", sane().because(Reason::Capacity, Hint::None), true),
        ("a spent quota", Answer::refused(DAY_MS).because(Reason::Quota, Hint::None), true),
        ("a 503", Answer::status(503).with("retry-after", "86400"), true),
    ] {
        let pool = pool(["a"]);
        let leaf = refusing(|seen| tokens(seen) > 1_000, answer);
        ask(&pool, &leaf, chat(100_000)).await;
        let light = ask(&pool, &leaf, chat(10)).await.status() == 200;
        assert_eq!(light, !closes_all, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_too_heavy_for_one_backend_goes_to_another() {
    let pool = BackendPool::new([backend("small"), backend("large").priority(2)]).unwrap();
    let leaf = refusing(
        |seen| seen.host() == "small.example" && tokens(seen) > 5_000,
        Answer::refused(DAY_MS),
    );
    for (weight, attempts) in [
        (10_000, vec!["small", "large"]),
        (10_000, vec!["large"]),
        (4_000, vec!["small"]),
        (20_000, vec!["large"]),
    ] {
        let response = ask(&pool, &leaf, chat(weight)).await;
        let names: Vec<_> = account(&response).attempts().map(|it| it.backend()).collect();
        assert_eq!(names, attempts, "{weight}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_costs_no_tokens_passes_while_all_are_closed() {
    let pool = pool(["a", "b"]);
    let leaf = refusing(|seen| seen.index < 2, Answer::refused(30_000));
    assert_eq!(ask(&pool, &leaf, chat(10)).await.status(), 429);
    assert_eq!(ask(&pool, &leaf, chat(10)).await.status(), 429);
    assert_eq!(leaf.len(), 2);
    for (method, path) in [
        (Method::GET, "/openai/v1/responses/resp_1"),
        (Method::DELETE, "/openai/v1/responses/resp_1"),
        (Method::POST, "/openai/v1/responses/resp_1/cancel"),
        (Method::GET, "/openai/files?api-version=2024-10-21"),
        (Method::GET, "/openai/v1/batches"),
        (Method::GET, "/openai/v1/videos/video_1"),
    ] {
        let response = ask(&pool, &leaf, plain(method, path)).await;
        assert_eq!(response.status(), 200, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_passes_anyway_goes_to_a_backend_that_is_open_where_there_is_one() {
    let pool = pool(["a", "b"]);
    let leaf = refusing(|seen| seen.index == 0, Answer::refused(30_000));
    ask(&pool, &leaf, chat(10)).await;
    for _ in 0..20 {
        let response = ask(&pool, &leaf, plain(Method::GET, "/openai/v1/models")).await;
        assert_eq!(account(&response).backend(), Some("b"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_poll_closes_nothing_and_is_told_its_own_time() {
    let pool = pool(["a", "b"]);
    let leaf = Leaf::new(|seen| match (seen.uri.path(), seen.host()) {
        ("/openai/v1/videos/video_1", "a.example") => Answer::refused(7_000),
        ("/openai/v1/videos/video_1", _) => Answer::refused(DAY_MS),
        _ => Answer::ok(),
    });
    for _ in 0..2 {
        let polled = ask(&pool, &leaf, plain(Method::GET, "/openai/v1/videos/video_1")).await;
        assert_eq!(asked(account(&polled)).len(), 2);
        assert_eq!(header(&polled, "retry-after-ms"), Some("7000"));
        assert!(pool.cooldowns().all(|(_, rest)| rest.is_none()));
    }
    let response = ask(&pool, &leaf, chat(100_000)).await;
    assert_eq!(asked(account(&response)), [("a", 0)]);
}

#[tokio::test(start_paused = true)]
async fn what_the_service_limits_apart_is_refused_apart() {
    const PATHS: [&str; 6] = [
        "/openai/v1/chat/completions",
        "/openai/v1/images/generations",
        "/openai/v1/audio/speech",
        "/openai/v1/audio/transcriptions",
        "/openai/v1/videos",
        "/openai/v1/files",
    ];
    for refused in PATHS {
        let pool = pool(["a"]);
        let leaf = refusing(move |seen| seen.uri.path() == refused, Answer::refused(5_000));
        for _ in 0..2 {
            assert_eq!(ask(&pool, &leaf, plain(Method::POST, refused)).await.status(), 429);
        }
        assert_eq!(leaf.len(), 1);
        for other in PATHS.into_iter().filter(|other| *other != refused) {
            let response = ask(&pool, &leaf, plain(Method::POST, other)).await;
            assert_eq!(response.status(), 200, "{other} after {refused}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn service_tiers_are_refused_apart() {
    for refused in ["flex", "priority", "default"] {
        let pool = pool(["a"]);
        let word = format!("\"{refused}\"");
        let leaf = refusing(
            move |seen| String::from_utf8_lossy(&seen.body).contains(&word),
            Answer::refused(5_000).because(Reason::Capacity, Hint::After(ms(5_000))),
        );
        for _ in 0..2 {
            assert_eq!(ask(&pool, &leaf, of_tier(refused)).await.status(), 429);
        }
        assert_eq!(leaf.len(), 1);
        for other in ["flex", "priority", "auto", "default"] {
            let is_alike = other == refused || (refused, other) == ("default", "auto");
            let response = ask(&pool, &leaf, of_tier(other)).await;
            assert_eq!(response.status() == 429, is_alike, "{other} after {refused}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_without_the_service_tier_is_passed_over_and_not_blamed() {
    let pool = pool(["a", "b"]);
    let leaf = refusing(
        |seen| seen.host() == "a.example",
        Answer::status(400).because(Reason::ServiceTier, Hint::None),
    );
    for _ in 0..2 {
        let response = ask(&pool, &leaf, of_tier("flex")).await;
        assert_eq!(asked(account(&response)), [("a", 0), ("b", 0)]);
        let first = account(&response).attempts().next().unwrap().clone();
        assert_eq!(first.outcome(), Outcome::TierNotOffered);
        assert!(pool.cooldowns().all(|(_, rest)| rest.is_none()));
        assert!(pool.failures().all(|(_, failures)| failures == 0));
    }
    let nowhere = refusing(|_| true, Answer::status(400).because(Reason::ServiceTier, Hint::None));
    let response = ask(&pool, &nowhere, of_tier("flex")).await;
    assert_eq!((response.status().as_u16(), nowhere.len()), (400, 2), "the caller's, as it came");
}

/// The service tier requested by each attempt, in order.
fn tiers_asked(leaf: &Leaf) -> Vec<(String, String)> {
    let tier = |seen: &Seen| {
        let body: serde_json::Value = serde_json::from_slice(&seen.body).unwrap();
        (seen.host().to_owned(), body["service_tier"].as_str().unwrap().to_owned())
    };
    leaf.seen().iter().map(tier).collect()
}

#[tokio::test(start_paused = true)]
async fn a_flex_request_that_is_refused_everywhere_goes_on_as_default_where_that_is_set() {
    let flex = |seen: &Seen| String::from_utf8_lossy(&seen.body).contains("flex");
    let unavailable = || Answer::refused(5_000).because(Reason::Capacity, Hint::After(ms(5_000)));
    let not_offered = || Answer::status(400).because(Reason::ServiceTier, Hint::None);
    for (names, answer) in [
        (&["a"][..], unavailable()),
        (&["a", "b"], unavailable()),
        (&["a"], not_offered()),
        (&["a", "b"], not_offered()),
    ] {
        let make = || BackendPool::new(names.iter().map(|name| backend(name))).unwrap();
        let leaf = refusing(flex, answer.clone());
        let refused = ask(&make(), &leaf, of_tier("flex")).await;
        assert!(refused.status().is_client_error() && leaf.len() == names.len(), "not by itself");

        let layer = RegionRotateLayer::new(make()).flex_as_default(true);
        let leaf = refusing(flex, answer);
        let response = layer.layer(leaf.clone()).oneshot(of_tier("flex")).await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(account(&response).went_on_as_default());
        let mut expected = vec!["flex"; names.len()];
        expected.push("default");
        let asked = tiers_asked(&leaf);
        assert_eq!(asked.iter().map(|(_, tier)| &**tier).collect::<Vec<_>>(), expected);
        let length: usize = leaf.seen().last().unwrap().body.len();
        assert_eq!(length, of_tier("default").into_body().into_inner().unwrap().len());
        let plain = layer.layer(leaf.clone()).oneshot(of_tier("default")).await.unwrap();
        assert!(plain.status() == 200 && !account(&plain).went_on_as_default());
    }
}

#[tokio::test(start_paused = true)]
async fn a_flex_request_that_is_known_to_be_refused_is_sent_as_default_at_once() {
    let flex = |seen: &Seen| String::from_utf8_lossy(&seen.body).contains("flex");
    let leaf = refusing(flex, Answer::refused(5_000));
    let layer = RegionRotateLayer::new(pool(["a"])).flex_as_default(true);
    for attempts in [2, 1] {
        let response = layer.layer(leaf.clone()).oneshot(of_tier("flex")).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), account(&response).attempts().len()),
            (200, attempts)
        );
    }
    for (most, asked) in [(usize::MAX, 4), (3, 3)] {
        let leaf = Leaf::playing([Answer::refused(7_000)]);
        let layer = RegionRotateLayer::new(pool(["b", "c"])).flex_as_default(true);
        let service = layer.max_attempts(most).layer(leaf.clone());
        let response = service.oneshot(of_tier("flex")).await.unwrap();
        assert_eq!((response.status().as_u16(), leaf.len()), (429, asked));
        // When the limit of attempts is reached, one backend is still open.
        let told = if asked == 4 { "7000" } else { "1" };
        assert_eq!(header(&response, "retry-after-ms"), Some(told));
    }
}

mod tiers {
    //! The same in front of a PTU, whose gate knows its bucket.

    use tower_spillover::{
        Gate, ReplayLayer, SmartFallback, SmartFallbackLayer, gate::Mode,
        region_rotate::RegionRotate,
    };

    use super::*;

    type Tiers = SmartFallback<RegionRotate<Leaf>, RegionRotate<Leaf>>;

    fn tiers(leaf: &Leaf, gate: &Gate) -> Tiers {
        let tier = |name| RegionRotateLayer::new(BackendPool::new([backend(name)]).unwrap());
        let layer = SmartFallbackLayer::new(tier("ptu"), tier("standard"));
        layer.gate(gate.clone()).layer(leaf.clone())
    }

    /// A PTU that refuses some requests; Standard serves.
    fn ptu(refuses: impl Fn(&Seen) -> bool + Send + Sync + 'static, answer: Answer) -> Leaf {
        refusing(move |seen| seen.host() == "ptu.example" && refuses(seen), answer)
    }

    async fn send(service: &Tiers, request: Request<Full<Bytes>>) -> Vec<String> {
        let response = service.clone().oneshot(request).await.unwrap();
        let names = account(&response).attempts().map(|attempt| attempt.backend().to_owned());
        names.collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_day_for_a_huge_request_leaves_lighter_ones_on_the_ptu() {
        for mode in [Mode::Adaptive, Mode::Shared, Mode::Plain] {
            let gate = Gate::new().mode(mode);
            let leaf = ptu(|seen| tokens(seen) > 50_000, Answer::refused(DAY_MS));
            let service = tiers(&leaf, &gate);
            assert_eq!(send(&service, chat(100_000)).await, ["ptu", "standard"], "{mode:?}");
            for light in [10, 1_000, 50_000] {
                assert_eq!(send(&service, chat(light)).await, ["ptu"], "{mode:?} {light}");
            }
            assert_eq!(send(&service, chat(100_000)).await, ["standard"], "{mode:?}");
            assert_eq!(gate.level(), None, "the bucket's level is not known by that");
            pass(ms(61_000)).await;
            assert_eq!(send(&service, chat(10)).await, ["ptu"]);
            assert_eq!(send(&service, chat(100_000)).await, ["ptu", "standard"], "a look");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_spills_for_its_weight_says_so() {
        let leaf = ptu(|seen| tokens(seen) > 50_000, Answer::refused(DAY_MS));
        let service = tiers(&leaf, &Gate::new());
        for _ in 0..2 {
            let response = service.clone().oneshot(chat(100_000)).await.unwrap();
            let served = account(&response);
            assert!(served.why_spilled().is_some_and(|why| why.tokens().is_some()), "{served}");
        }
        let response = service.clone().oneshot(chat(100)).await.unwrap();
        assert_eq!(account(&response).why(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_huge_request_that_both_tiers_refuse_is_told_the_truth() {
        let leaf = refusing(|seen| tokens(seen) > 50_000, Answer::refused(DAY_MS));
        let service = tiers(&leaf, &Gate::new());
        for _ in 0..2 {
            let response = service.clone().oneshot(chat(100_000)).await.unwrap();
            assert_eq!(header(&response, "retry-after"), Some("86400"));
            assert_eq!(header(&response, "x-should-retry"), Some("false"));
            assert!(account(&response).why().is_some_and(|why| why.tokens().is_some()));
        }
        assert_eq!(leaf.len(), 2);
        assert_eq!(send(&service, chat(10)).await, ["ptu"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_ptu_that_is_full_is_full_for_all() {
        let leaf = ptu(|seen| seen.index == 0, Answer::refused(30_000));
        let service = tiers(&leaf, &Gate::new());
        assert_eq!(send(&service, chat(100_000)).await, ["ptu", "standard"]);
        assert_eq!(send(&service, chat(10)).await, ["standard"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_costs_no_tokens_passes_the_gate_and_teaches_it_nothing() {
        for mode in [Mode::Adaptive, Mode::Shared] {
            let leaf = ptu(|seen| seen.index == 0, Answer::refused(30_000));
            let service = tiers(&leaf, &Gate::new().mode(mode));
            assert_eq!(send(&service, chat(10)).await, ["ptu", "standard"]);
            for (method, path) in [
                (Method::POST, "/openai/v1/responses/resp_1/cancel"),
                (Method::GET, "/openai/v1/responses/resp_1"),
                (Method::DELETE, "/openai/v1/files/file-1"),
            ] {
                assert_eq!(send(&service, plain(method, path)).await, ["ptu"], "{mode:?} {path}");
            }
            let gate = Gate::new().mode(mode);
            let leaf = ptu(|seen| seen.uri.path().contains("resp_1"), Answer::refused(30_000));
            let service = tiers(&leaf, &gate);
            let poll = plain(Method::GET, "/openai/v1/responses/resp_1");
            assert_eq!(send(&service, poll).await, ["ptu", "standard"], "{mode:?}");
            assert_eq!(send(&service, chat(100_000)).await, ["ptu"], "{mode:?}");
            assert_eq!(gate.level(), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn other_traffic_has_a_memory_of_its_own() {
        for mode in [Mode::Adaptive, Mode::Shared] {
            let leaf = ptu(
                |seen| {
                    seen.uri.path().contains("images")
                        || String::from_utf8_lossy(&seen.body).contains("flex")
                },
                Answer::refused(30_000),
            );
            let gate = Gate::new().mode(mode);
            let service = tiers(&leaf, &gate);
            let image = || plain(Method::POST, "/openai/v1/images/generations");
            for request in [image as fn() -> _, || of_tier("flex")] {
                assert_eq!(send(&service, request()).await, ["ptu", "standard"], "{mode:?}");
                assert_eq!(send(&service, request()).await, ["standard"], "{mode:?}");
                assert_eq!(send(&service, chat(100_000)).await, ["ptu"], "{mode:?}");
            }
            assert_eq!(gate.level(), None);
            pass(ms(30_000)).await;
            assert_eq!(send(&service, image()).await, ["ptu", "standard"], "{mode:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_not_kept_is_of_its_own_traffic_nevertheless() {
        for mode in [Mode::Adaptive, Mode::Shared] {
            let leaf = ptu(|seen| seen.uri.path().contains("audio"), Answer::refused(30_000));
            let gate = Gate::new().mode(mode);
            let service = ReplayLayer::new(4).layer(tiers(&leaf, &gate));
            let ask = |request| {
                let service = service.clone();
                async move { service.oneshot(request).await.unwrap().status() }
            };
            let path = "/openai/v1/audio/transcriptions";
            let audio = Request::post(path).body(Full::from("a long recording")).unwrap();
            assert_eq!(ask(audio).await, 429, "{mode:?}");
            assert_eq!(ask(chat(100)).await, 200, "{mode:?}");
            assert_eq!(leaf.hosts(), ["ptu.example", "ptu.example"], "{mode:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_ptu_without_the_service_tier_spills_at_once_and_is_not_blamed() {
        let leaf = ptu(
            |seen| String::from_utf8_lossy(&seen.body).contains("flex"),
            Answer::status(400).because(Reason::ServiceTier, Hint::None),
        );
        let gate = Gate::new();
        let service = tiers(&leaf, &gate);
        for _ in 0..2 {
            assert_eq!(send(&service, of_tier("flex")).await, ["ptu", "standard"]);
            assert_eq!(send(&service, chat(10)).await, ["ptu"]);
        }
        assert_eq!(gate.level(), None);
    }
}
