//! How often a request's body is cloned: once for every attempt after the first, and never
//! needlessly.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame};
use http_body_util::Full;
use tower::{Layer, Service, ServiceExt, retry::RetryLayer};
use tower_spillover::{
    Backend, BackendPool, FirstTokenLayer, RegionRotateLayer, RetryAfterPolicy, SmartFallbackLayer,
    TryCloneBody, first_token::Limit,
};

use crate::leaf::{Answer, CLASSIC, Leaf, Put};

/// A body that counts how often it is cloned.
#[derive(Debug)]
struct Counted(Full<Bytes>, Arc<AtomicUsize>);

impl Body for Counted {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }
}

impl TryCloneBody for Counted {
    fn try_clone(&self) -> Option<Self> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Some(Self(self.0.clone(), Arc::clone(&self.1)))
    }
}

/// How often the body of one request is cloned on its way through `service`.
async fn clones<S: Service<Request<Counted>>>(service: S) -> usize {
    let clones = Arc::new(AtomicUsize::new(0));
    let body = Counted(Full::from("{}"), Arc::clone(&clones));
    _ = service.oneshot(Request::post(CLASSIC).body(body).unwrap()).await;
    clones.load(Ordering::Relaxed)
}

fn rotate<const N: usize>(names: [&str; N]) -> RegionRotateLayer {
    let backends = names
        .map(|name| Backend::new(name, format!("https://{name}.example")).unwrap().api_key("key"));
    RegionRotateLayer::new(BackendPool::new(backends).unwrap())
}

#[tokio::test(start_paused = true)]
async fn the_last_permitted_retry_is_not_cloned() {
    let leaf = Leaf::playing([Answer::refused(10)]);
    for (retries, cloned) in [(0, 0), (1, 1), (2, 2)] {
        let policy = RetryAfterPolicy::new().max_retries(retries);
        assert_eq!(clones(RetryLayer::new(policy).layer(leaf.clone())).await, cloned);
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_backend_of_a_pool_gets_the_request_itself() {
    for (answer, cloned) in [(Answer::refused(10), 2), (Answer::ok(), 1)] {
        let leaf = Leaf::playing([answer]);
        assert_eq!(clones(rotate(["a", "b", "c"]).layer(leaf.clone())).await, cloned);
        assert_eq!(clones(rotate(["a", "b"]).max_attempts(1).layer(leaf.clone())).await, 0);
        assert_eq!(clones(rotate(["a"]).layer(leaf)).await, 0, "there is no other one");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_may_be_late_is_cloned_once_more() {
    let leaf = Leaf::playing([Answer::ok()]);
    let limit = Limit::hedge_after(std::time::Duration::from_secs(8));
    for (limit, cloned) in [(Some(limit), 1), (None, 0)] {
        let service = FirstTokenLayer::new(limit).layer(rotate(["a"]).layer(leaf.clone()));
        assert_eq!(clones(service).await, cloned);
    }
}

#[tokio::test(start_paused = true)]
async fn a_closed_pool_answers_without_a_clone() {
    let leaf = Leaf::playing([Answer::refused(10_000)]);
    let service = rotate(["a", "b"]).layer(leaf.clone());
    clones(service.clone()).await;
    assert_eq!(clones(service).await, 0);
    assert_eq!(leaf.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_spills_at_once_is_cloned_only_if_it_may_wait_for_the_fallback() {
    for (max_wait, cloned) in [(Duration::ZERO, 0), (Duration::from_secs(4), 1)] {
        let ptu = Leaf::playing([Answer::refused(60_000)]);
        let standard = Leaf::playing([Answer::ok()]);
        let layer = SmartFallbackLayer::new(Put(ptu), Put(standard.clone())).max_wait(max_wait);
        let service = layer.layer(());
        assert_eq!(clones(service.clone()).await, 1 + cloned, "the primary may refuse");
        assert_eq!(clones(service).await, cloned);
        assert_eq!(standard.len(), 2);
    }
}
