//! One count of attempts for all layers together.

use std::time::Duration;

use tower::{Layer, ServiceExt, retry::RetryLayer};
use tower_spillover::{
    AttemptBudget, Backend, BackendPool, LimitAttemptsLayer, RegionRotateLayer, RetryAfterPolicy,
    SmartFallbackLayer,
    backend::{TokenError, TokenFuture, TokenSource},
};

use crate::{
    clock::ms,
    leaf::{Answer, Leaf, Put, account, request},
};

fn rotate<const N: usize>(names: [&str; N]) -> RegionRotateLayer {
    let backend =
        |name: &str| Backend::new(name, format!("https://{name}.example")).unwrap().api_key("key");
    RegionRotateLayer::new(BackendPool::new(names.map(backend)).unwrap())
}

fn retry() -> RetryLayer<RetryAfterPolicy> {
    RetryLayer::new(RetryAfterPolicy::new().max_retries(9).jitter(0.0))
}

#[tokio::test(start_paused = true)]
async fn every_layer_alone_counts_its_attempts() {
    let refusing = || Leaf::playing([Answer::refused(1)]);
    let limit = LimitAttemptsLayer::new(3);

    let leaf = refusing();
    limit.layer(retry().layer(leaf.clone())).oneshot(request()).await.unwrap();
    assert_eq!(leaf.len(), 3, "retry");

    let leaf = refusing();
    let rotation = rotate(["a", "b", "c", "d"]).layer(leaf.clone());
    limit.layer(rotation).oneshot(request()).await.unwrap();
    assert_eq!(leaf.len(), 3, "rotate");

    let leaf = refusing();
    let tiers = SmartFallbackLayer::new(Put(leaf.clone()), Put(leaf.clone()));
    let tiers = tiers.max_wait(Duration::from_secs(1)).forgetful();
    limit.layer(tiers.layer(())).oneshot(request()).await.unwrap();
    assert_eq!(leaf.len(), 3, "fallback");
}

#[tokio::test(start_paused = true)]
async fn what_the_client_made_itself_is_taken_off() {
    let leaf = Leaf::playing([Answer::refused(1)]);
    let service =
        LimitAttemptsLayer::new(4).layer(rotate(["a", "b", "c", "d"]).layer(leaf.clone()));
    let mut request = request();
    request.headers_mut().insert("x-stainless-retry-count", "2".parse().unwrap());
    service.oneshot(request).await.unwrap();
    assert_eq!(leaf.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_a_closed_pool_is_no_attempt() {
    let leaf = Leaf::playing([Answer::refused(60_000), Answer::refused(60_000), Answer::ok()]);
    let ptu = rotate(["ptu"]);
    let service = SmartFallbackLayer::new(ptu.clone(), rotate(["a", "b"])).forgetful();
    let service = service.layer(leaf.clone());
    ptu.layer(leaf.clone()).oneshot(request()).await.unwrap();
    let attempts = AttemptBudget::at_most(2);
    let mut request = request();
    request.extensions_mut().insert(attempts.clone());
    let response = service.oneshot(request).await.unwrap();
    assert_eq!((response.status().as_u16(), attempts.left()), (200, 0));
    assert_eq!(leaf.len(), 3);
}

/// A source without an identity.
struct NoIdentity;

impl TokenSource for NoIdentity {
    fn token(&self) -> TokenFuture {
        TokenFuture::fetching(async { Err(TokenError::new("no identity")) })
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_without_a_token_takes_no_attempt_from_the_next_one() {
    let backend = |name: &str| Backend::new(name, format!("https://{name}.example")).unwrap();
    let pool = BackendPool::new([backend("a").bearer(NoIdentity), backend("b").api_key("key")]);
    let pool = pool.unwrap();
    pool.force_start("a").unwrap();
    let leaf = Leaf::playing([Answer::ok()]);
    let tiers = SmartFallbackLayer::new(RegionRotateLayer::new(pool), rotate(["c"]));
    let service = LimitAttemptsLayer::new(1).layer(tiers.layer(leaf.clone()));
    let response = service.oneshot(request()).await.unwrap();
    let served = account(&response);
    assert_eq!((served.backend(), served.waited()), (Some("b"), ms(0)), "none was made yet");
    assert_eq!(leaf.len(), 1);
}
