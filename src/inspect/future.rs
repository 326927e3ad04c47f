//! The future of `Inspect`: the attempt, then the reading of its answer.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;

use super::{
    layer::Limits,
    reading::{Begun, Reading},
    route::Asked,
};
use crate::ResponseBody;

pin_project! {
    /// The response future of [`Inspect`](super::Inspect).
    pub struct ResponseFuture<F, R> {
        #[pin]
        state: State<F, R>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F, R> {
        // The request was sent.
        Sent { #[pin] future: F, asked: Asked, limits: Limits },
        // Boxed, so that an answer that is not read carries nothing for it.
        Reading { reading: Option<Box<Reading<R>>> },
    }
}

impl<F, R> ResponseFuture<F, R> {
    pub(super) const fn new(future: F, asked: Asked, limits: Limits) -> Self {
        Self { state: State::Sent { future, asked, limits } }
    }
}

impl<F, R, E> Future for ResponseFuture<F, R>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body + Unpin,
    R::Data: From<Bytes>,
    R::Error: Send + Sync + 'static,
{
    type Output = Result<Response<ResponseBody<R>>, E>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        let StateProj::Sent { future, asked, limits } = state.as_mut().project() else {
            return read(state, cx).map(Ok);
        };
        let response = ready!(future.poll(cx))?;
        // What the service streams has no length; an answer that has one is chat's JSON.
        if response.status() == StatusCode::OK
            && *asked != Asked::Response
            && response.body().size_hint().exact().is_some()
        {
            return Poll::Ready(Ok(response.map(ResponseBody::upstream)));
        }
        let (asked, limits) = (*asked, *limits);
        begin(state, cx, response, asked, limits).map(Ok)
    }
}

// Sent => Reading | Ready
//
// Apart, as is what follows, so that the plain case is small enough to be inlined.
#[cold]
#[inline(never)]
fn begin<F, R>(
    mut state: Pin<&mut State<F, R>>,
    cx: &mut Context<'_>,
    response: Response<R>,
    asked: Asked,
    limits: Limits,
) -> Poll<Response<ResponseBody<R>>>
where
    R: Body + Unpin,
    R::Data: From<Bytes>,
    R::Error: Send + Sync + 'static,
{
    match Reading::begin(response, asked, limits) {
        Begun::Answered(response) => Poll::Ready(response),
        Begun::Reading(reading) => {
            state.set(State::Reading { reading: Some(reading) });
            read(state, cx)
        }
    }
}

// Reading => Ready
#[cold]
#[inline(never)]
fn read<F, R>(state: Pin<&mut State<F, R>>, cx: &mut Context<'_>) -> Poll<Response<ResponseBody<R>>>
where
    R: Body + Unpin,
    R::Data: From<Bytes>,
    R::Error: Send + Sync + 'static,
{
    let StateProj::Reading { reading } = state.project() else {
        unreachable!("the answer is read once it is there");
    };
    let arriving = reading.as_mut().expect("a finished future is not polled again");
    let decision = ready!(arriving.poll(cx));
    let reading = reading.take().expect("it was there a line ago");
    Poll::Ready(reading.answer(decision))
}

impl<F, R> fmt::Debug for ResponseFuture<F, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
