//! The one future that all layers share, and the only place that reads clocks or sleeps.

pub(crate) mod clock;
mod course;
mod future;
mod spare;

pub(crate) use self::{
    course::{Course, Readied, Step},
    future::Resend,
};

use http::Request;

use crate::TryCloneBody;

/// A second request like `request`; `None` when its body cannot be sent twice.
pub(crate) fn try_clone<B: TryCloneBody>(request: &Request<B>) -> Option<Request<B>> {
    let mut clone = Request::new(request.body().try_clone()?);
    *clone.method_mut() = request.method().clone();
    *clone.uri_mut() = request.uri().clone();
    *clone.version_mut() = request.version();
    *clone.headers_mut() = request.headers().clone();
    *clone.extensions_mut() = request.extensions().clone();
    Some(clone)
}
