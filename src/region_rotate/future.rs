//! The future of `RegionRotate`: the shared machine, with its type sealed.

use std::{
    fmt,
    future::{Future, Ready},
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::course::{Lane, Rotation};
use crate::{ResponseBody, TryCloneBody, policy::ClassifyError, resend::Resend};

type Machine<S, X, B, R> = Resend<
    Rotation<S, X>,
    B,
    Lane,
    <S as Service<Request<B>>>::Future,
    Ready<()>,
    Result<Response<ResponseBody<R>>, <S as Service<Request<B>>>::Error>,
>;

pin_project! {
    /// The response future of [`RegionRotate`](super::RegionRotate).
    pub struct ResponseFuture<S, X, B, R>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        resend: Machine<S, X, B, R>,
    }
}

impl<S, X, B, R> ResponseFuture<S, X, B, R>
where
    S: Service<Request<B>>,
{
    pub(super) const fn new(resend: Machine<S, X, B, R>) -> Self {
        Self { resend }
    }
}

impl<S, X, B, R> Future for ResponseFuture<S, X, B, R>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    X: ClassifyError<S::Error>,
    B: TryCloneBody,
{
    type Output = Result<Response<ResponseBody<R>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().resend.poll(cx)
    }
}

impl<S, X, B, R> fmt::Debug for ResponseFuture<S, X, B, R>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
