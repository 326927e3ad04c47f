//! A layer's knowledge of a refusal reaches the outer layers, whatever is between them.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_spillover::{
    Backend, BackendPool, InspectLayer, RegionRotateLayer, ResponseBody, SmartFallbackLayer,
};

use crate::{
    clock::{ms, timed},
    leaf::{Answer, Broken, Kind, Leaf, account, every_error, request},
};

type Ask = Request<Full<Bytes>>;
type Body = ResponseBody<Full<Bytes>>;
type Rotate = RegionRotateLayer<Kind>;

const BUSY: &str = r#"{"error":{"code":"429","message":"The deployment is busy."}}"#;

fn backend(name: &str, resource: &str, deployment: &str) -> Backend {
    let backend = Backend::new(name, format!("https://{resource}.example")).unwrap();
    backend.deployment(deployment).api_key("key")
}

fn rotate<const N: usize>(backends: [Backend; N]) -> Rotate {
    RegionRotateLayer::new(BackendPool::new(backends).unwrap()).move_on(every_error())
}

fn pool<const N: usize>(names: [&str; N]) -> Rotate {
    let mut priority = 0;
    rotate(names.map(|name| {
        priority += 1;
        backend(name, name, name).priority(priority)
    }))
}

/// The account of a request to `service`, and how long it took.
async fn served<R>(
    service: &(impl Service<Ask, Response = Response<R>, Error = Broken> + Clone),
) -> (String, Duration) {
    let (response, time) = timed(service.clone().oneshot(request())).await;
    (account(&response.unwrap()).to_string(), time)
}

/// Two tiers, each with an `InspectLayer` outside.
fn inspected(
    ptu: Rotate,
    standard: Rotate,
    leaf: &Leaf,
) -> impl Service<Ask, Response = Response<ResponseBody<Body>>, Error = Broken> + Clone {
    let inspected =
        |tier| ServiceBuilder::new().layer(InspectLayer::new()).layer(tier).into_inner();
    SmartFallbackLayer::new(inspected(ptu), inspected(standard))
        .move_on(every_error())
        .max_wait(Duration::from_secs(20))
        .layer(leaf.clone())
}

#[tokio::test(start_paused = true)]
async fn through_inspect_a_failing_pool_is_not_waited_for() {
    let leaf = Leaf::new(|seen| match seen.host() {
        "ptu.example" => Answer::broken(),
        _ => Answer::ok(),
    });
    let service = inspected(pool(["ptu"]), pool(["standard"]), &leaf);
    for _ in 0..2 {
        let account = "primary failed, standard 200; spilled: failed".to_owned();
        assert_eq!(served(&service).await, (account, Duration::ZERO));
    }
}

#[tokio::test(start_paused = true)]
async fn through_inspect_a_request_that_was_forbidden_to_come_back_does_not() {
    let leaf = Leaf::new(|seen| match seen.host() {
        "ptu.example" => Answer::refused(50).with("x-should-retry", "false").telling(BUSY),
        _ => Answer::ok(),
    });
    let service = inspected(pool(["ptu"]), pool(["standard"]), &leaf);
    let account = "ptu 429 (50 ms), standard 200; spilled: forbidden".to_owned();
    assert_eq!(served(&service).await, (account, Duration::ZERO));
    assert_eq!(leaf.hosts(), ["ptu.example", "standard.example"]);
}

#[tokio::test(start_paused = true)]
async fn through_inspect_the_fallback_leaves_out_what_native_spillover_tried() {
    let leaf = Leaf::new(|seen| match seen.index {
        0 => Answer::refused(60_000)
            .with("x-ms-spillover-error", "429")
            .with("x-ms-deployment-name", "gpt-4o")
            .telling(BUSY),
        _ => Answer::ok(),
    });
    let near = backend("near", "east", "gpt-4o").priority(1);
    let far = backend("far", "sweden", "gpt-4o").priority(2);
    let service =
        inspected(rotate([backend("ptu", "east", "gpt-4o-ptu")]), rotate([near, far]), &leaf);
    let account = "ptu 429 (60000 ms), far 200; spilled: hint (60s > 20s)".to_owned();
    assert_eq!(served(&service).await, (account, Duration::ZERO));
}

/// A refusal counts what the callers stated, and their answers used a tenth of that.
#[tokio::test(start_paused = true)]
async fn after_a_pause_the_ptu_is_asked_though_its_pool_remembers_a_refusal() {
    let leaf = Leaf::new(|seen| match seen.index {
        0 => Answer::refused(34_000),
        _ => Answer::ok(),
    });
    let service = SmartFallbackLayer::new(pool(["ptu"]), pool(["standard"]))
        .max_wait(Duration::from_secs(4))
        .layer(leaf.clone());
    assert!(served(&service).await.0.ends_with("standard 200; spilled: hint (34s > 4s)"));
    tokio::time::advance(Duration::from_secs(13)).await;
    for _ in 0..2 {
        assert_eq!(served(&service).await, ("ptu 200".to_owned(), Duration::ZERO));
    }
}

#[tokio::test(start_paused = true)]
async fn a_layer_of_the_callers_between_the_tiers_may_change_the_wait() {
    for (asked, account, time) in [
        ("3000", "ptu 429 (500 ms), standard 200; spilled: hint (3s > 2s)", 0),
        ("200", "ptu 429 (500 ms), ptu 200; waited 200 ms: queue (200ms of 2s)", 200),
        ("300", "ptu 429 (500 ms), ptu 200; waited 300 ms: queue (300ms of 2s)", 300),
    ] {
        // Without a body that gives the reason, the pool leaves only headers.
        for refusal in [Answer::refused(500), Answer::refused(500).telling(BUSY)] {
            let leaf = Leaf::playing([refusal, Answer::ok()]);
            let change = move |mut response: Response<_>| {
                if response.status() == StatusCode::TOO_MANY_REQUESTS {
                    response.headers_mut().insert("retry-after-ms", asked.parse().unwrap());
                }
                response
            };
            let tier = |name| {
                let tier = ServiceBuilder::new().map_response(change).layer(pool([name]));
                tier.layer(InspectLayer::new()).service(leaf.clone())
            };
            let service = SmartFallbackLayer::new(tier("ptu"), tier("standard"))
                .move_on(every_error())
                .max_wait(Duration::from_secs(2))
                .into_service();
            assert_eq!(served(&service).await, (account.to_owned(), ms(time)));
        }
    }
}

/// Two tiers. The first is a pool of `a` and `b` over a pool that is created for each attempt, with
/// these answers.
async fn served_by_nested_pools<const N: usize>(answers: [Answer; N]) -> (String, Duration) {
    let ptu = Leaf::playing(answers);
    let inner = service_fn(move |request: Ask| pool(["in"]).layer(ptu.clone()).oneshot(request));
    let standard = pool(["inner"]).layer(Leaf::playing([Answer::ok()]));
    let service =
        SmartFallbackLayer::new(pool(["a", "b"]).layer(inner), pool(["standard"]).layer(standard))
            .move_on(every_error())
            .max_wait(Duration::from_secs(20))
            .into_service();
    served(&service).await
}

#[tokio::test(start_paused = true)]
async fn a_pool_keeps_what_the_pool_inside_of_it_forbade() {
    let refusal = |word| Answer::refused(300).with("x-should-retry", word);
    let spilled = "a 429 (300 ms), b 429 (300 ms), standard 200; spilled: forbidden";
    let waited = "a 429 (300 ms), b 429 (300 ms), a 200; waited 300 ms: queue (300ms of 20s)";
    for (words, account, time) in [
        (["false", "false"], spilled, 0),
        (["true", "false"], spilled, 0),
        (["false", "true"], waited, 300),
        (["true", "true"], waited, 300),
    ] {
        let [first, second] = words.map(refusal);
        let result = served_by_nested_pools([first, second, Answer::ok()]).await;
        assert_eq!(result, (account.to_owned(), ms(time)), "{words:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pool_tells_when_the_one_reopens_that_refused_beside_one_that_fails() {
    let leaf = Leaf::new(|seen| match (seen.host(), seen.at.as_millis()) {
        ("down.example", _) => Answer::broken(),
        ("busy.example", 0..300) => Answer::refused(300),
        _ => Answer::ok(),
    });
    let ptu = pool(["a"]).layer(pool(["down", "busy"]).layer(leaf.clone()));
    let standard = pool(["standard"]).layer(pool(["inner"]).layer(leaf));
    let service = SmartFallbackLayer::new(ptu, standard)
        .move_on(every_error())
        .max_wait(Duration::from_secs(20))
        .into_service();
    let account = "a 429 (300 ms), a 200; waited 300 ms: queue (300ms of 20s)";
    assert_eq!(served(&service).await, (account.to_owned(), ms(300)));
}
