//! Makes request bodies replayable by keeping them in memory, up to a limit.

mod body;
mod chunks;
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

/// Makes any request body replayable by keeping it in memory before the first attempt, up to a limit.
///
/// For servers and proxies, which forward bodies while they arrive. A body that is in memory already,
/// like `Full<Bytes>`, does not need this layer.
///
/// A body that exceeds the limit is forwarded while it arrives, starting with what was kept, and gets
/// a single attempt. A body whose `content-length` exceeds the limit is not kept at all. Either way,
/// a backend whose deployment has another name gets that name, in a `model` that is renamed in
/// passing. Keeping a body costs little time: a model cannot start before the prompt has arrived. API
/// Management's `buffer-request-body` does the same.
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
/// # Clients with a fixed body type
///
/// The request is forwarded with a [`ReplayBody`]. A client that takes any body, like hyper-util's,
/// accepts it. A client that takes only its own body type, like a tonic channel or an axum service,
/// needs one line below all the layers, just before the client:
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
/// # Limitations
///
/// It does not stream: nothing is forwarded before the body has ended or the limit is exceeded. For
/// gRPC that means unary calls, whose body ends by itself. A bidirectional stream that continues only
/// after an answer would deadlock.
///
/// # Cost
///
/// Chunks of 4 KiB or more are kept without copying, and joined when a layer has to read the body: to
/// write another `model` into it, or to estimate its cost. A body of up to 16 KiB is copied into one
/// piece if it has several. Each request in flight holds at most the limit plus one chunk;
/// [`total`](Self::total) bounds what all of them hold.
#[derive(Clone, Debug)]
pub struct ReplayLayer {
    limit: usize,
    until_model: bool,
    notes_names: bool,
    total: Option<ReplayTotal>,
}

/// The service of [`ReplayLayer`].
///
/// # Readiness
///
/// Ready when the wrapped service is. The readied service waits in the call's future until the body
/// has arrived, and then gets the request.
///
/// # Cancel safety
///
/// The future owns the body and what was kept of it; dropping it releases both.
///
/// # Errors
///
/// Those of the wrapped service. An error of the body is not reported here: it is kept, and ends the
/// forwarded body.
#[derive(Clone, Debug)]
pub struct Replay<S> {
    inner: S,
    layer: ReplayLayer,
}

impl ReplayLayer {
    /// Keeps bodies of up to `limit` bytes. 4 MiB hold any text prompt that a model accepts.
    pub const fn new(limit: usize) -> Self {
        Self { limit, until_model: false, notes_names: false, total: None }
    }

    /// Also keeps a body beyond the limit until its `model` has arrived, if the body names the
    /// deployment. For services that route by the model. Off by default, since each backend gets its
    /// own name in any case.
    ///
    /// A body that names its model last is then kept whole, whatever its length, and can be sent
    /// again. Bound it with a body limit or with [`total`](Self::total).
    #[must_use]
    pub const fn until_model(mut self) -> Self {
        self.until_model = true;
        self
    }

    /// Also notes, while a body arrives, whether it contains names that decide whether a layer has to
    /// read it, so that [`Sticky`](crate::Sticky) need not search it again. Off by default, since it
    /// pays only for bodies of many chunks.
    #[must_use]
    pub const fn note_names(mut self) -> Self {
        self.notes_names = true;
        self
    }

    /// Keeps no more than `total` has room for, together with everything that has a clone of it.
    /// Unlimited by default. A body for which there is no room gets a single attempt, which
    /// [`Served::replayable`](crate::Served::replayable) reports.
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

    /// Mutable access to the wrapped service.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Unwraps the service.
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
