//! The model name that each backend receives, in bodies that are not in memory.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    Request, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceExt, service_fn};
use tower_spillover::{
    Backend, BackendPool, RegionRotateLayer, ReplayLayer, Served, TryCloneBody,
    replay::{ReplayBody, ReplayTotal},
};

/// A body that arrives in these pieces, optionally with an announced length.
struct Arriving {
    pieces: VecDeque<Bytes>,
    is_announced: bool,
    /// Whether nothing follows the pieces, not even the end.
    goes_silent: bool,
}

impl Arriving {
    fn of(pieces: &[&str]) -> Self {
        let pieces = pieces.iter().map(|piece| Bytes::copy_from_slice(piece.as_bytes())).collect();
        Self { pieces, is_announced: false, goes_silent: false }
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.pieces.pop_front() {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            None if self.goes_silent => Poll::Pending,
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_announced && self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let length = self.pieces.iter().map(|piece| piece.len() as u64).sum();
        if self.is_announced { SizeHint::with_exact(length) } else { SizeHint::default() }
    }
}

/// What the service received: the announced length and the body.
type Sent = Vec<(Option<u64>, String)>;

/// Two backends with other deployment names, the first of which refuses, and a body limit of 20
/// bytes.
async fn sent(request: Request<Arriving>, layer: ReplayLayer) -> (Sent, Response<String>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    let client = service_fn(move |request: Request<ReplayBody<Arriving>>| {
        let kept = Arc::clone(&kept);
        async move {
            let length = request.headers().get(CONTENT_LENGTH);
            let length = length.map(|value| value.to_str().unwrap().parse().unwrap());
            let is_first = request.uri().host() == Some("a.example");
            let body = request.into_body().collect().await.unwrap().to_bytes();
            kept.lock().unwrap().push((length, String::from_utf8(body.to_vec()).unwrap()));
            let mut response = Response::new(Full::<Bytes>::default());
            if is_first {
                *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            }
            Ok::<_, Infallible>(response)
        }
    });
    let service = layer.layer(RegionRotateLayer::new(pool()).layer(client));
    let response = service.oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let sent = seen.lock().unwrap().clone();
    (sent, Response::from_parts(head, String::from_utf8(body.to_vec()).unwrap()))
}

fn pool() -> BackendPool {
    let backend = |name: &str, priority| {
        let backend = Backend::new(name, format!("https://{name}.example")).unwrap();
        backend.deployment(format!("deployment-{name}")).api_key("k").priority(priority)
    };
    BackendPool::new([backend("a", 1), backend("b", 2)]).unwrap()
}

fn post(body: Arriving) -> Request<Arriving> {
    let request = Request::post("/openai/v1/responses").header(CONTENT_TYPE, "application/json");
    request.body(body).unwrap()
}

fn announced(pieces: &[&str]) -> Request<Arriving> {
    let body = Arriving { is_announced: true, ..Arriving::of(pieces) };
    let length = body.size_hint().lower();
    let mut request = post(body);
    request.headers_mut().insert(CONTENT_LENGTH, length.into());
    request
}

const LIMIT: ReplayLayer = ReplayLayer::new(20);

#[tokio::test]
async fn a_body_of_unknown_length_is_renamed_wherever_its_model_stands() {
    for pieces in [
        &[r#"{"model":"gpt","in"#, r#"put":"long enough"}"#][..],
        &[r#"{"input":"long en"#, r#"ough","mod"#, r#"el":"g"#, r#"pt"}"#],
    ] {
        let (sent, response) = sent(post(Arriving::of(pieces)), LIMIT).await;
        let expected = pieces.concat().replace("gpt", "deployment-a");
        assert_eq!(sent, [(None, expected)]);
        let served = response.extensions().get::<Served>().unwrap();
        assert!(!served.replayable() && served.attempts().len() == 1);
    }
}

#[tokio::test]
async fn a_body_that_is_kept_until_its_model_is_sent_with_the_right_length() {
    // The first is forwarded as soon as its model has arrived, the second is complete then.
    for (pieces, backends) in [
        (&[r#"{"model":"gpt","in"#, r#"put":"long enough"}"#][..], &["a"][..]),
        (&[r#"{"input":"long en"#, r#"ough","mod"#, r#"el":"g"#, r#"pt"}"#], &["a", "b"]),
    ] {
        let (sent, _) = sent(announced(pieces), LIMIT.until_model()).await;
        let expected = backends.iter().map(|backend| {
            let text = pieces.concat().replace("gpt", &format!("deployment-{backend}"));
            (Some(text.len() as u64), text)
        });
        assert_eq!(sent, expected.collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_body_whose_new_length_is_not_known_is_refused_before_it_is_sent() {
    let pieces = [r#"{"input":"long en"#, r#"ough","model":"gpt"}"#];
    let (sent, response) = sent(announced(&pieces), LIMIT).await;
    assert!(sent.is_empty());
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert!(response.body().contains("ReplayLayer"), "{}", response.body());
    let served = response.extensions().get::<Served>().unwrap();
    assert!(served.backend().is_none() && !served.replayable());
}

#[tokio::test]
async fn what_names_no_model_in_its_body_streams_as_it_is() {
    let pieces = [r#"{"input":"long en"#, r#"ough","model":"gpt"}"#];
    for path in [
        "/openai/v1/files",
        "/openai/deployments/gpt/chat/completions",
        "/openai/v1/uploads/u/parts",
    ] {
        let mut request = announced(&pieces);
        *request.uri_mut() = path.parse().unwrap();
        let (sent, _) = sent(request, LIMIT).await;
        assert_eq!(sent, [(Some(pieces.concat().len() as u64), pieces.concat())], "{path}");
    }
    let audio = ["RIFF, which is no ", "JSON at all"];
    let mut request = announced(&audio);
    request.headers_mut().insert(CONTENT_TYPE, "audio/wav".parse().unwrap());
    assert_eq!(sent(request, LIMIT).await.0[0].1, audio.concat());
}

#[tokio::test]
async fn a_second_model_never_reaches_a_backend_under_another_name() {
    let pieces = [r#"{"model":"gpt","in"#, r#"put":"long enough","#, r#""model":"other"}"#];
    let (seen, _) = sent(post(Arriving::of(&pieces)), LIMIT.until_model()).await;
    assert_eq!(seen[0].1.matches("deployment-a").count(), 2);
    let (seen, _) = sent(announced(&pieces), LIMIT.until_model()).await;
    let (length, body) = &seen[0];
    assert!(!body.contains("other"), "{body}");
    assert!((body.len() as u64) < length.unwrap(), "a client breaks it off");
}

#[tokio::test]
async fn a_form_is_renamed_as_it_passes() {
    let file = "--b\r\nContent-Disposition: form-data; name=file\r\n\r\nlong\r\n";
    let model = "--b\r\nContent-Disposition: form-data; name=model\r\n\r\nwhisper\r\n";
    for form in [[model, file, "--b--\r\n"], [file, model, "--b--\r\n"]] {
        let mut request = announced(&form);
        *request.uri_mut() = "/openai/v1/audio/transcriptions".parse().unwrap();
        let kind = "multipart/form-data; boundary=b".parse().unwrap();
        request.headers_mut().insert(CONTENT_TYPE, kind);
        let (sent, _) = sent(request, LIMIT.until_model()).await;
        let expected = form.concat().replace("whisper", "deployment-a");
        assert_eq!(sent[0], (Some(expected.len() as u64), expected));
    }
}

#[tokio::test]
async fn a_body_for_which_there_is_no_room_gets_one_attempt_and_says_so() {
    let pieces = [r#"{"model":"gpt"}"#];
    for (room, attempts, replayable) in [(14, 1, false), (15, 2, true)] {
        let total = ReplayTotal::new(room);
        let (seen, response) = sent(announced(&pieces), LIMIT.total(total.clone())).await;
        assert_eq!(seen.len(), attempts);
        assert!(seen.iter().all(|(length, body)| *length == Some(body.len() as u64)));
        assert!(seen[0].1.contains("deployment-a"));
        assert_eq!(response.extensions().get::<Served>().unwrap().replayable(), replayable);
        assert_eq!(total.held(), 0);
    }
}

#[tokio::test]
async fn room_is_given_back_when_the_last_copy_is_dropped_wherever_a_request_ends() {
    let total = ReplayTotal::new(100);
    let layer = LIMIT.total(total.clone());
    let client = service_fn(async |request: Request<_>| Ok::<_, Infallible>(request));
    let service = layer.layer(client);
    let request: Request<ReplayBody<Arriving>> =
        service.clone().oneshot(post(Arriving::of(&["twelve", " bytes"]))).await.unwrap();
    assert_eq!(total.held(), 12);
    let copy = request.body().try_clone().unwrap();
    let frame = request.into_body().frame().await.unwrap().unwrap().into_data().unwrap();
    drop(copy);
    assert_eq!(total.held(), 12, "a connection still writes it");
    drop(frame);
    assert_eq!(total.held(), 0);

    // Too long for the limit: held until it was written.
    let body = Arriving::of(&["more than twenty bytes", "more"]);
    let request = service.clone().oneshot(post(body)).await.unwrap();
    assert_eq!(total.held(), 22);
    drop(request);
    assert_eq!(total.held(), 0);

    // Dropped while it arrives.
    let body = Arriving { goes_silent: true, ..Arriving::of(&["some"]) };
    let mut arriving = Box::pin(service.oneshot(post(body)));
    assert!(futures::poll!(&mut arriving).is_pending());
    assert_eq!(total.held(), 4);
    drop(arriving);
    assert_eq!(total.held(), 0);
}

#[tokio::test]
async fn many_uploads_at_once_hold_no_more_than_the_total_and_none_waits_for_another() {
    let total = ReplayTotal::new(1_000);
    let layer = ReplayLayer::new(500).total(total.clone());
    let service = layer.layer(service_fn(async |request: Request<_>| Ok::<_, Infallible>(request)));
    let piece = "x".repeat(100);
    let mut held = Vec::new();
    let mut kept = 0;
    for _ in 0..20 {
        let body = Arriving::of(&[&*piece; 4]);
        let request: Request<ReplayBody<Arriving>> =
            service.clone().oneshot(post(body)).await.unwrap();
        assert!(total.held() <= 1_000);
        kept += usize::from(request.body().is_replayable());
        held.push(request);
    }
    assert_eq!(kept, 2);
    for request in held {
        assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), piece.repeat(4));
    }
    assert_eq!(total.held(), 0);
}
