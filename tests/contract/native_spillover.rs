//! What the layers do about answers that Azure itself has spilled.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use tower::{Layer, ServiceExt};
use tower_spillover::{
    Backend, BackendPool, Credential, RegionRotateLayer, SmartFallbackLayer, classify::Outcome,
};

use crate::{
    clock::{ms, timed},
    leaf::{Answer, CLASSIC, Leaf, account, asked, header, request},
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
async fn a_failure_that_azure_tried_to_spill_is_the_callers() {
    let leaf = leaf(Answer::status(500).with("x-ms-spillover-error", "429"));
    let layer = tiers([backend("far", "sweden", "gpt-4o")]);
    let response = layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
    assert_eq!((response.status().as_u16(), leaf.len()), (500, 1));
    assert!(!account(&response).spilled_by_azure());
    let attempt = account(&response).attempts().next().unwrap().outcome();
    assert_eq!(attempt, Outcome::Answered);
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
