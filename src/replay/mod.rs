//! Makes any request body one that can be sent again, by keeping it, up to a limit.

mod body;
mod future;
mod renaming;
mod total;

use std::{
    mem,
    task::{Context, Poll},
};

use http::Request;
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

pub use self::{body::ReplayBody, future::ResponseFuture, total::ReplayTotal};

/// Makes any request body one that can be sent again, by keeping it in memory before the first
/// attempt, up to a limit.
///
/// For servers and proxies, whose bodies arrive while they are sent on. A body that is in memory
/// already, like `Full<Bytes>`, needs no such layer.
///
/// A body that turns out to be longer than the limit is sent on while it arrives, what was kept of
/// it first, and gets a single attempt. A body whose `content-length` says so from the start is
/// not kept at all. A backend whose deployment has a name of its own is sent that name even so, in a
/// `model` that is renamed as it passes. Keeping a body costs little time: a model cannot begin before the prompt has
/// arrived. API Management's `buffer-request-body` does the same.
///
/// ```
/// use bytes::Bytes;
/// use http::Request;
/// use http_body_util::{BodyExt, Full};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_spillover::{ReplayLayer, TryCloneBody, replay::ReplayBody};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let client = service_fn(|request: Request<ReplayBody<_>>| async move {
///     let again = request.body().try_clone().expect("a short body is kept");
///     Ok::<_, std::convert::Infallible>((request.into_body(), again))
/// });
/// let service = ServiceBuilder::new().layer(ReplayLayer::new(4 << 20)).service(client);
///
/// let request = Request::new(Full::<Bytes>::from("a prompt").boxed()); // a body without `Clone`
/// let (first, again) = service.oneshot(request).await?;
/// assert_eq!(first.collect().await?.to_bytes(), "a prompt");
/// assert_eq!(again.collect().await?.to_bytes(), "a prompt");
/// # Ok(())
/// # }
/// ```
///
/// # In front of a client that wants one body type
///
/// The request goes on with a [`ReplayBody`]. A client that takes any body, like hyper-util's, is
/// content with it. One that takes its own body only, like a tonic channel or an axum service, gets
/// it from one line inside of all the layers, just before the client:
///
/// ```
/// # use axum::body::Body;
/// # use http::Request;
/// # use tower::ServiceBuilder;
/// # use tower_spillover::{ReplayLayer, replay::ReplayBody};
/// # let client = tower::service_fn(|_: Request<Body>| async {
/// #     Ok::<_, std::convert::Infallible>(http::Response::new(()))
/// # });
/// let service = ServiceBuilder::new()
///     .layer(ReplayLayer::new(4 << 20))
///     .map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new))
///     .service(client);
/// # drop(service);
/// ```
///
/// # What it does not do
///
/// It does not stream: nothing is sent on before the body has ended or the limit is exceeded. For
/// gRPC that means unary calls, whose body ends by itself. A bidirectional stream, which goes on
/// only once it is answered, would wait for itself.
///
/// # Cost
///
/// A body of one chunk is kept as it is, without being copied. Several chunks are copied into one.
/// The limit and one chunk more are the most that is held for each request under way;
/// [`total`](Self::total) bounds what is held for all of them.
#[derive(Clone, Debug)]
pub struct ReplayLayer {
    limit: usize,
    until_model: bool,
    total: Option<ReplayTotal>,
}

/// The service of [`ReplayLayer`].
///
/// # Readiness
///
/// It is ready when the wrapped service is. The readied service waits in the call's future for the
/// body to arrive, and then gets the request.
///
/// # Cancel safety
///
/// The future owns the body and what was kept of it; dropping it releases both.
///
/// # Errors
///
/// Those of the wrapped service. An error of the body is not one of them: it is kept, and the body
/// that is sent on ends with it.
#[derive(Clone, Debug)]
pub struct Replay<S> {
    inner: S,
    layer: ReplayLayer,
}

impl ReplayLayer {
    /// Keeps bodies of up to `limit` bytes. 4 MiB hold any prompt that a model accepts as text.
    pub const fn new(limit: usize) -> Self {
        Self { limit, until_model: false, total: None }
    }

    /// Keeps a body that is longer than the limit, too, until its `model` has arrived, where that is
    /// what names the deployment: for what chooses by it. By default it does not, since a backend is
    /// sent its own name in any case.
    ///
    /// A body that names its model last is kept whole then, whatever its length, and may be sent again.
    /// Bound it by a limit of bodies or by [`total`](Self::total).
    #[must_use]
    pub const fn until_model(mut self) -> Self {
        self.until_model = true;
        self
    }

    /// Keeps no more than `total` has room for, with everything else that has a clone of it. By default
    /// there is no such bound. A body for which there is no room gets a single attempt, and
    /// [`Served::replayable`](crate::Served::replayable) says so.
    #[must_use]
    pub fn total(mut self, total: ReplayTotal) -> Self {
        self.total = Some(total);
        self
    }
}

impl<S> Replay<S> {
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

impl<S> Layer<S> for ReplayLayer {
    type Service = Replay<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Replay { inner, layer: self.clone() }
    }
}

impl<S, B> Service<Request<B>> for Replay<S>
where
    S: Service<Request<ReplayBody<B>>> + Clone,
    B: Body + Unpin,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // Work precedes the call, so the readied service moves into the future; its clone stays.
        let unreadied = self.inner.clone();
        let inner = mem::replace(&mut self.inner, unreadied);
        ResponseFuture::new(inner, request, &self.layer)
    }
}
