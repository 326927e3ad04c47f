//! A pool of regional backends behind one client: configuration and documentation.

mod closed_pool;
mod future;
mod layer;
mod load_reading;
#[cfg(test)]
mod observing;
mod session;

use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use self::layer::RotateConfig;
pub use self::{future::ResponseFuture, layer::RegionRotateLayer};
use crate::{
    ResponseBody, TryCloneBody,
    policy::{ClassifyError, ReturnErrors},
};

/// Sends each request to one backend of a pool, and a refused one to the next at once. Made by
/// [`RegionRotateLayer`], where the choice is explained.
///
/// # Readiness
///
/// It is ready when the wrapped service is, and a call's first attempt goes to the service that
/// was polled. A call that does not use it at once, because no backend is open or a token has to
/// be fetched, drops it, so that a permit which came with its readiness is free. A clone is
/// readied again before every later attempt.
///
/// # Cancel safety
///
/// The future owns all that a request holds. Dropping it at any point releases everything.
///
/// # Errors
///
/// Those of the wrapped service, unchanged. A refusal is a response.
#[derive(Clone)]
pub struct RegionRotate<S, X = ReturnErrors> {
    inner: S,
    config: Arc<RotateConfig>,
    classify_error: X,
}

impl<S, X> RegionRotate<S, X> {
    /// The wrapped service.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The wrapped service, to be changed.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The wrapped service, unwrapped.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, X, B, R> Service<Request<B>> for RegionRotate<S, X>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    X: ClassifyError<S::Error> + Clone,
    B: TryCloneBody,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, X, B, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The readied service takes the first attempt or, unused, is dropped with its permit.
        let unreadied = self.inner.clone();
        let inner = mem::replace(&mut self.inner, unreadied);
        ResponseFuture::new(self, inner, request)
    }
}

impl<S: fmt::Debug, X> fmt::Debug for RegionRotate<S, X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegionRotate")
            .field("inner", &self.inner)
            .field("config", &self.config)
            .finish()
    }
}
