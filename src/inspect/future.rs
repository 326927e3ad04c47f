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
    reading::{Read, Reading},
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
        let read = match state.as_mut().project() {
            // Sent => Reading | Ready
            StateProj::Sent { future, asked, limits } => {
                let response = ready!(future.poll(cx))?;
                // What the service streams has no length; an answer that has one is chat's JSON.
                if response.status() == StatusCode::OK
                    && *asked != Asked::Response
                    && response.body().size_hint().exact().is_some()
                {
                    return Poll::Ready(Ok(response.map(ResponseBody::upstream)));
                }
                Reading::begin(response, *asked, *limits, cx)
            }
            // Reading => Reading | Ready
            StateProj::Reading { reading } => {
                let reading = reading.take().expect("a finished future is not polled again");
                reading.go_on(cx)
            }
        };
        match read {
            Read::Answered(response) => Poll::Ready(Ok(response)),
            Read::Pending(reading) => {
                state.set(State::Reading { reading: Some(reading) });
                Poll::Pending
            }
        }
    }
}

impl<F, R> fmt::Debug for ResponseFuture<F, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
