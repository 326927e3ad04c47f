//! The future of `SmartFallback`: the shared machine, with its type sealed.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use futures::future::Either;
use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    course::{Lane, Tiers},
    wait::Wait,
};
use crate::{TryCloneBody, policy::ClassifyError, resend::Resend};

type Attempt<P, F, B> =
    Either<<P as Service<Request<B>>>::Future, <F as Service<Request<B>>>::Future>;
type Answer<P, B> = Result<<P as Service<Request<B>>>::Response, <P as Service<Request<B>>>::Error>;

type Machine<P, F, X, B> = Resend<Tiers<P, F, X>, B, Lane, Attempt<P, F, B>, Wait, Answer<P, B>>;

pin_project! {
    /// The response future of [`SmartFallback`](super::SmartFallback).
    pub struct ResponseFuture<P, F, X, B>
    where
        P: Service<Request<B>>,
        F: Service<Request<B>>,
    {
        #[pin]
        resend: Machine<P, F, X, B>,
    }
}

impl<P, F, X, B> ResponseFuture<P, F, X, B>
where
    P: Service<Request<B>>,
    F: Service<Request<B>>,
{
    pub(super) const fn new(resend: Machine<P, F, X, B>) -> Self {
        Self { resend }
    }
}

impl<P, F, X, B, R> Future for ResponseFuture<P, F, X, B>
where
    P: Service<Request<B>, Response = Response<R>> + Clone,
    F: Service<Request<B>, Response = Response<R>, Error = P::Error>,
    X: ClassifyError<P::Error>,
    B: TryCloneBody,
{
    type Output = Result<Response<R>, P::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().resend.poll(cx)
    }
}

impl<P, F, X, B> fmt::Debug for ResponseFuture<P, F, X, B>
where
    P: Service<Request<B>>,
    F: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
