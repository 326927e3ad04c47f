//! How the layers treat answers that Azure itself has spilled.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use tower::{Layer, ServiceExt};
use tower_spillover::{
    Backend, BackendPool, Credential, RegionRotateLayer, SmartFallbackLayer,
    classify::{Hint, Reason},
    policy::MoveOn,
};

use crate::{
    clock::{ms, timed},
    leaf::{Answer, CLASSIC, Leaf, Seen, account, asked, header, request},
};

fn backend(name: &str, resource: &str, deployment: &str) -> Backend {
    let backend = Backend::new(name, format!("https://{resource}.example")).unwrap();
    backend.deployment(deployment).api_key("key")
}

fn tiers<const N: usize>(
    standard: [Backend; N],
) -> SmartFallbackLayer<RegionRotateLayer, RegionRotateLayer> {
    let ptu = BackendPool::new([backend("ptu", "east", "gpt-4o-ptu")]).unwrap();
    let standard = BackendPool::new(standard).unwrap();
    let first = standard.names().next().unwrap().to_owned();
    standard.force_start(&*first).unwrap();
    SmartFallbackLayer::new(RegionRotateLayer::new(ptu), RegionRotateLayer::new(standard))
        .max_wait(Duration::ZERO)
}

/// Azure spilled to `gpt-4o` and that refused: the PTU's refusal comes back.
fn refused_twice() -> Answer {
    Answer::refused(43).with("x-ms-spillover-error", "429")
}

fn leaf(ptu: Answer) -> Leaf {
    Leaf::new(
        move |seen| {
            if seen.uri.path().contains("gpt-4o-ptu") { ptu.clone() } else { Answer::ok() }
        },
    )
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_azure_spilled_counts_as_spilled() {
    for (name, value) in [
        ("x-ms-spillover-from-deployment", "gpt-4o-ptu"),
        ("x-ms-is-spilled-over", "true"),
        ("x-ms-spillover-from-gpt-4o-ptu", "1"),
    ] {
        let leaf = leaf(Answer::ok().with(name, value));
        let layer = tiers([backend("standard", "east", "gpt-4o")]);
        let response = layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
        let served = account(&response);
        assert_eq!(asked(served), [("ptu", 0)], "{name}");
        assert!(served.spilled() && served.spilled_by_azure() && !served.rotated(), "{name}");
        assert_eq!(served.to_string(), "ptu 200; spilled by Azure");

        let two = SmartFallbackLayer::deployments("gpt-4o-ptu", "gpt-4o").unwrap();
        let response = two.layer(leaf).oneshot(request()).await.unwrap();
        assert!(account(&response).spilled_by_azure(), "without a pool too");
    }
    let leaf = leaf(Answer::ok());
    let layer = tiers([backend("standard", "east", "gpt-4o")]);
    let response = layer.layer(leaf).oneshot(request()).await.unwrap();
    assert!(!account(&response).spilled());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_says_in_any_spelling_that_it_was_not_spilled_was_not() {
    for value in ["false", "False", "FALSE", "0", " false"] {
        let leaf = leaf(Answer::ok().with("x-ms-is-spilled-over", value));
        let layer = tiers([backend("standard", "east", "gpt-4o")]);
        let response = layer.layer(leaf).oneshot(request()).await.unwrap();
        assert!(!account(&response).spilled(), "{value}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deployment_that_refused_azures_spill_is_not_asked_again() {
    for name in [Some("gpt-4o"), None, Some("gpt-4o-ptu")] {
        let mut refusal = refused_twice();
        if let Some(name) = name {
            refusal = refusal.with("x-ms-deployment-name", name);
        }
        let leaf = leaf(refusal);
        let layer = tiers([backend("near", "east", "gpt-4o"), backend("far", "sweden", "gpt-4o")]);
        let response = layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
        assert_eq!(asked(account(&response)), [("ptu", 0), ("far", 0)], "{name:?}");
    }
}

/// One pool of all three: the PTU, the Standard deployment beside it, and one elsewhere.
fn one_pool() -> BackendPool {
    let near = backend("near", "east", "gpt-4o").priority(2);
    let far = backend("far", "sweden", "gpt-4o").priority(3);
    BackendPool::new([backend("ptu", "east", "gpt-4o-ptu"), near, far]).unwrap()
}

fn too_long() -> Answer {
    Answer::status(400).because(Reason::ContextLength, Hint::None)
}

#[tokio::test(start_paused = true)]
async fn within_one_pool_it_is_passed_over_and_rests_for_its_own_time() {
    let named = |answer: Answer| answer.with("x-ms-deployment-name", "gpt-4o");
    let by_standard = Answer::refused(30_000).with("x-ms-spillover-from-deployment", "gpt-4o-ptu");
    for (answer, near) in [(refused_twice(), 1_000), (by_standard, 30_000)] {
        let pool = one_pool();
        let layer = RegionRotateLayer::new(pool.clone());
        let response = layer.layer(leaf(named(answer))).oneshot(request()).await.unwrap();
        assert_eq!(asked(account(&response)), [("ptu", 0), ("far", 0)]);
        let rests: Vec<_> = pool.cooldowns().map(|(_, rest)| rest).collect();
        assert_eq!(rests[1..], [Some(ms(near)), None]);
    }
    let failed = Answer::status(500).with("x-ms-spillover-error", "429");
    let layer = RegionRotateLayer::new(one_pool()).move_on(MoveOn::new().gateway_timeout());
    let response = layer.layer(leaf(named(failed))).oneshot(request()).await.unwrap();
    assert_eq!(asked(account(&response)), [("ptu", 0), ("far", 0)], "after a failure too");
}

#[tokio::test(start_paused = true)]
async fn in_one_pool_a_second_ptu_is_asked_when_azure_does_not_name_its_deployment() {
    let second = backend("ptu-2", "east", "gpt-4o-ptu-2").priority(2);
    let pool = BackendPool::new([backend("ptu", "east", "gpt-4o-ptu"), second]).unwrap();
    let client = Leaf::new(|seen| match seen.index {
        0 => refused_twice(),
        _ => Answer::ok(),
    });
    let response = RegionRotateLayer::new(pool).layer(client).oneshot(request()).await.unwrap();
    assert_eq!(asked(account(&response)), [("ptu", 0), ("ptu-2", 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_long_or_failed_request_that_azure_spilled_in_vain_is_not_sent_there_again() {
    let answer = || too_long().with("x-ms-spillover-error", "429");
    let client = leaf(answer());
    let layer = SmartFallbackLayer::deployments("gpt-4o-ptu", "gpt-4o").unwrap();
    let response = layer.layer(client.clone()).oneshot(request()).await.unwrap();
    assert_eq!((response.status().as_u16(), client.len()), (400, 1));

    let failed = Answer::status(500).with("x-ms-spillover-error", "429");
    for answer in [answer(), failed] {
        let client = leaf(answer.with("x-ms-deployment-name", "gpt-4o"));
        let layer = tiers([backend("near", "east", "gpt-4o"), backend("far", "sweden", "gpt-4o")]);
        let layer = layer.move_on(MoveOn::new().gateway_timeout());
        let response = layer.layer(client).oneshot(request()).await.unwrap();
        assert_eq!(asked(account(&response)), [("ptu", 0), ("far", 0)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_standard_deployment_that_finds_fault_with_the_request_does_not_rest() {
    let by_standard = |answer: Answer| answer.with("x-ms-spillover-from-deployment", "gpt-4o-ptu");
    for answer in [
        by_standard(Answer::status(400)),
        by_standard(Answer::status(404)),
        by_standard(too_long()),
        too_long().with("x-ms-spillover-error", "400"),
    ] {
        let pool = one_pool();
        let client = Leaf::playing([answer.with("x-ms-deployment-name", "gpt-4o")]);
        RegionRotateLayer::new(pool.clone()).layer(client).oneshot(request()).await.unwrap();
        assert!(pool.cooldowns().all(|(_, rest)| rest.is_none()));
    }
    let client = leaf(by_standard(too_long()).with("x-ms-deployment-name", "gpt-4o"));
    let layer = tiers([backend("near", "east", "gpt-4o"), backend("far", "sweden", "gpt-4o")]);
    let response = layer.layer(client).oneshot(request()).await.unwrap();
    assert_eq!(asked(account(&response)), [("ptu", 0), ("far", 0)], "it was too long for that");
}

#[tokio::test(start_paused = true)]
async fn a_pair_of_tiers_hands_on_what_azure_spilled_in_vain() {
    let pool = |backend| RegionRotateLayer::new(BackendPool::new([backend]).unwrap());
    let inner = SmartFallbackLayer::new(
        pool(backend("ptu", "east", "gpt-4o-ptu")),
        pool(backend("other", "west", "gpt-4o")),
    );
    let layer = SmartFallbackLayer::new(
        inner.max_wait(Duration::ZERO),
        RegionRotateLayer::new(
            BackendPool::new([
                backend("near", "east", "gpt-4o"),
                backend("far", "sweden", "gpt-4o").priority(2),
            ])
            .unwrap(),
        ),
    )
    .max_wait(Duration::ZERO);
    let refusal = refused_twice().with("x-ms-deployment-name", "gpt-4o");
    let client = Leaf::new(move |seen| match seen.host() {
        "west.example" => Answer::refused(5_000),
        _ if seen.uri.path().contains("gpt-4o-ptu") => refusal.clone(),
        _ => Answer::ok(),
    });
    let response = layer.layer(client).oneshot(request()).await.unwrap();
    assert_eq!(asked(account(&response)), [("ptu", 0), ("other", 0), ("far", 0)]);
}

#[tokio::test(start_paused = true)]
async fn resources_behind_one_host_are_told_apart() {
    let at = |name: &str, base: &str| {
        Backend::new(name, format!("https://apim.example/{base}")).unwrap()
    };
    let key = |backend: Backend, deployment: &str| backend.deployment(deployment).api_key("key");
    let ptu = BackendPool::new([key(at("ptu", "east"), "gpt-4o-ptu")]).unwrap();
    let far = BackendPool::new([key(at("far", "sweden"), "gpt-4o")]).unwrap();
    let tiers = SmartFallbackLayer::new(RegionRotateLayer::new(ptu), RegionRotateLayer::new(far));
    let client = leaf(refused_twice().with("x-ms-deployment-name", "gpt-4o"));
    let response = tiers.max_wait(Duration::ZERO).layer(client).oneshot(request()).await.unwrap();
    assert_eq!(asked(account(&response)), [("ptu", 0), ("far", 0)]);

    let own = |backend: Backend| backend.credential(Credential::passthrough());
    let pool = [own(at("east", "east")), own(at("far", "sweden")).priority(2)];
    let client = Leaf::playing([Answer::refused(100), Answer::ok()]);
    let request = Request::post(format!("https://apim.example/east{CLASSIC}"))
        .header("x-ms-spillover-deployment", "gpt-4o-std")
        .body(Full::<Bytes>::default())
        .unwrap();
    let layer = RegionRotateLayer::new(BackendPool::new(pool).unwrap());
    layer.layer(client.clone()).oneshot(request).await.unwrap();
    let kept = |seen: &Seen| seen.header("x-ms-spillover-deployment").is_some();
    assert_eq!(client.seen().iter().map(kept).collect::<Vec<_>>(), [true, false]);
}

#[tokio::test(start_paused = true)]
async fn azure_is_not_made_to_ask_its_exhausted_deployment_over_and_over() {
    let refusal = Answer::refused(10_000)
        .with("x-ms-spillover-from-deployment", "gpt-4o-ptu")
        .with("x-ms-deployment-name", "gpt-4o");
    let client = leaf(refusal.clone());
    let layer = SmartFallbackLayer::deployments("gpt-4o-ptu", "gpt-4o").unwrap();
    layer.layer(client.clone()).oneshot(request()).await.unwrap();
    // A request makes at most eight attempts, and spills.
    assert!(client.len() <= 9, "{} in four seconds", client.len());

    let standard = BackendPool::new([backend("near", "east", "gpt-4o")]).unwrap();
    let ptu = BackendPool::new([backend("ptu", "east", "gpt-4o-ptu")]).unwrap();
    let layer = SmartFallbackLayer::new(
        RegionRotateLayer::new(ptu),
        RegionRotateLayer::new(standard.clone()),
    );
    let client = leaf(refusal);
    let (_, took) = timed(layer.layer(client.clone()).oneshot(request())).await;
    // And as many again while it waits for the tier that reopens first.
    assert!(client.len() <= 17, "{} in four seconds", client.len());
    let rest = standard.cooldowns().next().unwrap().1.unwrap();
    assert!(took + rest <= ms(14_000), "it counts from when it was said: {took:?} and {rest:?}");
}

#[tokio::test(start_paused = true)]
async fn another_deployment_of_the_resource_may_still_be_asked() {
    let leaf = leaf(refused_twice().with("x-ms-deployment-name", "gpt-4o"));
    let layer = tiers([backend("other", "east", "gpt-4o-2"), backend("far", "sweden", "gpt-4o")]);
    let response = layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
    assert_eq!(asked(account(&response)), [("ptu", 0), ("other", 0)]);
}

#[tokio::test(start_paused = true)]
async fn with_no_other_backend_the_refusal_has_the_true_hint() {
    let leaf = leaf(refused_twice().with("x-ms-deployment-name", "gpt-4o"));
    let layer = tiers([backend("near", "east", "gpt-4o")]);
    let response = layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
    assert_eq!((response.status().as_u16(), leaf.len()), (429, 1));
    assert_eq!(header(&response, "retry-after-ms"), Some("43"), "the PTU is the first to reopen");
}

#[tokio::test(start_paused = true)]
async fn the_wait_of_the_standard_deployment_is_not_that_of_the_ptu() {
    let refusal = Answer::refused(30_000)
        .with("x-ms-spillover-from-deployment", "gpt-4o-ptu")
        .with("x-ms-deployment-name", "gpt-4o");
    let leaf = leaf(refusal);
    let ptu = BackendPool::new([backend("ptu", "east", "gpt-4o-ptu")]).unwrap();
    let standard = BackendPool::new([backend("near", "east", "gpt-4o")]).unwrap();
    let layer = SmartFallbackLayer::new(
        RegionRotateLayer::new(ptu.clone()),
        RegionRotateLayer::new(standard.clone()),
    )
    .max_wait(Duration::ZERO);
    layer.layer(leaf).oneshot(request()).await.unwrap();
    assert_eq!(ptu.cooldowns().next().unwrap().1, Some(ms(1_000)));
    assert_eq!(standard.cooldowns().next().unwrap().1, Some(ms(30_000)));
}

/// It names the limit of tokens, and that is Standard's too.
#[tokio::test(start_paused = true)]
async fn a_caller_is_not_told_the_wait_of_the_standard_deployment_for_the_ptu() {
    let refusal = Answer::refused(20_000)
        .with("x-ms-spillover-from-deployment", "gpt-4o-ptu")
        .with("x-ms-deployment-name", "gpt-4o")
        .with("x-ratelimit-type", "Tokens");
    let ptu = BackendPool::new([backend("ptu", "east", "gpt-4o-ptu")]).unwrap();
    let service = RegionRotateLayer::new(ptu).layer(leaf(refusal));
    for _ in 0..2 {
        let response = service.clone().oneshot(request()).await.unwrap();
        assert_eq!(header(&response, "retry-after-ms"), Some("1000"));
        assert_eq!(account(&response).why().and_then(|why| why.tokens()), None);
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_deployments_of_one_resource_the_other_is_not_asked_what_azure_asked() {
    let layer = SmartFallbackLayer::deployments("gpt-4o-ptu", "gpt-4o").unwrap();
    let client = leaf(refused_twice());
    let (response, took) =
        timed(layer.clone().max_wait(Duration::ZERO).layer(client.clone()).oneshot(request()))
            .await;
    let response = response.unwrap();
    assert_eq!((response.status().as_u16(), client.len(), took), (429, 1, Duration::ZERO));
    assert_eq!(header(&response, "retry-after-ms"), Some("43"), "untouched");

    let other = leaf(refused_twice().with("x-ms-deployment-name", "elsewhere"));
    let layer = SmartFallbackLayer::deployments("gpt-4o-ptu", "gpt-4o").unwrap();
    let response = layer.max_wait(Duration::ZERO).layer(other).oneshot(request()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "it was another that refused");
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_azure_tried_to_spill_is_the_callers_where_failures_are() {
    let leaf = leaf(Answer::status(500).with("x-ms-spillover-error", "429"));
    let layer = tiers([backend("far", "sweden", "gpt-4o")]).move_on(MoveOn::none());
    let response = layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
    assert_eq!((response.status().as_u16(), leaf.len()), (500, 1));
    assert!(!account(&response).spilled_by_azure());
}

#[tokio::test(start_paused = true)]
async fn the_deployment_to_spill_to_is_kept_for_the_resource_that_the_caller_has_in_mind() {
    for (credential, uri, host, is_kept) in [
        (Credential::passthrough(), format!("https://east.example{CLASSIC}"), None, true),
        (Credential::passthrough(), CLASSIC.to_owned(), Some("east.example"), true),
        (Credential::passthrough(), CLASSIC.to_owned(), Some("gateway.example"), false),
        (Credential::passthrough(), format!("https://sweden.example{CLASSIC}"), None, false),
        (Credential::api_key("k").unwrap(), format!("https://east.example{CLASSIC}"), None, false),
    ] {
        let mut request = Request::post(&uri)
            .header("x-ms-spillover-deployment", "gpt-4o")
            .body(Full::<Bytes>::default());
        if let (Ok(request), Some(host)) = (&mut request, host) {
            request.headers_mut().insert("host", host.parse().unwrap());
        }
        let leaf = Leaf::playing([Answer::ok()]);
        let backend = Backend::new("east", "https://east.example").unwrap().credential(credential);
        let layer = RegionRotateLayer::new(BackendPool::new([backend]).unwrap());
        layer.layer(leaf.clone()).oneshot(request.unwrap()).await.unwrap();
        let kept = leaf.seen()[0].header("x-ms-spillover-deployment").is_some();
        assert_eq!(kept, is_kept, "{uri} {host:?}");
    }
}
