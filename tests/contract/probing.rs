//! A backend that failed last is asked by one request at a time, whoever comes in between.

use tower::{Layer, ServiceExt, limit::GlobalConcurrencyLimitLayer};
use tower_spillover::{
    Backend, BackendPool, Gate, RegionRotateLayer, SmartFallbackLayer, StickTo, Sticky,
    backend::{AccessToken, TokenFuture, TokenSource},
    gate::Mode,
    policy::MoveOn,
};

use crate::{
    clock::{ms, pass},
    leaf::{Answer, Leaf, account, header, readied, request},
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

/// Fails once, then serves after two seconds.
fn failing_once() -> Leaf {
    Leaf::new(|seen| match seen.index {
        0 => Answer::status(500),
        _ => Answer::ok().after(2_000),
    })
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_given_up_at_any_point_is_left_to_the_next_request() {
    for given_up in [1, 499, 501, 700, 1_499, 1_501, 3_000] {
        let layer =
            RegionRotateLayer::new(pool([backend("a").bearer(Slow)])).move_on(MoveOn::of_servers());
        let leaf = failing_once();
        let limit = GlobalConcurrencyLimitLayer::new(1);
        let service = layer.layer(limit.layer(leaf.clone()));
        service.clone().oneshot(request()).await.unwrap();
        pass(ms(1_000)).await;
        // The only permit is taken while the token comes, and for a second more.
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
async fn a_held_request_is_refused_while_another_finds_out_about_its_only_backend() {
    let pool = pool(["a", "b"].map(backend));
    let layer = RegionRotateLayer::new(pool).move_on(MoveOn::of_servers()).sticky(Sticky::new());
    let leaf = failing_once();
    let held = || {
        let mut request = request();
        request.extensions_mut().insert(StickTo::from("a"));
        layer.layer(leaf.clone()).oneshot(request)
    };
    let failed = held().await.unwrap();
    assert_eq!((failed.status().as_u16(), leaf.len()), (500, 1), "it is not moved");
    let resting = held().await.unwrap();
    assert_eq!(header(&resting, "retry-after-ms"), Some("1000"));
    pass(ms(1_000)).await;
    let probing = tokio::spawn(held());
    pass(ms(1)).await;
    let refused = held().await.unwrap();
    assert_eq!((refused.status().as_u16(), leaf.len()), (429, 2), "one asks, and none moves");
    assert_eq!(header(&refused, "retry-after"), Some("1"));
    assert_eq!(account(&probing.await.unwrap().unwrap()).backend(), Some("a"));
    assert_eq!(account(&held().await.unwrap()).backend(), Some("a"));
    assert!(leaf.hosts().iter().all(|host| host == "a.example"));
}

#[tokio::test(start_paused = true)]
async fn a_gate_in_front_lets_no_second_request_to_a_backend_under_probe() {
    for mode in [Mode::Adaptive, Mode::Shared, Mode::Plain] {
        let leaf = Leaf::new(|seen| match seen.host() {
            "ptu.example" => Answer::status(500).after(3_000),
            _ => Answer::ok(),
        });
        let ptu = RegionRotateLayer::new(pool([backend("ptu")])).move_on(MoveOn::of_servers());
        let tiers = SmartFallbackLayer::new(ptu, RegionRotateLayer::new(pool([backend("std")])))
            .gate(Gate::new().mode(mode));
        let service = tiers.layer(leaf.clone());
        service.clone().oneshot(request()).await.unwrap();
        let asking: Vec<_> = (0..20)
            .map(|n| {
                let call = service.clone().oneshot(request());
                tokio::spawn(async move {
                    pass(ms(100 * n)).await;
                    call.await
                })
            })
            .collect();
        pass(ms(3_900)).await;
        let asked = leaf.hosts().iter().filter(|host| *host == "ptu.example").count();
        assert!(asked <= 2, "{mode:?}: {asked}");
        for call in asking {
            call.await.unwrap().unwrap();
        }
    }
}
