//! A stack of layers that takes and gives reqwest's own types.

use std::{
    error::Error,
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{RequestBody, reqwest};
use crate::{call, exclusive::Exclusive, time_limit::TimeLimit};

/// A stack of layers that takes `reqwest::Request` and gives `reqwest::Response`, for code that is
/// written with reqwest.
///
/// The address of a request has to be absolute, as reqwest's are; a pool of backends replaces its host,
/// credentials and deployment. [`Served`](tower_spillover::Served) is in the response's extensions.
/// A [`Call`](crate::Call) adds extensions to requests that are made elsewhere.
///
/// # Timeouts
///
/// `timeout` of a request bounds all its waits and attempts together, and its body. Nothing waits
/// beyond it, and the attempt that is under way then fails as timed out; one of another client than
/// [`HttpClient`](super::HttpClient) goes on.
#[derive(Clone, Debug)]
pub struct RequestService<S> {
    stack: S,
}

impl<S> RequestService<S> {
    /// Takes reqwest's types for `stack`: layers over an [`HttpClient`](super::HttpClient), or over
    /// another client whose errors can be made of reqwest's, by `map_err(BoxError::from)` for example: a
    /// request that has no address is an error of reqwest.
    pub const fn new(stack: S) -> Self {
        Self { stack }
    }

    /// The wrapped stack.
    pub const fn get_ref(&self) -> &S {
        &self.stack
    }

    /// The wrapped stack, to be changed.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.stack
    }

    /// The wrapped stack, unwrapped.
    pub fn into_inner(self) -> S {
        self.stack
    }

    /// Sends `request`, as `reqwest::Client::execute` does.
    ///
    /// # Errors
    ///
    /// Those of the stack: reqwest's, over an [`HttpClient`](super::HttpClient). A refusal is a
    /// response.
    pub async fn execute(
        &self,
        request: reqwest::Request,
    ) -> Result<reqwest::Response, <Self as Service<reqwest::Request>>::Error>
    where
        S: Clone,
        Self: Service<reqwest::Request, Response = reqwest::Response>,
    {
        let mut service = self.clone();
        poll_fn(|cx| service.poll_ready(cx)).await?;
        service.call(request).await
    }
}

impl<S, R> Service<reqwest::Request> for RequestService<S>
where
    S: Service<Request<RequestBody>, Response = Response<R>>,
    S::Error: From<reqwest::Error>,
    R: Body + Send + Unpin + 'static,
    R::Data: Into<Bytes>,
    R::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Response = reqwest::Response;
    type Error = S::Error;
    type Future = RequestFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.stack.poll_ready(cx)
    }

    fn call(&mut self, request: reqwest::Request) -> Self::Future {
        let state = match into_http(request) {
            Ok(request) => State::Sent { answer: self.stack.call(request) },
            Err(error) => State::Unsendable { error: Some(error) },
        };
        RequestFuture { state }
    }
}

pin_project! {
    /// The answer to a request, or the stack's error. Dropping it cancels the request.
    pub struct RequestFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Sent { #[pin] answer: F },
        // Its address is none.
        Unsendable { error: Option<reqwest::Error> },
    }
}

impl<F, R, E> Future for RequestFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: From<reqwest::Error>,
    R: Body + Send + Unpin + 'static,
    R::Data: Into<Bytes>,
    R::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Output = Result<reqwest::Response, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Sent { answer } => Poll::Ready(Ok(into_reqwest(ready!(answer.poll(cx))?))),
            StateProj::Unsendable { error } => Poll::Ready(Err(error
                .take()
                .expect("a finished future is not polled again")
                .into())),
        }
    }
}

impl<F> fmt::Debug for RequestFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestFuture").finish_non_exhaustive()
    }
}

/// A request for the layers.
pub(crate) fn into_http(request: reqwest::Request) -> Result<Request<RequestBody>, reqwest::Error> {
    let timeout = request.timeout().copied();
    let mut request = Request::<reqwest::Body>::try_from(request)?.map(RequestBody::from);
    call::extend(request.extensions_mut());
    if let Some(timeout) = timeout {
        TimeLimit::begin(request.extensions_mut(), timeout);
    }
    Ok(request)
}

/// What the layers answered.
pub(crate) fn into_reqwest<R>(response: Response<R>) -> reqwest::Response
where
    R: Body + Send + Unpin + 'static,
    R::Data: Into<Bytes>,
    R::Error: Into<Box<dyn Error + Send + Sync>>,
{
    call::note(&response);
    response.map(|body| reqwest::Body::wrap(Exclusive::new(body))).into()
}
