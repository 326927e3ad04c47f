//! The usage in the record, however the answer came about and ended.

use std::{future::ready, io};

use futures::{StreamExt, stream};
use http_body::{Body, Frame};
use http_body_util::StreamBody;
use hyper_util::rt::TokioIo;
use spillover_emulator::Fault;

use super::*;
use crate::serve::clock;

/// How a stream continues after the event with its usage.
#[derive(Clone, Copy)]
enum Rest {
    Silence,
    Break,
    End,
}

/// A backend whose answers have this kind and ending. Returns its address.
async fn answering(kind: &'static str, headers: &'static [(&str, &str)], rest: Rest) -> String {
    let listener = listener().await;
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let service = hyper::service::service_fn(move |_| ready(answer(kind, headers, rest)));
            let server = hyper::server::conn::http1::Builder::new();
            tokio::spawn(server.serve_connection(TokioIo::new(connection), service));
        }
    });
    url
}

fn answer(
    kind: &str,
    headers: &[(&str, &str)],
    rest: Rest,
) -> http::Result<Response<impl Body<Data = Bytes, Error = io::Error> + use<>>> {
    let event = Bytes::from_static(b"data: {\"usage\":{\"prompt_tokens\":7}}\n\n");
    let rest = match rest {
        Rest::Silence => stream::pending().boxed(),
        Rest::Break => stream::once(gone()).boxed(),
        Rest::End => stream::empty().boxed(),
    };
    let frames = stream::iter([Ok(Frame::data(event))]).chain(rest);
    let answer = Response::builder().header("content-type", kind);
    let answer = headers.iter().fold(answer, |answer, &(name, value)| answer.header(name, value));
    answer.body(StreamBody::new(frames))
}

/// Fails once everything before it has been sent.
async fn gone() -> io::Result<Frame<Bytes>> {
    clock::sleep(Duration::from_millis(50)).await;
    Err(io::Error::other("gone"))
}

/// A gateway whose model `gpt-4o` has its PTU there.
async fn scene(url: &str) -> Scene {
    Scene::with(|config| {
        config.upstream.idle_timeout = Duration::from_millis(200);
        config.models.get_mut("gpt-4o").unwrap().ptu = vec![backend("ptu", url, "ptu")];
    })
    .await
}

#[tokio::test]
async fn it_is_what_was_known_when_the_answer_broke_off() {
    for rest in [Rest::Silence, Rest::Break] {
        let scene = scene(&answering("text/event-stream", &[], rest).await).await;
        let mut answer = scene.chat("gpt-4o").await;
        answer.body_mut().frame().await.expect("a frame").expect("an event");
        assert!(answer.body_mut().frame().await.expect("an end").is_err());
        let told = scene.accounts.wait_for(1).await;
        assert!(!told[0].complete && told[0].prompt == Some(7), "{told:?}");
    }
    let scene = scene(&answering("text/event-stream", &[], Rest::Silence).await).await;
    let mut answer = scene.chat("gpt-4o").await;
    answer.body_mut().frame().await.expect("a frame").expect("an event");
    drop(answer);
    let told = scene.accounts.wait_for(1).await;
    assert!(!told[0].complete && told[0].prompt == Some(7), "{told:?}");
}

#[tokio::test]
async fn there_is_none_in_an_answer_of_another_kind() {
    let scene = scene(&answering("text/plain", &[], Rest::End).await).await;
    text(scene.chat("gpt-4o").await).await;
    let told = scene.accounts.wait_for(1).await;
    assert!(told[0].complete && told[0].prompt.is_none(), "{told:?}");
}

#[tokio::test]
async fn what_azure_spilled_was_used_too() {
    let spilled = &[("x-ms-is-spilled-over", "true")];
    let scene = scene(&answering("text/event-stream", spilled, Rest::End).await).await;
    let answer = scene.chat("gpt-4o").await;
    let decision = said(answer.headers(), "x-spillover-decision").unwrap();
    assert!(decision.starts_with("spilled; why=by-azure; "), "{decision}");
    text(answer).await;
    assert_eq!(scene.accounts.wait_for(1).await[0].prompt, Some(7));
}

#[tokio::test]
async fn it_is_that_of_the_answer_that_goes_out() {
    let scene = Scene::new().await;
    // The PTU is busy from the second request on, so a gate observes the same answers.
    let refusal = || Fault::status(429).header("retry-after-ms", "60000");
    scene.emulator.script("east", "ptu", [refusal()]);
    for count in 1..=3 {
        let answer = scene.chat("gpt-4o").await;
        assert_eq!(answer.status(), StatusCode::OK);
        let answer: serde_json::Value = serde_json::from_str(&text(answer).await).unwrap();
        let told = scene.accounts.wait_for(count).await;
        assert_eq!(told[count - 1].prompt, answer["usage"]["prompt_tokens"].as_u64(), "{told:?}");
        assert!(told[count - 1].prompt.is_some());
    }
    let refused = scene.send(scene.post(&chat("none")).body(Full::from(HELLO)).unwrap()).await;
    assert_eq!(refused.status(), StatusCode::NOT_FOUND);
    assert_eq!(scene.accounts.wait_for(4).await[3].prompt, None);
}

#[tokio::test]
async fn a_busy_ptu_s_answer_is_counted_for_gate_and_record() {
    let scene = Scene::new().await;
    scene.emulator.script("east", "ptu", [Fault::status(429).header("retry-after-ms", "50")]);
    // The first one waits for the PTU, with a permit from the gate.
    let answer = scene.chat("gpt-4o").await;
    let decision = said(answer.headers(), "x-spillover-decision").unwrap().to_owned();
    assert!(decision.starts_with("ptu; why=queue ("), "{decision}");
    text(answer).await;
    let told = scene.accounts.wait_for(1).await;
    assert!(told[0].complete && told[0].prompt.is_some(), "{told:?}");
}
