//! Lessons 24 and 27: what the caller gets when no backend serves.

use std::time::Duration;

use http::HeaderName;
use tokio::net::TcpListener;
use tower::{Layer, ServiceExt};
use tower_spillover::{
    Backend, BackendPool, MaxWait, RegionRotateLayer,
    policy::{ErrorKind, MoveOn},
};

use crate::{
    azure::{Azure, refused_for},
    clock::{ms, pass, timed},
    leaf::{Answer, Leaf, account, header, request, text},
    protocol::{Error, Protocol},
    scene::{ask, pool, regions, tiers},
    stack::{attempts, chat},
};

// An error text that blames the whole pool.
#[tokio::test(start_paused = true)]
async fn lesson_24_the_answer_of_a_closed_pool_names_each_backend_and_its_reason() {
    let pool = pool(["a", "b"]);
    let leaf = regions([("a", Answer::refused(1_500)), ("b", Answer::refused(2_500))]);
    let layer = RegionRotateLayer::new(pool).name_header(HeaderName::from_static("x-name"));
    ask(&layer, &leaf).await.unwrap();
    pass(ms(250)).await;
    let (response, took) = timed(ask(&layer, &leaf)).await;
    let response = response.unwrap();
    assert_eq!((response.status().as_u16(), took, leaf.len()), (429, Duration::ZERO, 2));
    assert_eq!(header(&response, "retry-after-ms"), Some("1250"));
    assert_eq!(header(&response, "retry-after"), Some("2"));
    assert_eq!(header(&response, "content-type"), Some("application/json"));
    assert_eq!(header(&response, "x-name"), None, "nobody served it");
    let served = account(&response);
    assert_eq!((served.backend(), served.attempts().len()), (None, 0));
    let length: usize = header(&response, "content-length").unwrap().parse().unwrap();
    let text = text(response).await;
    assert_eq!(text.len(), length);
    let body: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(body["error"]["code"], "429");
    assert_eq!(body["error"]["type"], "too_many_requests");
    assert!(body["error"]["param"].is_null());
    assert_eq!(
        body["error"]["message"],
        "No backend is left to try. a is closed for 1250 ms, b is closed for 2250 ms."
    );
}

// The fallback's own 502 or 500 in the place of the upstream's 429.
#[tokio::test(start_paused = true)]
async fn lesson_27_when_both_tiers_refuse_the_caller_gets_a_refusal_and_not_a_failure() {
    let (ptu, standard) =
        (Leaf::playing([Answer::refused(900)]), Leaf::playing([Answer::refused(40)]));
    let mut request = request();
    request.extensions_mut().insert(MaxWait(Duration::ZERO));
    let response = tiers(&ptu, &standard).layer(()).oneshot(request).await.unwrap();
    assert_eq!(response.status().as_u16(), 429);
    assert_eq!(header(&response, "retry-after-ms"), Some("40"));
}

/// An address without a listener.
async fn nowhere() -> Backend {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    Backend::new("nowhere", format!("http://{addr}")).unwrap().api_key("key").priority(2)
}

// The same, where the second one cannot be reached at all.
#[tokio::test]
async fn lesson_27_a_backend_that_is_not_there_does_not_hide_the_refusal_of_another() {
    let azure = Azure::open(&["east"]).await;
    azure.script("east/gpt-4o", [refused_for(9_000)]);
    let pool = BackendPool::new([azure.backend("east/gpt-4o"), nowhere().await]).unwrap();
    let rotate = RegionRotateLayer::new(pool).move_on(
        MoveOn::new()
            .errors(|error: &Error| match error.is_connect() {
                true => ErrorKind::Connect,
                false => ErrorKind::Other,
            })
            .connect(),
    );
    let response = rotate.layer(Protocol::Http1.client()).oneshot(chat()).await;
    let response = response.expect("the refusal, and not the error of the other");
    assert_eq!(response.status().as_u16(), 429);
    assert_eq!(attempts(&response), [("east/gpt-4o", 429), ("nowhere", 0)]);
}
