//! Checks which refusals carry a measured time, in every composition of the layers.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::ServiceExt;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    Backend, BackendPool, InspectLayer, MaxWait, RegionRotateLayer, Served, SmartFallbackLayer,
    classify::{Hint, Refusal},
    clock,
};

/// The answers of the backend of this name.
type Script = Arc<dyn Fn(&str) -> Response<Full<Bytes>> + Send + Sync>;

fn refused(headers: &[(&'static str, &str)]) -> Response<Full<Bytes>> {
    saying(headers, "")
}

fn saying(headers: &[(&'static str, &str)], text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::builder().status(429).header("content-type", "application/json");
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(Full::from(text.to_owned())).unwrap()
}

#[derive(Clone)]
struct Client(Script);

impl Service<Request<Full<Bytes>>> for Client {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        let host = request.uri().host().unwrap_or_default();
        ready(Ok((self.0)(host.trim_end_matches(".example"))))
    }
}

fn pool<const N: usize>(names: [&str; N]) -> RegionRotateLayer {
    let backend =
        |name| Backend::new(name, format!("https://{name}.example")).unwrap().api_key("k");
    RegionRotateLayer::new(BackendPool::new(names.map(backend)).unwrap())
}

/// A request that must not wait.
fn request() -> Request<Full<Bytes>> {
    let request = Request::post("/openai/v1/chat/completions").extension(MaxWait(Duration::ZERO));
    request.body(Full::from(r#"{"model":"m","messages":[]}"#)).unwrap()
}

/// The wait announced by the outermost layer, and whether it is measured.
fn announced<B>(response: &Response<B>) -> (Option<u128>, bool) {
    assert_eq!(response.status(), 429);
    let hint = Hint::read(response.headers(), clock::wall);
    let refusal = Refusal::read(response, hint, Served::is_on(response));
    (hint.duration().map(|wait| wait.as_millis()), refusal.is_measured())
}

async fn words(script: Script) -> [(&'static str, (Option<u128>, bool)); 5] {
    let client = Client(script);
    let one = pool(["a"]).layer(client.clone()).oneshot(request()).await.unwrap();
    let both = pool(["a", "b"]).layer(client.clone()).oneshot(request()).await.unwrap();
    let inspected = pool(["a"]).layer(InspectLayer::new().layer(client.clone()));
    let inspected = inspected.oneshot(request()).await.unwrap();
    let tiers = SmartFallbackLayer::new(pool(["a"]), pool(["b"])).layer(client.clone());
    let tiers = tiers.oneshot(request()).await.unwrap();
    let inner = SmartFallbackLayer::new(pool(["a"]), pool(["b"]));
    let nested = SmartFallbackLayer::new(inner, pool(["a", "b"])).layer(client);
    let nested = nested.oneshot(request()).await.unwrap();
    [
        ("one", announced(&one)),
        ("both", announced(&both)),
        ("inspected", announced(&inspected)),
        ("tiers", announced(&tiers)),
        ("nested", announced(&nested)),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_time_that_the_backend_gives_is_measured_and_an_assumed_one_is_not() {
    let quota = r#"{"error":{"code":"insufficient_quota","message":"You exceeded your quota"}}"#;
    let cases: [(&str, Script, Option<u128>, bool); 5] = [
        ("a time", Arc::new(|_| refused(&[("retry-after-ms", "500")])), Some(500), true),
        ("none", Arc::new(|_| refused(&[])), Some(1_000), false),
        ("zero", Arc::new(|_| refused(&[("retry-after-ms", "0")])), Some(100), false),
        ("one that is not believed", Arc::new(|_| refused(&[("retry-after", "61")])), None, false),
        ("quota", Arc::new(move |_| saying(&[("retry-after-ms", "500")], quota)), None, false),
    ];
    for (name, script, ms, is_measured) in cases {
        for (layers, (said, told)) in words(script).await {
            // Without a layer that reads the body, it looks like any other hint.
            let is_measured = is_measured || (name == "quota" && layers != "inspected");
            assert_eq!(told, is_measured, "{name}: {layers}");
            assert!(ms.is_none() || said == ms, "{name}: {layers}: {said:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_several_backends_the_one_that_reopens_first_says_whether_it_is_measured() {
    for (a, b, ms, is_measured) in [
        (Some("500"), None, 500, true),
        (Some("2000"), None, 1_000, false),
        (None, None, 1_000, false),
        (Some("2000"), Some("500"), 500, true),
    ] {
        let script: Script = Arc::new(move |name| match if name == "a" { a } else { b } {
            Some(wait) => refused(&[("retry-after-ms", wait)]),
            None => refused(&[]),
        });
        for (layers, word) in words(script).await {
            if layers == "both" || layers == "tiers" || layers == "nested" {
                assert_eq!(word, (Some(ms), is_measured), "{layers}: {a:?} {b:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_pool_remembers_is_measured_until_it_is_over() {
    for (headers, is_measured) in [(&[("retry-after-ms", "500")][..], true), (&[][..], false)] {
        let service = pool(["a"]).layer(Client(Arc::new(move |_| refused(headers))));
        let first = announced(&service.clone().oneshot(request()).await.unwrap());
        assert_eq!(first.1, is_measured);
        tokio::time::advance(Duration::from_millis(200)).await;
        let second = announced(&service.oneshot(request()).await.unwrap());
        assert_eq!(second, (first.0.map(|ms| ms - 200), is_measured), "it was not asked");
    }
}
