//! How `RegionRotate` gets bearer tokens, and what it does while there is none.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures::future::{join_all, pending};
use tower::{Layer, ServiceExt, limit::GlobalConcurrencyLimitLayer};
use tower_spillover::{
    Backend, BackendPool, RegionRotateLayer,
    backend::{AccessToken, TokenError, TokenFuture, TokenSource},
    classify::Outcome,
    policy::MoveOn,
};

use crate::{
    clock::{ms, pass, timed},
    leaf::{Answer, Leaf, account, asked, header, request, text},
};

/// A source that counts its calls and returns scripted tokens.
#[derive(Clone)]
struct Source {
    asked: Arc<AtomicUsize>,
    rejected: Arc<AtomicUsize>,
    give: Arc<dyn Fn(usize) -> TokenFuture + Send + Sync>,
}

impl Source {
    fn new(give: impl Fn(usize) -> TokenFuture + Send + Sync + 'static) -> Self {
        Self { asked: Arc::default(), rejected: Arc::default(), give: Arc::new(give) }
    }

    fn failing() -> Self {
        Self::new(|_| TokenFuture::fetching(async { Err(TokenError::new("no identity")) }))
    }

    fn slow(delay: u64) -> Self {
        Self::new(move |n| {
            TokenFuture::fetching(async move {
                pass(ms(delay)).await;
                token(n)
            })
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl TokenSource for Source {
    fn token(&self) -> TokenFuture {
        (self.give)(self.asked.fetch_add(1, Ordering::Relaxed))
    }

    fn rejected(&self, rejected: &AccessToken) {
        let n = self.rejected.fetch_add(1, Ordering::Relaxed);
        assert_eq!(*rejected, token(n).unwrap(), "it is told which one");
    }
}

fn token(n: usize) -> Result<AccessToken, TokenError> {
    AccessToken::new(&format!("token-{n}"))
}

fn backend(name: &str, source: &Source) -> Backend {
    Backend::new(name, format!("https://{name}.example")).unwrap().bearer(source.clone())
}

fn keyed(name: &str) -> Backend {
    Backend::new(name, format!("https://{name}.example")).unwrap().api_key("key")
}

fn pool<const N: usize>(backends: [Backend; N]) -> BackendPool {
    let first = backends[0].name().to_owned();
    let pool = BackendPool::new(backends).unwrap();
    pool.force_start(&*first).unwrap();
    pool
}

#[tokio::test(start_paused = true)]
async fn a_source_is_asked_for_every_attempt() {
    let ready = Source::new(|n| TokenFuture::ready(token(n).unwrap()));
    let leaf = Leaf::new(|seen| match seen.index {
        0 => Answer::refused(100),
        _ => Answer::ok(),
    });
    let layer = RegionRotateLayer::new(pool([backend("a", &ready), backend("b", &ready)]));
    layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
    let seen = leaf.seen();
    let sent: Vec<_> = seen.iter().map(|seen| seen.header("authorization").unwrap()).collect();
    assert_eq!(sent, ["Bearer token-0", "Bearer token-1"]);
    layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
    assert_eq!(ready.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_replaced_and_the_request_sent_again_to_the_same_backend() {
    for slow in [0, 100] {
        let source = Source::slow(slow);
        let pool = pool([backend("a", &source)]);
        let leaf = Leaf::new(|seen| match seen.header("authorization") {
            Some("Bearer token-0") => Answer::status(401),
            _ => Answer::ok(),
        });
        let service = RegionRotateLayer::new(pool.clone()).layer(leaf.clone());
        let response = service.oneshot(request()).await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        let at = u128::from(slow);
        assert_eq!(asked(account(&response)), [("a", 0), ("a", at)]);
        assert_eq!(
            (leaf.len(), source.asked(), source.rejected.load(Ordering::Relaxed)),
            (2, 2, 1)
        );
        assert!(pool.deferred().all(|(_, left)| left.is_none()), "nothing is wrong with it");
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_rejects_every_token_is_misconfigured() {
    let source = Source::new(|n| TokenFuture::ready(token(n).unwrap()));
    let pool = pool([backend("a", &source), keyed("b")]);
    let leaf = Leaf::new(|seen| match seen.host() {
        "a.example" => Answer::status(401),
        _ => Answer::ok(),
    });
    let service = RegionRotateLayer::new(pool.clone()).layer(leaf);
    let response = service.oneshot(request()).await.unwrap();
    assert_eq!(asked(account(&response)), [("a", 0), ("a", 0), ("b", 0)]);
    assert_eq!(pool.misconfigured().next().unwrap().1.map(|it| it.as_u16()), Some(401));
}

#[tokio::test(start_paused = true)]
async fn no_readiness_is_held_while_a_token_is_fetched() {
    let slow = Source::slow(1_000);
    let leaf = Leaf::playing([Answer::ok()]);
    let permits = Arc::new(tokio::sync::Semaphore::new(1));
    let limit = GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(&permits));
    let service = RegionRotateLayer::new(pool([backend("a", &slow)])).layer(limit.layer(leaf));
    let asking = service.oneshot(request());
    let watching = async {
        for _ in 0..9 {
            pass(ms(100)).await;
            assert_eq!(permits.available_permits(), 1);
        }
    };
    let ((response, took), ()) = futures::join!(timed(asking), watching);
    assert_eq!((response.unwrap().status().as_u16(), took), (200, ms(1_000)));
    assert_eq!(permits.available_permits(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_backend_whose_source_fails_is_deferred_and_the_next_one_answers() {
    let failing = Source::failing();
    let pool = pool([backend("a", &failing), keyed("b")]);
    let leaf = Leaf::playing([Answer::ok()]);
    let service = RegionRotateLayer::new(pool.clone()).layer(leaf.clone());
    let response = service.clone().oneshot(request()).await.unwrap();
    assert_eq!(asked(account(&response)), [("a", 0), ("b", 0)]);
    let failed = account(&response).attempts().next().unwrap().clone();
    assert_eq!((failed.status(), failed.outcome()), (None, Outcome::Failed));
    assert_eq!(pool.deferred().next(), Some(("a", Some(ms(1_000)))));
    service.oneshot(request()).await.unwrap();
    assert_eq!((failing.asked(), leaf.hosts()), (1, vec!["b.example".to_owned(); 2]));
}

#[tokio::test(start_paused = true)]
async fn sources_that_all_fail_are_a_503_every_time() {
    let failing = Source::failing();
    let pool = pool([backend("a", &failing), backend("b", &failing)]);
    let leaf = Leaf::playing([Answer::ok()]);
    let service = RegionRotateLayer::new(pool).layer(leaf.clone());
    let response = service.clone().oneshot(request()).await.unwrap();
    assert_eq!((response.status().as_u16(), leaf.len(), failing.asked()), (503, 0, 2));
    assert_eq!(header(&response, "retry-after-ms"), Some("1000"));
    assert_eq!(header(&response, "retry-after"), Some("1"));
    assert_eq!(account(&response).attempts().len(), 2);
    let body: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(body["error"]["code"], "503");
    let response = service.oneshot(request()).await.unwrap();
    assert_eq!((response.status().as_u16(), failing.asked()), (503, 4), "no backend refused");
}

#[tokio::test(start_paused = true)]
async fn the_refusal_before_a_source_failed_is_not_forgotten() {
    let pool = pool([keyed("a"), backend("b", &Source::failing())]);
    let leaf = Leaf::playing([Answer::refused(400)]);
    let service = RegionRotateLayer::new(pool).layer(leaf);
    let response = service.oneshot(request()).await.unwrap();
    assert_eq!(response.status().as_u16(), 429, "a client may come back for one that refused");
    assert_eq!(header(&response, "retry-after-ms"), Some("400"));
    assert_eq!(asked(account(&response)), [("a", 0), ("b", 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_failure_and_a_failing_source_are_a_503() {
    let pool = pool([keyed("a"), backend("b", &Source::failing())]);
    let leaf = Leaf::playing([Answer::status(500)]);
    let service = RegionRotateLayer::new(pool).move_on(MoveOn::new().gateway_timeout()).layer(leaf);
    let response = service.oneshot(request()).await.unwrap();
    assert_eq!(response.status().as_u16(), 503);
}

#[tokio::test(start_paused = true)]
async fn the_answer_tells_backends_that_were_tried_from_those_beyond_max_attempts() {
    let pool = pool([backend("a", &Source::failing()), keyed("b")]);
    let leaf = Leaf::playing([Answer::ok()]);
    let layer = RegionRotateLayer::new(pool.clone()).max_attempts(1);
    let response = layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
    assert_eq!(header(&response, "retry-after-ms"), Some("1"), "b is open");
    let body: serde_json::Value = serde_json::from_str(&text(response).await).unwrap();
    let message = body["error"]["message"].as_str().unwrap();
    let expected = "No backend is left to try. a was tried, b is beyond max_attempts.";
    assert_eq!(message, expected);
    assert_eq!(leaf.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_never_comes_is_the_requests_own_trouble() {
    let never = Source::new(|_| TokenFuture::fetching(pending()));
    let pool = pool([backend("a", &never), keyed("b")]);
    let leaf = Leaf::playing([Answer::ok()]);
    let service = RegionRotateLayer::new(pool.clone()).layer(leaf.clone());
    let stuck = tokio::spawn(service.clone().oneshot(request()));
    pass(ms(10_000)).await;
    assert!(!stuck.is_finished());
    pool.force_start("b").unwrap();
    assert!(service.oneshot(request()).await.unwrap().status().is_success());
    stuck.abort();
}

/// A source whose first token takes 100 ms and whose others take 500 ms, for a backend that then
/// refuses for long: the first request is refused while the others still wait for their tokens.
fn late() -> Source {
    Source::new(|n| {
        TokenFuture::fetching(async move {
            pass(ms(if n == 0 { 100 } else { 500 })).await;
            token(n)
        })
    })
}

fn closing() -> Leaf {
    Leaf::new(|seen| match seen.host() {
        "a.example" => Answer::refused(30_000),
        _ => Answer::ok(),
    })
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_closed_while_the_token_was_fetched_is_not_asked() {
    let (pool, leaf) = (pool([backend("a", &late()), keyed("b")]), closing());
    let service = RegionRotateLayer::new(pool).layer(leaf.clone());
    let answers = join_all((0..4).map(|_| service.clone().oneshot(request()))).await;
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().status().is_success()));
    let on_a = leaf.hosts().iter().filter(|host| *host == "a.example").count();
    assert_eq!((on_a, leaf.len()), (1, 5), "three went to the open one only");
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_was_given_up_unasked_is_no_attempt() {
    let (pool, leaf) = (pool([backend("a", &late()), keyed("b")]), closing());
    let service = RegionRotateLayer::new(pool).max_attempts(1).layer(leaf);
    let ask = || service.clone().oneshot(request());
    let (first, second) = futures::join!(ask(), ask());
    assert_eq!(first.unwrap().status().as_u16(), 429);
    let second = second.unwrap();
    assert_eq!(asked(account(&second)), [("b", 500)]);
    assert!(second.status().is_success());
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_closed_while_the_token_was_fetched_answers_by_itself() {
    let (pool, leaf) = (pool([backend("a", &late())]), closing());
    let service = RegionRotateLayer::new(pool).layer(leaf.clone());
    let ask = || service.clone().oneshot(request());
    let (_, second) = futures::join!(ask(), ask());
    let second = second.unwrap();
    assert_eq!((second.status().as_u16(), leaf.len()), (429, 1));
    assert_eq!(header(&second, "retry-after-ms"), Some("29600"));
}

#[tokio::test(start_paused = true)]
async fn no_readiness_is_held_for_the_token_of_another_backend_either() {
    let (pool, leaf) =
        (pool([backend("a", &late()), backend("b", &Source::slow(1_000))]), closing());
    let permits = Arc::new(tokio::sync::Semaphore::new(1));
    let limit = GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(&permits));
    let service = RegionRotateLayer::new(pool).layer(limit.layer(leaf));
    let ask = || service.clone().oneshot(request());
    let watch = async {
        pass(ms(700)).await;
        assert_eq!(permits.available_permits(), 1, "both wait for a token of b");
    };
    let (first, second, ()) = futures::join!(ask(), ask(), watch);
    assert!([first, second].iter().all(|answer| answer.as_ref().unwrap().status().is_success()));
}
