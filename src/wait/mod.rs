//! Waits for a service that refuses to reopen, in order: configuration and documentation.

mod class;
mod core;
mod future;
mod layer;
mod limits;
mod queue;
mod session;

#[cfg(all(test, spillover_loom))]
mod loom_model;

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use self::layer::WaitConfig;
pub use self::{class::Class, future::ResponseFuture, layer::WaitLayer, queue::WaitQueue};
pub(crate) use self::{
    limits::RequestLimits,
    queue::{RefusedTurn, Turn, TurnPermit, TurnWaiter},
    session::refused_for,
};
use crate::TryCloneBody;

/// Sends a request to a service and, if that refuses it, again when the service reopens. Made by
/// [`WaitLayer`], which explains the rule.
///
/// # Readiness
///
/// Ready when the inner service is. A call's first attempt uses the service that was polled. A call
/// that has to wait first drops that service, which releases any permit acquired by `poll_ready`. A
/// clone is readied again before every later attempt.
///
/// # Cancel safety
///
/// While waiting, the future holds only the request: no permit, no response, no connection. Dropping
/// it at any point gives its position back and passes its turn on.
///
/// # Errors
///
/// Those of the inner service, unchanged. A refusal is a response.
#[derive(Clone, Debug)]
pub struct Wait<S> {
    inner: S,
    config: Arc<WaitConfig>,
}

impl<S> Wait<S> {
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

impl<S, B, R> Service<Request<B>> for Wait<S>
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
        // The readied service takes the first attempt or, if unused, is dropped with its permit.
        let unreadied = self.inner.clone();
        let inner = mem::replace(&mut self.inner, unreadied);
        ResponseFuture::new(self, inner, request)
    }
}
