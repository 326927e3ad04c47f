//! Backends of several providers serve one request, each by its own rules, in every layer.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::Full;
use tower::{Layer, ServiceExt, retry::RetryLayer};
use tower_spillover::{
    Backend, BackendPool, FirstTokenLayer, InspectLayer, MaxWait, RegionRotateLayer,
    RetryAfterPolicy, SmartFallbackLayer, WaitLayer,
    backend::Credential,
    classify::{Classify, Hint, Outcome, Provider, Reason, Refusal, Verdict},
    first_token::Limit,
};

use crate::{
    clock::{ms, timed},
    leaf::{Answer, Leaf, Put, account, asked, header, request},
};

fn backend(name: &str, provider: Provider) -> Backend {
    let backend = Backend::new(name, format!("https://{name}.example/v1")).unwrap();
    backend.provider(provider).deployment(format!("{name}-model")).api_key(format!("key-of-{name}"))
}

fn azure() -> Backend {
    let backend = Backend::new("azure", "https://azure.example").unwrap();
    backend.deployment("gpt-4o").api_key("key-of-azure")
}

fn pool<const N: usize>(backends: [Backend; N]) -> BackendPool {
    let first = backends[0].name().to_owned();
    let pool = BackendPool::new(backends).unwrap();
    pool.force_start(&*first).unwrap();
    pool
}

fn throttled_by_bedrock() -> Answer {
    Answer::status(400).with("x-amzn-errortype", "ThrottlingException")
}

fn chat(path: &str) -> Request<Full<Bytes>> {
    let body = Full::from(r#"{"messages":[]}"#);
    let request = Request::post(path).header("api-key", "caller's").header("x-api-key", "caller's");
    request.header("authorization", "Bearer caller's").body(body).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_request_goes_from_azure_to_others_with_their_paths_models_and_keys_and_no_other() {
    let leaf = Leaf::new(|seen| match seen.host() {
        "http.example" => Answer::ok(),
        _ => Answer::refused(500),
    });
    let pool = BackendPool::new([
        azure(),
        backend("openai", Provider::OpenAi).priority(2),
        backend("anthropic", Provider::Anthropic).priority(3),
        backend("http", Provider::Http).credential(Credential::none()).priority(4),
    ])
    .unwrap();
    let path = "https://here/openai/deployments/caller-s/chat/completions?api-version=2024-10-21";
    let response = RegionRotateLayer::new(pool).layer(leaf.clone()).oneshot(chat(path)).await;
    assert_eq!(account(&response.unwrap()).backend(), Some("http"));
    let seen = leaf.seen();
    let lines: Vec<_> = seen
        .iter()
        .map(|seen| {
            let key = ["api-key", "authorization", "x-api-key"].map(|name| seen.header(name));
            (seen.uri.to_string(), key, std::str::from_utf8(&seen.body).unwrap())
        })
        .collect();
    let expected = [
        (
            "https://azure.example/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21",
            [Some("key-of-azure"), None, None],
            r#"{"messages":[]}"#,
        ),
        (
            "https://openai.example/v1/chat/completions",
            [None, Some("Bearer key-of-openai"), None],
            r#"{"model":"openai-model","messages":[]}"#,
        ),
        (
            "https://anthropic.example/v1/chat/completions",
            [None, None, Some("key-of-anthropic")],
            r#"{"model":"anthropic-model","messages":[]}"#,
        ),
        (
            "https://http.example/v1/chat/completions",
            [None, None, None],
            r#"{"model":"http-model","messages":[]}"#,
        ),
    ];
    assert_eq!(lines, expected.map(|(uri, key, body)| (uri.to_owned(), key, body)));
    assert_eq!(seen[2].header("anthropic-version"), Some("2023-06-01"));
}

#[tokio::test(start_paused = true)]
async fn each_backend_of_a_pool_is_read_by_the_rules_of_its_own_provider() {
    // A refusal by Bedrock's rules is a bad request by OpenAI's, and is returned to the caller.
    for (provider, status, hosts) in
        [(Provider::Bedrock, 200, &["first", "azure"][..]), (Provider::OpenAi, 400, &["first"])]
    {
        let leaf = Leaf::new(|seen| match seen.host() {
            "first.example" => throttled_by_bedrock(),
            _ => Answer::ok(),
        });
        let pool = pool([backend("first", provider), azure()]);
        let layer = RegionRotateLayer::new(pool.clone());
        let response = layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
        assert_eq!(response.status(), status, "{provider}");
        assert_eq!(account(&response).attempts().map(|it| it.backend()).collect::<Vec<_>>(), hosts);
        let rest = pool.cooldowns().next().and_then(|(_, rest)| rest);
        assert_eq!(rest, (status == 200).then_some(ms(1_000)), "{provider}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pool_says_in_a_429_what_its_provider_said_in_its_own_way() {
    let leaf = Leaf::new(|_| {
        Answer::status(429)
            .with("date", "Tue, 26 Mar 2024 20:00:00 GMT")
            .with("anthropic-ratelimit-input-tokens-remaining", "0")
            .with("anthropic-ratelimit-input-tokens-reset", "2024-03-26T20:00:09Z")
    });
    let layer = RegionRotateLayer::new(pool([backend("claude", Provider::Anthropic)]));
    let response = layer.layer(leaf).oneshot(request()).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), header(&response, "retry-after-ms")),
        (429, Some("9000"))
    );
    assert_eq!(header(&response, "retry-after"), Some("9"));
    let attempt = account(&response).attempts().next().unwrap();
    assert_eq!(attempt.outcome(), Outcome::Throttled(Hint::After(ms(9_000))));
}

#[tokio::test(start_paused = true)]
async fn a_tier_of_another_provider_spills_and_is_waited_for_like_azure_s() {
    let ptu = Leaf::playing([throttled_by_bedrock().with("retry-after", "0.3"), Answer::ok()]);
    let primary = RegionRotateLayer::new(pool([backend("bedrock", Provider::Bedrock)]));
    let fallback = RegionRotateLayer::new(pool([azure()]));
    let layer = SmartFallbackLayer::new(primary, fallback).layer(ptu.clone());
    let (response, took) = timed(layer.clone().oneshot(request())).await;
    assert_eq!((response.unwrap().status(), took), (StatusCode::OK, ms(300)));
    let busy = Leaf::new(|seen| match seen.host() {
        "bedrock.example" => throttled_by_bedrock().with("retry-after", "5"),
        _ => Answer::ok(),
    });
    let primary = RegionRotateLayer::new(pool([backend("bedrock", Provider::Bedrock)]));
    let fallback = RegionRotateLayer::new(pool([azure()]));
    let layer = SmartFallbackLayer::new(primary, fallback).layer(busy);
    let (response, took) = timed(layer.oneshot(request())).await;
    let response = response.unwrap();
    assert_eq!((account(&response).spilled(), took), (true, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn without_a_pool_every_layer_has_the_rules_given_to_it() {
    let refusing =
        || Leaf::playing([throttled_by_bedrock().with("retry-after", "0.3"), Answer::ok()]);
    let bedrock = Provider::Bedrock;

    let (leaf, layer) = (refusing(), WaitLayer::new().classify(bedrock));
    let (response, took) = timed(layer.layer(leaf).oneshot(request())).await;
    assert_eq!((response.unwrap().status(), took), (StatusCode::OK, ms(300)), "wait");

    let (leaf, policy) = (refusing(), RetryAfterPolicy::new().jitter(0.0).classify(bedrock));
    let (response, took) = timed(RetryLayer::new(policy).layer(leaf).oneshot(request())).await;
    assert_eq!((response.unwrap().status(), took), (StatusCode::OK, ms(300)), "retry");

    let (leaf, spare) = (refusing(), Leaf::playing([Answer::ok()]));
    let layer = SmartFallbackLayer::new(Put(leaf.clone()), Put(spare)).classify(bedrock);
    let (response, took) = timed(layer.layer(()).oneshot(request())).await;
    assert_eq!((response.unwrap().status(), took), (StatusCode::OK, ms(300)), "tiers");
    assert_eq!(leaf.len(), 2);

    let layer = WaitLayer::new().layer(InspectLayer::new().classify(bedrock).layer(refusing()));
    let (response, took) = timed(layer.oneshot(request())).await;
    assert_eq!((response.unwrap().status(), took), (StatusCode::OK, ms(300)), "inspect");

    let layer = FirstTokenLayer::new(Limit::hedge_after(ms(50))).classify(bedrock);
    let response = layer.layer(refusing()).oneshot(request()).await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS, "first token");

    let untouched = WaitLayer::new().layer(refusing()).oneshot(request()).await.unwrap();
    assert_eq!(untouched.status(), StatusCode::BAD_REQUEST, "Azure has no such refusal");
}

#[tokio::test(start_paused = true)]
async fn a_quota_in_a_head_is_not_waited_for_and_another_backend_serves() {
    let quota = || Answer::status(400).with("x-amzn-errortype", "ServiceQuotaExceededException");
    let leaf = Leaf::new(move |seen| match seen.host() {
        "bedrock.example" => quota(),
        _ => Answer::ok(),
    });
    let both = pool([backend("bedrock", Provider::Bedrock), azure()]);
    let layer = RegionRotateLayer::new(both).layer(leaf.clone());
    let response = layer.oneshot(request()).await.unwrap();
    assert_eq!(asked(account(&response)), [("bedrock", 0), ("azure", 0)]);
    let alone = RegionRotateLayer::new(pool([backend("bedrock", Provider::Bedrock)]));
    let response = WaitLayer::new().layer(alone.layer(leaf)).oneshot(request()).await.unwrap();
    assert_eq!((response.status().as_u16(), account(&response).waited()), (429, Duration::ZERO));
    let refusal = response.extensions().get::<Refusal>().unwrap();
    assert_eq!(refusal.reason(), Reason::Quota);
}

#[tokio::test(start_paused = true)]
async fn rules_of_ones_own_are_asked_for_no_success_and_once_for_a_refusal() {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    struct Own;
    impl Classify for Own {
        fn classify(
            &self,
            status: StatusCode,
            _: &HeaderMap,
            _: &dyn Fn() -> SystemTime,
        ) -> Verdict {
            ASKED.fetch_add(1, Ordering::Relaxed);
            match status.as_u16() {
                420 => Outcome::Throttled(Hint::After(Duration::from_millis(300))).into(),
                _ => Outcome::Answered.into(),
            }
        }
    }
    let leaf = Leaf::playing([Answer::status(420), Answer::ok(), Answer::ok()]);
    let pool = pool([backend("own", Provider::Http).classify(Own)]);
    let tiers = SmartFallbackLayer::alone(RegionRotateLayer::new(pool)).classify(Own);
    let layer = tiers.layer(InspectLayer::new().layer(leaf));
    let (response, took) = timed(layer.clone().oneshot(request())).await;
    assert_eq!((response.unwrap().status(), took), (StatusCode::OK, ms(300)));
    layer.oneshot(request()).await.unwrap();
    assert_eq!(ASKED.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_without_a_time_closes_the_backend_whatever_other_headers_say() {
    // By Azure's rules the reset would be the wait, with the milliseconds header taking precedence.
    let leaf = Leaf::new(|_| {
        Answer::status(429).with("x-ratelimit-reset-tokens", "55").with("retry-after-ms", "9000")
    });
    let pool = pool([backend("plain", Provider::Http)]);
    let layer = RegionRotateLayer::new(pool.clone()).layer(leaf);
    let mut request = request();
    request.extensions_mut().insert(MaxWait(Duration::ZERO));
    let response = layer.oneshot(request).await.unwrap();
    assert_eq!(header(&response, "retry-after-ms"), Some("1000"));
    assert_eq!(pool.cooldowns().next(), Some(("plain", Some(ms(1_000)))));
}

#[test]
fn a_backend_shows_its_provider_and_no_key() {
    let shown = format!("{:?}", backend("openai", Provider::OpenAi));
    assert!(
        shown.contains("OpenAi") && shown.contains("/v1") && !shown.contains("key-of"),
        "{shown}"
    );
    let pool = format!("{:?}", pool([backend("openai", Provider::OpenAi)]));
    assert!(!pool.contains("key-of"), "{pool}");
}
