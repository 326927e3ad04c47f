//! reqwest's client as a service that the layers fit on.

use std::{
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::reqwest::{self, ResponseBuilderExt};
use crate::{exclusive::Exclusive, time_limit::TimeLimit};

/// A `reqwest::Client` as a service of `http` requests, for the layers to fit on.
///
/// It takes any body that is `Send`, as a stream and without a copy, and gives the body of the answer
/// as it arrives. What the builder says of TLS, proxies, connections, compression and timeouts holds for
/// every attempt.
///
/// Two things are switched off. Redirects: reqwest follows them, and would send `api-key` along to
/// another host. And reqwest's own retries, which no [`Served`](tower_spillover::Served) and no
/// [`AttemptBudget`](tower_spillover::AttemptBudget) could count; [`error_kind`](super::error_kind)
/// lets the layers send again what was not processed.
///
/// ```
/// use std::time::Duration;
/// use tower_spillover_adapters::reqwest::HttpClient;
///
/// let client = HttpClient::new(
///     reqwest::Client::builder().connect_timeout(Duration::from_secs(2)),
/// )?;
/// # drop(client);
/// # Ok::<(), reqwest::Error>(())
/// ```
///
/// # Timeouts
///
/// `timeout` of the builder bounds one attempt, its body included: a generation that takes longer is
/// cut off. Prefer `connect_timeout` and `read_timeout`, which bound silences.
///
/// # Cost
///
/// Each request allocates a box for its body, and is given a parsed `Url` by reqwest.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: reqwest::Client,
}

impl HttpClient {
    /// The client that `builder` describes, with redirects and retries switched off.
    ///
    /// # Errors
    ///
    /// When TLS cannot be set up or the system's resolver cannot be read, as in `ClientBuilder::build`.
    pub fn new(builder: reqwest::ClientBuilder) -> Result<Self, reqwest::Error> {
        let no_redirects = reqwest::redirect::Policy::none();
        let client = builder.redirect(no_redirects).retry(reqwest::retry::never()).build()?;
        Ok(Self { client })
    }

    /// The client, to build requests with.
    pub const fn get_ref(&self) -> &reqwest::Client {
        &self.client
    }
}

impl<B> Service<Request<B>> for HttpClient
where
    B: Body + Send + Unpin + 'static,
    B::Data: Into<Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Response = Response<reqwest::Body>;
    type Error = reqwest::Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<reqwest::Request>::poll_ready(&mut self.client, cx)
    }

    fn call(&mut self, mut request: Request<B>) -> ResponseFuture {
        // That of the connection is between reqwest and the server.
        *request.version_mut() = Version::HTTP_11;
        let request = request.map(|body| reqwest::Body::wrap(Exclusive::new(body)));
        let limit: Option<TimeLimit> = request.extensions().get().copied();
        let state = match reqwest::Request::try_from(request) {
            Ok(mut request) => {
                // The request's own timeout came with its extensions.
                if let Some(limit) = limit {
                    *request.timeout_mut() = Some(limit.left());
                }
                State::Sent { answer: self.client.call(request) }
            }
            Err(error) => State::Unsendable { error: Some(error) },
        };
        ResponseFuture { state }
    }
}

pin_project! {
    /// The answer to a request, or reqwest's error. Dropping it cancels the request.
    pub struct ResponseFuture {
        #[pin]
        state: State,
    }
}

pin_project! {
    #[project = StateProj]
    enum State {
        Sent { #[pin] answer: <reqwest::Client as Service<reqwest::Request>>::Future },
        // Its address is none.
        Unsendable { error: Option<reqwest::Error> },
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<reqwest::Body>, reqwest::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Sent { answer } => Poll::Ready(Ok(into_http(ready!(answer.poll(cx))?))),
            StateProj::Unsendable { error } => {
                Poll::Ready(Err(error.take().expect("a finished future is not polled again")))
            }
        }
    }
}

/// The answer, with the address that gave it in an extension that only reqwest can name.
fn into_http(response: reqwest::Response) -> Response<reqwest::Body> {
    let url = response.url().clone();
    let mut response: Response<reqwest::Body> = response.into();
    if let Ok(with_url) = Response::builder().url(url).body(()) {
        response.extensions_mut().extend(with_url.into_parts().0.extensions);
    }
    response
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
