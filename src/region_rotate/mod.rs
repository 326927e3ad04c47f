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

/// Sends a request to one backend of a pool, and immediately to the next after a refusal. Made by
/// [`RegionRotateLayer`], which explains the choice.
///
/// # Readiness
///
/// Ready when the wrapped service is. A call's first attempt uses the service that was polled. A call
/// that cannot use it immediately, because no backend is open or a token has to be fetched, drops it,
/// which releases any permit acquired by `poll_ready`. A clone is readied again before every later
/// attempt.
///
/// # Cancel safety
///
/// The future owns everything that a request holds. Dropping it at any point releases everything.
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

    /// Mutable access to the wrapped service.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Unwraps the service.
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
        // The readied service takes the first attempt or, if unused, is dropped with its permit.
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
