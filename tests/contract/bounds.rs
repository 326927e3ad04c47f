//! The services' bounds, and that the layers work in every sensible order.

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, retry::RetryLayer};
use tower_spillover::{
    Backend, BackendPool, RegionRotateLayer, ReplayLayer, RetryAfterPolicy, SmartFallbackLayer,
    backend::DeploymentLayer,
};

use crate::{
    clock::{ms, timed},
    leaf::{Answer, Broken, Leaf, account, asked, every_error, request, text},
};

fn pool<const N: usize>(names: [&str; N]) -> BackendPool {
    let backends = names
        .map(|name| Backend::new(name, format!("https://{name}.example")).unwrap().api_key("key"));
    let pool = BackendPool::new(backends).unwrap();
    pool.force_start(names[0]).unwrap();
    pool
}

fn rotate<const N: usize>(names: [&str; N]) -> RegionRotateLayer {
    RegionRotateLayer::new(pool(names))
}

fn tiers() -> SmartFallbackLayer<RegionRotateLayer, RegionRotateLayer> {
    SmartFallbackLayer::new(rotate(["ptu"]), rotate(["east", "west"]))
}

fn retry() -> RetryLayer<RetryAfterPolicy> {
    RetryLayer::new(RetryAfterPolicy::new().jitter(0.0))
}

const REPLAY: ReplayLayer = ReplayLayer::new(1 << 20);

/// What axum and hyper require of a service.
fn lawful<S, B>(service: S) -> S
where
    S: Service<Request<B>, Future: Send + 'static> + Clone + Send + Sync + 'static,
{
    service
}

#[tokio::test]
async fn services_are_clone_send_sync_and_static_over_an_ordinary_client() {
    type Plain = Request<Full<Bytes>>;
    let client = Leaf::playing([Answer::ok()]);
    lawful::<_, Full<Bytes>>(tiers().layer(client.clone()));
    lawful::<_, Full<Bytes>>(rotate(["a"]).layer(client.clone()));
    lawful::<_, Full<Bytes>>(rotate(["a"]).move_on(every_error::<Broken>()).layer(client.clone()));
    lawful::<_, Full<Bytes>>(REPLAY.layer(client.clone()));
    lawful::<_, Full<Bytes>>(retry().layer(client.clone()));
    lawful::<_, Full<Bytes>>(DeploymentLayer::new("x").unwrap().layer(client.clone()));
    let stack = ServiceBuilder::new().layer(REPLAY).layer(retry()).layer(tiers());
    let whole = lawful::<_, Full<Bytes>>(stack.service(client));
    let boxed: tower::util::BoxCloneSyncService<Plain, _, _> =
        tower::util::BoxCloneSyncService::new(whole);
    boxed.oneshot(request()).await.unwrap();
}

#[test]
fn layers_are_clone_send_sync_and_static() {
    fn lawful<T: Clone + Send + Sync + 'static>(_: &T) {}
    crate::clock::paused(async {
        lawful(&tiers());
        lawful(&rotate(["a"]));
        lawful(&retry());
        lawful(&REPLAY);
        lawful(&pool(["a"]));
        lawful(&SmartFallbackLayer::deployments("a", "b").unwrap());
    });
}

/// The PTU refuses once for 300 ms, east always; west serves, and so does the PTU then.
fn client() -> Leaf {
    Leaf::new(|seen| match (seen.host(), seen.at.as_millis()) {
        ("ptu.example", 0..300) => Answer::refused(300),
        ("east.example", _) => Answer::refused(2_000),
        _ => Answer::ok(),
    })
}

/// Sends one request; it is answered by `backend`, after 300 ms if that is the PTU.
async fn served_by<S, B, R>(backend: &str, stack: S, request: Request<B>)
where
    S: Service<Request<B>, Response = Response<R>, Error = Broken>,
    R: Body<Error: std::fmt::Debug>,
{
    let (answer, took) = timed(stack.oneshot(request)).await;
    let answer = answer.unwrap();
    assert_eq!(account(&answer).backend(), Some(backend));
    assert_eq!(took, ms(if backend == "ptu" { 300 } else { 0 }));
    assert_eq!(text(answer).await, "the answer");
}

macro_rules! stack {
    ($($layer:expr),+) => {
        ServiceBuilder::new()$(.layer($layer))+.service(client())
    };
}

#[tokio::test(start_paused = true)]
async fn the_stack_of_tiers_answers_alike_in_every_order() {
    served_by("ptu", stack![tiers()], request()).await;
    served_by("ptu", stack![REPLAY, tiers()], request()).await;
    served_by("ptu", stack![retry(), tiers()], request()).await;
    served_by("ptu", stack![tiers(), retry()], request()).await;
    served_by("ptu", stack![REPLAY, retry(), tiers()], request()).await;
    served_by("ptu", stack![retry(), REPLAY, tiers()], request()).await;
    served_by("ptu", stack![REPLAY, tiers(), retry()], request()).await;
    served_by("ptu", stack![tiers(), REPLAY], request()).await;
    served_by("ptu", stack![retry(), tiers(), REPLAY], request()).await;
}

#[tokio::test(start_paused = true)]
async fn the_layers_may_be_within_a_tier() {
    let retrying = |names| (retry(), rotate(names));
    let tiers = SmartFallbackLayer::new(retrying(["ptu"]), retrying(["east"]));
    served_by("ptu", stack![REPLAY, tiers], request()).await;
    let replaying = |names| (REPLAY, rotate(names));
    let tiers = SmartFallbackLayer::new(replaying(["ptu"]), replaying(["east"]));
    served_by("ptu", stack![tiers], request()).await;
    let inner = SmartFallbackLayer::new(rotate(["east"]), rotate(["west"])).max_wait(ms(0));
    let tiers = SmartFallbackLayer::new(rotate(["ptu"]), inner).max_wait(ms(0));
    served_by("west", stack![REPLAY, tiers], request()).await;
}

#[tokio::test(start_paused = true)]
async fn rotation_answers_alike_in_every_order() {
    let regions = || rotate(["east", "west"]);
    served_by("west", stack![regions()], request()).await;
    served_by("west", stack![REPLAY, regions()], request()).await;
    served_by("west", stack![REPLAY, retry(), regions()], request()).await;
    served_by("west", stack![retry(), REPLAY, regions()], request()).await;
    served_by("west", stack![regions(), REPLAY], request()).await;
    let deployments = || SmartFallbackLayer::deployments("a", "b").unwrap().max_wait(ms(0));
    served_by("west", stack![regions(), deployments().forgetful()], request()).await;
}

#[tokio::test(start_paused = true)]
async fn a_rotation_over_tiers_tells_what_they_waited_and_that_they_spilled() {
    let client = Leaf::new(|seen| match (seen.host(), seen.index) {
        ("east.example", 0) => Answer::refused(1_000),
        ("east.example", _) => Answer::refused(60_000),
        (_, 0..4) => Answer::refused(5_000),
        _ => Answer::ok(),
    });
    let deployments = SmartFallbackLayer::deployments("ptu", "standard").unwrap().forgetful();
    let stack = ServiceBuilder::new().layer(rotate(["east", "west"])).layer(deployments);
    let answer = stack.service(client).oneshot(request()).await.unwrap();
    let served = account(&answer);
    assert_eq!(asked(served), [("east", 0), ("west", 1_000)]);
    assert_eq!((served.waited(), served.spilled()), (ms(1_000), true));
}
