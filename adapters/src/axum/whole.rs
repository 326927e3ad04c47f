//! Refuses a request whose body broke off before anything was sent.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{body::Body, http::Request, response::Response};
use pin_project_lite::pin_project;
use tower::Service;
use tower_spillover::replay::ReplayBody;

use super::error;

/// Passes on what was kept whole, or is still arriving: a client would send the beginning of any other
/// body, and blame the backend.
#[derive(Clone, Debug)]
pub(super) struct Whole<S> {
    pub(super) inner: S,
}

/// Whose answer it is.
#[derive(Debug)]
pub(super) enum Answer<T> {
    Upstream(T),
    Own(Response),
}

impl<S: Service<Request<ReplayBody<Body>>>> Service<Request<ReplayBody<Body>>> for Whole<S> {
    type Response = Answer<S::Response>;
    type Error = S::Error;
    type Future = WholeFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReplayBody<Body>>) -> Self::Future {
        match request.body_mut().take_error() {
            Some(error) => WholeFuture::Broken { response: Some(error::broken(error.into())) },
            None => WholeFuture::Sent { future: self.inner.call(request) },
        }
    }
}

pin_project! {
    #[project = WholeProj]
    pub(super) enum WholeFuture<F> {
        Broken { response: Option<Response> },
        Sent { #[pin] future: F },
    }
}

impl<F: Future<Output = Result<T, E>>, T, E> Future for WholeFuture<F> {
    type Output = Result<Answer<T>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match self.project() {
            WholeProj::Broken { response } => {
                Ok(Answer::Own(response.take().expect("a finished future is not polled again")))
            }
            WholeProj::Sent { future } => ready!(future.poll(cx)).map(Answer::Upstream),
        })
    }
}
