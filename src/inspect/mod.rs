//! Reads refusals that only a body shows, and turns them into ordinary throttled responses.

mod answer;
mod background;
mod body;
mod drain;
mod event_kind;
mod future;
mod layer;
mod reading;
mod request_kind;
mod stream;

#[cfg(test)]
mod chunking;

use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

pub use self::{future::ResponseFuture, layer::InspectLayer};
use self::{layer::Limits, request_kind::RequestKind};
use crate::{ResponseBody, classify::Rules};

/// The service of [`InspectLayer`].
///
/// # Readiness
///
/// Ready when the wrapped service is, and calls the one that was readied.
///
/// # Cancel safety
///
/// The future owns the response that is being read or drained; dropping it drops the body, what was
/// read of it, and the timer.
///
/// # Errors
///
/// Those of the wrapped service. An error of the body is not reported here: it is returned in its
/// place in the body.
#[derive(Clone, Debug)]
pub struct Inspect<S> {
    inner: S,
    limits: Limits,
    rules: Rules,
}

impl<S> Inspect<S> {
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

impl<S, B, R> Service<Request<B>> for Inspect<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body + Unpin,
    R::Data: From<Bytes>,
    R::Error: Send + Sync + 'static,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let asked = RequestKind::by(&request);
        ResponseFuture::new(self.inner.call(request), asked, self.limits, self.rules.clone())
    }
}
