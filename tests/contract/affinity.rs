//! Where requests with the same start of prompt go.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use serde_json::json;
use tower::{Layer, ServiceExt};
use tower_spillover::{
    BackendPool, RegionRotateLayer, ResponseBody, StickTo, Sticky, sticky::CacheAffinity,
};

use crate::{
    clock::{ms, pass},
    leaf::{Answer, CLASSIC, Leaf, account, asked, request},
    sticking::{backend, post, served_by},
};

fn layer(affinity: CacheAffinity) -> RegionRotateLayer {
    let pool = BackendPool::new([
        backend("one"),
        backend("two").weight(2),
        backend("three").weight(3),
        backend("later").priority(2),
    ]);
    RegionRotateLayer::new(pool.unwrap()).cache_affinity(affinity)
}

fn keyed(key: usize) -> Request<Full<Bytes>> {
    post(CLASSIC, &json!({"messages": [], "prompt_cache_key": format!("conversation-{key}")}))
}

async fn ask(
    layer: &RegionRotateLayer,
    leaf: &Leaf,
    request: Request<Full<Bytes>>,
) -> Response<ResponseBody<Full<Bytes>>> {
    layer.layer(leaf.clone()).oneshot(request).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_key_starts_with_the_same_backend_in_every_pool_and_keys_go_by_weight() {
    let leaf = Leaf::playing([Answer::ok()]);
    let (one, other) = (layer(CacheAffinity::Key), layer(CacheAffinity::Key));
    let mut counts = HashMap::<String, u32>::new();
    for key in 0..1_200 {
        let place = served_by(&ask(&one, &leaf, keyed(key)).await);
        assert_eq!(served_by(&ask(&other, &leaf, keyed(key)).await), place);
        *counts.entry(place).or_default() += 1;
    }
    for (name, share) in [("one", 200), ("two", 400), ("three", 600)] {
        let off = counts[name].abs_diff(share);
        assert!(off < 75, "{counts:?}");
    }
    assert!(!counts.contains_key("later"));
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_key_starts_anywhere() {
    let leaf = Leaf::playing([Answer::ok()]);
    let layer = layer(CacheAffinity::Key);
    let mut places = HashSet::new();
    for _ in 0..100 {
        places.insert(served_by(&ask(&layer, &leaf, request()).await));
    }
    assert_eq!(places.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn throttling_moves_a_key_to_its_next_backend_and_back() {
    let calm = Leaf::playing([Answer::ok()]);
    let layer = layer(CacheAffinity::Key);
    let home = served_by(&ask(&layer, &calm, keyed(7)).await);
    let host = format!("{home}.example");
    let busy = Leaf::new(move |seen| match seen.host() == host {
        true => Answer::refused(500),
        false => Answer::ok(),
    });
    let moved = ask(&layer, &busy, keyed(7)).await;
    let second = served_by(&moved);
    assert_eq!(asked(account(&moved)), [(&*home, 0), (&*second, 0)]);
    for _ in 0..10 {
        let meanwhile = ask(&layer, &calm, keyed(7)).await;
        assert_eq!(served_by(&meanwhile), second, "the next is the same every time");
    }
    pass(ms(500)).await;
    assert_eq!(served_by(&ask(&layer, &calm, keyed(7)).await), home);
}

#[tokio::test(start_paused = true)]
async fn a_long_beginning_is_a_key_only_where_that_is_switched_on() {
    let leaf = Leaf::playing([Answer::ok()]);
    let system = json!({"role": "system", "content": "Answer like a pirate. ".repeat(60)});
    let chat = |turn: usize| {
        let user = json!({"role": "user", "content": format!("And {turn}?")});
        post(CLASSIC, &json!({"messages": [system, user]}))
    };
    for (affinity, expected) in [(CacheAffinity::KeyOrPrompt, 1), (CacheAffinity::Key, 3)] {
        let (layer, mut places) = (layer(affinity), HashSet::new());
        for turn in 0..60 {
            places.insert(served_by(&ask(&layer, &leaf, chat(turn)).await));
        }
        assert_eq!(places.len(), expected, "{affinity:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_held_stays_whatever_its_key() {
    let leaf = Leaf::playing([Answer::ok()]);
    let layer = layer(CacheAffinity::Key).sticky(Sticky::new());
    for key in 0..20 {
        let mut request = keyed(key);
        request.extensions_mut().insert(StickTo::from("later"));
        assert_eq!(served_by(&ask(&layer, &leaf, request).await), "later");
    }
}
