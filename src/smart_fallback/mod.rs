//! PTU first, Standard when waiting for it would take too long: configuration and documentation.

mod future;
mod layer;
#[cfg(test)]
mod measured;
mod session;
mod spill_budget;

use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use self::layer::FallbackConfig;
pub use self::{
    future::ResponseFuture,
    layer::SmartFallbackLayer,
    spill_budget::{SpillBudget, WhenSpent},
};
pub use crate::wait::Class;
use crate::{
    TryCloneBody,
    policy::{ClassifyError, ReturnErrors},
};

/// Sends a request to a primary service, waits for it while that pays, and otherwise spills to a
/// fallback. Made by [`SmartFallbackLayer`], which explains the rule; or from two existing services,
/// like the channels of two gRPC servers, with [`new`](Self::new) or
/// [`SmartFallbackLayer::into_service`].
///
/// # Readiness
///
/// Ready when the primary is. A call's first attempt uses the service that was polled. A call that
/// does not use it, because the primary is known to be closed, drops it, which releases any permit
/// acquired by `poll_ready`. The fallback is readied when it is needed. A clone of a tier is readied
/// again before every later attempt.
///
/// # Cancel safety
///
/// The future owns everything that a request holds. While waiting, that is only the request: no
/// permit, no response, no connection. Dropping it at any point releases everything.
///
/// # Errors
///
/// Those of the two services, unchanged. A refusal is a response.
#[derive(Clone)]
pub struct SmartFallback<P, F, X = ReturnErrors> {
    primary: P,
    fallback: F,
    config: Arc<FallbackConfig>,
    classify_error: X,
}

impl<P, F> SmartFallback<P, F> {
    /// Two services with shared state about the primary; clones share it, too. The settings are the
    /// defaults of [`SmartFallbackLayer`]; [`SmartFallbackLayer::into_service`] allows all of them.
    pub fn new(primary: P, fallback: F) -> Self {
        SmartFallbackLayer::new(primary, fallback).into_service()
    }
}

impl<P, F, X> SmartFallback<P, F, X> {
    /// The primary and the fallback service.
    pub const fn get_ref(&self) -> (&P, &F) {
        (&self.primary, &self.fallback)
    }

    /// Mutable access to the primary and the fallback service.
    pub const fn get_mut(&mut self) -> (&mut P, &mut F) {
        (&mut self.primary, &mut self.fallback)
    }

    /// Unwraps the primary and the fallback service.
    pub fn into_inner(self) -> (P, F) {
        (self.primary, self.fallback)
    }
}

impl<P, F, X, B, R> Service<Request<B>> for SmartFallback<P, F, X>
where
    P: Service<Request<B>, Response = Response<R>> + Clone,
    F: Service<Request<B>, Response = Response<R>, Error = P::Error> + Clone,
    X: ClassifyError<P::Error> + Clone,
    B: TryCloneBody,
{
    type Response = Response<R>;
    type Error = P::Error;
    type Future = ResponseFuture<P, F, X, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.primary.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The readied service takes the first attempt or, if unused, is dropped with its permit.
        let unreadied = self.primary.clone();
        let primary = mem::replace(&mut self.primary, unreadied);
        ResponseFuture::new(self, primary, request)
    }
}

impl<P: fmt::Debug, F: fmt::Debug, X> fmt::Debug for SmartFallback<P, F, X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SmartFallback")
            .field("primary", &self.primary)
            .field("fallback", &self.fallback)
            .field("config", &self.config)
            .finish()
    }
}
