//! What `ReplayLayer` keeps, what it forwards immediately, and how it treats a broken body.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Request, header::CONTENT_LENGTH};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty};
use tokio_test::{assert_pending, task};
use tower::{Layer, ServiceExt, service_fn};
use tower_spillover::{
    ReplayLayer, TryCloneBody,
    replay::{ReplayBody, ReplayTotal},
};

use crate::leaf::Broken;

/// A body of these frames, which counts how often it is polled.
#[derive(Debug, Default)]
struct Scripted {
    frames: VecDeque<Option<Result<Frame<Bytes>, Broken>>>,
    polled: Arc<AtomicUsize>,
    hint: SizeHint,
}

impl Scripted {
    fn of(frames: impl IntoIterator<Item = Frame<Bytes>>) -> Self {
        let frames = frames.into_iter().map(|frame| Some(Ok(frame))).collect();
        Self { frames, ..Self::default() }
    }

    fn chunks(chunks: &[&'static str]) -> Self {
        Self::of(chunks.iter().map(|&chunk| Frame::data(Bytes::from_static(chunk.as_bytes()))))
    }

    fn then_breaks(mut self) -> Self {
        self.frames.push_back(Some(Err(Broken("the caller went away"))));
        self
    }
}

impl Body for Scripted {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.polled.fetch_add(1, Ordering::Relaxed);
        match self.frames.pop_front() {
            Some(None) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(frame) => Poll::Ready(frame),
            None => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

/// The body that a client gets, when `limit` bytes are kept.
async fn kept(limit: usize, request: Request<Scripted>) -> ReplayBody<Scripted> {
    let client =
        service_fn(async |request: Request<ReplayBody<Scripted>>| Ok::<_, Broken>(request));
    ReplayLayer::new(limit).layer(client).oneshot(request).await.unwrap().into_body()
}

/// Everything that comes out of a body.
async fn drain(mut body: ReplayBody<Scripted>) -> (String, Option<HeaderMap>, Option<Broken>) {
    let (mut text, mut trailers) = (String::new(), None);
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => text.push_str(std::str::from_utf8(&data).unwrap()),
            Ok(Err(frame)) => trailers = frame.into_trailers().ok(),
            Err(error) => return (text, trailers, Some(error)),
        }
    }
    (text, trailers, None)
}

#[tokio::test]
async fn a_body_up_to_the_limit_is_kept_and_one_byte_more_is_not() {
    for (limit, is_kept) in [(9, true), (10, true), (8, false), (5, false), (1, false), (0, false)]
    {
        let body = kept(limit, Request::new(Scripted::chunks(&["one", "", "two", "six"]))).await;
        assert_eq!(body.is_replayable(), is_kept, "{limit}");
        assert_eq!(body.try_clone().is_some(), is_kept);
        assert_eq!(body.content().is_some(), is_kept);
        if let Some(again) = body.try_clone() {
            assert_eq!(body.size_hint().exact(), Some(9));
            assert_eq!(drain(again).await.0, "onetwosix");
        }
        assert_eq!(drain(body).await, ("onetwosix".to_owned(), None, None), "{limit}");
    }
}

#[tokio::test]
async fn what_was_kept_of_a_body_that_is_too_long_comes_first_and_is_not_read_on() {
    let body = Scripted::chunks(&["one", "two", "six", "ten"]);
    let polled = Arc::clone(&body.polled);
    let body = kept(4, Request::new(body)).await;
    assert_eq!(polled.load(Ordering::Relaxed), 2, "no further than the limit");
    assert_eq!(drain(body).await.0, "onetwosixten");
}

#[tokio::test]
async fn trailers_are_kept_and_sent_with_every_copy() {
    let trailers: HeaderMap =
        [("x-checksum".parse().unwrap(), "1".parse().unwrap())].into_iter().collect();
    for limit in [100, 2] {
        let frames = [Frame::data(Bytes::from("text")), Frame::trailers(trailers.clone())];
        let body = kept(limit, Request::new(Scripted::of(frames))).await;
        if let Some(copy) = body.try_clone() {
            assert!(!copy.is_end_stream());
            assert_eq!(drain(copy).await.1.as_ref(), Some(&trailers));
        }
        assert_eq!(drain(body).await, ("text".to_owned(), Some(trailers.clone()), None));
    }
}

#[tokio::test]
async fn an_empty_body_is_kept_whatever_the_limit() {
    for limit in [0, 1] {
        let body = kept(limit, Request::new(Scripted::default())).await;
        assert!(body.is_replayable() && body.is_end_stream());
        assert_eq!(body.size_hint().exact(), Some(0));
        assert_eq!(drain(body.try_clone().unwrap()).await.0, "");
        assert_eq!(drain(body).await, (String::new(), None, None));
    }
    let client = service_fn(async |request: Request<ReplayBody<_>>| Ok::<_, Broken>(request));
    let sent = ReplayLayer::new(0).layer(client).oneshot(Request::new(Empty::<Bytes>::new()));
    assert!(sent.await.unwrap().body().is_replayable());
}

#[tokio::test]
async fn a_body_known_to_be_too_long_is_passed_on_before_it_is_polled() {
    let mut hinted = Request::new(Scripted::chunks(&["one", "two"]));
    hinted.body_mut().hint = SizeHint::with_exact(6);
    let announced = |length: &str| {
        let body = Scripted::chunks(&["one", "two"]);
        Request::builder().header(CONTENT_LENGTH, length).body(body).unwrap()
    };
    for request in [hinted, announced("6"), announced("18446744073709551615")] {
        let polled = Arc::clone(&request.body().polled);
        let body = kept(5, request).await;
        assert!(!body.is_replayable());
        assert_eq!(polled.load(Ordering::Relaxed), 0);
        assert_eq!(drain(body).await.0, "onetwo");
    }
    for honest in ["5", "0", "", "-1", "six", "99999999999999999999999"] {
        let request = announced(honest);
        assert!(!kept(5, request).await.is_replayable(), "six bytes come, whatever is announced");
        assert!(kept(6, announced(honest)).await.is_replayable(), "{honest}");
    }
}

#[tokio::test]
async fn an_error_of_the_body_is_met_by_the_client_after_what_came_before_it() {
    for limit in [100, 4, 0] {
        let body = Scripted::chunks(&["one", "two"]).then_breaks();
        let body = kept(limit, Request::new(body)).await;
        assert!(!body.is_replayable() && body.try_clone().is_none() && body.content().is_none());
        assert!(!body.is_end_stream());
        let error = Some(Broken("the caller went away"));
        assert_eq!(drain(body).await, ("onetwo".to_owned(), None, error), "{limit}");
    }
    let body = kept(100, Request::new(Scripted::default().then_breaks())).await;
    assert_eq!(drain(body).await.2, Some(Broken("the caller went away")));
}

#[tokio::test]
async fn a_body_of_many_chunks_is_kept_in_order() {
    let chunks: Vec<Bytes> = (0..10_000).map(|n| Bytes::from(format!("{n},"))).collect();
    let whole: String = (0..10_000).map(|n| format!("{n},")).collect();
    let body = Scripted::of(chunks.into_iter().map(Frame::data));
    let body = kept(1 << 20, Request::new(body)).await;
    assert_eq!(body.content().unwrap(), whole);
    assert_eq!(drain(body).await.0, whole);
}

/// Three chunks that are kept as they are.
fn long_chunks() -> Vec<Bytes> {
    (b'a'..=b'c').map(|letter| Bytes::from(vec![letter; 8 << 10])).collect()
}

async fn frames(mut body: ReplayBody<Scripted>) -> Vec<Bytes> {
    let mut frames = Vec::new();
    while let Some(frame) = body.frame().await {
        frames.push(frame.unwrap().into_data().unwrap());
    }
    frames
}

#[tokio::test]
async fn a_long_body_is_sent_without_a_copy_in_the_chunks_that_came() {
    let chunks = long_chunks();
    let body = Scripted::of(chunks.clone().into_iter().map(Frame::data));
    let body = kept(1 << 20, Request::new(body)).await;
    assert_eq!(body.size_hint().exact(), Some(24 << 10));
    for body in [body.try_clone().unwrap(), body] {
        assert!(!body.is_end_stream());
        let places = |pieces: &[Bytes]| pieces.iter().map(|it| it.as_ptr()).collect::<Vec<_>>();
        assert_eq!(places(&frames(body).await), places(&chunks));
    }
}

#[tokio::test]
async fn a_long_body_is_joined_once_if_it_is_read() {
    let total = ReplayTotal::new(1 << 20);
    let layer = ReplayLayer::new(1 << 20).total(total.clone());
    let client =
        service_fn(async |request: Request<ReplayBody<Scripted>>| Ok::<_, Broken>(request));
    let body = Scripted::of(long_chunks().into_iter().map(Frame::data));
    let body = layer.layer(client).oneshot(Request::new(body)).await.unwrap().into_body();
    let (copy, later) = (body.try_clone().unwrap(), body.lazy_content().unwrap());
    let content = body.content().unwrap();
    assert_eq!(content, long_chunks().concat());
    let others = [copy.content().unwrap(), later.read(), frames(body).await.remove(0)];
    assert!(others.iter().all(|other| other.as_ptr() == content.as_ptr()));
    drop((copy, later, others));
    assert_eq!(total.held(), 24 << 10, "the content counts");
    drop(content);
    assert_eq!(total.held(), 0);
}

#[tokio::test]
async fn short_chunks_hold_no_more_than_their_text() {
    let chunks = (0..40_000).map(|number| Bytes::from(vec![number as u8])).collect::<Vec<_>>();
    let body = Scripted::of(chunks.iter().cloned().map(Frame::data));
    let sent = frames(kept(1 << 20, Request::new(body)).await).await;
    assert!(sent.len() <= 2, "{}", sent.len());
    assert_eq!(sent.concat(), chunks.concat());
}

#[tokio::test]
async fn the_request_is_sent_once_the_body_is_whole() {
    let mut body = Scripted::chunks(&["one", "two"]);
    body.frames.insert(1, None);
    let mut sending = task::spawn(Box::pin(kept(100, Request::new(body))));
    assert_pending!(sending.poll());
    assert!(sending.is_woken());
    assert_eq!(drain(sending.await).await.0, "onetwo");
}

#[tokio::test]
async fn only_the_body_is_changed() {
    let client =
        service_fn(async |request: Request<ReplayBody<Scripted>>| Ok::<_, Broken>(request));
    let mut request = Request::put("http://a.example/x?y").body(Scripted::chunks(&["1"])).unwrap();
    request.headers_mut().append("x-a", "1".parse().unwrap());
    request.headers_mut().append("x-a", "2".parse().unwrap());
    request.extensions_mut().insert(7_u8);
    let sent = ReplayLayer::new(1).layer(client).oneshot(request).await.unwrap();
    assert_eq!(
        (sent.method().as_str(), sent.uri().to_string().as_str()),
        ("PUT", "http://a.example/x?y")
    );
    assert_eq!(sent.headers().get_all("x-a").iter().count(), 2);
    assert_eq!(sent.extensions().get(), Some(&7_u8));
}
