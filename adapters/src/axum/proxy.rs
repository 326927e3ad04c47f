//! The service that passes requests on and answers whatever becomes of them.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{
    BoxError,
    body::Body,
    http::{Method, Request},
    response::Response,
};
use bytes::Bytes;
use http_body::Body as HttpBody;
use pin_project_lite::pin_project;
use tower::{
    Layer, Service,
    util::{Oneshot, ServiceExt},
};
use tower_spillover::{
    ReplayLayer,
    policy::{ClassifyError, ErrorKind, ReturnErrors},
    replay::{Replay, ReplayBody},
};

use super::{
    error, headers,
    whole::{Answer, Whole},
};

/// What is kept of a body by default.
const REPLAY_LIMIT: usize = 4 << 20;

/// Passes requests on through `service`, a stack of the layers, and answers whatever becomes of them: a
/// service for axum's `fallback_service`, `nest_service` and `route_service`.
///
/// Short for [`Proxy::new`].
pub fn proxy<S>(service: S) -> Proxy<S> {
    Proxy::new(service)
}

/// A reverse proxy: a stack of the layers as a service that axum can route to. Made by [`proxy`].
///
/// Its type can be named, as that of a field say: with the usual stack over a client `C` it is
/// `Proxy<PtuFirst<C>>`; see [`PtuFirst`](tower_spillover::PtuFirst).
///
/// # What it does with a request
///
/// - It keeps the body, up to a [limit](Self::replay), so that it can be sent again.
/// - It removes what is between the client and this server: the headers of a connection (RFC 9110 section
///   7.6.1, those that `Connection` lists too), cookies, `Expect`, and what says where a request came from.
/// - It refuses a WebSocket with 426, at which clients go on without one, and CONNECT with 501. Any other
///   upgrade is ignored.
///
/// # What it does with an answer
///
/// - It removes the headers of its connection, cookies, and what a browser would keep for, or obey of,
///   another host: `Strict-Transport-Security`, `Alt-Svc`, `Access-Control-*`. A `CorsLayer` around the proxy
///   answers for this server.
/// - The body passes as it comes, event by event.
///
/// # Where there is no answer
///
/// | what happened | status |
/// |---|---|
/// | the wrapped service failed | 502, or 504 if time ran out; see [`errors`](Self::errors) |
/// | the body did not arrive | 400 |
/// | the body is longer than a `RequestBodyLimitLayer` around the proxy allows | 413 |
///
/// The body is JSON of the service's shape and names no host; the error is in the extensions, as an
/// [`UpstreamError`](super::UpstreamError).
///
/// # Readiness
///
/// It is always ready: axum expects that of a service. The stack is readied inside of the call.
///
/// # Cancel safety
///
/// Dropping the future, as a server does when its client goes, drops the attempt or the wait with it.
#[derive(Clone, Debug)]
pub struct Proxy<S, X = ReturnErrors> {
    service: Replay<Whole<S>>,
    classify_error: X,
}

impl<S> Proxy<S> {
    /// Passes requests on through `service`.
    pub fn new(service: S) -> Self {
        let service = ReplayLayer::new(REPLAY_LIMIT).layer(Whole { inner: service });
        Self { service, classify_error: ReturnErrors }
    }
}

impl<S, X> Proxy<S, X> {
    /// How bodies are kept. Defaults to 4 MiB each, which hold any prompt that a model accepts as text; a
    /// longer body is sent on as it arrives, and gets a single attempt.
    /// [`ReplayLayer::total`] bounds what is kept of all requests together, which nothing does by default.
    #[must_use]
    pub fn replay(self, layer: &ReplayLayer) -> Self {
        let service = layer.layer(self.service.into_inner());
        Self { service, classify_error: self.classify_error }
    }

    /// Has `kind` say what the errors of the wrapped service are, as
    /// [`MoveOn::errors`](tower_spillover::policy::MoveOn::errors) does: 504 for
    /// [`ErrorKind::Timeout`], 502 for the others. By default an error counts as a timeout if it, or any
    /// cause of it, is one of tower's, tokio's, hyper's or the operating system's.
    #[must_use]
    pub fn errors<E, F: Fn(&E) -> ErrorKind>(self, kind: F) -> Proxy<S, F> {
        Proxy { service: self.service, classify_error: kind }
    }

    /// The wrapped service.
    pub const fn get_ref(&self) -> &S {
        &self.service.get_ref().inner
    }

    /// The wrapped service, to be changed.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.service.get_mut().inner
    }

    /// The wrapped service, unwrapped.
    pub fn into_inner(self) -> S {
        self.service.into_inner().inner
    }
}

impl<S, X, R> Service<Request<Body>> for Proxy<S, X>
where
    S: Service<Request<ReplayBody<Body>>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    R: HttpBody<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
    X: ClassifyError<S::Error> + Clone,
{
    type Response = Response;
    type Error = Infallible;
    type Future = ResponseFuture<S, X>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let refusal = if *request.method() == Method::CONNECT {
            Some(error::no_tunnel())
        } else if headers::asks_for_websocket(request.headers()) {
            Some(error::no_websocket())
        } else {
            None
        };
        let state = match refusal {
            Some(response) => State::Refused { response: Some(response) },
            None => {
                headers::strip_request(request.headers_mut());
                State::Serving { answer: self.service.clone().oneshot(request) }
            }
        };
        ResponseFuture { state, classify_error: self.classify_error.clone() }
    }
}

pin_project! {
    /// The response future of [`Proxy`].
    pub struct ResponseFuture<S, X>
    where
        S: Service<Request<ReplayBody<Body>>>,
        S: Clone,
    {
        #[pin]
        state: State<S>,
        classify_error: X,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S>
    where
        S: Service<Request<ReplayBody<Body>>>,
        S: Clone,
    {
        Refused { response: Option<Response> },
        Serving { #[pin] answer: Oneshot<Replay<Whole<S>>, Request<Body>> },
    }
}

impl<S, X, R> Future for ResponseFuture<S, X>
where
    S: Service<Request<ReplayBody<Body>>, Response = Response<R>> + Clone,
    S::Error: Into<BoxError>,
    R: HttpBody<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
    X: ClassifyError<S::Error>,
{
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = match this.state.project() {
            StateProj::Refused { response } => {
                response.take().expect("a finished future is not polled again")
            }
            StateProj::Serving { answer } => match ready!(answer.poll(cx)) {
                Ok(Answer::Upstream(response)) if response.status().is_informational() => {
                    error::no_end(response.status())
                }
                Ok(Answer::Upstream(response)) if headers::has_two_lengths(response.headers()) => {
                    error::two_lengths()
                }
                Ok(Answer::Upstream(mut response)) => {
                    headers::strip_answer(response.headers_mut());
                    response.map(Body::new)
                }
                Ok(Answer::Own(response)) => response,
                Err(error) => {
                    let kind = this.classify_error.kind(&error);
                    error::failed(error.into(), kind)
                }
            },
        };
        Poll::Ready(Ok(response))
    }
}

impl<S, X> fmt::Debug for ResponseFuture<S, X>
where
    S: Service<Request<ReplayBody<Body>>> + Clone,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
