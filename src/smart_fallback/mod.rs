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

/// Sends each request to a primary service, waits for it while that pays, and spills to a
/// fallback otherwise. Made by [`SmartFallbackLayer`], where the rule is explained; from two
/// services of one's own, like the channels of two gRPC servers, with [`new`](Self::new) or
/// [`SmartFallbackLayer::into_service`].
///
/// # Readiness
///
/// It is ready when the primary is, and a call's first attempt goes to the service that was
/// polled. A call that does not use it, because the primary is known to be closed, drops it, so
/// that a permit which came with its readiness is free at once. The fallback is readied when it is
/// needed. A clone of a tier is readied again before every later attempt.
///
/// # Cancel safety
///
/// The future owns all that a request holds. While it waits that is the request alone: no permit,
/// no response, no connection. Dropping it at any point releases everything.
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
    /// Two services with their memory of the primary; clones share it. The settings are the
    /// defaults of [`SmartFallbackLayer`]; [`SmartFallbackLayer::into_service`] has all of them.
    pub fn new(primary: P, fallback: F) -> Self {
        SmartFallbackLayer::new(primary, fallback).into_service()
    }
}

impl<P, F, X> SmartFallback<P, F, X> {
    /// The primary and the fallback service.
    pub const fn get_ref(&self) -> (&P, &F) {
        (&self.primary, &self.fallback)
    }

    /// The primary and the fallback service, to be changed.
    pub const fn get_mut(&mut self) -> (&mut P, &mut F) {
        (&mut self.primary, &mut self.fallback)
    }

    /// The primary and the fallback service, unwrapped.
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
        // The readied service takes the first attempt or, unused, is dropped with its permit.
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
