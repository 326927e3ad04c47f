//! A backend that failed last is probed by one request at a time, whatever arrives meanwhile.

use std::sync::atomic::{AtomicUsize, Ordering};

use tower::{Layer, ServiceExt, limit::GlobalConcurrencyLimitLayer};
use tower_spillover::{
    Backend, BackendPool, RegionRotateLayer, StickTo, Sticky,
    backend::{AccessToken, TokenFuture, TokenSource},
};

use crate::{
    clock::{ms, pass},
    leaf::{Answer, Leaf, account, every_connect, readied, request},
};

/// A source that takes half a second.
struct Slow;

impl TokenSource for Slow {
    fn token(&self) -> TokenFuture {
        TokenFuture::fetching(async {
            pass(ms(500)).await;
            AccessToken::new("token")
        })
    }
}

fn backend(name: &str) -> Backend {
    Backend::new(name, format!("https://{name}.example")).unwrap().api_key("key")
}

fn pool(backends: impl IntoIterator<Item = Backend>) -> BackendPool {
    BackendPool::new(backends).unwrap()
}

/// Three connections to `a` fail; then it serves after two seconds.
fn down_at_first() -> Leaf {
    let asked = AtomicUsize::new(0);
    Leaf::new(move |seen| match seen.host() {
        "a.example" if asked.fetch_add(1, Ordering::Relaxed) < 3 => Answer::broken(),
        "a.example" => Answer::ok().after(2_000),
        _ => Answer::ok(),
    })
}

/// `a` before `b`.
fn two(a: Backend) -> BackendPool {
    pool([a, backend("b").priority(2)])
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_given_up_at_any_point_is_left_to_the_next_request() {
    for given_up in [1, 499, 501, 700, 1_499, 1_501, 3_000] {
        let pool = two(backend("a").bearer(Slow));
        let layer = RegionRotateLayer::new(pool.clone()).move_on(every_connect());
        let leaf = down_at_first();
        for _ in 0..3 {
            layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
        }
        assert_eq!(pool.failures().next(), Some(("a", 1)));
        let limit = GlobalConcurrencyLimitLayer::new(1);
        let service = layer.layer(limit.layer(leaf.clone()));
        pass(ms(1_000)).await;
        // The only permit is taken while the token is fetched, and for a second more.
        let mut other = limit.layer(leaf.clone());
        let probing = tokio::spawn(service.clone().oneshot(request()));
        pass(ms(1)).await;
        readied(&mut other).await;
        let other = tokio::spawn(async move {
            pass(ms(1_499)).await;
            drop(other);
        });
        pass(ms(given_up - 1)).await;
        probing.abort();
        assert!(probing.await.is_err());
        other.await.unwrap();
        let response = service.oneshot(request()).await.unwrap();
        assert_eq!(account(&response).backend(), Some("a"), "given up after {given_up} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_held_request_asks_its_only_backend_whether_or_not_another_finds_out() {
    let pool = two(backend("a"));
    let layer = RegionRotateLayer::new(pool).move_on(every_connect()).sticky(Sticky::new());
    let leaf = down_at_first();
    let held = || {
        let mut request = request();
        request.extensions_mut().insert(StickTo::from("a"));
        layer.layer(leaf.clone()).oneshot(request)
    };
    for asked in 1..=3 {
        assert!(held().await.is_err(), "it is not moved");
        assert_eq!(leaf.len(), asked);
    }
    pass(ms(500)).await;
    let asking: Vec<_> = (0..5).map(|_| tokio::spawn(held())).collect();
    pass(ms(1)).await;
    let free = layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
    assert_eq!(account(&free).backend(), Some("b"), "one that may go elsewhere does");
    for asking in asking {
        assert_eq!(account(&asking.await.unwrap().unwrap()).backend(), Some("a"));
    }
    let free = layer.layer(leaf.clone()).oneshot(request()).await.unwrap();
    assert_eq!(account(&free).backend(), Some("a"), "they found out that it is back");
}
