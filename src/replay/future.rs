//! Keeps a body while it arrives, then sends the request.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use http::{HeaderMap, Request, request::Parts};
use http_body::{Body, Frame};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::body::{Chunks, ReplayBody};
use crate::azure::content_length;

pin_project! {
    /// The response future of [`Replay`](super::Replay).
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<ReplayBody<B>>>,
        B: Body,
    {
        #[pin]
        state: State<S, S::Future, B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, F, B> {
        // The body is arriving. The service is ready; the rest is taken when it is called.
        Keeping { inner: S, keeping: Option<Keeping<B>>, limit: usize },
        // The request was sent.
        Sent { #[pin] future: F },
    }
}

struct Keeping<B> {
    head: Parts,
    body: B,
    chunks: Chunks,
    trailers: Option<HeaderMap>,
}

impl<S, B> ResponseFuture<S, B>
where
    S: Service<Request<ReplayBody<B>>>,
    B: Body + Unpin,
{
    pub(super) fn new(mut inner: S, request: Request<B>, limit: usize) -> Self {
        let (head, body) = request.into_parts();
        let state = if exceeds(&head, &body, limit) {
            let body = ReplayBody::arriving(bytes::Bytes::new(), body);
            State::Sent { future: inner.call(Request::from_parts(head, body)) }
        } else {
            let keeping = Keeping { head, body, chunks: Chunks::default(), trailers: None };
            State::Keeping { inner, keeping: Some(keeping), limit }
        };
        Self { state }
    }
}

impl<S, B> Future for ResponseFuture<S, B>
where
    S: Service<Request<ReplayBody<B>>>,
    B: Body + Unpin,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            match state.as_mut().project() {
                // Keeping => Sent
                StateProj::Keeping { inner, keeping, limit } => {
                    let arriving = keeping.as_mut().expect("the state changes once it is taken");
                    let error = ready!(arriving.poll_keep(cx, *limit));
                    let kept = keeping.take().expect("it was there a line ago");
                    let future = inner.call(kept.into_request(error));
                    state.set(State::Sent { future });
                }
                StateProj::Sent { future } => return future.poll(cx),
            }
        }
    }
}

/// How the keeping of a body ended.
enum End<E> {
    Whole,
    TooLong,
    Error(E),
}

impl<B: Body + Unpin> Keeping<B> {
    fn poll_keep(&mut self, cx: &mut Context<'_>, limit: usize) -> Poll<End<B::Error>> {
        loop {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
                return Poll::Ready(End::Whole);
            };
            match frame.map(Frame::into_data) {
                Ok(Ok(data)) if data.has_remaining() => self.chunks.push(data),
                Ok(Ok(_)) => {}
                Ok(Err(frame)) => self.trailers = frame.into_trailers().ok(),
                Err(error) => return Poll::Ready(End::Error(error)),
            }
            if self.chunks.len() > limit {
                return Poll::Ready(End::TooLong);
            }
        }
    }

    fn into_request(self, end: End<B::Error>) -> Request<ReplayBody<B>> {
        let data = self.chunks.join();
        let body = match end {
            End::Whole => ReplayBody::kept(data, self.trailers),
            End::TooLong => ReplayBody::arriving(data, self.body),
            End::Error(error) => ReplayBody::broken(data, error),
        };
        Request::from_parts(self.head, body)
    }
}

/// Whether a body is known to be too long before it arrives.
fn exceeds(head: &Parts, body: &impl Body, limit: usize) -> bool {
    let announced = content_length(&head.headers).unwrap_or(0);
    let least = body.size_hint().lower().max(announced);
    usize::try_from(least).map_or(true, |least| least > limit)
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: Service<Request<ReplayBody<B>>>,
    B: Body,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
