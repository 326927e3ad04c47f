//! What `InspectLayer` promises: attempts, limits, cancellation, and bodies returned as they came.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use tokio::time::advance;
use tokio_test::{assert_pending, assert_ready, assert_ready_ok, task};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, retry::RetryLayer, service_fn};
use tower_spillover::{
    Backend, BackendPool, InspectLayer, RegionRotateLayer, ResponseBody, RetryAfterPolicy,
    classify::{Hint, Reason, Refusal},
};
use tower_test::mock;

use crate::{
    clock::{ms, timed},
    leaf::{Broken, asked},
};

/// A body of these frames, one every `pace`. It must not be polled after its end or error.
#[derive(Debug)]
struct Slow {
    frames: VecDeque<Result<Frame<Bytes>, Broken>>,
    pace: Duration,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
    is_over: bool,
    /// Dropped with the body.
    _alive: Arc<()>,
}

impl Slow {
    fn new(texts: &[&'static str], pace: u64, alive: &Arc<()>) -> Self {
        let frames = texts.iter().map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes()))));
        Self {
            frames: frames.collect(),
            pace: ms(pace),
            pause: None,
            is_over: false,
            _alive: Arc::clone(alive),
        }
    }

    fn then(mut self, last: Result<Frame<Bytes>, Broken>) -> Self {
        self.frames.push_back(last);
        self
    }
}

impl Body for Slow {
    type Data = Bytes;
    type Error = Broken;

    #[expect(clippy::disallowed_methods, reason = "a test lets paused time pass")]
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        assert!(!self.is_over, "polled after its end");
        if !self.pace.is_zero() {
            let pace = self.pace;
            let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(pace)));
            std::task::ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let next = self.frames.pop_front();
        self.is_over = !matches!(next, Some(Ok(_)));
        Poll::Ready(next)
    }

    fn size_hint(&self) -> SizeHint {
        let data = self.frames.iter().flatten().filter_map(Frame::data_ref);
        SizeHint::with_exact(data.map(|data| data.len() as u64).sum())
    }
}

type Ask = Request<Full<Bytes>>;

fn ask() -> Ask {
    Request::post("/openai/v1/responses").body(Full::default()).unwrap()
}

fn reply(status: u16, kind: &str, body: Slow) -> Response<Slow> {
    Response::builder().status(status).header("content-type", kind).body(body).unwrap()
}

fn stream(body: Slow) -> Response<Slow> {
    reply(200, "text/event-stream", body)
}

async fn inspected(layer: InspectLayer, answer: Response<Slow>) -> Response<ResponseBody<Slow>> {
    let mut answer = Some(answer);
    let client = service_fn(move |_: Ask| {
        let answer = answer.take().expect("one request");
        async { Ok::<_, Broken>(answer) }
    });
    layer.layer(client).oneshot(ask()).await.unwrap()
}

/// Every frame of a body, and its error.
async fn frames(mut body: ResponseBody<Slow>) -> (Vec<String>, Option<HeaderMap>, Option<Broken>) {
    let (mut texts, mut trailers) = (Vec::new(), None);
    loop {
        match body.frame().await {
            None => return (texts, trailers, None),
            Some(Err(error)) => {
                assert!(body.frame().await.is_none(), "an error is the end");
                return (texts, trailers, Some(error));
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => texts.push(String::from_utf8(data.to_vec()).unwrap()),
                Err(frame) => trailers = frame.into_trailers().ok(),
            },
        }
    }
}

fn refusal<R>(response: &Response<R>) -> Option<(Reason, Hint)> {
    let refusal = response.extensions().get::<Refusal>()?;
    Some((refusal.reason(), refusal.hint()))
}

const CREATED: &str = "event: response.created\ndata: {\"response\":{}}\n\n";
const ITEM: &str = "event: response.output_item.added\ndata: {}\n\n";
const ERROR: &str =
    "event: error\ndata: {\"error\":{\"code\":\"no_capacity\",\"message\":\"busy\"}}\n\n";
const LIMITED: &str =
    r#"{"error":{"code":"429","message":"rate limit. Please retry after 2 seconds."}}"#;

#[tokio::test(start_paused = true)]
async fn three_attempts_each_go_through_the_service_that_was_readied() {
    let alive = Arc::new(());
    let (client, mut handle) = mock::pair::<Ask, Response<Slow>>();
    handle.allow(0);
    let mut service = mock::Spawn::new(InspectLayer::new().layer(client));
    for attempt in 0..3 {
        assert_pending!(service.poll_ready::<Ask>());
        handle.allow(1);
        assert_ready_ok!(service.poll_ready::<Ask>());
        let mut call = task::spawn(service.call(ask()));
        assert_pending!(call.poll());
        let mut next = task::spawn(handle.next_request());
        let (_, send) = assert_ready!(next.poll()).expect("a request");
        drop(next);
        match attempt {
            0 => send.send_response(stream(Slow::new(&[CREATED, ERROR], 10, &alive))),
            1 => send.send_response(reply(429, "text/plain", Slow::new(&[LIMITED], 10, &alive))),
            _ => send.send_response(stream(Slow::new(&[CREATED, ITEM], 10, &alive))),
        }
        assert!(call.is_woken());
        for _ in 0..2 {
            if call.poll().is_pending() {
                advance(ms(11)).await;
            }
        }
        let answer = loop {
            match call.poll() {
                Poll::Ready(answer) => break answer.unwrap(),
                Poll::Pending => advance(ms(11)).await,
            }
        };
        let reason = refusal(&answer).map(|(reason, _)| reason);
        assert_eq!(reason, [Some(Reason::Capacity), Some(Reason::Rate), None][attempt]);
        assert_eq!(answer.status().is_success(), attempt == 2);
    }
}

#[test]
fn the_service_its_future_and_its_body_are_send_and_sync_where_the_clients_are() {
    fn lawful<T: Send + Sync + 'static>(_: &T) {}
    let client = service_fn(|_: Ask| {
        std::future::ready(Ok::<_, Broken>(Response::new(Full::<Bytes>::from("the answer"))))
    });
    let mut service = InspectLayer::new().layer(client);
    lawful(&service);
    let call = service.call(ask());
    lawful(&call);
    let answer = call.now_or_never().expect("nothing to wait for").unwrap();
    lawful(&answer.into_body());
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_client_is_the_callers() {
    let (client, mut handle) = mock::pair::<Ask, Response<Slow>>();
    let mut call = task::spawn(InspectLayer::new().layer(client).oneshot(ask()));
    assert_pending!(call.poll());
    handle.next_request().await.unwrap().1.send_error("reset by peer");
    assert_eq!(call.await.unwrap_err().to_string(), "reset by peer");
}

#[tokio::test(start_paused = true)]
async fn a_rotation_goes_on_after_refusals_that_do_not_look_like_refusals() {
    let alive = Arc::new(());
    let held = Arc::clone(&alive);
    let client = service_fn(move |request: Ask| {
        let body = |texts: &[&'static str]| Slow::new(texts, 5, &held);
        let answer = match request.uri().host().unwrap() {
            "a.example" => stream(body(&[CREATED, ERROR])),
            "b.example" => reply(
                403,
                "application/json",
                body(&[r#"{"statusCode":403,"message":"Out of call volume quota."}"#]),
            ),
            "c.example" => reply(
                200,
                "application/json",
                body(&[r#"{"status":"failed","#, r#""error":{"code":"rate_limit_exceeded"}}"#]),
            ),
            _ => stream(body(&[CREATED, ITEM])),
        };
        async { Ok::<_, Broken>(answer) }
    });
    let backends = ["a", "b", "c", "d"]
        .map(|name| Backend::new(name, format!("https://{name}.example")).unwrap().api_key("key"));
    let backends = backends.into_iter().zip(1..).map(|(backend, rank)| backend.priority(rank));
    let pool = BackendPool::new(backends).unwrap();
    let stack = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryAfterPolicy::new()))
        .layer(RegionRotateLayer::new(pool))
        .layer(InspectLayer::new())
        .service(client);
    let answer = stack.oneshot(ask()).await.unwrap();
    assert_eq!(answer.status(), 200);
    let served: &tower_spillover::Served = answer.extensions().get().unwrap();
    assert_eq!(asked(served).iter().map(|(name, _)| *name).collect::<String>(), "abcd");
    assert_eq!(Arc::strong_count(&alive), 2, "the refusals' bodies are gone");
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(text, [CREATED, ITEM].concat());
}

#[tokio::test(start_paused = true)]
async fn frames_are_given_back_as_they_came_and_the_rest_follows() {
    let alive = Arc::new(());
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", "1".parse().unwrap());
    let texts = ["event: response.cr", "eated\ndata: 1\n", "", "\n: note\n", ITEM, "data: 2\n\n"];
    let body = Slow::new(&texts, 3, &alive).then(Ok(Frame::trailers(trailers.clone())));
    let length = body.size_hint().exact();
    let (answer, took) = timed(inspected(InspectLayer::new(), stream(body))).await;
    assert_eq!((answer.status(), refusal(&answer)), (StatusCode::OK, None));
    assert_eq!(took, ms(15), "the first event is enough");
    assert_eq!(answer.body().size_hint().exact(), length);
    assert!(!answer.body().is_end_stream());
    let (got, end) = (frames(answer.into_body()).await, texts.map(str::to_owned));
    assert_eq!(got, (end.to_vec(), Some(trailers), None));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_fails_is_given_back_with_its_error() {
    let alive = Arc::new(());
    for (status, kind, texts) in [
        (200, "text/event-stream", &[CREATED, "event: er"][..]),
        (200, "text/event-stream", &[]),
        (200, "application/json", &[r#"{"status":"failed","error":{"#]),
        (429, "application/json", &[LIMITED]),
    ] {
        let body = Slow::new(texts, 1, &alive).then(Err(Broken("reset by peer")));
        let answer = inspected(InspectLayer::new(), reply(status, kind, body)).await;
        assert_eq!(answer.status(), status);
        // A refusal is judged by what arrived.
        assert_eq!(refusal(&answer).is_some(), status == 429);
        assert!(!answer.body().is_end_stream());
        let (got, _, error) = frames(answer.into_body()).await;
        assert_eq!(got, texts);
        assert_eq!(error, Some(Broken("reset by peer")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_ends_early_is_given_back() {
    let alive = Arc::new(());
    for texts in
        [&[CREATED][..], &[CREATED, "event: error\ndata: {"], &["event: response.cre"], &[]]
    {
        let answer = inspected(InspectLayer::new(), stream(Slow::new(texts, 1, &alive))).await;
        assert_eq!((answer.status(), refusal(&answer)), (StatusCode::OK, None), "{texts:?}");
        assert_eq!(frames(answer.into_body()).await.0, texts);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_does_not_arrive_is_passed_on_after_a_second() {
    let alive = Arc::new(());
    let late = || Slow::new(&[LIMITED, "", "more"], 600, &alive);
    let (answer, took) =
        timed(inspected(InspectLayer::new(), reply(429, "application/json", late()))).await;
    assert_eq!(took, ms(1_000));
    let two = Hint::After(Duration::from_secs(2));
    assert_eq!(refusal(&answer), Some((Reason::Rate, two)), "what came was enough");
    assert_eq!(frames(answer.into_body()).await.0, [LIMITED, "", "more"]);

    let layer = InspectLayer::new().body_time(ms(200));
    let (answer, took) = timed(inspected(layer, reply(429, "text/plain", late()))).await;
    assert_eq!((took, refusal(&answer)), (ms(200), Some((Reason::Rate, Hint::None))));
    let layer = InspectLayer::new().body_time(ms(200));
    let (answer, took) = timed(inspected(layer, reply(503, "text/plain", late()))).await;
    assert_eq!((took, answer.status().as_u16(), refusal(&answer)), (ms(200), 503, None));
}

#[tokio::test(start_paused = true)]
async fn a_preamble_is_held_for_half_a_minute_or_less_as_configured() {
    let alive = Arc::new(());
    let texts = [CREATED, ITEM];
    for (layer, pace, held) in [
        (InspectLayer::new(), 14_000, 28_000),
        (InspectLayer::new(), 16_000, 30_000),
        // No longer than the service itself would stay silent.
        (InspectLayer::new().preamble_time(ms(600_000)), 16_000, 30_000),
        (InspectLayer::new().preamble_time(ms(100)), 16_000, 100),
        (InspectLayer::new().preamble_time(Duration::ZERO), 16_000, 0),
    ] {
        let (answer, took) = timed(inspected(layer, stream(Slow::new(&texts, pace, &alive)))).await;
        // The timer's granularity.
        assert!(took >= ms(held) && took <= ms(held + 1), "{took:?} for {pace}");
        assert_eq!(frames(answer.into_body()).await.0, texts);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_beyond_its_limit_is_passed_on() {
    let alive = Arc::new(());
    let long: &'static str = Box::leak("a".repeat(70 << 10).into_boxed_str());
    let body = Slow::new(&[long, LIMITED], 1, &alive);
    let (answer, took) =
        timed(inspected(InspectLayer::new(), reply(429, "text/plain", body))).await;
    assert_eq!(took, ms(1), "the rest was not waited for");
    assert_eq!(refusal(&answer), Some((Reason::Rate, Hint::None)));
    assert_eq!(frames(answer.into_body()).await.0, [long, LIMITED]);

    let layer = InspectLayer::new().preamble_limit(CREATED.len());
    let answer = inspected(layer, stream(Slow::new(&[CREATED, ERROR], 1, &alive))).await;
    assert_eq!(answer.status(), 429, "as much as the limit may be held");
    let layer = InspectLayer::new().preamble_limit(CREATED.len());
    let answer = inspected(layer, stream(Slow::new(&[CREATED, CREATED, ERROR], 1, &alive))).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(frames(answer.into_body()).await.0, [CREATED, CREATED, ERROR]);
}

#[tokio::test(start_paused = true)]
async fn frames_without_end_are_not_held_without_end() {
    let alive = Arc::new(());
    for (kind, limit) in [(429, 64 << 10), (200, 1 << 20)] {
        let mut body = Slow::new(&[], 0, &alive);
        body.frames = (0..200_000).map(|_| Ok(Frame::data(Bytes::new()))).collect();
        let answer = inspected(InspectLayer::new(), reply(kind, "text/event-stream", body)).await;
        assert_eq!(answer.status(), kind);
        let (got, _, _) = frames(answer.into_body()).await;
        assert_eq!(got.len(), 200_000, "all are given back, {} of them were held", limit / 16);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_compressed_or_of_another_kind_is_not_read() {
    let alive = Arc::new(());
    let mut compressed = stream(Slow::new(&["\u{1f}"], 50, &alive));
    compressed.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
    for answer in [
        compressed,
        reply(200, "audio/mpeg", Slow::new(&["a"], 50, &alive)),
        reply(400, "text/plain", Slow::new(&["a"], 50, &alive)),
        reply(401, "application/json", Slow::new(&["a"], 50, &alive)),
        reply(500, "application/json", Slow::new(&["a"], 50, &alive)),
    ] {
        let (answer, took) = timed(inspected(InspectLayer::new(), answer)).await;
        assert_eq!((took, refusal(&answer)), (Duration::ZERO, None));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_replaces_what_described_the_stream_and_keeps_the_rest() {
    let alive = Arc::new(());
    let mut answer = stream(Slow::new(&[CREATED, ERROR], 1, &alive));
    for (name, value) in [
        ("content-length", "5"),
        ("transfer-encoding", "chunked"),
        ("x-ms-region", "Sweden Central"),
        ("x-ratelimit-remaining-tokens", "-27689"),
        ("x-ratelimit-reset-tokens", "64"),
    ] {
        answer.headers_mut().insert(name, value.parse().unwrap());
    }
    let answer = inspected(InspectLayer::new(), answer).await;
    let hint = Hint::After(Duration::from_secs(64));
    assert_eq!(refusal(&answer), Some((Reason::Capacity, hint)));
    let headers = answer.headers().clone();
    assert!(!headers.contains_key("transfer-encoding"));
    assert_eq!(headers["x-ms-region"], "Sweden Central");
    assert_eq!(headers["content-type"], "application/json");
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(headers["content-length"], body.len().to_string());
    assert_eq!(body, r#"{"error":{"code":"no_capacity","message":"busy"}}"#);
}

#[tokio::test(start_paused = true)]
async fn a_future_dropped_at_any_state_leaves_nothing() {
    let alive = Arc::new(());
    for (status, texts) in [(200, [CREATED, CREATED, ITEM]), (429, ["a", "b", LIMITED])] {
        for after in [0, 1, 5, 9, 15, 25, 35] {
            let mut reading = task::spawn(inspected(
                InspectLayer::new(),
                reply(status, "text/event-stream", Slow::new(&texts, 10, &alive)),
            ));
            let mut answer = None;
            for _ in 0..after {
                if answer.is_none()
                    && let Poll::Ready(answered) = reading.poll()
                {
                    answer = Some(answered);
                }
                advance(ms(1)).await;
            }
            drop(reading);
            drop(answer);
            assert_eq!(Arc::strong_count(&alive), 1, "{status} after {after} ms");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_in_the_words_of_a_refusal_leaves_what_the_service_says_about_retries() {
    let alive = Arc::new(());
    let ask = |word: Option<&'static str>, text: &'static str| {
        let mut answer = reply(429, "application/json", Slow::new(&[text], 0, &alive));
        if let Some(word) = word {
            answer.headers_mut().insert("x-should-retry", word.parse().unwrap());
        }
        inspected(InspectLayer::new(), answer)
    };
    const DAY: &str = r#"{"error":{"code":"429","message":"Please retry after 86400 seconds."}}"#;
    for word in [None, Some("true"), Some("false")] {
        for text in [LIMITED, DAY] {
            let answer = ask(word, text).await;
            let said = answer.headers().get("x-should-retry").map(|it| it.to_str().unwrap());
            assert_eq!(said, word, "{text}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_of_nothing_on_a_stream_leaves_it_to_the_stream() {
    let alive = Arc::new(());
    for (texts, status) in [(&[CREATED, ITEM], 200), (&[CREATED, ERROR], 429)] {
        for name in ["retry-after", "retry-after-ms"] {
            let mut answer = stream(Slow::new(texts, 1, &alive));
            answer.headers_mut().insert(name, "0".parse().unwrap());
            // The reset of a window that is far from exhausted.
            answer.headers_mut().insert("x-ratelimit-reset-tokens", "59".parse().unwrap());
            let answer = inspected(InspectLayer::new(), answer).await;
            assert_eq!(answer.status(), status, "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_head_or_without_content_is_passed_on() {
    for (method, status, kind) in [
        ("HEAD", 200, "text/event-stream"),
        ("HEAD", 429, "application/json"),
        ("HEAD", 403, "application/json"),
        ("POST", 204, "text/event-stream"),
        ("GET", 304, "application/json"),
    ] {
        let client = service_fn(move |_: Request<Full<Bytes>>| async move {
            let answer = Response::builder().status(status).header("content-type", kind);
            // The headers that it would have with another method.
            let answer = answer.header("content-length", "512").header("retry-after", "3");
            Ok::<_, Broken>(answer.body(Full::<Bytes>::default()).unwrap())
        });
        let ask = Request::builder().method(method).uri("/openai/v1/responses");
        let ask = ask.body(Full::default()).unwrap();
        let answer = InspectLayer::new().layer(client).oneshot(ask).await.unwrap();
        assert_eq!(answer.status(), status, "{method} {status}");
        assert_eq!(answer.headers()["content-length"], "512");
        assert!(answer.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_of_grpc_is_given_back_with_its_trailers() {
    let alive = Arc::new(());
    for status in [200, 429, 503] {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "8".parse().unwrap());
        let body =
            Slow::new(&["\0\0\0\0\u{1}a"], 1, &alive).then(Ok(Frame::trailers(trailers.clone())));
        let answer = inspected(InspectLayer::new(), reply(status, "application/grpc", body)).await;
        assert_eq!(answer.status(), status);
        let (texts, got, error) = frames(answer.into_body()).await;
        assert_eq!((texts.len(), got, error), (1, Some(trailers), None));
    }
}
