//! Lessons 18 to 21: what is read from a refusal's head, and what is written into a request.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceExt};
use tower_spillover::{BackendPool, RegionRotateLayer, ReplayLayer};

use crate::{
    leaf::{Answer, Leaf, account, request},
    scene::{ask, backend, pool, regions, rests, tiers},
};

// A path rewritten by substring: a deployment called "openai" or "chat" corrupts it.
#[tokio::test(start_paused = true)]
async fn lesson_18_a_deployment_is_replaced_in_its_segment_only() {
    let names = ["openai", "deployments", "chat", "completions", "gpt-4o"];
    for (from, to) in names.into_iter().flat_map(|from| names.map(|to| (from, to))) {
        let leaf = regions([]);
        let layer =
            RegionRotateLayer::new(BackendPool::new([backend("a").deployment(to)]).unwrap());
        let path = |name: &str| {
            format!("/openai/deployments/{name}/chat/completions?api-version=2024-10-21")
        };
        let request = Request::post(path(from)).body(Full::<Bytes>::default()).unwrap();
        layer.layer(leaf.clone()).oneshot(request).await.unwrap();
        let sent = leaf.seen().remove(0).uri;
        assert_eq!(sent.path_and_query().unwrap().as_str(), path(to), "{from} to {to}");
    }
}

// A 500 of one's own on a header that cannot be parsed.
#[tokio::test(start_paused = true)]
async fn lesson_19_a_header_that_cannot_be_read_counts_as_absent() {
    for name in ["retry-after-ms", "x-ms-retry-after-ms", "retry-after"] {
        for value in
            ["", "soon", "NaN", "inf", "-1", "1;2", "0x10", "Zun, 29 Sep 2023 16:26:37 GMT"]
        {
            let pool = pool(["a", "b"]);
            let leaf = regions([("a", Answer::status(429).with(name, value))]);
            let response = ask(&RegionRotateLayer::new(pool.clone()), &leaf).await.unwrap();
            assert_eq!(account(&response).backend(), Some("b"), "{name}: {value}");
            assert_eq!(rests(&pool), [Some(1_000), None], "{name}: {value}");
        }
    }
    let pool = pool(["a"]);
    let odd = Answer::status(429).with("retry-after-ms", "soon").with("retry-after", "7");
    ask(&RegionRotateLayer::new(pool.clone()), &Leaf::playing([odd])).await.unwrap();
    assert_eq!(rests(&pool), [Some(7_000)], "the next one on the ladder is read");
}

// The wrong precedence when both headers come: 200 ms become 1 s.
#[tokio::test(start_paused = true)]
async fn lesson_20_milliseconds_go_before_seconds() {
    for name in ["retry-after-ms", "x-ms-retry-after-ms"] {
        let pool = pool(["a"]);
        let both = Answer::status(429)
            .with("x-ratelimit-reset-tokens", "60")
            .with("retry-after", "1")
            .with(name, "200");
        ask(&RegionRotateLayer::new(pool.clone()), &Leaf::playing([both])).await.unwrap();
        assert_eq!(rests(&pool), [Some(200)], "{name}");
    }
}

// Body limits: replay up to 64 KiB only, 2 MiB by default, and an error above.
#[tokio::test(start_paused = true)]
async fn lesson_21_a_long_prompt_is_sent_again_whole_and_a_longer_one_once() {
    const LIMIT: usize = 4 << 20;
    for length in [(64 << 10) + 1, (2 << 20) + 1, LIMIT, LIMIT + 1] {
        let ptu = Leaf::playing([Answer::refused(9_000)]);
        let standard = Leaf::playing([Answer::ok()]);
        let service = ReplayLayer::new(LIMIT).layer(tiers(&ptu, &standard).layer(()));
        let body = Bytes::from_iter((0..length).map(|index| b'a' + (index % 26) as u8));
        // A body that cannot be cloned, as it comes from a socket.
        let request = request().map(|_| Full::new(body.clone()).boxed_unsync());
        let response = service.oneshot(request).await.unwrap();
        assert!(ptu.seen()[0].body == body, "{length}: whole");
        if length <= LIMIT {
            assert_eq!(response.status().as_u16(), 200, "{length}");
            assert!(standard.seen()[0].body == body, "{length}: whole again");
        } else {
            assert_eq!((response.status().as_u16(), standard.len()), (429, 0), "the true refusal");
            assert!(!account(&response).replayable(), "and why it went no further");
        }
    }
}
