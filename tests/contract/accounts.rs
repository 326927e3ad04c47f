//! What `Served` reports about a request: who answered, in whose place, and everything as one line.

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_spillover::{Backend, BackendPool, RegionRotateLayer, Served, SmartFallbackLayer};

use crate::{
    clock::ms,
    leaf::{Answer, Broken, Leaf, account, request},
};

fn rotate<const N: usize>(names: [&str; N]) -> RegionRotateLayer {
    let backends = names
        .map(|name| Backend::new(name, format!("https://{name}.example")).unwrap().api_key("key"));
    let pool = BackendPool::new(backends).unwrap();
    pool.force_start(names[0]).unwrap();
    RegionRotateLayer::new(pool)
}

/// Backends that refuse once, with this hint in milliseconds, and then serve; the others serve.
fn refusing_once<const N: usize>(refusals: [(&'static str, u64); N]) -> Leaf {
    let times = std::sync::Mutex::new(refusals.to_vec());
    Leaf::new(move |seen| {
        let mut left = times.lock().unwrap();
        let name = seen.host().trim_end_matches(".example");
        match left.iter().position(|(other, _)| *other == name) {
            Some(index) => Answer::refused(left.swap_remove(index).1),
            None => Answer::ok(),
        }
    })
}

async fn served<S, R>(service: S) -> Served
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>, Error = Broken>,
    R: Body,
{
    account(&service.oneshot(request()).await.unwrap()).clone()
}

#[tokio::test(start_paused = true)]
async fn a_spill_is_no_rotation_and_a_rotation_no_spill() {
    for (refusals, backend, spilled, rotated) in [
        (&[("ptu-1", 9_000), ("ptu-2", 9_000)][..], "east", true, false),
        (&[("ptu-1", 9_000)], "ptu-2", false, true),
        (&[("ptu-1", 9_000), ("ptu-2", 9_000), ("east", 9_000)], "west", true, true),
        (&[], "ptu-1", false, false),
    ] {
        let mut all = [("", 0); 3];
        all[..refusals.len()].copy_from_slice(refusals);
        let tiers = SmartFallbackLayer::new(rotate(["ptu-1", "ptu-2"]), rotate(["east", "west"]));
        let served = served(tiers.layer(refusing_once(all))).await;
        assert_eq!(served.backend(), Some(backend));
        assert_eq!((served.spilled(), served.rotated()), (spilled, rotated), "{served}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_the_other_backend_after_a_wait_is_a_rotation_too() {
    let leaf = refusing_once([("a", 300), ("b", 100)]);
    let tiers = SmartFallbackLayer::new(rotate(["a", "b"]), rotate(["c"]));
    let served = served(tiers.layer(leaf)).await;
    assert_eq!((served.backend(), served.waited()), (Some("b"), ms(100)));
    assert!(served.rotated() && !served.spilled(), "{served}");
}

#[tokio::test(start_paused = true)]
async fn tiers_within_a_tier_count_as_tiers() {
    let ptus = || SmartFallbackLayer::new(rotate(["ptu-1"]), rotate(["ptu-2"])).max_wait(ms(0));
    let leaf = refusing_once([("ptu-1", 300), ("ptu-2", 300)]);
    let outer = SmartFallbackLayer::new(ptus(), rotate(["east"])).max_wait(ms(0));
    let spilled = served(outer.layer(leaf)).await;
    assert_eq!((spilled.backend(), spilled.rotated()), (Some("east"), false));
    let leaf = refusing_once([("ptu-1", 300), ("ptu-2", 300)]);
    let waited = served(SmartFallbackLayer::new(ptus(), rotate(["east"])).layer(leaf)).await;
    assert_eq!((waited.backend(), waited.waited()), (Some("ptu-1"), ms(300)));
    assert!(!waited.spilled() && !waited.rotated(), "{waited}");
}

#[tokio::test(start_paused = true)]
async fn a_spill_in_a_region_that_refused_is_forgotten_where_the_next_region_did_not_spill() {
    let leaf = Leaf::new(|seen| match seen.host() {
        "east.example" => Answer::refused(60_000),
        _ => Answer::ok(),
    });
    let deployments = SmartFallbackLayer::deployments("ptu", "standard").unwrap().forgetful();
    let stack = ServiceBuilder::new().layer(rotate(["east", "west"])).layer(deployments);
    let served = served(stack.service(leaf)).await;
    assert_eq!((served.backend(), served.rotated()), (Some("west"), true));
    assert!(!served.spilled(), "{served}");
}

#[tokio::test(start_paused = true)]
async fn the_answer_of_a_closed_pool_is_no_backends_even_after_attempts() {
    let east = rotate(["east"]);
    let refused = served(east.layer(Leaf::playing([Answer::refused(60_000)]))).await;
    assert_eq!(refused.backend(), Some("east"), "its refusal is its answer");
    let service = SmartFallbackLayer::new(rotate(["ptu"]), east);
    let service = service.layer(refusing_once([("ptu", 9_000)]));
    let own = served(service.clone()).await;
    assert_eq!((own.backend(), own.spilled(), own.rotated()), (None, true, false));
    assert_eq!(
        own.to_string(),
        "ptu 429 (9000 ms); spilled: hint (9s > 4s); refused: fallback-closed"
    );
    assert_eq!(
        served(service).await.to_string(),
        "spilled: queue (9s > 4s); refused: fallback-closed"
    );
}

#[tokio::test(start_paused = true)]
async fn an_account_is_a_line_in_a_log() {
    let tiers = || SmartFallbackLayer::new(rotate(["ptu"]), rotate(["east", "west"]));
    let line = |leaf: Leaf| async move { served(tiers().layer(leaf)).await.to_string() };
    assert_eq!(line(refusing_once([])).await, "ptu 200");
    let waited = line(refusing_once([("ptu", 43)])).await;
    assert_eq!(waited, "ptu 429 (43 ms), ptu 200; waited 43 ms: queue (43ms of 4s)");
    let spilled = line(refusing_once([("ptu", 9_000), ("east", 0)])).await;
    assert_eq!(spilled, "ptu 429 (9000 ms), east 429 (0 ms), west 200; spilled: hint (9s > 4s)");
}
