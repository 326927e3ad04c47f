//! Backends, clients that answer by backend name, and tiers of them.

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use tower::{Layer, ServiceExt};
use tower_spillover::{Backend, BackendPool, RegionRotateLayer, ResponseBody, SmartFallbackLayer};

use crate::leaf::{Answer, Broken, Leaf, Put, request};

/// A backend called `name` at `name.example`.
pub(crate) fn backend(name: &str) -> Backend {
    Backend::new(name, format!("https://{name}.example")).unwrap().api_key("key")
}

/// Backends of which the first one is the preferred one, then the second.
pub(crate) fn pool<const N: usize>(names: [&str; N]) -> BackendPool {
    let backends = (0..).zip(names).map(|(place, name)| backend(name).priority(place));
    BackendPool::new(backends).unwrap()
}

/// A client whose backends answer by name; those not named serve.
pub(crate) fn regions<const N: usize>(answers: [(&'static str, Answer); N]) -> Leaf {
    Leaf::new(move |seen| {
        let name = seen.host().trim_end_matches(".example");
        let answer = answers.iter().find(|(other, _)| *other == name);
        answer.map_or_else(Answer::ok, |(_, answer)| answer.clone())
    })
}

pub(crate) async fn ask(
    layer: &RegionRotateLayer,
    leaf: &Leaf,
) -> Result<Response<ResponseBody<Full<Bytes>>>, Broken> {
    layer.layer(leaf.clone()).oneshot(request()).await
}

/// The cooldown of each backend, in milliseconds.
pub(crate) fn rests(pool: &BackendPool) -> Vec<Option<u128>> {
    pool.cooldowns().map(|(_, rest)| rest.map(|rest| rest.as_millis())).collect()
}

pub(crate) type Tiers = SmartFallbackLayer<Put<Leaf>, Put<Leaf>>;

pub(crate) fn tiers(primary: &Leaf, fallback: &Leaf) -> Tiers {
    SmartFallbackLayer::new(Put(primary.clone()), Put(fallback.clone()))
}
