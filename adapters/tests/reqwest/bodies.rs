//! Bodies in both directions.

use std::{convert::Infallible, time::Duration};

use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use spillover_emulator::{Deployment, Pace, Standard};
use tower_spillover::{ReplayLayer, TryCloneBody};

use super::*;
use crate::azure::{Azure, refused_for};

#[tokio::test]
async fn a_long_prompt_arrives_whole_with_its_length() {
    let azure = Azure::open(&["east"]).await;
    let stack = rotation(plain(), azure.pool([EAST]), MoveOn::new());
    let prompt = "fact ".repeat(400_000);
    let body = format!(r#"{{"messages": [{{"role": "user", "content": "{prompt}"}}]}}"#);
    let answer = send(&stack, ask(Full::from(body.clone()))).await;
    assert_eq!(answer.status(), 200);
    let received = &azure.emulator.received()[0];
    assert_eq!(received.headers["content-length"], body.len().to_string());
    assert!(!received.headers.contains_key("transfer-encoding"));
    assert_eq!(received.body, body);
}

#[tokio::test]
async fn an_answer_is_read_event_by_event_while_it_is_generated() {
    let pace = Pace { first_token: Duration::ZERO, per_token: Duration::from_millis(50) };
    let azure = Azure::with(&["east"], |resource| {
        resource.deployment(Deployment::standard("gpt-4o", Standard::unlimited()).pace(pace))
    })
    .await;
    let stack = rotation(plain(), azure.pool([EAST]), MoveOn::new());
    let question = r#"{"messages": [{"content": "hello"}], "stream": true,
        "metadata": {"emulator_completion_tokens": 8}}"#;
    let mut answer = send(&stack, ask(Full::from(question))).await;
    let first = soon(answer.body_mut().frame()).await.expect("an event").expect("no error");
    assert!(first.is_data());
    assert_eq!(azure.counts(EAST).completion_tokens, 0, "it is being generated");
    let rest = soon(answer.into_body().collect()).await.expect("the rest").to_bytes();
    assert!(rest.ends_with(b"data: [DONE]\n\n"));
    assert_eq!(azure.counts(EAST).completion_tokens, 8);
}

#[tokio::test]
async fn a_body_that_is_not_sync_is_sent_as_it_arrives() {
    let azure = Azure::open(&["east"]).await;
    let pieces = [&CHAT[..10], &CHAT[10..]]
        .map(|piece| Ok::<_, Infallible>(http_body::Frame::data(Bytes::from(piece.to_owned()))));
    // As a proxy's are, axum's for example.
    let body: UnsyncBoxBody<Bytes, Infallible> =
        StreamBody::new(futures::stream::iter(pieces)).boxed_unsync();
    let client = client(plain());
    let mut request = ask(body);
    *request.uri_mut() = format!("{}{CLASSIC}", azure.endpoint("east"))
        .replace("whatever", "gpt-4o")
        .parse()
        .expect("an address");
    request.headers_mut().insert("api-key", "key-of-east".parse().expect("a key"));
    let answer = soon(client.oneshot(request)).await.expect("a response");
    assert_eq!(answer.status(), 200);
    assert_eq!(azure.emulator.received()[0].body, CHAT);
}

#[tokio::test]
async fn a_request_without_a_body_is_sent_without_one() {
    let azure = Azure::open(&["east"]).await;
    let mut request = Request::new(Full::<Bytes>::default());
    let url = format!("{}/openai/v1/models", azure.endpoint("east"));
    *request.uri_mut() = url.parse().expect("an address");
    request.headers_mut().insert("api-key", "key-of-east".parse().expect("a key"));
    let answer = soon(client(plain()).oneshot(request)).await.expect("a response");
    assert_eq!(answer.status(), 200);
    let received = &azure.emulator.received()[0];
    for name in ["transfer-encoding", "content-length", "expect"] {
        assert!(!received.headers.contains_key(name), "{:?}", received.headers);
    }
}

#[tokio::test]
async fn a_request_of_another_http_version_is_sent_over_the_version_that_there_is() {
    let azure = Azure::open(&["east"]).await;
    let mut request = chat();
    *request.uri_mut() = format!(
        "{}/openai/deployments/gpt-4o/chat/completions?api-version=1",
        azure.endpoint("east")
    )
    .parse()
    .unwrap();
    *request.version_mut() = http::Version::HTTP_2;
    request.headers_mut().insert("api-key", "key-of-east".parse().expect("a key"));
    let answer = soon(client(plain()).oneshot(request)).await.expect("a response");
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_stream_gets_one_attempt_and_a_replay_layer_gives_it_another() {
    let azure = Azure::open(&["east", "sweden"]).await;
    let pool = azure.pool([EAST, SWEDEN]);
    pool.force_start(EAST).expect("a backend");
    let upload = || post(reqwest::Body::wrap(String::from(CHAT)));

    azure.script(EAST, [refused_for(30_000)]);
    let rotate = RegionRotateLayer::new(pool);
    let bare = RequestService::new(ServiceBuilder::new().layer(rotate).service(client(plain())));
    let answer = soon(bare.execute(upload())).await.expect("a response");
    assert_eq!(answer.status().as_u16(), 429);
    assert!(!served(answer.extensions()).replayable());

    let fresh = azure.pool([EAST, SWEDEN]);
    fresh.force_start(EAST).expect("a backend");
    azure.script(EAST, [refused_for(30_000)]);
    let kept = RequestService::new(
        ServiceBuilder::new()
            .layer(ReplayLayer::new(1 << 20))
            .layer(RegionRotateLayer::new(fresh))
            .service(client(plain())),
    );
    let answer = soon(kept.execute(upload())).await.expect("a response");
    assert_eq!(attempts(served(answer.extensions())), [(EAST, 429), (SWEDEN, 200)]);
}

#[test]
fn a_request_body_in_memory_is_one_to_send_again() {
    let body = RequestBody::from(reqwest::Body::from("prompt"));
    assert_eq!(body.content().as_deref(), Some(&b"prompt"[..]));
    assert!(!format!("{body:?}").contains("prompt"));
}
