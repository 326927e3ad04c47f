//! Sends an answer through `InspectLayer`, in pieces of its body that are ready or delayed.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    pin::{Pin, pin},
    sync::LazyLock,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body::{Body, Frame};
use tokio::runtime::{Builder, Runtime};
use tower_layer::Layer;
use tower_service::Service;
use tower_spillover::{InspectLayer, classify::Refusal};

use crate::pieces;

/// The result.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    pub status: StatusCode,
    pub headers: http::HeaderMap,
    pub refusal: Option<Refusal>,
    pub body: Vec<u8>,
    /// Whether the body's trailers arrived, after everything else.
    pub is_complete: bool,
}

/// An answer of `status` and `kind` to a request for a response, in one piece or in several.
pub fn inspect(status: StatusCode, kind: &'static str, body: &[u8], is_whole: bool) -> Seen {
    let _entered = RUNTIME.enter();
    let script = if is_whole { Script::whole(body) } else { Script::cut(body) };
    let mut response = Response::new(script);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    // The result must not depend on a wall clock.
    let layer = InspectLayer::new().body_time(Duration::MAX).preamble_time(Duration::MAX);
    let mut service = layer.layer(Upstream(Some(response)));
    let mut request = Request::new(());
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static("/openai/v1/responses");

    let mut cx = Context::from_waker(Waker::noop());
    let mut call = pin!(service.call(request));
    let response = loop {
        if let Poll::Ready(response) = call.as_mut().poll(&mut cx) {
            break response.unwrap_or_else(|never| match never {});
        }
    };
    let (head, body) = response.into_parts();
    let mut body = pin!(body);
    let (mut bytes, mut is_complete) = (Vec::new(), false);
    loop {
        match body.as_mut().poll_frame(&mut cx) {
            Poll::Pending => {}
            Poll::Ready(None) => break,
            Poll::Ready(Some(frame)) => {
                assert!(!is_complete, "a frame after the trailers");
                match frame.unwrap_or_else(|never| match never {}).into_data() {
                    Ok(data) => bytes.extend_from_slice(&data),
                    Err(_) => is_complete = true,
                }
            }
        }
    }
    let refusal = head.extensions.get::<Refusal>().cloned();
    Seen { status: head.status, headers: head.headers, refusal, body: bytes, is_complete }
}

struct Upstream(Option<Response<Script>>);

impl Service<Request<()>> for Upstream {
    type Response = Response<Script>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        ready(Ok(self.0.take().expect("it is called once")))
    }
}

/// A body in pieces, then trailers.
struct Script {
    frames: std::vec::IntoIter<Option<Bytes>>,
    has_trailers: bool,
}

impl Script {
    fn whole(body: &[u8]) -> Self {
        Self { frames: vec![Some(Bytes::copy_from_slice(body))].into_iter(), has_trailers: true }
    }

    /// Some pieces are delayed.
    fn cut(body: &[u8]) -> Self {
        let mut draw = pieces::draw(body);
        let mut frames = Vec::new();
        for piece in pieces::pieces(body) {
            draw = pieces::step(draw);
            if draw >> 61 == 0 {
                frames.push(None);
            }
            frames.push(Some(Bytes::copy_from_slice(piece)));
        }
        Self { frames: frames.into_iter(), has_trailers: true }
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.frames.next() {
            Some(None) => Poll::Pending,
            Some(Some(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
            None if std::mem::take(&mut self.has_trailers) => {
                Poll::Ready(Some(Ok(Frame::trailers(http::HeaderMap::new()))))
            }
            None => Poll::Ready(None),
        }
    }
}

/// Its timers never fire, because its runtime is not driven.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_current_thread().enable_time().build().expect("a runtime without threads")
});
