//! Refusals visible only in the body, through both tiers: a PTU that answers as in the corpus, and a
//! Standard deployment that serves.

use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use spillover_testing::corpus::Sample;
use tower::{Layer, ServiceExt};
use tower_spillover::{
    Backend, BackendPool, InspectLayer, RegionRotateLayer, ResponseBody, SmartFallbackLayer,
    classify::{Outcome, Reason},
};

use crate::{
    clock::soon,
    protocol::{Client, Protocol},
    raw::Raw,
    stack::{Ask, attempts, served},
};

type Answer = Response<ResponseBody<ResponseBody<Incoming>>>;

/// A PTU that answers with `ptu`, and Standard that serves a stream.
struct Tiers {
    ptu: (BackendPool, Raw),
    standard: (BackendPool, Raw),
}

impl Tiers {
    async fn over(ptu: &Sample) -> Self {
        let standard = Sample::named("stream-served.http");
        Self { ptu: tier("ptu", ptu).await, standard: tier("standard", &standard).await }
    }

    async fn ask(&self, request: Ask) -> Answer {
        let tiers = SmartFallbackLayer::new(
            RegionRotateLayer::new(self.ptu.0.clone()),
            RegionRotateLayer::new(self.standard.0.clone()),
        );
        let client: Client<_> = Protocol::Http1.client();
        let service = tiers.max_wait(Duration::ZERO).layer(InspectLayer::new().layer(client));
        soon(service.oneshot(request)).await.unwrap()
    }
}

async fn tier(name: &str, says: &Sample) -> (BackendPool, Raw) {
    over(name, Raw::saying([says.wire()]).await)
}

fn over(name: &str, server: Raw) -> (BackendPool, Raw) {
    let backend = Backend::new(name, format!("http://{}", server.addr)).unwrap();
    (BackendPool::new([backend.api_key("key")]).unwrap(), server)
}

fn asking(sample: &Sample) -> Ask {
    let body = Full::from(r#"{"model":"gpt-4o","stream":true}"#);
    Request::post(&sample.path).header("content-type", "application/json").body(body).unwrap()
}

async fn whole(answer: Answer) -> Vec<u8> {
    soon(answer.into_body().collect()).await.unwrap().to_bytes().to_vec()
}

#[tokio::test]
async fn overload_in_any_of_its_words_spills() {
    for name in [
        "stream-overloaded.http",
        "stream-at-capacity.http",
        "chat-stream-overloaded.http",
        "messages-stream-overloaded.http",
        "json-overloaded.http",
        "body-503-overloaded.http",
        "body-529-overloaded.http",
        "body-529-overloaded-bare.http",
    ] {
        let ptu = Sample::named(name);
        let tiers = Tiers::over(&ptu).await;
        let answer = tiers.ask(asking(&ptu)).await;
        let status = if name.contains("529") { 529 } else { 429 };
        assert_eq!(attempts(&answer), [("ptu", status), ("standard", 200)], "{name}");
        let refused = served(&answer).attempts().next().unwrap();
        assert_eq!(refused.reason(), Some(Reason::Capacity), "{name}");
        assert_eq!(whole(answer).await, Sample::named("stream-served.http").body, "{name}");
    }
}

#[tokio::test]
async fn a_plain_server_error_within_a_stream_stays_what_it_is() {
    let ptu = Sample::named("stream-server-error.http");
    let answer = Tiers::over(&ptu).await.ask(asking(&ptu)).await;
    assert_eq!(attempts(&answer), [("ptu", 200)]);
    assert_eq!(whole(answer).await, ptu.body);
}

#[tokio::test]
async fn a_request_that_is_too_long_spills_however_the_ptu_says_so() {
    for (name, status) in [
        ("stream-context-length.http", 400),
        ("stream-context-length-error.http", 400),
        ("json-context-length.http", 400),
        ("body-context-length-words.http", 400),
        ("body-context-length-generic-code.http", 400),
        ("body-context-length-413.http", 413),
        ("body-string-above-max-length.http", 400),
        ("body-tokens-limit-reached.http", 413),
    ] {
        let ptu = Sample::named(name);
        let tiers = Tiers::over(&ptu).await;
        // Once more: it has closed nothing.
        for _ in 0..2 {
            let answer = tiers.ask(asking(&ptu)).await;
            assert_eq!(attempts(&answer), [("ptu", status), ("standard", 200)], "{name}");
            let first = served(&answer).attempts().next().unwrap();
            assert_eq!(first.outcome(), Outcome::ContextTooLong, "{name}");
            assert_eq!(whole(answer).await, Sample::named("stream-served.http").body, "{name}");
        }
    }
}

#[tokio::test]
async fn a_request_that_is_too_long_and_paid_for_is_not_sent_again() {
    let ptu = Sample::named("stream-context-length-after-usage.http");
    let answer = Tiers::over(&ptu).await.ask(asking(&ptu)).await;
    assert_eq!((answer.status(), attempts(&answer)), (StatusCode::OK, vec![("ptu", 200)]));
    assert_eq!(whole(answer).await, ptu.body);
}

#[tokio::test]
async fn a_refusal_after_events_that_say_nothing_spills() {
    for name in [
        "stream-keepalive.http",
        "stream-keepalive-nameless.http",
        "stream-comments.http",
        "stream-unknown-event.http",
        "chat-stream-filter-then-error.http",
    ] {
        let ptu = Sample::named(name);
        let answer = Tiers::over(&ptu).await.ask(asking(&ptu)).await;
        assert_eq!(attempts(&answer), [("ptu", 429), ("standard", 200)], "{name}");
        assert_eq!(whole(answer).await, Sample::named("stream-served.http").body, "{name}");
    }
}

#[tokio::test]
async fn what_carries_output_or_is_paid_for_is_never_sent_again() {
    for name in [
        "stream-keepalive-served.http",
        "stream-unknown-output.http",
        "chat-stream-usage-then-error.http",
    ] {
        let ptu = Sample::named(name);
        let answer = Tiers::over(&ptu).await.ask(asking(&ptu)).await;
        assert_eq!(attempts(&answer), [("ptu", 200)], "{name}");
        assert_eq!(whole(answer).await, ptu.body, "{name}");
    }
}

#[tokio::test]
async fn a_response_in_the_background_gives_its_id_before_anything_else_happens() {
    let mut ptu = Sample::named("stream-background.http");
    let first = ptu.body.windows(2).position(|end| end == b"\n\n").unwrap() + 2;
    ptu.body.truncate(first);
    let mut said = ptu.wire();
    // The stream is not over: nothing follows.
    said.truncate(said.len() - "\r\n0\r\n\r\n".len());
    let server = Raw::saying([said]).await;
    let tiers = Tiers { ptu: over("ptu", server), ..Tiers::over(&ptu).await };
    let mut answer = tiers.ask(asking(&ptu)).await;
    assert_eq!(attempts(&answer), [("ptu", 200)]);
    let event = soon(answer.body_mut().frame()).await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(event, ptu.body);
}
