//! What `InspectLayer` turns answers into: the waits that it finds, and the remaining bodies.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::{Request, Response, Version};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody};
use tower::{Layer, ServiceExt, service_fn};
use tower_spillover::{
    InspectLayer, ResponseBody,
    classify::{Hint, Outcome, Reason, Refusal},
};

use crate::{
    clock::{ms, timed},
    leaf::{Answer, Broken, header},
};

type Ask = Request<Full<Bytes>>;

async fn inspected<B>(answer: Response<B>) -> Response<ResponseBody<B>>
where
    B: Body<Data = Bytes, Error: Send + Sync + 'static> + Unpin,
{
    let mut answer = Some(answer);
    let client = service_fn(move |_: Ask| {
        let answer = answer.take().expect("one request");
        async { Ok::<_, Broken>(answer) }
    });
    let ask = Request::post("/openai/v1/responses").body(Full::<Bytes>::default()).unwrap();
    InspectLayer::new().layer(client).oneshot(ask).await.unwrap()
}

async fn told(answer: Answer) -> Response<ResponseBody<Full<Bytes>>> {
    inspected(answer.into_response()).await
}

fn refusal<R>(response: &Response<R>) -> Option<(Reason, Hint)> {
    let refusal = response.extensions().get::<Refusal>()?;
    Some((refusal.reason(), refusal.hint()))
}

fn after(seconds: u64) -> Hint {
    Hint::After(Duration::from_secs(seconds))
}

#[tokio::test(start_paused = true)]
async fn words_count_before_the_time_at_which_a_limit_resets() {
    let overdrawn = |answer: Answer| {
        answer.with("x-ratelimit-remaining-tokens", "-27689").with("x-ratelimit-reset-tokens", "64")
    };
    let text =
        r#"{"error":{"code":"rate_limit_exceeded","message":"Please retry after 4 seconds."}}"#;
    let refused = told(overdrawn(Answer::status(429).telling(text))).await;
    assert_eq!(refusal(&refused), Some((Reason::Rate, after(4))));
    assert_eq!(header(&refused, "retry-after-ms"), Some("4000"));

    // A lack of capacity is independent of the limit.
    let event = "event: error\ndata: {\"error\":{\"code\":\"no_capacity\",\"message\":\"Please retry after 8 seconds.\"}}\n\n";
    let refused = told(overdrawn(Answer::ok().telling(event))).await;
    assert_eq!(refusal(&refused), Some((Reason::Capacity, after(8))));

    let asked = overdrawn(Answer::status(429).telling(text)).with("retry-after-ms", "43");
    assert_eq!(refusal(&told(asked).await).unwrap().1, Hint::After(Duration::from_millis(43)));
    let wordless = told(overdrawn(Answer::status(429))).await;
    assert_eq!(refusal(&wordless).unwrap().1, after(64), "the head alone tells");
}

#[tokio::test(start_paused = true)]
async fn words_leave_a_pushback_of_grpc_as_it_is() {
    let answer = Answer::status(429)
        .telling("Please retry after 4 seconds.")
        .with("content-type", "application/grpc")
        .with("grpc-retry-pushback-ms", "250");
    let refused = told(answer).await;
    assert_eq!(refusal(&refused).unwrap().1, Hint::After(Duration::from_millis(250)));
    assert_eq!(header(&refused, "retry-after-ms"), None);
}

#[tokio::test(start_paused = true)]
async fn a_byte_order_mark_before_json_hides_nothing() {
    for (status, text) in [
        (403, r#"{"statusCode":403,"message":"Out of call volume quota."}"#),
        (429, r#"{"error":{"code":"insufficient_quota","message":"plan and billing"}}"#),
        (200, r#"{"object":"response","status":"failed","error":{"code":"insufficient_quota"}}"#),
    ] {
        let answer = Answer::status(status).telling(format!("\u{feff}{text}"));
        let refused = told(answer.with("content-type", "application/json")).await;
        assert_eq!(refusal(&refused).map(|(reason, _)| reason), Some(Reason::Quota), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_called_message_is_one_without_a_name() {
    let event = format!("event: message\n{}", ERROR.trim_start_matches("event: error\n"));
    assert_eq!(told(Answer::ok().telling(event)).await.status(), 429);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_used_tokens_is_not_sent_again() {
    let usage = |tokens: u32| format!(r#""usage":{{"input_tokens":0,"total_tokens":{tokens}}}"#);
    for (tokens, status) in [(0, 429), (1_600, 200)] {
        let error = r#""error":{"code":"rate_limit_exceeded","message":"x"},"output":[]"#;
        let response = format!(r#"{{"status":"failed",{error},{}}}"#, usage(tokens));
        let event = format!("event: response.failed\ndata: {{\"response\":{response}}}\n\n");
        assert_eq!(told(Answer::ok().telling(response)).await.status(), status);
        assert_eq!(told(Answer::ok().telling(event)).await.status(), status);
    }
}

type Pieces = std::pin::Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Broken>> + Send + Sync>>;

/// An event stream of `pieces`, with how many of them were read.
fn streamed(
    pieces: impl Stream<Item = Result<&'static str, Broken>> + Send + Sync + 'static,
) -> (Response<StreamBody<Pieces>>, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let read = Arc::clone(&count);
    let frames = pieces.map(move |piece| {
        read.fetch_add(1, Ordering::Relaxed);
        Ok(Frame::data(Bytes::from_static(piece?.as_bytes())))
    });
    let pieces: Pieces = Box::pin(frames);
    let answer = Response::builder().header("content-type", "text/event-stream");
    (answer.body(StreamBody::new(pieces)).unwrap(), count)
}

fn later(
    ms_later: u64,
    piece: &'static str,
) -> impl Stream<Item = Result<&'static str, Broken>> + Send + Sync + 'static {
    stream::once(async move {
        crate::clock::pass(ms(ms_later)).await;
        Ok(piece)
    })
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_events_that_say_nothing_is_one() {
    for silent in [KEEP_ALIVE, ": note\n\n", UNKNOWN, FILTER] {
        let pieces = stream::iter([Ok(CREATED)])
            .chain(later(10_000, silent))
            .chain(later(10_000, silent))
            .chain(later(5_000, ERROR));
        let (answer, took) = timed(inspected(streamed(pieces).0)).await;
        assert_eq!(refusal(&answer), Some((Reason::Capacity, Hint::None)), "{silent}");
        assert_eq!((answer.status().as_u16(), took.as_secs()), (429, 25), "{silent}");
    }
}

#[tokio::test(start_paused = true)]
async fn events_that_say_nothing_are_held_no_longer_than_the_service_is_silent() {
    let pieces = stream::iter([Ok(CREATED)])
        .chain(later(20_000, KEEP_ALIVE))
        .chain(later(20_000, KEEP_ALIVE))
        .chain(later(20_000, ERROR));
    let (answer, took) = timed(inspected(streamed(pieces).0)).await;
    assert_eq!((answer.status().as_u16(), refusal(&answer)), (200, None));
    assert!(took >= ms(30_000) && took <= ms(30_001), "{took:?}");
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(text, [CREATED, KEEP_ALIVE, KEEP_ALIVE, ERROR].concat(), "as it came");
}

#[tokio::test(start_paused = true)]
async fn a_response_in_the_background_is_passed_on_at_once() {
    let pieces = stream::iter([Ok(BACKGROUND)]).chain(later(20_000, ERROR));
    let (answer, took) = timed(inspected(streamed(pieces).0)).await;
    assert_eq!((answer.status().as_u16(), took), (200, Duration::ZERO));
    let mut body = answer.into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, BACKGROUND);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_too_long_is_a_400_that_asks_for_no_wait() {
    let error = r#""error":{"code":"context_length_exceeded","message":"Retry after 3 seconds."}"#;
    let response = format!(r#"{{"status":"failed",{error},"output":[]}}"#);
    let event = format!("event: response.failed\ndata: {{\"response\":{response}}}\n\n");
    for (text, kind) in [(response, "application/json"), (event, "text/event-stream")] {
        let answer = told(Answer::ok().telling(text).with("content-type", kind)).await;
        assert_eq!(answer.status().as_u16(), 400, "{kind}");
        assert_eq!(refusal(&answer), Some((Reason::ContextLength, Hint::None)), "{kind}");
        assert_eq!(header(&answer, "retry-after-ms"), None);
        assert_eq!(header(&answer, "content-type"), Some("application/json"));
        let outcome = Outcome::of_response(&answer, || panic!("no date"));
        assert_eq!(outcome, Outcome::ContextTooLong);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, format!("{{{error}}}"), "in its own words");
    }
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_a_refused_answer_delays_it_by_no_more_than_50_ms() {
    let rest = || stream::iter([Ok(ERROR), Ok(FAILED)]);
    let late = |pause| {
        stream::once(async move {
            crate::clock::pass(ms(pause)).await;
            Ok(FAILED)
        })
    };
    let never = || rest().chain(stream::pending());
    for (answer, delay) in [
        (streamed(rest()), 0),
        (streamed(stream::iter([Ok(ERROR)]).chain(late(20))), 20),
        (streamed(stream::iter([Ok(ERROR)]).chain(late(20)).chain(stream::pending())), 50),
        (streamed(never()), 50),
        (streamed(rest().chain(stream::iter([Err(Broken("reset by peer"))]))), 0),
    ] {
        let (refused, took) = timed(inspected(answer.0)).await;
        assert_eq!(
            (refused.status().as_u16(), header(&refused, "content-type")),
            (429, Some("application/json"))
        );
        assert_eq!(refusal(&refused), Some((Reason::Capacity, Hint::None)));
        // The timer's granularity.
        assert!(took >= ms(delay) && took <= ms(delay + 1), "{took:?} instead of {delay} ms");
    }

    let (mut by_head, count) = streamed(never());
    by_head.headers_mut().insert("retry-after", "4".parse().unwrap());
    let (refused, took) = timed(inspected(by_head)).await;
    assert_eq!(
        (refusal(&refused), count.load(Ordering::Relaxed)),
        (Some((Reason::Rate, after(4))), 2)
    );
    assert!(took >= ms(50) && took <= ms(51), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn no_more_than_64_kib_are_read_of_the_rest_of_a_refused_answer() {
    let kib: &'static str = Box::leak("a".repeat(1 << 10).into_boxed_str());
    for (piece, most) in [(kib, 64), ("", 4_096)] {
        let endless = stream::iter([Ok(ERROR)]).chain(stream::repeat(Ok(piece)));
        let (answer, count) = streamed(endless);
        assert_eq!(inspected(answer).await.status(), 429);
        assert_eq!(count.load(Ordering::Relaxed), 1 + most);
    }
}

#[tokio::test(start_paused = true)]
async fn of_http_2_the_rest_of_a_refused_answer_is_dropped_at_once() {
    let (mut answer, count) = streamed(stream::iter([Ok(ERROR)]).chain(stream::pending()));
    *answer.version_mut() = Version::HTTP_2;
    let (refused, took) = timed(inspected(answer)).await;
    assert_eq!((refused.status().as_u16(), took), (429, Duration::ZERO));
    assert_eq!((count.load(Ordering::Relaxed), Arc::strong_count(&count)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_future_that_is_dropped_while_the_rest_is_read_drops_the_body() {
    let (answer, count) = streamed(stream::iter([Ok(ERROR)]).chain(stream::pending()));
    let mut reading = tokio_test::task::spawn(inspected(answer));
    assert!(reading.poll().is_pending());
    assert_eq!((count.load(Ordering::Relaxed), Arc::strong_count(&count)), (1, 2));
    drop(reading);
    assert_eq!(Arc::strong_count(&count), 1);
}

const ERROR: &str =
    "event: error\ndata: {\"error\":{\"code\":\"no_capacity\",\"message\":\"busy\"}}\n\n";
const FAILED: &str =
    "event: response.failed\ndata: {\"response\":{\"status\":\"failed\",\"error\":null}}\n\n";
const CREATED: &str =
    "event: response.created\ndata: {\"response\":{\"id\":\"resp_1\",\"background\":false}}\n\n";
const BACKGROUND: &str =
    "event: response.created\ndata: {\"response\":{\"id\":\"resp_1\",\"background\":true}}\n\n";
const KEEP_ALIVE: &str =
    "event: keepalive\ndata: {\"type\":\"keepalive\",\"sequence_number\":1}\n\n";
const UNKNOWN: &str = "event: news\ndata: {\"type\":\"news\",\"sequence_number\":1}\n\n";
const FILTER: &str = "data: {\"choices\":[],\"prompt_filter_results\":[{\"prompt_index\":0}]}\n\n";
