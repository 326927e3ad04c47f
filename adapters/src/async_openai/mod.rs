//! async-openai over the layers, by its `with_http_service`.
//!
//! ```
//! # use async_openai::config::AzureConfig;
//! # use tower::ServiceBuilder;
//! # use tower_spillover::{Backend, BackendPool, RegionRotateLayer};
//! # use tower_spillover_adapters::reqwest::HttpClient;
//! use tower_spillover_adapters::async_openai::FactoryService;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let east = Backend::new("east", "https://contoso.openai.azure.com")?.api_key("key");
//! # let layers = RegionRotateLayer::new(BackendPool::new([east])?);
//! # let http = HttpClient::new(reqwest::Client::builder())?;
//! # let config = AzureConfig::new();
//! let azure = ServiceBuilder::new().layer(layers).service(http);
//! let client = async_openai::Client::with_config(config)
//!     .with_http_service(FactoryService::new(azure));
//! # drop(client);
//! # Ok(())
//! # }
//! ```
//!
//! async-openai's own retries are gone with its own service: the layers do that.
//! [`Call`](crate::Call) gives a call limits of its own, and shows how it was served.

use std::{
    error::Error,
    fmt,
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use ::async_openai::{error::OpenAIError, middleware::HttpRequestFactory};
use ::reqwest;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::reqwest::{RequestBody, into_http, into_reqwest};

type BoxError = Box<dyn Error + Send + Sync>;

/// A stack of layers as the HTTP service of async-openai's client.
///
/// Requests of a client with an `AzureConfig` are in Azure's deployment grammar, those of one with an
/// `OpenAIConfig` whose base ends in `/openai/v1` in the v1 grammar. Both are sent to the backends of
/// a pool: the base, the key and the deployment of the configuration are replaced.
///
/// Forms with files are streams. A [`ReplayLayer`](tower_spillover::ReplayLayer) outside of the other
/// layers keeps them for another attempt.
///
/// # Errors
///
/// Errors of reqwest are `OpenAIError::Reqwest`, all others `OpenAIError::Boxed`. A refusal is a
/// response, of which async-openai makes an `OpenAIError::ApiError`.
#[derive(Clone, Debug)]
pub struct FactoryService<S> {
    stack: S,
}

impl<S> FactoryService<S> {
    /// Serves async-openai by `stack`.
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
}

impl<S, R> Service<HttpRequestFactory> for FactoryService<S>
where
    S: Service<Request<RequestBody>, Response = Response<R>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    R: Body + Send + Unpin + 'static,
    R::Data: Into<Bytes>,
    R::Error: Into<BoxError>,
{
    type Response = reqwest::Response;
    type Error = OpenAIError;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), OpenAIError>> {
        self.stack.poll_ready(cx).map_err(openai_error)
    }

    fn call(&mut self, factory: HttpRequestFactory) -> ResponseFuture {
        // The request has to be made first, so the readied stack moves into the future.
        let unreadied = self.stack.clone();
        let mut stack = mem::replace(&mut self.stack, unreadied);
        ResponseFuture(Box::pin(async move {
            let request = into_http(factory.build().await?).map_err(OpenAIError::Reqwest)?;
            let response = stack.call(request).await.map_err(openai_error)?;
            Ok(into_reqwest(response))
        }))
    }
}

/// The answer to a request of async-openai. Dropping it cancels the request.
pub struct ResponseFuture(
    Pin<Box<dyn Future<Output = Result<reqwest::Response, OpenAIError>> + Send>>,
);

impl Future for ResponseFuture {
    type Output = Result<reqwest::Response, OpenAIError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

fn openai_error(error: impl Into<BoxError>) -> OpenAIError {
    match error.into().downcast::<reqwest::Error>() {
        Ok(error) => OpenAIError::Reqwest(*error),
        Err(error) => OpenAIError::Boxed(error),
    }
}
