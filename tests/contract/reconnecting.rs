//! A backend that cannot be connected to for a moment, and a pool that is allowed to retry.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_spillover::{
    AttemptBudget, Backend, BackendPool, Deadline, MaxWait, RegionRotateLayer, SmartFallbackLayer,
    backend::OnConnect, policy::RetryBudget,
};

use crate::{
    clock::{ms, now, pass, timed},
    leaf::{Answer, Broken, Kind, Leaf, account, asked, every_connect, request},
};

fn layer(names: &[&str]) -> RegionRotateLayer<Kind> {
    let backend = |name: &&str| {
        Backend::new(*name, format!("https://{name}.example")).unwrap().api_key("key")
    };
    let pool = BackendPool::new(names.iter().map(backend)).unwrap();
    RegionRotateLayer::new(pool).move_on(every_connect())
}

/// No backend can be connected to from `from` to `until`, in milliseconds.
fn restarting(from: u128, until: u128) -> Leaf {
    Leaf::new(move |seen| match seen.at.as_millis() {
        at if (from..until).contains(&at) => Answer::broken(),
        _ => Answer::ok(),
    })
}

#[tokio::test(start_paused = true)]
async fn a_pool_tries_again_to_connect_after_pauses_that_double() {
    for names in [&["a"][..], &["a", "b"]] {
        let layer = layer(names).connect_patience(ms(1_000));
        let service = layer.layer(restarting(0, 300));
        let (response, took) = timed(service.oneshot(request())).await;
        let response = response.unwrap();
        assert_eq!((response.status(), took), (StatusCode::OK, ms(300)));
        assert_eq!(account(&response).waited(), ms(300));
        let mut at: Vec<_> = account(&response).attempts().map(|it| it.at().as_millis()).collect();
        at.dedup();
        assert_eq!(at, [0, 20, 60, 140, 300]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_a_third_of_a_second_costs_no_request() {
    for names in [&["a"][..], &["a", "b", "c"]] {
        let layer = layer(names).connect_patience(ms(1_000));
        let service = layer.layer(restarting(1_000, 1_300));
        let asks = (0..30).map(|number| {
            let service = service.clone();
            async move {
                pass(ms(number * 100)).await;
                timed(service.oneshot(request())).await
            }
        });
        for (response, took) in futures::future::join_all(asks).await {
            assert!(response.unwrap().status().is_success() && took <= ms(620), "{took:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn by_default_and_where_another_tier_comes_after_it_nobody_pauses() {
    let (error, took) = timed(layer(&["a"]).layer(restarting(0, 300)).oneshot(request())).await;
    assert!(error.is_err() && took.is_zero());
    let leaf = Leaf::new(|seen| match seen.host() {
        "ptu.example" => Answer::broken(),
        _ => Answer::ok(),
    });
    let standard = layer(&["standard"]).connect_patience(ms(1_000));
    let tiers = SmartFallbackLayer::new(layer(&["ptu"]), standard).move_on(every_connect());
    let (response, took) = timed(tiers.layer(leaf).oneshot(request())).await;
    assert_eq!(account(&response.unwrap()).backend(), Some("standard"));
    assert!(took.is_zero());
}

#[tokio::test(start_paused = true)]
async fn patience_ends_with_the_layer_s_and_the_requests() {
    let ended = async |change: fn(&mut http::Extensions)| {
        let leaf = restarting(0, 10_000);
        let service = layer(&["a"]).connect_patience(ms(400)).layer(leaf.clone());
        let mut request = request();
        change(request.extensions_mut());
        let (error, took) = timed(service.oneshot(request)).await;
        assert!(error.is_err(), "the caller gets the error");
        (took, leaf.len())
    };
    let none: fn(&mut http::Extensions) = |_| {};
    assert_eq!(ended(none).await, (ms(300), 5));
    assert_eq!(ended(|it| _ = it.insert(MaxWait(ms(100)))).await, (ms(60), 3));
    assert_eq!(ended(|it| _ = it.insert(MaxWait(Duration::ZERO))).await, (ms(0), 1));
    assert_eq!(ended(|it| _ = it.insert(MaxWait(ms(60_000)))).await, (ms(300), 5));
    assert_eq!(ended(|it| _ = it.insert(Deadline((now() + ms(30)).into()))).await, (ms(20), 2));
    assert_eq!(ended(|it| _ = it.insert(AttemptBudget::at_most(2))).await, (ms(20), 2));
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_lasts_and_an_empty_budget_are_not_waited_for() {
    let service = layer(&["a"]).connect_patience(ms(1_000)).layer(restarting(0, 60_000));
    assert!(timed(service.clone().oneshot(request())).await.1 > ms(500));
    pass(ms(1_000)).await;
    for _ in 0..2 {
        _ = service.clone().oneshot(request()).await;
        pass(ms(1_000)).await;
    }
    let (error, took) = timed(service.oneshot(request())).await;
    assert!(error.is_err() && took.is_zero(), "{took:?}");

    let poor = every_connect().budget(RetryBudget::new(2, 0.0));
    let leaf = restarting(0, 60_000);
    let service = layer(&["a"]).connect_patience(ms(1_000)).move_on(poor).layer(leaf.clone());
    assert!(service.oneshot(request()).await.is_err());
    assert_eq!(leaf.len(), 3, "two moves");
}

#[tokio::test(start_paused = true)]
async fn beside_a_backend_that_refuses_one_that_restarts_is_tried_again() {
    let leaf = Leaf::new(|seen| match (seen.host(), seen.at.as_millis()) {
        ("a.example", _) => Answer::refused(30_000),
        ("b.example", 0..100) => Answer::broken(),
        _ => Answer::ok(),
    });
    let service = layer(&["a", "b"]).connect_patience(ms(1_000)).layer(leaf);
    let response = service.oneshot(request()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(asked(account(&response)).last(), Some(&("b", 140)));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_pauses_holds_nothing_and_may_be_given_up() {
    let leaf = restarting(0, 60_000);
    let service = layer(&["a"]).connect_patience(ms(1_000)).layer(leaf.clone());
    let asking = tokio::spawn(service.oneshot(request()));
    pass(ms(30)).await;
    assert_eq!(leaf.under_way(), 0);
    asking.abort();
    assert!(asking.await.is_err());
    pass(ms(1_000)).await;
    assert_eq!(leaf.len(), 2);
}

type Ask = Request<Full<Bytes>>;

/// Nothing can be connected to in the first 900 ms; then connections stand immediately, and an answer
/// takes eight seconds, except that of `std`.
fn slow()
-> impl Service<Ask, Response = Response<Full<Bytes>>, Error = Broken, Future: Send> + Clone {
    let start = now();
    service_fn(move |mut request: Ask| async move {
        let on_connect: Option<OnConnect> = request.extensions_mut().remove();
        let is_slow = request.uri().host() == Some("a.example");
        if is_slow && now() < start + ms(900) {
            return Err(Broken("refused"));
        }
        if let Some(on_connect) = on_connect {
            on_connect.connected();
        }
        pass(ms(if is_slow { 8_000 } else { 0 })).await;
        Ok(Response::new(Full::default()))
    })
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_stands_ends_an_outage_long_before_the_answer() {
    let pool = layer(&["a"]).connect_patience(ms(0));
    let tiers = SmartFallbackLayer::new(pool, layer(&["std"])).move_on(every_connect());
    let service = tiers.layer(slow());
    let ask = async || account(&service.clone().oneshot(request()).await.unwrap()).to_string();
    for _ in 0..3 {
        assert_eq!(ask().await, "primary failed, std 200; spilled: failed");
    }
    pass(ms(899)).await;
    assert_eq!(ask().await, "std 200; spilled: failing");
    pass(ms(1)).await;
    let (probe, beside) = futures::join!(ask(), async {
        pass(ms(1)).await;
        ask().await
    });
    assert_eq!([probe, beside], ["a 200", "a 200"]);
}

#[tokio::test(start_paused = true)]
async fn of_a_pool_too_every_backend_is_back_once_a_connection_stands() {
    let backend = |name: &str, priority| {
        let backend = Backend::new(name, format!("https://{name}.example")).unwrap();
        backend.api_key("key").priority(priority)
    };
    let pool = BackendPool::new([backend("a", 1), backend("std", 2)]).unwrap();
    let service = RegionRotateLayer::new(pool.clone()).move_on(every_connect()).layer(slow());
    for _ in 0..3 {
        service.clone().oneshot(request()).await.unwrap();
    }
    pass(ms(1_000)).await;
    let asks = (0..5).map(|number| {
        let service = service.clone();
        async move {
            pass(ms(number)).await;
            account(&service.oneshot(request()).await.unwrap()).to_string()
        }
    });
    assert_eq!(futures::future::join_all(asks).await, ["a 200"; 5]);
    assert!(pool.failures().all(|(_, failures)| failures == 0));
}
