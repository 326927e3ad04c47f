//! A channel that takes a request with any body.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::Request;
use http_body::Body as HttpBody;
use tonic::{body::Body, transport::Channel};
use tower::{BoxError, Service};

/// A tonic channel, or a service around one, as the client of a stack of layers: whatever body they make
/// of a request, it becomes a tonic body here.
///
/// The body is boxed, as tonic does with its own, and not copied.
#[derive(Clone, Debug)]
pub struct GrpcChannel<T = Channel> {
    inner: T,
}

impl<T> GrpcChannel<T> {
    /// Sends requests over `channel`.
    pub const fn new(channel: T) -> Self {
        Self { inner: channel }
    }

    /// The channel.
    pub const fn get_ref(&self) -> &T {
        &self.inner
    }

    /// The channel, to be changed.
    pub const fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// The channel, unwrapped.
    pub fn into_inner(self) -> T {
        self.inner
    }
}

impl<T, B> Service<Request<B>> for GrpcChannel<T>
where
    T: Service<Request<Body>>,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = T::Response;
    type Error = T::Error;
    type Future = T::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.inner.call(request.map(Body::new))
    }
}
