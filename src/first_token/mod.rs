//! A second attempt when the first token is late: configuration and documentation.

mod eligible;
mod future;
mod layer;
mod sendings;

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Method, Request, Response};
use tower_service::Service;

use self::layer::Config;
pub use self::{
    future::ResponseFuture,
    layer::{FirstTokenLayer, Limit},
};
use crate::TryCloneBody;

/// Sends a request a second time when its first token is late. Made by [`FirstTokenLayer`], which
/// explains the rule.
///
/// # Readiness
///
/// Ready when the wrapped service is. A call's first attempt uses the service that was polled, which
/// is readied again before the second attempt.
///
/// # Cancel safety
///
/// The future owns both attempts. Dropping it at any point drops both, with the permits and queue
/// positions that they hold.
///
/// # Errors
///
/// Those of the wrapped service, unchanged, if neither attempt is answered.
#[derive(Clone, Debug)]
pub struct FirstToken<S> {
    inner: S,
    config: Arc<Config>,
}

impl<S> FirstToken<S> {
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

impl<S, B, R> Service<Request<B>> for FirstToken<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    B: TryCloneBody,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // A request other than a `POST` never runs twice.
        let limit = (*request.method() == Method::POST).then(|| self.config.limit(&request));
        match limit.flatten() {
            Some(limit) => {
                // The readied service takes the first attempt, and is readied again for the second.
                let unreadied = self.inner.clone();
                let inner = mem::replace(&mut self.inner, unreadied);
                ResponseFuture::hurried(inner, Arc::clone(&self.config), limit, request)
            }
            None => ResponseFuture::plain(self.inner.call(request)),
        }
    }
}
